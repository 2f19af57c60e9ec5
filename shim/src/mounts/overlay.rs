//! Overlay file systems with as many layers as the kernel takes (500), wherever they are. Called by `mount_one`.
//!
//! | lower directories | how |
//! |---|---|
//! | short names | as they come |
//! | longer ones | a call for each (`lowerdir+`, Linux 6.7) |
//! | where the kernel refuses that (EINVAL) | `mount(2)`, if all fits into a page |
//! | else | the same, with the numbers of descriptors as names, seen from `/proc/self/fd` |
//!
//! Directories with mapped ids are copies of their mounts, which kernels before 6.15 want to be attached
//! somewhere: they lie on the target until the file system is made, where a clean-up would find them, too.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_proto::types::Mount;
use hull_sys::Errno;
use hull_sys::fs::enter_dir;
use hull_sys::mount::{Change, attach, clone_tree, configure, open_fs, set_attributes};
use hull_sys::open::{self, How};

use super::filesystem::{FileSystem, LONGEST_VALUE, Pair, fit, is_long, pairs};
use super::options::split;
use super::{Options, Reason, Step, at, text, undo};

/// A mount that is not attached yet.
pub(super) fn make(
    mount: &Mount,
    options: &Options,
    users: Option<BorrowedFd<'_>>,
    place: BorrowedFd<'_>,
) -> Step<OwnedFd> {
    let (lower, other): (Vec<_>, Vec<_>) =
        options.own.iter().cloned().partition(|(key, _)| key == "lowerdir");
    let lower = lower.into_iter().next_back().and_then(|(_, value)| value).unwrap_or_default();
    let overlay =
        Overlay { new: FileSystem::of(mount, &mount.source, options)?, other: pairs(&other)?, place };
    match users {
        Some(users) => {
            let mapped = Mapped::new(&layers(&lower)?, users, place)?;
            overlay.make(&mapped.names())
        }
        None => overlay.make(&lower),
    }
}

struct Overlay<'a> {
    new: FileSystem,
    /// All options but the lower directories.
    other: Vec<Pair>,
    place: BorrowedFd<'a>,
}

impl Overlay<'_> {
    fn make(&self, lower: &str) -> Step<OwnedFd> {
        if lower.len() <= LONGEST_VALUE && !self.other.iter().any(is_long) {
            return self.new.make(&self.with(&[("lowerdir", lower)])?);
        }
        match self.by_one(lower) {
            Err(Reason { errno: Errno::EINVAL, .. }) => self.old(lower),
            made => made,
        }
    }

    /// Each directory by a call of its own.
    fn by_one(&self, lower: &str) -> Step<OwnedFd> {
        let layers = layers(lower)?;
        if takes_anything() {
            return Err(Errno::EINVAL.into());
        }
        let pairs: Vec<_> = layers.iter().map(|layer| ("lowerdir+", layer.as_str())).collect();
        self.new.make(&self.with(&pairs)?)
    }

    fn old(&self, lower: &str) -> Step<OwnedFd> {
        let own = self.with(&[("lowerdir", lower)])?;
        if fit(&own) { self.new.make_old(&own, self.place) } else { self.numbered(lower) }
    }

    /// The old way with the shortest names there are: those in `/proc/self/fd`.
    fn numbered(&self, lower: &str) -> Step<OwnedFd> {
        let opened = layers(lower)?.iter().map(|layer| open_dir(layer)).collect::<Step<Vec<_>>>()?;
        let names: Vec<_> = opened.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let own = self.with(&[("lowerdir", &names.join(":"))])?;
        let (here, numbers) = (open_dir(".")?, open_dir("/proc/self/fd")?);
        enter_dir(numbers.as_fd())?;
        let made = self.new.make_old(&own, self.place);
        enter_dir(here.as_fd())?;
        made
    }

    fn with(&self, lower: &[(&str, &str)]) -> Step<Vec<Pair>> {
        let lower = lower.iter().filter(|(_, value)| !value.is_empty());
        let lower = lower.map(|(key, value)| Ok((text(key)?, Some(text(value)?))));
        lower.chain(self.other.iter().cloned().map(Ok)).collect()
    }
}

/// Kernels before 6.5 take any option and refuse it when all is put together, with a line in the kernel's log.
/// Later ones know at once that this option needs a value.
fn takes_anything() -> bool {
    open_fs(c"overlay").is_ok_and(|context| configure(context.as_fd(), c"lowerdir+", None).is_ok())
}

/// The directories of a `lowerdir=`, without the backslashes before colons and others.
fn layers(lower: &str) -> Step<Vec<String>> {
    let layers: Vec<_> = split(lower, ':').into_iter().map(unescape).collect();
    // Layers that hold only data (`::`) have a syntax of their own, which is left to the kernel.
    let odd = layers.iter().any(String::is_empty);
    if odd { Err(Reason::invalid(format!("lowerdir {lower} cannot be parsed"))) } else { Ok(layers) }
}

fn unescape(text: &str) -> String {
    let mut escaped = false;
    text.chars()
        .filter(|c| {
            escaped = *c == '\\' && !escaped;
            !escaped
        })
        .collect()
}

fn open_dir(path: &str) -> Step<OwnedFd> {
    open::on_host(None, &text(path)?, How::DIRECTORY).map_err(|errno| at("open", path, errno))
}

/// Copies of directories with mapped ids, on top of each other.
struct Mapped(Vec<OwnedFd>);

impl Mapped {
    fn new(layers: &[String], users: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Step<Self> {
        let mut mapped = Self(Vec::new());
        for layer in layers {
            let failed = |errno| at("map ids of", layer, errno);
            let tree = clone_tree(None, &text(layer)?, false, false).map_err(failed)?;
            set_attributes(tree.as_fd(), Change::default(), false, Some(users)).map_err(failed)?;
            attach(tree.as_fd(), place).map_err(failed)?;
            mapped.0.push(tree);
        }
        Ok(mapped)
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|tree| format!("/proc/self/fd/{}", tree.as_raw_fd())).collect();
        names.join(":")
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // What is left is found when the rootfs is unmounted.
        undo(&self.0);
    }
}

/// What a kernel gets that takes no directory by a call of its own.
#[cfg(test)]
pub(super) fn make_old(
    mount: &Mount,
    options: &Options,
    lower: &str,
    place: BorrowedFd<'_>,
) -> Step<OwnedFd> {
    let new = FileSystem::of(mount, &mount.source, options)?;
    Overlay { new, other: pairs(&options.own)?, place }.old(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_colons_that_are_not_escaped() {
        assert_eq!(layers("/a:/b\\:c:/d\\\\e").unwrap(), ["/a", "/b:c", "/d\\e"]);
        assert!(layers("/a::/data").is_err());
    }
}
