//! What the words in `mounts[].options` mean: those that every program with mounts knows are `hull-sys`'s. Pure;
//! called by `plan::mounts`. `features` claims the same words.

use hull_sys::mount::{RECURSIVE, attr};
use hull_sys::mount_words;

pub use hull_sys::mount_words::add;

/// What one word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
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

use Word::{NoRecAttr, Nothing, RecAttr, Super};

/// The others, sorted.
const WORDS: &[(&str, Word)] = &[
    ("acl", Super("acl")),
    ("async", Nothing),
    ("copy-symlink", Word::CopySymlink),
    ("dest-nofollow", Word::DestNofollow),
    ("dirsync", Super("dirsync")),
    ("idmap", Word::Idmap(false)),
    ("iversion", Super("iversion")),
    ("lazytime", Super("lazytime")),
    ("mand", Super("mand")),
    ("noacl", Super("noacl")),
    ("noiversion", Nothing),
    ("nolazytime", Nothing),
    ("nomand", Nothing),
    ("ratime", NoRecAttr(attr::NOATIME)),
    ("rdev", NoRecAttr(attr::NODEV)),
    ("rdiratime", NoRecAttr(attr::NODIRATIME)),
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
    ("rrelatime", RecAttr(0)),
    ("rro", RecAttr(attr::RDONLY)),
    ("rrw", NoRecAttr(attr::RDONLY)),
    ("rstrictatime", RecAttr(attr::STRICTATIME)),
    ("rsuid", NoRecAttr(attr::NOSUID)),
    ("rsymfollow", NoRecAttr(attr::NOSYMFOLLOW)),
    ("src-nofollow", Word::SourceNofollow),
    ("sync", Super("sync")),
    ("tmpcopyup", Word::CopyUp),
];

/// What `word` means; `None` for one that belongs to the file system.
pub fn meaning(word: &str) -> Option<Word> {
    let common = mount_words::meaning(word).map(|meaning| match meaning {
        mount_words::Word::Set(bits) => Word::Attr(bits),
        mount_words::Word::Clear(bits) => Word::NoAttr(bits),
        mount_words::Word::Bind(recursive) => Word::Bind(recursive),
        mount_words::Word::Propagation(kind) => Word::Propagation(kind & !RECURSIVE, kind & RECURSIVE != 0),
        mount_words::Word::Nothing => Word::Nothing,
    });
    common.or_else(|| mount_words::find(WORDS, word))
}

/// Every word that hull knows; anything else is passed to the file system.
pub fn known() -> impl Iterator<Item = &'static str> {
    mount_words::known().chain(WORDS.iter().map(|(name, _)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_common_word() {
        assert!(WORDS.windows(2).all(|two| two[0].0 < two[1].0));
        assert!(WORDS.iter().all(|(name, _)| mount_words::meaning(name).is_none()));
    }

    #[test]
    fn features_claims_every_word_but_the_refused_one() {
        let mut all: Vec<_> = known().filter(|name| *name != "remount").collect();
        all.sort_unstable();
        assert_eq!(all, crate::spec::features::MOUNT_OPTIONS);
    }
}
