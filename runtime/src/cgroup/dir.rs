//! Owns one open cgroup directory: its files read and written through its fd, and the wait for its events.
//! It may not know what any file means beyond the `key value` form of some.
//! The other files of `cgroup` call it.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) use hull_cgroup::files::{errno, value_of};
use hull_sys::Errno;
use hull_sys::open::{self, How};
use hull_sys::signal::{self, Interest};

use crate::error::Error;
use crate::plan::cgroup::{CgroupDir, Version};

#[derive(Debug)]
pub(super) struct Dir {
    /// Index of the planned directory.
    pub(super) index: usize,
    pub(super) version: Version,
    pub(super) path: PathBuf,
    pub(super) controllers: Vec<String>,
    pub(super) required: bool,
    /// Whether it is new: nobody else can have anything in it.
    pub(super) fresh: bool,
    pub(super) fd: OwnedFd,
}

/// Looks at `cgroup.events` double their distance from here to here: 4 ms in all.
const FIRST_LOOK: Duration = Duration::from_micros(30);
const LAST_LOOK: Duration = Duration::from_millis(2);

type Sys<T> = Result<T, Errno>;

impl Dir {
    pub(super) fn open(index: usize, planned: &CgroupDir, path: PathBuf) -> Sys<Self> {
        let name = c_string(path.as_os_str())?;
        Ok(Self {
            index,
            version: planned.version,
            controllers: planned.controllers.clone(),
            required: planned.required,
            fresh: false,
            fd: open::on_host(None, &name, How::DIRECTORY)?,
            path,
        })
    }

    pub(super) fn has_v1(&self, controller: &str) -> bool {
        self.version == Version::V1 && self.controllers.iter().any(|name| name == controller)
    }

    pub(super) fn open_file(&self, file: &str, how: How) -> Sys<OwnedFd> {
        open::name_in(self.fd.as_fd(), &c_string(OsStr::new(file))?, how)
    }

    pub(super) fn read(&self, file: &str) -> Sys<String> {
        read_all(&mut File::from(self.open_file(file, How::READ)?))
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Sys<()> {
        let fd = self.open_file(file, How::WRITE)?;
        hull_sys::fs::write_once(fd.as_fd(), value.as_bytes())
    }

    /// Whether `cgroup.events` has `key` at `value`, waiting for it until `deadline`. The kernel wakes a poll
    /// whenever the file changes, but at most once in 10 ms (`CGROUP_FILE_NOTIFY_MIN_INTV`): what is quick is
    /// seen by looking a few times first.
    pub(super) fn wait_event(&self, key: &str, value: &str, deadline: Instant) -> Sys<bool> {
        let mut events = File::from(self.open_file("cgroup.events", How::READ)?);
        let mut pause = FIRST_LOOK;
        loop {
            if value_of(&read_all(&mut events)?, key) == Some(value) {
                return Ok(true);
            }
            let Some(left_ms) = left_ms(deadline) else { return Ok(false) };
            if pause <= LAST_LOOK {
                sleep(pause);
                pause *= 2;
            } else {
                signal::poll([Interest { fd: events.as_fd(), events: libc::POLLPRI }], left_ms)?;
            }
            events.rewind().map_err(|error| errno(&error))?;
        }
    }

    pub(super) fn failed(&self, operation: &str, errno: Errno) -> Error {
        super::failed(operation, &self.path, errno)
    }
}

/// `write "4096" to memory.max: device or resource busy`.
pub(super) fn write_failed(file: &str, value: &str, errno: Errno) -> String {
    format!("write {value:?} to {file}: {}", reason(errno))
}

/// What is left until `deadline`, rounded up so that less than a millisecond is no busy loop.
pub(super) fn left_ms(deadline: Instant) -> Option<i32> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX))
}

/// The pids in an open cgroup directory alone. A threaded one answers EOPNOTSUPP and lists its threads.
pub(super) fn procs(dir: BorrowedFd<'_>) -> Sys<Vec<i32>> {
    let read = |name: &CStr| read_all(&mut File::from(open::name_in(dir, name, How::READ)?));
    let text = match read(c"cgroup.procs") {
        Err(Errno::EOPNOTSUPP) => read(c"cgroup.threads")?,
        // Removed while we looked: nothing is in it.
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

pub(super) fn read_all(file: &mut File) -> Sys<String> {
    let mut text = String::with_capacity(256);
    file.read_to_string(&mut text).map_err(|error| errno(&error))?;
    Ok(text)
}

/// The kernel's words for an errno, as they stand inside a sentence.
pub(super) use crate::error::words as reason;

fn c_string(text: &OsStr) -> Sys<CString> {
    CString::new(text.as_bytes()).map_err(|_nul| Errno::EINVAL)
}
