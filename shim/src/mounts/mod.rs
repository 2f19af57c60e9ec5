//! The mounts that make up a rootfs, as the daemon lists them. Makes and removes them; knows nothing of
//! containers. `container` and `delete` call it. Needs what the runtime needs, Linux 5.12.
//!
//! A mount is a descriptor until it is complete, and is then attached to the descriptor of its target.

// Words to bits.
mod options;
// A file system of its own.
mod filesystem;
// One with layers, whose names may need more room than an option has.
mod overlay;
// A file as a block device.
mod device;
// Ids that are mapped.
mod idmap;
// File systems that are programs.
mod helper;
// The way back.
mod unmount;
// What is mounted.
pub use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_proto::types::Mount;
use hull_sys::mount::{Change, attach, clone_tree, set_attributes, set_propagation, unmount_detached};
use hull_sys::open::{self, How};
use hull_sys::{Errno, fs};

use crate::error::{Error, Result};
use options::{Bind, Options};
pub use unmount::{unmount_all, unmount_all_async};

/// Options are shown up to this length.
const SHOWN: usize = 200;

/// Mounts all of them on `target`, in order. On failure what was mounted is undone.
///
/// # Errors
/// Which mount, and why.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<()> {
    let mut done = Vec::new();
    for mount in mounts {
        match mount_one(mount, target) {
            Ok(mounted) => done.push(mounted),
            Err(reason) => {
                undo(&done);
                return Err(Error::other(format!("{}: {reason}", describe(mount, target))));
            }
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, rootfs: &Path) -> Step<OwnedFd> {
    let place = place(mount, rootfs)?;
    if let Some((program, kind)) = helper::of(&mount.type_) {
        helper::run(program, kind, mount, place.as_fd())?;
        return self::place(mount, rootfs);
    }
    let options = Options::parse(&mount.options)?;
    let users = options.id_maps()?.map(|(uids, gids)| idmap::namespace_with(&uids, &gids)).transpose()?;
    let users = users.as_ref().map(AsFd::as_fd);
    let made = match options.bind {
        Bind::No if mount.type_ == "bind" => bind(&mount.source, &options, users)?,
        Bind::No if mount.type_ == "overlay" => overlay::make(mount, &options, users, place.as_fd())?,
        Bind::No => filesystem::make(mount, &options, users, place.as_fd())?,
        Bind::Mount | Bind::Tree => bind(&mount.source, &options, users)?,
    };
    attach(made.as_fd(), place.as_fd())?;
    // Only now: a mount takes the propagation of the place it is attached to.
    if let Some(kind) = options.propagation
        && let Err(errno) = set_propagation(&by_number(made.as_fd()), kind)
    {
        undo(&[made]);
        return Err(errno.into());
    }
    Ok(made)
}

/// A copy of a mount, or of a tree of mounts. What is not asked for stays as it is on the source: in a user
/// namespace some of it is locked.
fn bind(source: &str, options: &Options, users: Option<BorrowedFd<'_>>) -> Step<OwnedFd> {
    let recursive = options.bind == Bind::Tree;
    let tree =
        clone_tree(None, &text(source)?, recursive, false).map_err(|errno| at("open", source, errno))?;
    let change = options.change();
    if !change.is_none() {
        set_attributes(tree.as_fd(), change, false, None)?;
    }
    if users.is_some() {
        set_attributes(tree.as_fd(), Change::default(), recursive, users)
            .map_err(|errno| at("map ids of", source, errno))?;
    }
    Ok(tree)
}

/// What a mount goes on to, resolved inside of what is mounted on the rootfs so far.
fn place(mount: &Mount, rootfs: &Path) -> Step<OwnedFd> {
    let failed = |errno| at("open", rootfs.display(), errno);
    // A symlink would be followed here and not when it is unmounted.
    let root = open::on_host(None, &text(rootfs)?, How::PLACE_NOFOLLOW).map_err(failed)?;
    if !fs::stat(root.as_fd()).map_err(failed)?.is_dir() {
        return Err(failed(Errno::ENOTDIR));
    }
    if mount.target.is_empty() {
        return Ok(root);
    }
    let failed = |errno| at("open", full(mount, rootfs).display(), errno);
    open::in_root(root.as_fd(), &text(&mount.target)?, How::PLACE).map_err(failed)
}

fn full(mount: &Mount, rootfs: &Path) -> PathBuf {
    rootfs.join(mount.target.trim_start_matches('/'))
}

/// Unmounts these, the last one first: the kernel takes what lies on top, also when a mount is named by number.
fn undo(done: &[OwnedFd]) {
    for mounted in done.iter().rev() {
        // The failure that led here is told; whoever cleans up after it finds what is left.
        let _left = unmount_detached(&by_number(mounted.as_fd())).is_err();
    }
}

/// A path to what `fd` is open on.
fn by_number(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// `mount overlay on /x/rootfs (lowerdir=/a:/b,index=off)`, with the options cut where they are long.
fn describe(mount: &Mount, rootfs: &Path) -> String {
    let mut options = mount.options.join(",");
    if let Some((cut, _)) = options.char_indices().nth(SHOWN) {
        options.truncate(cut);
        options.push_str("...");
    }
    let path = full(mount, rootfs);
    let path = path.as_os_str().to_string_lossy();
    format!("mount {} on {} ({options})", mount.type_, path.trim_end_matches('/'))
}

/// Why a mount failed; what it was is said by [`describe`].
#[derive(Debug, PartialEq, Eq)]
struct Reason {
    /// For those that know another way.
    errno: Errno,
    text: String,
}

type Step<T> = std::result::Result<T, Reason>;

impl Reason {
    /// Something that cannot be asked for.
    fn invalid(text: String) -> Self {
        Self { errno: Errno::EINVAL, text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Self {
        Self { errno, text: errno.desc().to_lowercase() }
    }
}

impl From<std::io::Error> for Reason {
    fn from(error: std::io::Error) -> Self {
        Errno::try_from(error).unwrap_or(Errno::EIO).into()
    }
}

/// A reason with what was done to what.
fn at(step: &str, what: impl fmt::Display, why: impl Into<Reason>) -> Reason {
    let Reason { errno, text } = why.into();
    Reason { errno, text: format!("{step} {what}: {text}") }
}

fn text(text: impl AsRef<OsStr>) -> Step<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_nul| Errno::EINVAL.into())
}

#[cfg(test)]
mod tests;
