//! Owns the freezing and thawing of a container, on v2 by `cgroup.freeze` and on v1 by the freezer hierarchy.
//! It may not signal anybody; a frozen process sees nothing.
//! `cli` calls it for pause and resume, `kill` where the kernel cannot kill a cgroup by itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use hull_sys::Errno;

use super::dir::Dir;
use super::{Cgroup, SavedCgroup};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupDir, Version};

/// How long to wait for the last process to stop; a process in uninterruptible sleep can take any time.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at v1's `freezer.state`, which cannot be polled.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// v1: after so many looks at `FREEZING` a thaw and a new try help processes that fork or vfork meanwhile
/// (kernel: freezer-subsystem.rst, runc #2774).
const LOOKS_PER_TRY: u32 = 50;

/// Whether a container is frozen, by the one file that says so: `state` and `list` ask for every container.
/// What cannot be read is not frozen.
pub fn is_frozen(saved: &SavedCgroup) -> bool {
    let v1 = |dir: &&CgroupDir| dir.version == Version::V1 && dir.controllers.iter().any(|c| c == "freezer");
    let v2 = |dir: &&CgroupDir| dir.version == Version::V2;
    let Some(dir) = saved.dirs.iter().find(v1).or_else(|| saved.dirs.iter().find(v2)) else { return false };
    let (file, frozen) = match dir.version {
        Version::V1 => ("freezer.state", "FROZEN"),
        Version::V2 => ("cgroup.freeze", "1"),
    };
    std::fs::read_to_string(dir.mount.join(&dir.path).join(file)).is_ok_and(|text| text.trim_end() == frozen)
}

impl Cgroup {
    /// Stops every process of the container; returns when all stand still.
    ///
    /// # Errors
    /// When there is no freezer, or when 10 s were not enough; the container runs again then.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(FREEZE_LIMIT)
    }

    pub(super) fn freeze_within(&self, limit: Duration) -> Result<()> {
        let dir = self.freezer()?;
        let deadline = Instant::now() + limit;
        let frozen = match dir.version {
            Version::V1 => dir.freeze_v1(deadline),
            Version::V2 => dir.freeze_v2(deadline),
        };
        if let Ok(true) = frozen {
            return Ok(());
        }
        // Half frozen would be worst: the failure below is reported, whatever the thaw says.
        dir.set_frozen(false).ok();
        let why = match frozen {
            Err(errno) => super::dir::reason(errno),
            Ok(_) => format!("it did not freeze within {limit:?}{}", self.blocker_text()),
        };
        Err(Error::new(ErrorKind::CgroupFreeze, format!("unable to freeze {}: {why}", dir.path.display())))
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// When there is no freezer, or what the kernel answers.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer()?;
        dir.set_frozen(false).map_err(|errno| dir.failed("thaw", errno))
    }

    /// Whether the container is frozen; false where there is no freezer.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(dir) = self.freezer() else { return Ok(false) };
        match dir.frozen() {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            frozen => frozen.map_err(|errno| dir.failed("read the freezer state of", errno)),
        }
    }

    /// v1's freezer where it is mounted, also on a hybrid host: its state is what others look at there.
    pub(super) fn freezer(&self) -> Result<&Dir> {
        let text = "cannot toggle freezer: cgroups not configured for container";
        self.v1("freezer").or_else(|| self.v2()).ok_or_else(|| Error::new(ErrorKind::CgroupNoFreezer, text))
    }
}

impl Dir {
    /// Whether this directory is frozen, by itself or by one above; false where it has no say in it.
    pub(super) fn frozen(&self) -> Result<bool, Errno> {
        if self.has_v1("freezer") {
            return Ok(self.read("freezer.state")?.trim() != "THAWED");
        }
        if self.version == Version::V1 {
            return Ok(false);
        }
        // Since Linux 5.2. A cgroup without processes is frozen as soon as it is asked to be.
        let frozen = super::dir::value_of(&self.read("cgroup.events")?, "frozen") == Some("1");
        Ok(frozen)
    }

    pub(super) fn set_frozen(&self, frozen: bool) -> Result<(), Errno> {
        match (self.version, frozen) {
            (Version::V1, true) => self.write("freezer.state", "FROZEN"),
            (Version::V1, false) => self.write("freezer.state", "THAWED"),
            (Version::V2, true) => self.write("cgroup.freeze", "1"),
            (Version::V2, false) => self.write("cgroup.freeze", "0"),
        }
    }

    fn freeze_v2(&self, deadline: Instant) -> Result<bool, Errno> {
        self.set_frozen(true)?;
        self.wait_event("frozen", "1", deadline)
    }

    fn freeze_v1(&self, deadline: Instant) -> Result<bool, Errno> {
        let mut pause = FIRST_PAUSE;
        for look in 1_u32.. {
            // Writing it again makes the kernel look again.
            self.set_frozen(true)?;
            if self.read("freezer.state")?.trim() == "FROZEN" {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                break;
            }
            if look.is_multiple_of(LOOKS_PER_TRY) {
                self.set_frozen(false)?;
                pause = LONGEST_PAUSE;
            }
            sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(false)
    }
}
