//! Owns the removal of a container's cgroup, with whatever sub-cgroups the container made.
//! It may not kill: who is still in there is waited for, and then named.
//! `cli` calls it for delete, after the kill, and the shim.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use hull_sys::Errno;

use super::Cgroup;
use super::dir::{Dir, errno, reason};
use super::walk::Walk;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupDir, Version};

/// How long dying processes may keep a cgroup busy.
pub(super) const REMOVE_LIMIT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl Cgroup {
    /// Removes the container's directory from every hierarchy; what is gone already is no error. The directories
    /// above stay, as runc leaves them: engines make and remove those. In a hierarchy that only tracks they do
    /// not know of them: there what was made for this container goes with it, unless it is in use.
    ///
    /// # Errors
    /// When a directory is still busy after 2 s: the text names a process in it and what that waits for.
    pub fn delete(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        // All are tried, so that one busy hierarchy does not leave the others behind.
        let failures =
            self.dirs.iter().filter_map(|dir| remove(dir, deadline).err().map(|errno| (dir, errno)));
        let failure = failures.reduce(|first, _| first);
        self.planned.iter().for_each(remove_parents);
        let Some((dir, errno)) = failure else { return Ok(()) };
        let blocker = self.blocker_text();
        let text = format!("remove cgroup {}: {}{blocker}", dir.path.display(), reason(errno));
        Err(Error::new(ErrorKind::CgroupBusy, text))
    }
}

fn remove_parents(planned: &CgroupDir) {
    for parent in planned.path.ancestors().skip(1).take(planned.parents_made) {
        // The first that is in use ends it.
        if rmdir(&planned.mount.join(parent)).is_err() {
            return;
        }
    }
}

fn remove(dir: &Dir, deadline: Instant) -> std::result::Result<(), Errno> {
    // The usual case is one rmdir.
    match rmdir(&dir.path) {
        Err(Errno::EBUSY) => {}
        done => return done,
    }
    if dir.version == Version::V2 {
        match dir.wait_event("populated", "0", deadline) {
            // In time or not, the rmdir below says what holds.
            Ok(_) | Err(Errno::ENODEV | Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    match remove_below(dir, deadline) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => retry(deadline, || rmdir(&dir.path)),
        Err(errno) => Err(errno),
    }
}

/// Every directory below, children first, whatever the container made there.
fn remove_below(dir: &Dir, deadline: Instant) -> std::result::Result<(), Errno> {
    let mut walk = Walk::new(dir.fd.as_fd())?;
    loop {
        // What has no children of its own goes at once.
        let mut busy = None;
        for name in walk.children()? {
            match remove_one(walk.here(), &name) {
                Err(Errno::EBUSY) => busy = Some(name),
                done => done?,
            }
        }
        if let Some(name) = busy {
            walk.enter(&name)?;
            continue;
        }
        let Some(name) = walk.leave()? else { return Ok(()) };
        retry(deadline, || remove_one(walk.here(), &name))?;
    }
}

/// `EBUSY` of an empty directory passes: the kernel is still taking processes off it.
pub(super) fn retry(
    deadline: Instant,
    mut remove: impl FnMut() -> std::result::Result<(), Errno>,
) -> std::result::Result<(), Errno> {
    let mut pause = FIRST_PAUSE;
    loop {
        match remove() {
            Err(Errno::EBUSY) if Instant::now() < deadline => {}
            done => return done,
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn remove_one(dir: BorrowedFd<'_>, name: &CStr) -> std::result::Result<(), Errno> {
    match hull_sys::fs::remove_dir(dir, name) {
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
        done => done,
    }
}

pub(super) fn rmdir(path: &Path) -> std::result::Result<(), Errno> {
    match std::fs::remove_dir(path).map_err(|error| errno(&error)) {
        Err(Errno::ENOENT) => Ok(()),
        done => done,
    }
}
