//! What the words of `mount(8)` mean that every program with mounts has to know: attributes of a mount, its
//! propagation, whether it is a copy of another. Pure.

use crate::mount::{Change, RECURSIVE, attr, propagation};

/// What one word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Attributes of the mount (`MOUNT_ATTR_*`) are set.
    Set(u64),
    /// Attributes of the mount are taken back; all of [`attr::ATIME`] for every way of keeping access times.
    Clear(u64),
    /// It is a copy of another mount; with all below that when true.
    Bind(bool),
    /// Its propagation (`MS_*`), with [`RECURSIVE`] for all below it, too.
    Propagation(u64),
    /// Nothing.
    Nothing,
}

use Word::{Bind, Clear, Nothing, Propagation, Set};

/// Sorted.
const WORDS: &[(&str, Word)] = &[
    ("atime", Clear(attr::NOATIME)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(attr::NODEV)),
    ("diratime", Clear(attr::NODIRATIME)),
    ("exec", Clear(attr::NOEXEC)),
    ("loud", Nothing),
    ("noatime", Set(attr::NOATIME)),
    ("nodev", Set(attr::NODEV)),
    ("nodiratime", Set(attr::NODIRATIME)),
    ("noexec", Set(attr::NOEXEC)),
    ("norelatime", Nothing),
    ("nostrictatime", Clear(attr::STRICTATIME)),
    ("nosuid", Set(attr::NOSUID)),
    ("nosymfollow", Set(attr::NOSYMFOLLOW)),
    ("private", Propagation(propagation::PRIVATE)),
    ("rbind", Bind(true)),
    ("relatime", Clear(attr::ATIME)),
    ("ro", Set(attr::RDONLY)),
    ("rprivate", Propagation(propagation::PRIVATE | RECURSIVE)),
    ("rshared", Propagation(propagation::SHARED | RECURSIVE)),
    ("rslave", Propagation(propagation::SLAVE | RECURSIVE)),
    ("runbindable", Propagation(propagation::UNBINDABLE | RECURSIVE)),
    ("rw", Clear(attr::RDONLY)),
    ("shared", Propagation(propagation::SHARED)),
    ("silent", Nothing),
    ("slave", Propagation(propagation::SLAVE)),
    ("strictatime", Set(attr::STRICTATIME)),
    ("suid", Clear(attr::NOSUID)),
    ("symfollow", Clear(attr::NOSYMFOLLOW)),
    ("unbindable", Propagation(propagation::UNBINDABLE)),
];

/// What `word` means; `None` for one that is not among them.
pub fn meaning(word: &str) -> Option<Word> {
    find(WORDS, word)
}

/// All of them, sorted.
pub fn known() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(name, _)| *name)
}

/// The entry of a sorted table.
pub fn find<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    let at = table.binary_search_by(|(known, _)| (*known).cmp(word)).ok()?;
    table.get(at).map(|(_, meaning)| *meaning)
}

/// Folds a word into a change of attributes: the later word wins, and a way of keeping access times replaces the
/// former way.
pub fn add(change: &mut Change, set: u64, clear: u64) {
    let times = attr::ATIME;
    if set & times != 0 {
        change.set &= !times;
    }
    if (set | clear) & times != 0 {
        // The kernel wants the whole field cleared when any of it is set (mount_setattr(2)).
        change.clear |= times;
    }
    change.set = (change.set & !clear) | set;
    change.clear = (change.clear & !(set & !times)) | (clear & !times);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(WORDS.windows(2).all(|two| two[0].0 < two[1].0));
    }

    #[test]
    fn the_later_word_wins() {
        let mut change = Change::default();
        add(&mut change, attr::RDONLY, 0);
        add(&mut change, 0, attr::RDONLY);
        assert_eq!(change, Change { set: 0, clear: attr::RDONLY, propagation: 0 });
    }

    #[test]
    fn one_way_of_access_times_replaces_another() {
        let mut change = Change::default();
        add(&mut change, attr::NOATIME, 0);
        add(&mut change, attr::STRICTATIME, 0);
        assert_eq!(change, Change { set: attr::STRICTATIME, clear: attr::ATIME, propagation: 0 });
    }

    #[test]
    fn relatime_takes_every_other_way_back_and_atime_only_noatime() {
        let folded = |words: [u64; 2], clear| {
            let mut change = Change::default();
            words.into_iter().for_each(|word| add(&mut change, word, 0));
            add(&mut change, 0, clear);
            change
        };
        let none = Change { set: 0, clear: attr::ATIME, propagation: 0 };
        assert_eq!(folded([attr::NOATIME, 0], attr::NOATIME), none);
        assert_eq!(folded([attr::NOATIME, attr::STRICTATIME], attr::ATIME), none);
        assert_eq!(folded([0, attr::STRICTATIME], attr::NOATIME).set, attr::STRICTATIME);
    }
}
