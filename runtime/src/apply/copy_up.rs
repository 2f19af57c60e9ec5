//! Fills a new tmpfs with what it is about to hide (`tmpcopyup`). Descriptors only; owners, modes and links
//! are kept. Called by `apply::fs`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use hull_sys::open::{self, How};
use hull_sys::{Errno, Result, fs};

/// Copies the content of `from` into `to`, both directories. Mode and owner of `to` itself stay.
pub fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let to_dir = open::name_in(to, c".", How::LIST)?;
    copy_content(from, to_dir.as_fd())
}

fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let listing = open::name_in(from, c".", How::LIST)?;
    for name in names(listing)? {
        copy_one(from, to, &name)?;
    }
    Ok(())
}

/// The names in an open directory.
fn names(dir: OwnedFd) -> Result<Vec<CString>> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let error = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        names.push(CString::new(name.as_bytes()).map_err(|_nul| Errno::EINVAL)?);
    }
    Ok(names)
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let stat = fs::stat_name(from, name)?;
    match stat.kind() {
        libc::S_IFDIR => {
            fs::make_dir(to, name, 0o700)?;
            let source = open::name_in(from, name, How::LIST)?;
            let copy = open::name_in(to, name, How::LIST)?;
            copy_content(source.as_fd(), copy.as_fd())?;
            fs::chown_fd(copy.as_fd(), stat.uid, stat.gid)?;
            fs::chmod_fd(copy.as_fd(), stat.mode & 0o7777)
        }
        libc::S_IFLNK => {
            fs::make_link(&fs::read_link(from, name)?, to, name)?;
            fs::chown(to, name, stat.uid, stat.gid)
        }
        libc::S_IFREG => {
            let mut source = std::fs::File::from(open::name_in(from, name, How::READ_NOW)?);
            let mut copy = std::fs::File::from(open::name_in(to, name, How::create_new(0o600))?);
            std::io::copy(&mut source, &mut copy)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
            fs::chown_fd(copy.as_fd(), stat.uid, stat.gid)?;
            fs::chmod_fd(copy.as_fd(), stat.mode & 0o7777)
        }
        kind => {
            fs::make_node(to, name, kind | stat.mode & 0o7777, stat.rdev)?;
            fs::chown(to, name, stat.uid, stat.gid)
        }
    }
}
