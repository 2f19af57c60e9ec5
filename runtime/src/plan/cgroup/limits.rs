//! Owns the list of writes while it is built: which directory has a controller, and what is missing.
//! It may not know what any controller's values mean; that is in the files beside it.
//! `plan::cgroup` makes one per plan and hands it to each controller's conversion.

use std::borrow::Cow;

use oci_spec::runtime::LinuxResources;

use super::{
    CgroupDir, CgroupPlan, Denied, DeviceProgram, Driver, InForce, Invalid, Missing, Tolerance, UsageCheck,
    Version, When, Write, block_io, cpu, memory, other,
};
use crate::error::{Error, ErrorKind, Field, Result, Warning};
use hull_cgroup::Hierarchies;

/// Where a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: usize,
    pub(super) version: Version,
}

pub(super) struct Limits {
    pub(super) dirs: Vec<CgroupDir>,
    pub(super) writes: Vec<Write>,
    pub(super) check: Option<UsageCheck>,
    pub(super) warnings: Vec<Warning>,
    /// `CgroupRequest::pids_zero_is_unset`.
    pub(super) pids_zero_is_unset: bool,
    /// In an update, what was in force before.
    pub(super) now: Option<InForce>,
    /// What the v2 hierarchy can enable.
    v2: Vec<String>,
}

impl Limits {
    pub(super) fn new(dirs: Vec<CgroupDir>, facts: &Hierarchies) -> Self {
        let v2 = facts.v2.as_ref().map(|v2| v2.controllers.clone()).unwrap_or_default();
        Self {
            dirs,
            writes: Vec::new(),
            check: None,
            warnings: Vec::new(),
            pids_zero_is_unset: false,
            now: None,
            v2,
        }
    }

    /// All limits, in the order they are written: what may refuse comes before what seldom does.
    pub(super) fn resources(&mut self, resources: &LinuxResources) -> Result<()> {
        if let Some(cpu) = resources.cpu() {
            cpu::cpuset(cpu, self)?;
            cpu::cpu(cpu, self)?;
        }
        if let Some(memory) = resources.memory() {
            memory::memory(memory, self)?;
        }
        if let Some(block_io) = resources.block_io() {
            block_io::block_io(block_io, self)?;
        }
        other::hugetlb(resources.hugepage_limits().as_deref().unwrap_or_default(), self)?;
        if let Some(rdma) = resources.rdma() {
            other::rdma(rdma, self)?;
        }
        if let Some(network) = resources.network() {
            other::network(network, self)?;
        }
        if let Some(pids) = resources.pids() {
            other::pids(*pids, self)?;
        }
        // Last: what is asked for by file name stands above what is asked for by field.
        if let Some(unified) = resources.unified() {
            other::unified(unified, self)?;
        }
        Ok(())
    }

    /// The directory whose hierarchy has `v1` (the name there), or else `v2`.
    pub(super) fn find(&self, v1: &str, v2: &str) -> Option<Place> {
        let v1 = self.position(|dir| dir.version == Version::V1 && dir.controllers.iter().any(|c| c == v1));
        let v2 = || {
            let known = self.v2.iter().any(|controller| controller == v2);
            self.position(|dir| known && dir.version == Version::V2)
        };
        v1.or_else(v2)
    }

    /// The v2 directory.
    pub(super) fn unified(&self) -> Option<Place> {
        self.position(|dir| dir.version == Version::V2)
    }

    /// True on a host with cgroup v2 and nothing else.
    pub(super) fn unified_mode(&self) -> bool {
        !self.dirs.is_empty() && self.dirs.iter().all(|dir| dir.version == Version::V2)
    }

    fn position(&self, of: impl Fn(&CgroupDir) -> bool) -> Option<Place> {
        let dir = self.dirs.iter().position(of)?;
        self.dirs.get(dir).map(|found| Place { dir, version: found.version })
    }

    /// [`Self::find`] for a limit that was asked for: it must be there, and on a hybrid host's v2 side it is
    /// enabled for this container.
    pub(super) fn need(&mut self, v1: &'static str, v2: &'static str, field: &Field) -> Result<Place> {
        let place = self.find(v1, v2).ok_or_else(|| missing(v1, field))?;
        if let Some(dir) = self.dirs.get_mut(place.dir).filter(|dir| dir.version == Version::V2) {
            dir.required = true;
            if !dir.controllers.iter().any(|controller| controller == v2) {
                dir.controllers.push(v2.to_owned());
            }
        }
        Ok(place)
    }

    pub(super) fn push(&mut self, write: Write) {
        self.writes.push(write);
    }

    pub(super) fn ignored(&mut self, field: Field, why: &str) {
        self.warnings.push(Warning::new(ErrorKind::CgroupLimitIgnored, why).field(field));
    }

    pub(super) fn finish(self, devices: Option<DeviceProgram>, denied: Option<Tolerance>) -> CgroupPlan {
        CgroupPlan {
            driver: Driver::Cgroupfs,
            dirs: self.dirs,
            writes: self.writes,
            devices,
            check: self.check,
            owner: None,
            denied,
            warnings: self.warnings,
        }
    }
}

/// A limit without a controller to set it. The first half is matched by scripts.
pub(super) fn missing(controller: &str, field: &Field) -> Error {
    let text = format!(
        "cannot set {controller} limit: container could not join or create cgroup: \
         no {controller} controller is mounted"
    );
    Error::new(ErrorKind::CgroupControllerMissing, text).field(field.clone())
}

impl Place {
    /// A write with every refusal an error, due before the start.
    pub(super) fn write(
        self,
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        field: &Field,
    ) -> Write {
        Write {
            dir: self.dir,
            controller: Cow::Borrowed(controller),
            file: file.into(),
            value: value.to_string(),
            field: field.clone(),
            when: When::BeforeStart,
            missing: Missing::Fail,
            invalid: Invalid::Fail,
            denied: Denied::Fail,
        }
    }
}

impl Write {
    pub(super) fn after_setup(mut self) -> Self {
        self.when = When::AfterSetup;
        self
    }

    pub(super) fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    pub(super) fn skip_missing(mut self) -> Self {
        self.missing = Missing::Skip;
        self
    }

    pub(super) fn or_to(mut self, file: &'static str, value: impl ToString) -> Self {
        self.missing = Missing::Instead(file, value.to_string());
        self
    }

    pub(super) fn again_when_invalid(mut self) -> Self {
        self.invalid = Invalid::Again;
        self
    }

    pub(super) fn skip_denied(mut self, skip: bool) -> Self {
        self.denied = if skip { Denied::Skip } else { Denied::Fail };
        self
    }
}
