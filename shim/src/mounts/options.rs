//! What the words of a mount mean: attributes of the mount, flags of the file system, how it is attached, or
//! an option for the file system. Pure; the rest of `mounts` reads the result.

use hull_sys::mount::{Change, attr};
use hull_sys::mount_words;

use super::{Reason, Step};

/// What a word does beside the common ones.
#[derive(Clone, Copy)]
enum Word {
    /// Sets bits of the file system (`MS_*` of `mount(2)`), clears others.
    FileSystem(u64, u64),
    Loop,
}

/// Whether the mount is a copy of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Bind {
    #[default]
    No,
    /// Of that mount.
    Mount,
    /// Of that mount and all below it.
    Tree,
}

use Word::FileSystem;

/// Words of `mount(8)` for file systems; what is not common either belongs to the file system.
const WORDS: &[(&str, Word)] = &[
    ("async", FileSystem(0, libc::MS_SYNCHRONOUS)),
    ("dirsync", FileSystem(libc::MS_DIRSYNC, 0)),
    ("lazytime", FileSystem(libc::MS_LAZYTIME, 0)),
    ("loop", Word::Loop),
    ("mand", FileSystem(libc::MS_MANDLOCK, 0)),
    ("nolazytime", FileSystem(0, libc::MS_LAZYTIME)),
    ("nomand", FileSystem(0, libc::MS_MANDLOCK)),
    ("sync", FileSystem(libc::MS_SYNCHRONOUS, 0)),
];

/// The options of one mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Attributes of the mount; a new one has no others.
    change: Change,
    /// `MS_*` bits of the file system.
    pub(super) flags: u64,
    pub(super) bind: Bind,
    /// `MS_*` bits.
    pub(super) propagation: Option<u64>,
    /// The source is a file to be shown as a block device.
    pub(super) loop_device: bool,
    uid_map: Option<String>,
    gid_map: Option<String>,
    /// For the file system: key and value, or a key alone.
    pub(super) own: Vec<(String, Option<String>)>,
}

impl Options {
    /// The words in their order: a later one wins.
    pub(super) fn parse(words: &[String]) -> Step<Self> {
        let mut options = Self::default();
        for word in words {
            options.add(word)?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Step<()> {
        use mount_words::Word as Common;
        match mount_words::meaning(word) {
            Some(Common::Set(bits)) => mount_words::add(&mut self.change, bits, 0),
            Some(Common::Clear(bits)) => mount_words::add(&mut self.change, 0, bits),
            Some(Common::Bind(recursive)) => self.bind = if recursive { Bind::Tree } else { Bind::Mount },
            Some(Common::Propagation(kind)) => self.propagation = Some(kind),
            Some(Common::Nothing) => {}
            None => match mount_words::find(WORDS, word) {
                Some(FileSystem(set, clear)) => self.flags = self.flags & !clear | set,
                Some(Word::Loop) => self.loop_device = true,
                None => self.add_value(word)?,
            },
        }
        Ok(())
    }

    fn add_value(&mut self, word: &str) -> Step<()> {
        if word.starts_with("X-containerd.") || word == "remount" {
            return Err(Reason::invalid(format!("option {word} is not supported")));
        }
        if let Some(map) = word.strip_prefix("uidmap=") {
            self.uid_map = Some(map.to_owned());
        } else if let Some(map) = word.strip_prefix("gidmap=") {
            self.gid_map = Some(map.to_owned());
        } else {
            // The kernel used to split them; containers of options come in one piece now and then.
            self.own.extend(split(word, ',').into_iter().filter(|one| !one.is_empty()).map(key_and_value));
        }
        Ok(())
    }

    /// The maps for user and group ids; one alone is refused, as it would leave files of nobody.
    pub(super) fn id_maps(&self) -> Step<Option<(String, String)>> {
        match (&self.uid_map, &self.gid_map) {
            (Some(uids), Some(gids)) => Ok(Some((uids.clone(), gids.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Reason::invalid("option uidmap= needs gidmap=".to_owned())),
            (None, Some(_)) => Err(Reason::invalid("option gidmap= needs uidmap=".to_owned())),
        }
    }

    /// `MOUNT_ATTR_*` bits to set.
    pub(super) const fn attributes(&self) -> u64 {
        self.change.set
    }

    /// For a mount that is a copy. As with mount(2), what the copied mount has stays; a way of keeping access times
    /// replaces the former one.
    pub(super) const fn change(&self) -> Change {
        Change { clear: self.change.clear & attr::ATIME, ..self.change }
    }

    /// Whether the option was there; it is taken out.
    pub(super) fn take_flag(own: &mut Vec<(String, Option<String>)>, key: &str) -> bool {
        let before = own.len();
        own.retain(|(name, value)| name != key || value.is_some());
        own.len() < before
    }
}

/// Security labels may be quoted, which was undone by the kernel when it still split options.
fn key_and_value(one: &str) -> (String, Option<String>) {
    match one.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.trim_matches('"').to_owned())),
        None => (one.to_owned(), None),
    }
}

/// Splits at `separator` where it is neither quoted nor escaped by a backslash.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        let plain = !quoted && !escaped;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        c == separator && plain
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use hull_sys::mount::{RECURSIVE, propagation};

    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(WORDS.windows(2).all(|two| two[0].0 < two[1].0));
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(parse(&["ro", "rw"]).attributes(), 0);
        assert_eq!(parse(&["rw", "ro", "nosuid"]).attributes(), attr::RDONLY | attr::NOSUID);
        assert_eq!(parse(&["sync", "async", "dirsync"]).flags, libc::MS_DIRSYNC);
        assert_eq!(parse(&["rshared", "private"]).propagation, Some(propagation::PRIVATE));
        assert_eq!(parse(&["rslave"]).propagation, Some(propagation::SLAVE | RECURSIVE));
    }

    #[test]
    fn one_way_of_access_times_replaces_another() {
        assert_eq!(parse(&["noatime", "strictatime"]).attributes(), attr::STRICTATIME);
        assert_eq!(parse(&["strictatime", "relatime"]).attributes(), 0);
        assert_eq!(parse(&["noatime", "nodiratime", "atime"]).attributes(), attr::NODIRATIME);
    }

    #[test]
    fn copy_is_changed_only_as_asked() {
        assert!(parse(&["rbind", "rw", "exec", "defaults"]).change().is_none());
        assert_eq!(parse(&["bind", "ro"]).change(), Change { set: attr::RDONLY, ..Change::default() });
        let clear = attr::ATIME;
        for word in ["relatime", "atime"] {
            assert_eq!(parse(&[word]).change(), Change { clear, ..Change::default() });
        }
        assert_eq!(parse(&["noatime"]).change(), Change { set: attr::NOATIME, clear, propagation: 0 });
    }

    #[test]
    fn other_words_are_for_the_file_system() {
        let own = parse(&["size=4k", "nr_inodes=3,mode=755", "userxattr", "ro"]).own;
        let pairs: Vec<_> = own.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let wanted =
            [("size", Some("4k")), ("nr_inodes", Some("3")), ("mode", Some("755")), ("userxattr", None)];
        assert_eq!(pairs, wanted);
    }

    #[test]
    fn commas_in_quotes_and_behind_a_backslash_belong_to_the_value() {
        let own = parse(&["context=\"u:r:t:s0:c1,c2\",lowerdir=/a\\,b"]).own;
        let pairs: Vec<_> = own.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(pairs, [("context", Some("u:r:t:s0:c1,c2")), ("lowerdir", Some("/a\\,b"))]);
    }

    #[test]
    fn id_maps_come_in_pairs_and_keep_their_commas() {
        let maps = parse(&["uidmap=0:1:2,2:9:1", "gidmap=0:3:4"]).id_maps().unwrap().unwrap();
        assert_eq!(maps, ("0:1:2,2:9:1".to_owned(), "0:3:4".to_owned()));
        assert_eq!(parse(&["ro"]).id_maps().unwrap(), None);
        assert_eq!(parse(&["uidmap=0:1:2"]).id_maps().unwrap_err().text, "option uidmap= needs gidmap=");
    }

    #[test]
    fn words_meant_for_the_daemon_are_refused_by_name() {
        for word in ["X-containerd.mkdir.path=/x", "remount"] {
            let refused = Options::parse(&[word.to_owned()]).unwrap_err();
            assert_eq!(refused.text, format!("option {word} is not supported"));
        }
    }
}
