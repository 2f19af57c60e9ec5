//! Keeps this program's own file out of reach: what enters a container runs from a read-only mount of it, so
//! that no `/proc/PID/exe` in there can be opened for writing (CVE-2019-5736). Called first by the verbs
//! that put a process into a container.

use std::os::fd::{AsFd, OwnedFd};

use crate::exec::{Strings, exec_fd};
use crate::mount::{self, Change, attr};
use crate::open::{self, How};
use crate::{Errno, Result, fs};

/// `ST_RDONLY`: the mount or the file system is read-only.
const READ_ONLY: u64 = 1;

/// Executes this program once more from a detached read-only copy of the mount it lies on, unless it runs
/// from a read-only one already. Returns only then, or when a copy cannot be had: without the right to
/// mount there is also nobody in a container who could write to a file that is not theirs.
pub fn run_from_read_only_mount(args: Strings, env: Strings) -> Result<()> {
    let own = open::on_host(None, c"/proc/self/exe", How::PLACE)?;
    if fs::mount_flags(own.as_fd())? & READ_ONLY != 0 {
        return Ok(());
    }
    let copy = match read_only_copy() {
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => return Ok(()),
        other => other?,
    };
    match exec_fd(copy.as_fd(), &args, &env) {
        Ok(never) => match never {},
        Err(errno) => Err(errno),
    }
}

fn read_only_copy() -> Result<OwnedFd> {
    let copy = mount::clone_tree(None, c"/proc/self/exe", false, false)?;
    let change = Change { set: attr::RDONLY | attr::NOSUID, ..Change::default() };
    mount::set_attributes(copy.as_fd(), change, false, None)?;
    Ok(copy)
}
