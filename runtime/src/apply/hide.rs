//! Paths of the container that are hidden or read-only: a mount over each. Nothing that lies there can be
//! reached, and nothing of the host that lies over it can be changed. Called by `apply::fs`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{self, Change, attr, propagation};
use hull_sys::open::{self, How};
use hull_sys::{Errno, fs};

use super::target::attach;
use super::{At, Call, Failure};
use crate::plan::path::InRoot;

/// What hides: made once, the others are copies of it.
#[derive(Default)]
pub struct Covers {
    /// Over directories.
    empty: Option<OwnedFd>,
    /// Over files.
    null: Option<OwnedFd>,
}

impl Covers {
    /// Hides `at`. A missing one is skipped.
    pub fn mask(&mut self, root: BorrowedFd<'_>, at: &InRoot) -> Result<(), Failure> {
        let Some(place) = find(root, at)? else { return Ok(()) };
        let is_dir = fs::stat(place.as_fd()).at(Call::OpenTarget)?.is_dir();
        let (kept, make): (_, fn() -> Result<OwnedFd, Failure>) =
            if is_dir { (&mut self.empty, empty_directory) } else { (&mut self.null, null_device) };
        let copy = match kept {
            Some(first) => mount::clone_tree(Some(first.as_fd()), c"", false, false).at(Call::OpenSource)?,
            None => make()?,
        };
        attach(copy.as_fd(), place.as_fd())?;
        kept.get_or_insert(copy);
        Ok(())
    }
}

/// Makes `at` and all below it read-only. A missing one is skipped.
pub fn read_only(root: BorrowedFd<'_>, at: &InRoot) -> Result<(), Failure> {
    let Some(place) = find(root, at)? else { return Ok(()) };
    let change = Change { set: attr::RDONLY, ..Change::default() };
    if at.is_root() {
        return mount::set_attributes(root, change, true, None).at(Call::Attributes);
    }
    let tree = mount::clone_tree(Some(place.as_fd()), c"", true, false).at(Call::OpenSource)?;
    mount::set_attributes(tree.as_fd(), change, true, None).at(Call::Attributes)?;
    attach(tree.as_fd(), place.as_fd())
}

fn find(root: BorrowedFd<'_>, at: &InRoot) -> Result<Option<OwnedFd>, Failure> {
    match open::in_root(root, at.as_c_str(), How::PLACE) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        other => other.at(Call::OpenTarget).map(Some),
    }
}

/// An empty directory that nobody can write to, as a detached mount.
pub fn empty_directory() -> Result<OwnedFd, Failure> {
    let context = mount::open_fs(c"tmpfs").at(Call::OpenFs)?;
    for (key, value) in [(c"source", c"tmpfs"), (c"mode", c"755"), (c"nr_inodes", c"2"), (c"size", c"0")] {
        mount::configure(context.as_fd(), key, Some(value)).at(Call::Option)?;
    }
    mount::make_mount(context.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
        .at(Call::CreateFs)
}

/// The host's null device, checked to be one: the container's might be anything (CVE-2025-31133).
fn null_device() -> Result<OwnedFd, Failure> {
    let tree = host_device(c"/dev/null")?;
    let stat = fs::stat(tree.as_fd()).at(Call::OpenSource)?;
    if stat.kind() != libc::S_IFCHR || stat.rdev != fs::device(1, 3) {
        return Err(Failure::new(Call::TargetDiffers, Errno::ENODEV));
    }
    Ok(tree)
}

/// A device node of the host as a detached mount. Read-only protects the inode, which is the host's own:
/// owner, mode, times. It keeps nobody from writing to the device (`mount(2)`).
pub fn host_device(path: &std::ffi::CStr) -> Result<OwnedFd, Failure> {
    let tree = mount::clone_tree(None, path, false, false).at(Call::OpenSource)?;
    let change = Change {
        set: attr::RDONLY | attr::NOSUID | attr::NOEXEC,
        clear: 0,
        propagation: propagation::PRIVATE,
    };
    mount::set_attributes(tree.as_fd(), change, false, None).at(Call::Attributes)?;
    Ok(tree)
}
