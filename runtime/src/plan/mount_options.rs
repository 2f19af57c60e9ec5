//! What the words in `mounts[].options` mean, as one table. Pure; called by `plan::mounts`. `features` claims
//! the same words.

use hull_sys::mount::{Change, attr, propagation};

/// What one word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing.
    Default,
    /// An attribute of this mount.
    Attr(u64),
    /// The absence of an attribute of this mount.
    NoAttr(u64),
    /// An attribute of this mount and all below it.
    RecAttr(u64),
    /// The absence of an attribute of this mount and all below it.
    NoRecAttr(u64),
    /// A flag of the file system itself, by the name `fsconfig` knows.
    Super(&'static str),
    /// Known, and without effect on a file system made by `fsopen`.
    Nothing,
    /// A bind mount; with all below it when true.
    Bind(bool),
    /// A propagation kind; with all below it when true.
    Propagation(u64, bool),
    /// Fill the new tmpfs with what it hides.
    CopyUp,
    /// Ids mapped; with all below it when true.
    Idmap(bool),
    /// Take the source itself when it is a symlink.
    SourceNofollow,
    /// Refuse a destination that is a symlink.
    DestNofollow,
    /// Make the symlink that the source is, in the container.
    CopySymlink,
    /// Change an existing mount.
    Remount,
}

use Word::{Attr, Bind, NoAttr, NoRecAttr, Nothing, Propagation, RecAttr, Super};

/// Every word hull knows, sorted; anything else is passed to the file system.
pub const WORDS: &[(&str, Word)] = &[
    ("acl", Super("acl")),
    ("async", Nothing),
    ("atime", NoAttr(attr::NOATIME)),
    ("bind", Bind(false)),
    ("copy-symlink", Word::CopySymlink),
    ("defaults", Word::Default),
    ("dest-nofollow", Word::DestNofollow),
    ("dev", NoAttr(attr::NODEV)),
    ("diratime", NoAttr(attr::NODIRATIME)),
    ("dirsync", Super("dirsync")),
    ("exec", NoAttr(attr::NOEXEC)),
    ("idmap", Word::Idmap(false)),
    ("iversion", Super("iversion")),
    ("lazytime", Super("lazytime")),
    ("loud", Nothing),
    ("mand", Super("mand")),
    ("noacl", Super("noacl")),
    ("noatime", Attr(attr::NOATIME)),
    ("nodev", Attr(attr::NODEV)),
    ("nodiratime", Attr(attr::NODIRATIME)),
    ("noexec", Attr(attr::NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Nothing),
    ("nomand", Nothing),
    ("norelatime", Nothing),
    ("nostrictatime", Nothing),
    ("nosuid", Attr(attr::NOSUID)),
    ("nosymfollow", Attr(attr::NOSYMFOLLOW)),
    ("private", Propagation(propagation::PRIVATE, false)),
    ("ratime", NoRecAttr(attr::NOATIME)),
    ("rbind", Bind(true)),
    ("rdev", NoRecAttr(attr::NODEV)),
    ("rdiratime", NoRecAttr(attr::NODIRATIME)),
    ("relatime", NoAttr(attr::ATIME)),
    ("remount", Word::Remount),
    ("rexec", NoRecAttr(attr::NOEXEC)),
    ("ridmap", Word::Idmap(true)),
    ("rnoatime", RecAttr(attr::NOATIME)),
    ("rnodev", RecAttr(attr::NODEV)),
    ("rnodiratime", RecAttr(attr::NODIRATIME)),
    ("rnoexec", RecAttr(attr::NOEXEC)),
    ("rnorelatime", NoRecAttr(0)),
    ("rnostrictatime", NoRecAttr(attr::STRICTATIME)),
    ("rnosuid", RecAttr(attr::NOSUID)),
    ("rnosymfollow", RecAttr(attr::NOSYMFOLLOW)),
    ("ro", Attr(attr::RDONLY)),
    ("rprivate", Propagation(propagation::PRIVATE, true)),
    ("rrelatime", RecAttr(0)),
    ("rro", RecAttr(attr::RDONLY)),
    ("rrw", NoRecAttr(attr::RDONLY)),
    ("rshared", Propagation(propagation::SHARED, true)),
    ("rslave", Propagation(propagation::SLAVE, true)),
    ("rstrictatime", RecAttr(attr::STRICTATIME)),
    ("rsuid", NoRecAttr(attr::NOSUID)),
    ("rsymfollow", NoRecAttr(attr::NOSYMFOLLOW)),
    ("runbindable", Propagation(propagation::UNBINDABLE, true)),
    ("rw", NoAttr(attr::RDONLY)),
    ("shared", Propagation(propagation::SHARED, false)),
    ("silent", Nothing),
    ("slave", Propagation(propagation::SLAVE, false)),
    ("src-nofollow", Word::SourceNofollow),
    ("strictatime", Attr(attr::STRICTATIME)),
    ("suid", NoAttr(attr::NOSUID)),
    ("symfollow", NoAttr(attr::NOSYMFOLLOW)),
    ("sync", Super("sync")),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", Propagation(propagation::UNBINDABLE, false)),
];

/// What `word` means; `None` for one that belongs to the file system.
pub fn meaning(word: &str) -> Option<Word> {
    WORDS.binary_search_by(|(known, _)| (*known).cmp(word)).ok().and_then(|at| WORDS.get(at)).map(|(_, w)| *w)
}

/// Folds an attribute word into a change of attributes: the later word wins, and a way of keeping access
/// times replaces the former way.
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
    fn features_claims_every_word_but_the_refused_one() {
        let known = WORDS.iter().filter(|(_, word)| *word != Word::Remount).map(|(name, _)| *name);
        assert!(known.eq(crate::spec::features::MOUNT_OPTIONS.iter().copied()));
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
