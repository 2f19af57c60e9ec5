//! Owns the v2 device filter on a cgroup: loading the planned program and putting it in the place of an older one.
//! It may not make rules or touch programs of ancestors; those keep their say.
//! `cgroup::apply` calls it before the container's first process exists.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::{Errno, bpf};

use super::Cgroup;
use super::dir::{Dir, reason};
use crate::error::{Error, ErrorKind, Field, Result};
use crate::plan::cgroup::{Denied, DeviceProgram};

type Sys<T> = std::result::Result<T, Errno>;

impl Cgroup {
    pub(super) fn filter_devices(&self, devices: &DeviceProgram) -> Result<()> {
        let Some(dir) = self.planned_dir(devices.dir) else {
            return match devices.denied {
                Denied::Skip => Ok(()),
                Denied::Fail => Err(error("container could not join or create cgroup")),
            };
        };
        match install(dir, devices) {
            // No right to bpf(2), or no device programs in this kernel's configuration.
            Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) if devices.denied == Denied::Skip => Ok(()),
            done => done.map_err(|errno| error(&format!("load the device program: {}", reason(errno)))),
        }
    }
}

fn error(why: &str) -> Error {
    let text = format!("cannot set devices limit: {why}");
    Error::new(ErrorKind::CgroupDevices, text).field(Field::named("linux.resources.devices"))
}

fn install(dir: &Dir, devices: &DeviceProgram) -> Sys<()> {
    let program = match bpf::load_device(&devices.program) {
        // Before Linux 5.11 programs count as locked memory, and a caller's limit can be too low.
        Err(Errno::EPERM | Errno::ENOMEM) => bpf::with_raised_memlock(|| bpf::load_device(&devices.program)),
        program => program,
    }?;
    if dir.fresh {
        return bpf::attach_device(dir.fd.as_fd(), program.as_fd());
    }
    replace(dir, &program)
}

/// On a cgroup that was there before: exactly one program of this cgroup's own is left. The old one goes
/// only when the new one is in force.
fn replace(dir: &Dir, program: &OwnedFd) -> Sys<()> {
    let cgroup = dir.fd.as_fd();
    let old = attached(dir)?;
    if let [only] = &*old {
        match bpf::replace_device(cgroup, program.as_fd(), only.as_fd()) {
            // Before Linux 5.6 there is no replacing.
            Err(Errno::EINVAL) => {}
            done => return done,
        }
    }
    bpf::attach_device(cgroup, program.as_fd())?;
    old.iter().try_for_each(|old| bpf::detach_device(cgroup, old.as_fd()))
}

fn attached(dir: &Dir) -> Sys<Vec<OwnedFd>> {
    let ids = bpf::attached_devices(dir.fd.as_fd())?;
    let programs = ids.into_iter().filter_map(|id| match bpf::program_by_id(id) {
        // Kept from us by an LSM, or gone by now. One more program can only restrict further.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT) => None,
        program => Some(program),
    });
    programs.collect()
}
