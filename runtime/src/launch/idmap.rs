//! Id maps beyond writing two files: user namespaces that exist only for an idmapped mount, and maps that
//! an ordinary user may only have written by the setuid tools of the host (newuidmap(1), newgidmap(1)).
//! Called by `parent`.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use hull_sys::open::{self, How};
use hull_sys::process::{self, Clone, Forked, Pid};
use hull_sys::{Errno, fs, pidfd};

use crate::error::{Error, ErrorKind, Field, Result, io_words};

/// Writes a file of procfs.
pub fn write_file(path: String, text: &str) -> hull_sys::Result<()> {
    let path = CString::new(path).map_err(|_nul| Errno::EINVAL)?;
    let file = open::on_host(None, &path, How::WRITE)?;
    fs::write_once(file.as_fd(), text.as_bytes())
}

/// The user namespace of process `pid`.
pub fn namespace_of(pid: Pid) -> hull_sys::Result<OwnedFd> {
    let path = CString::new(format!("/proc/{pid}/ns/user")).map_err(|_nul| Errno::EINVAL)?;
    open::on_host(None, &path, How::READ)
}

/// A user namespace with these maps. It needs a process to begin with, which is gone again on return.
pub fn namespace_with(uids: &str, gids: &str) -> hull_sys::Result<OwnedFd> {
    let new_user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let (pid, handle) = match process::clone(Clone { namespaces: new_user, ..Clone::default() })? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => hull_sys::signal::wait_to_be_killed(),
    };
    let made = write_file(format!("/proc/{pid}/uid_map"), uids)
        .and_then(|()| write_file(format!("/proc/{pid}/gid_map"), gids))
        .and_then(|()| namespace_of(pid));
    pidfd::signal(handle.as_fd(), libc::SIGKILL)?;
    process::wait(handle.as_fd(), true)?;
    made
}

/// Has `tool` write `lines` as a map of process `pid`.
pub fn by_tool(tool: &str, pid: Pid, lines: &str, field: &'static str) -> Result<()> {
    let refused = |why: String| {
        Error::new(ErrorKind::IdMap, format!("{tool} {pid}: {why}"))
            .hint("install the package uidmap, and allow the range in /etc/subuid and /etc/subgid")
            .field(Field::named(field))
    };
    let output = std::process::Command::new(tool)
        .arg(pid.to_string())
        .args(lines.split_ascii_whitespace())
        .output()
        .map_err(|error| refused(io_words(&error)))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
