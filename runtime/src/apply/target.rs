//! The place in a container that a mount, node or link goes to: resolved below the root's descriptor, made
//! one part at a time where it is missing. Called by the other files of `apply`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::open::How;
use hull_sys::{Errno, fs, open};

use super::{At, Call, Failure};
use crate::plan::path::InRoot;

/// What a missing place becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// Opens `at` (as a place), making it and its parents when missing. With `nofollow` a symlink in its place
/// is refused.
pub fn open_or_make(
    root: BorrowedFd<'_>,
    at: &InRoot,
    kind: Kind,
    nofollow: bool,
) -> Result<OwnedFd, Failure> {
    let how = if nofollow { How::PLACE_NOFOLLOW } else { How::PLACE };
    match open::in_root(root, at.as_c_str(), how) {
        Ok(fd) if nofollow && is_link(fd.as_fd())? => Err(Failure::new(Call::TargetIsLink, Errno::ELOOP)),
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT) => make(root, at, kind),
        Err(errno) => Err(Failure::new(Call::OpenTarget, errno)),
    }
}

fn is_link(fd: BorrowedFd<'_>) -> Result<bool, Failure> {
    fs::stat(fd).map(|stat| stat.kind() == libc::S_IFLNK).at(Call::OpenTarget)
}

fn make(root: BorrowedFd<'_>, at: &InRoot, kind: Kind) -> Result<OwnedFd, Failure> {
    let (parent, name) = parent_of(root, at)?;
    match kind {
        Kind::Directory => make_dir(parent.as_fd(), &name),
        Kind::File => match open::name_in(parent.as_fd(), &name, How::create_new(0o755)) {
            Ok(_made) => open::name_in(parent.as_fd(), &name, How::PLACE).at(Call::MakeTarget),
            Err(Errno::EEXIST) => open::in_root(root, at.as_c_str(), How::PLACE).at(Call::OpenTarget),
            Err(errno) => Err(Failure::new(Call::MakeTarget, errno)),
        },
    }
}

/// The directory that `at` lies in (made when missing), and its last part.
pub fn parent_of(root: BorrowedFd<'_>, at: &InRoot) -> Result<(OwnedFd, CString), Failure> {
    let bad = |_nul| Failure::new(Call::MakeTarget, Errno::EINVAL);
    let text = at.as_str();
    let Some((parent, name)) = text.rsplit_once('/').filter(|(_, name)| !name.is_empty()) else {
        return Err(Failure::new(Call::MakeTarget, Errno::EEXIST));
    };
    let name = CString::new(name).map_err(bad)?;
    let path = CString::new(if parent.is_empty() { "/" } else { parent }).map_err(bad)?;
    match open::in_root(root, &path, How::DIRECTORY) {
        Ok(dir) => return Ok((dir, name)),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(Failure::new(Call::OpenTarget, errno)),
    }
    let mut prefix = String::new();
    let mut dir = open::in_root(root, c"/", How::DIRECTORY).at(Call::OpenTarget)?;
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        prefix.push('/');
        prefix.push_str(part);
        let so_far = CString::new(prefix.as_str()).map_err(bad)?;
        dir = match open::in_root(root, &so_far, How::DIRECTORY) {
            Err(Errno::ENOENT) => make_dir(dir.as_fd(), &CString::new(part).map_err(bad)?)?,
            other => other.at(Call::OpenTarget)?,
        };
    }
    Ok((dir, name))
}

fn make_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Failure> {
    match fs::make_dir(parent, name, 0o755) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Failure::new(Call::MakeTarget, errno)),
    }
    open::name_in(parent, name, How::DIRECTORY).at(Call::MakeTarget)
}
