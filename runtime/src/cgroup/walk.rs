//! Owns the walk through the directories below a container's cgroup, which the container made: by descriptor and
//! name, since there may be thousands of levels and any path may be too long for the kernel.
//! It may not hold more than two descriptors, read files or remove anything.
//! `kill` lists processes with it, `remove` removes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::Errno;
use hull_sys::open::{self, How};

type Sys<T> = Result<T, Errno>;

/// A place in the tree below `top`.
pub(super) struct Walk<'a> {
    top: BorrowedFd<'a>,
    here: OwnedFd,
    /// The names from `top` to here.
    way: Vec<CString>,
}

impl<'a> Walk<'a> {
    /// At the top.
    pub(super) fn new(top: BorrowedFd<'a>) -> Sys<Self> {
        Ok(Self { top, here: open::name_in(top, c".", How::LIST)?, way: Vec::new() })
    }

    /// The directory.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// The names of the directories in here.
    pub(super) fn children(&self) -> Sys<Vec<CString>> {
        match list(self.here.as_fd()) {
            // Removed while we looked.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
            found => found,
        }
    }

    /// Goes into a child; false when it is gone.
    pub(super) fn enter(&mut self, name: &CStr) -> Sys<bool> {
        match open::name_in(self.here.as_fd(), name, How::LIST) {
            Ok(child) => {
                self.here = child;
                self.way.push(name.to_owned());
                Ok(true)
            }
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Goes back up; answers the name of where it was.
    pub(super) fn leave(&mut self) -> Sys<Option<CString>> {
        let Some(name) = self.way.pop() else { return Ok(None) };
        self.here = match open::on_host(Some(self.here.as_fd()), c"..", How::LIST) {
            Ok(parent) => parent,
            // From a removed directory there is no way up: again from the top.
            Err(Errno::ENOENT | Errno::ENODEV) => self.reopen()?,
            Err(errno) => return Err(errno),
        };
        Ok(Some(name))
    }

    fn reopen(&self) -> Sys<OwnedFd> {
        let top = open::name_in(self.top, c".", How::LIST)?;
        self.way.iter().try_fold(top, |dir, name| open::name_in(dir.as_fd(), name, How::LIST))
    }
}

/// Calls `visit` with the top and every directory below it, parents first.
pub(super) fn each(top: BorrowedFd<'_>, mut visit: impl FnMut(BorrowedFd<'_>) -> Sys<()>) -> Sys<()> {
    let mut walk = Walk::new(top)?;
    visit(walk.here())?;
    let mut left = vec![walk.children()?];
    while let Some(names) = left.last_mut() {
        match names.pop() {
            Some(name) if walk.enter(&name)? => {
                visit(walk.here())?;
                left.push(walk.children()?);
            }
            Some(_gone) => {}
            None => {
                left.pop();
                walk.leave()?;
            }
        }
    }
    Ok(())
}

/// The directories in an open one. kernfs counts them in the link count, which spares listing a directory that has
/// nothing but files.
fn list(dir: BorrowedFd<'_>) -> Sys<Vec<CString>> {
    if hull_sys::fs::stat(dir)?.links == 2 {
        return Ok(Vec::new());
    }
    let failed = |error: std::io::Error| super::dir::errno(&error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            let name = entry.file_name().into_encoded_bytes();
            found.push(CString::new(name).map_err(|_nul| Errno::EINVAL)?);
        }
    }
    Ok(found)
}
