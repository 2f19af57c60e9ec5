//! New limits for a container that is created or runs: all of them, or none.

use std::fs::File;
use std::os::fd::AsFd;

use hull_cgroup::Hierarchies;
use hull_sys::open::{self, How};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{Runtime, bundle};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Field, Result, Warning, io_words};
use crate::plan::cgroup::{InForce, plan_update};
use crate::spec::state::Status;
use crate::spec::{self, ContainerId, Loaded, Source};
use crate::state::Record;

/// The new limits: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; -1 for none.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 for none.
    pub memory_swap: Option<i64>,
    /// Bytes that are kept when memory is short.
    pub memory_reservation: Option<i64>,
    /// Bytes; without effect on kernels of today.
    pub kernel_memory: Option<i64>,
    /// Bytes; without effect on kernels of today.
    pub kernel_memory_tcp: Option<i64>,
    /// Microseconds of each period; -1 for none.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds that may be saved up.
    pub cpu_burst: Option<u64>,
    /// Share of the CPU, 1024 for one.
    pub cpu_shares: Option<u64>,
    /// 1 for the idle policy.
    pub cpu_idle: Option<i64>,
    /// Microseconds.
    pub cpu_rt_period: Option<u64>,
    /// Microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs, as in `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as in `0-1`.
    pub cpuset_mems: Option<String>,
    /// Processes; -1 for no limit.
    pub pids: Option<i64>,
    /// Weight, 10 to 1000.
    pub block_io_weight: Option<u16>,
}

/// New limits as JSON, read and checked; no lock is held meanwhile.
#[derive(Debug)]
pub struct Resources {
    loaded: Loaded<LinuxResources>,
}

impl Resources {
    /// Reads `linux.resources` from a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong, with the place in it.
    pub fn read(path: &str) -> Result<Self> {
        let (file, name) = match path {
            "-" => (std::io::stdin().as_fd().try_clone_to_owned().map(File::from), "standard input"),
            path => (open_now(path), path),
        };
        let file = file.map_err(|error| {
            let why = io_words(&error);
            Error::new(ErrorKind::ResourcesMissing, format!("open {name}: {why}"))
        })?;
        Ok(Self { loaded: spec::load_resources(file, name)? })
    }

    /// What is done only in part.
    pub fn warnings(&self) -> &[Warning] {
        &self.loaded.warnings
    }

    fn source(&self) -> &Source {
        &self.loaded.source
    }
}

fn open_now(path: &str) -> std::io::Result<File> {
    let name = std::ffi::CString::new(path)?;
    Ok(File::from(open::on_host(None, &name, How::READ_NOW)?))
}

impl Runtime {
    /// Changes limits of a container.
    ///
    /// # Errors
    /// It is not there for it, or a limit is refused: then none has changed.
    pub fn update(&self, id: &ContainerId, limits: &Limits) -> Result<Vec<Warning>> {
        self.update_resources(id, &limits.resources())
    }

    /// Changes limits of a container to those of a file.
    ///
    /// # Errors
    /// As [`Self::update`], with the place in the file.
    pub fn update_from(&self, id: &ContainerId, resources: &Resources) -> Result<Vec<Warning>> {
        self.accept(resources.warnings())?;
        let updated = self.update_resources(id, &resources.loaded.spec);
        let mut warnings = updated.map_err(|error| resources.source().point(error))?;
        warnings.splice(0..0, resources.warnings().iter().cloned());
        Ok(warnings)
    }

    fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<Vec<Warning>> {
        let state = self.root.open(id)?.lock()?;
        let record = state.dir().load()?;
        if matches!(state.dir().status(&record), Status::Stopped | Status::Creating) {
            return Err(Error::new(ErrorKind::ContainerNotRunning, "container not running"));
        }
        same_devices(&record, resources)?;
        let cgroup = Cgroup::open(&record.cgroup)?;
        let facts = Hierarchies::of_self()?;
        let pids_zero_is_unset = !spec::check::is_since(&record.oci_version, (1, 3));
        let now = InForce { pids_zero_is_unset, ..cgroup.in_force() };
        let plan = plan_update(resources, record.cgroup.dirs.clone(), &facts, now)?;
        self.accept(&plan.warnings)?;
        for write in &plan.writes {
            (self.trace)(format_args!("{write}"));
        }
        cgroup.apply_all(&plan)?;
        Ok(plan.warnings)
    }
}

/// Device rules stay as they were made, with what GPU tools have added since; callers that hand over all resources
/// (containerd's CRI) name the same ones.
fn same_devices(record: &Record, resources: &LinuxResources) -> Result<()> {
    let Some(asked) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) else { return Ok(()) };
    let made = bundle::config_of(record).ok();
    let made = made.as_ref().and_then(|config| config.spec.linux().as_ref()?.resources().as_ref());
    if made.and_then(|made| made.devices().as_ref()) == Some(asked) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::UpdateDevices, "device rules of a container cannot be changed")
        .hint("leave them out, or create the container again")
        .field(Field::named("linux.resources.devices")))
}

impl Limits {
    fn resources(&self) -> LinuxResources {
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory).set_swap(self.memory_swap).set_reservation(self.memory_reservation);
        memory.set_kernel(self.kernel_memory).set_kernel_tcp(self.kernel_memory_tcp);
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(self.cpu_quota).set_period(self.cpu_period);
        cpu.set_burst(self.cpu_burst).set_shares(self.cpu_shares).set_idle(self.cpu_idle);
        cpu.set_realtime_period(self.cpu_rt_period).set_realtime_runtime(self.cpu_rt_runtime);
        cpu.set_cpus(self.cpuset_cpus.clone()).set_mems(self.cpuset_mems.clone());
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_devices(None);
        if let Some(limit) = self.pids {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        if let Some(weight) = self.block_io_weight {
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(Some(weight));
            resources.set_block_io(Some(block_io));
        }
        resources
    }
}
