//! Owns the container's cgroup as a handle: making, entering, limiting, freezing, killing and removing it.
//! It may not read the spec, clone, or decide what a limit means: it executes a `CgroupPlan` or reopens a `SavedCgroup`.
//! `launch` and `cli` call it, and the shim.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use hull_sys::open::{self, How};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupDir, CgroupPlan, Driver, Version};

mod apply;
mod create;
mod devices;
mod dir;
mod freeze;
mod kill;
mod remove;
mod sub;
mod walk;

use dir::Dir;
pub use freeze::is_frozen;
pub use sub::SubCgroup;

/// The cgroup of one container, open.
///
/// Dropping it closes the fds and removes nothing.
#[derive(Debug)]
pub struct Cgroup {
    driver: Driver,
    /// The directories as planned, also those that could not be made or are gone.
    planned: Vec<CgroupDir>,
    dirs: Vec<Dir>,
    /// Every directory this handle made, parents first.
    made: Vec<PathBuf>,
}

/// Enough to reopen a [`Cgroup`]: what the state record holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCgroup {
    /// Who made it; later commands go by this and not by their flags.
    pub driver: Driver,
    /// The container's directory in each hierarchy.
    pub dirs: Vec<CgroupDir>,
}

/// For the intent record, before anything is made. A directory in it may turn out to be another's: what is
/// reopened from an intent alone may be deleted, which spares what is in use, but never killed.
impl From<&CgroupPlan> for SavedCgroup {
    fn from(plan: &CgroupPlan) -> Self {
        Self { driver: plan.driver, dirs: plan.dirs.clone() }
    }
}

impl fmt::Display for SavedCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dirs.first() {
            None => f.write_str("no cgroup of its own"),
            Some(dir) if self.dirs.len() == 1 => write!(f, "cgroup {dir}"),
            Some(dir) => write!(f, "cgroup {dir} and {} others", self.dirs.len() - 1),
        }
    }
}

impl SavedCgroup {
    /// Where the cgroup lies in the hierarchy of `controller`, or in v2's; for messages and `state`.
    pub fn path(&self, controller: &str) -> Option<PathBuf> {
        let of =
            |dir: &&CgroupDir| dir.version == Version::V2 || dir.controllers.iter().any(|c| c == controller);
        self.dirs.iter().find(of).map(|dir| dir.mount.join(&dir.path))
    }
}

impl Cgroup {
    /// Reopens a container's cgroup. Directories that are gone are left out.
    ///
    /// # Errors
    /// When one is there and cannot be opened.
    pub fn open(saved: &SavedCgroup) -> Result<Self> {
        let mut dirs = Vec::with_capacity(saved.dirs.len());
        for (index, planned) in saved.dirs.iter().enumerate() {
            let path = planned.mount.join(&planned.path);
            match Dir::open(index, planned, path) {
                Ok(dir) => dirs.push(dir),
                // One whose name is too long was never made.
                Err(hull_sys::Errno::ENOENT | hull_sys::Errno::ENODEV | hull_sys::Errno::ENAMETOOLONG) => {}
                Err(errno) => {
                    let path = planned.mount.join(&planned.path);
                    return Err(failed("open", &path, errno));
                }
            }
        }
        Ok(Self { driver: saved.driver, planned: saved.dirs.clone(), dirs, made: Vec::new() })
    }

    /// Whether none of its directories is there any more.
    pub fn is_gone(&self) -> bool {
        self.dirs.iter().all(|dir| !dir.path.exists())
    }

    /// What the state record keeps: the directories that are the container's, and no others.
    pub fn saved(&self) -> SavedCgroup {
        let dirs = self.dirs.iter().filter_map(|dir| self.planned.get(dir.index));
        SavedCgroup { driver: self.driver, dirs: dirs.cloned().collect() }
    }

    /// For `CLONE_INTO_CGROUP`: the cgroup2 directory, also of a hybrid host, where there is one.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.v2().map(|dir| dir.fd.as_fd())
    }

    /// For v1: the directories that [`Self::enter`] needs.
    pub fn v1_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dirs.iter().filter(|dir| dir.version == Version::V1).map(|dir| dir.fd.as_fd())
    }

    /// For v1: enters every hierarchy. A single-threaded process does so by writing `0` to each `tasks` file
    /// itself, which does not wait for the kernel's global lock as `cgroup.procs` or a foreign pid do
    /// (`cgroup_procs_write_start`: 5 ms against 0.1 ms after an idle time). The files are opened here and one
    /// after the other: there may be few descriptors.
    ///
    /// # Errors
    /// The number of the directory in [`Self::v1_fds`], and what the kernel answered.
    pub fn enter(&self) -> std::result::Result<(), (usize, hull_sys::Errno)> {
        for (index, dir) in self.v1_fds().enumerate() {
            let entered = open::name_in(dir, c"tasks", How::WRITE)
                .and_then(|tasks| hull_sys::fs::write_once(tasks.as_fd(), b"0"));
            entered.map_err(|errno| (index, errno))?;
        }
        Ok(())
    }

    /// Moves a process in by its pid, into every hierarchy: the way for those who cannot be cloned into it.
    ///
    /// # Errors
    /// What the kernel answers; the text names the pid.
    pub fn attach(&self, pid: i32) -> Result<()> {
        for dir in &self.dirs {
            dir.write("cgroup.procs", &pid.to_string()).map_err(|errno| {
                let why = dir::write_failed("cgroup.procs", &pid.to_string(), errno);
                Error::new(ErrorKind::CgroupAttach, format!("error adding pid {pid} to cgroups: {why}"))
            })?;
        }
        Ok(())
    }

    /// How many processes of this cgroup the kernel's OOM killer has ended; `None` without a memory controller.
    pub fn oom_kill_count(&self) -> Option<u64> {
        let v1 = self.v1("memory").map(|dir| (dir, "memory.oom_control"));
        let (dir, file) = v1.or_else(|| self.v2().map(|dir| (dir, "memory.events")))?;
        dir::value_of(&dir.read(file).ok()?, "oom_kill")?.parse().ok()
    }

    /// Gives a v2 cgroup to `uid`: its directory and the files the kernel says can be handed over. For a
    /// container with its own user and cgroup namespace and a writable cgroup mount.
    ///
    /// # Errors
    /// What `chown(2)` answers.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let Some(dir) = self.v2() else { return Ok(()) };
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        // The list is there since Linux 4.15; before, these were all there was to hand over.
        let listed =
            listed.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        let chown = |path: &Path| std::os::unix::fs::lchown(path, Some(uid), None);
        chown(&dir.path).map_err(|error| failed_io("chown", &dir.path, &error))?;
        for path in listed.lines().map(|name| dir.path.join(name)) {
            match chown(&path) {
                // The list is the kernel's; a cgroup has the files of its own controllers only.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                done => done.map_err(|error| failed_io("chown", &path, &error))?,
            }
        }
        Ok(())
    }

    /// The directory that is planned under this index, if it is there.
    fn planned_dir(&self, index: usize) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.index == index)
    }

    fn v2(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.version == Version::V2)
    }

    fn v1(&self, controller: &str) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.has_v1(controller))
    }

    /// The directory whose processes are the container's: v2's in unified mode, else the hierarchy runc
    /// looks at, else any.
    fn primary(&self) -> Option<&Dir> {
        let required = self.dirs.iter().filter(|dir| dir.required);
        self.v1("devices").or_else(|| required.min_by_key(|dir| dir.index)).or_else(|| self.dirs.first())
    }
}

/// `mkdir /sys/fs/cgroup/x: permission denied`.
fn failed(operation: &str, path: &Path, errno: hull_sys::Errno) -> Error {
    Error::new(ErrorKind::Cgroup, format!("{operation} {}: {}", path.display(), dir::reason(errno)))
}

fn failed_io(operation: &str, path: &Path, error: &std::io::Error) -> Error {
    failed(operation, path, dir::errno(error))
}
