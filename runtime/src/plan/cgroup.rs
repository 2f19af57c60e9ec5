//! Owns the cgroup part of a plan: where the container's cgroup lies, what is written into it and in which order.
//! It may not read the host, the clock or the environment; all it knows comes in as spec, facts and request.
//! `plan` calls [`plan`] for a new container and [`plan_update`] for `update`; `cgroup` executes the result.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use hull_cgroup::{Hierarchies, Mode, V1Hierarchy, V2Hierarchy};
use hull_sys::bpf::Insn;
use oci_spec::runtime::{Linux, LinuxResources};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Field, Result, Warning};

mod block_io;
mod cpu;
mod devices;
mod limits;
mod memory;
mod other;
pub mod owner;

use limits::Limits;
use owner::Owner;

/// Who makes the cgroup (`--cgroup-manager`, `--systemd-cgroup`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The runtime itself, by mkdir and write.
    #[default]
    Cgroupfs,
    /// systemd, by D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// What the caller of the runtime said, beside the config.
#[derive(Clone, Copy, Debug)]
pub struct CgroupRequest<'a> {
    /// The container's id, the name of its cgroup when the config names none.
    pub id: &'a str,
    /// Who makes the cgroup.
    pub driver: Driver,
    /// Without root's power over cgroups (`--rootless`): a refused mkdir is tolerated where no limit and no
    /// path was asked for.
    pub rootless: bool,
    /// The runtime itself runs in a user namespace: device rules cannot be set there and are left out.
    pub in_userns: bool,
    /// The config is older than 1.3.0, which made 0 a limit of processes: podman before 5.4 writes 0 for
    /// "no limit", and every runtime of that time left it alone.
    pub pids_zero_is_unset: bool,
}

/// v1 or v2: which file names and which ways of entering a directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// cgroup v1.
    #[serde(rename = "1")]
    V1,
    /// cgroup v2.
    #[serde(rename = "2")]
    V2,
}

/// The container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDir {
    /// Of which kind the hierarchy is.
    pub version: Version,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The container's cgroup relative to `mount`, without a leading slash and without `..`.
    pub path: PathBuf,
    /// v1: the hierarchy's controllers. v2: those to enable for this cgroup in its ancestors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// False for a hierarchy that only tracks (a named one, or v2 beside v1): failing there is no error.
    pub required: bool,
    /// How many of the directories above, from the lowest up, are removed with it: those that were made for it
    /// in a hierarchy that only tracks, where no engine looks for what it has to remove.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parents_made: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// When a write is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the container's first process exists.
    BeforeStart,
    /// When its set-up is done: a limit that could bite the set-up itself.
    AfterSetup,
}

/// What to do when the file is not there (`ENOENT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Fail,
    /// The kernel behaves as asked without it.
    Skip,
    /// Write this value to this file.
    Instead(&'static str, String),
}

/// What to do when the kernel says `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It is an error.
    Fail,
    /// The value may contradict one that the next write changes: write it once more after that.
    Again,
}

/// What to do when the kernel says `EPERM`, `EACCES` or `EROFS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is an error.
    Fail,
    /// Without privilege this write is not expected to work.
    Skip,
}

/// One write into one cgroup file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index into [`CgroupPlan::dirs`].
    pub dir: usize,
    /// The controller as users know it, for messages: `memory`, `pids`.
    pub controller: Cow<'static, str>,
    /// The file, one name.
    pub file: Cow<'static, str>,
    /// What is written, in one `write(2)`.
    pub value: String,
    /// The config field it comes from.
    pub field: Field,
    /// When it is due.
    pub when: When,
    /// On `ENOENT`.
    pub missing: Missing,
    /// On `EINVAL`.
    pub invalid: Invalid,
    /// On `EPERM`, `EACCES`, `EROFS`.
    pub denied: Denied,
}

/// The v2 device filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProgram {
    /// Index into [`CgroupPlan::dirs`].
    pub dir: usize,
    /// The program, `BPF_PROG_TYPE_CGROUP_DEVICE`.
    pub program: Vec<Insn>,
    /// The rules it was made of, one per line, for people.
    pub rules: Vec<String>,
    /// When the kernel does not let us.
    pub denied: Denied,
}

/// `memory.checkBeforeUpdate`: refuse limits at or below what is used now (v2; v1's kernel refuses itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageCheck {
    /// Index into [`CgroupPlan::dirs`].
    pub dir: usize,
    /// The new memory limit in bytes.
    pub limit: Option<u64>,
    /// The new limit of memory and swap in bytes.
    pub memory_swap: Option<u64>,
}

/// What is in force in an existing cgroup: an update keeps what it does not name, and some values are one with
/// others. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Quota in microseconds of each period; -1 for none.
    pub cpu_quota: Option<i64>,
    /// Period in microseconds.
    pub cpu_period: Option<u64>,
    /// Limit of memory in bytes; -1 for none.
    pub memory: Option<i64>,
    /// Limit of memory and swap together in bytes; -1 for none.
    pub memory_swap: Option<i64>,
    /// As in [`CgroupRequest`], of the config the container was made from.
    pub pids_zero_is_unset: bool,
}

/// The cgroup part of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupPlan {
    /// Who makes the cgroup.
    pub driver: Driver,
    /// The container's directory in each hierarchy, in the order they are made.
    pub dirs: Vec<CgroupDir>,
    /// The limits, in the order they are written.
    pub writes: Vec<Write>,
    /// The device filter of v2; v1's device rules are among `writes`.
    pub devices: Option<DeviceProgram>,
    /// Looked at before the memory limits are written.
    pub check: Option<UsageCheck>,
    /// Who gets the v2 cgroup, when not we.
    pub owner: Option<Owner>,
    /// When a directory may not be made (rootless): tolerated, or an error.
    pub denied: Option<Tolerance>,
    /// What was asked for and is left out.
    pub warnings: Vec<Warning>,
}

/// How far a rootless runtime goes without permission for cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Neither path nor limit was asked for: run without the cgroup.
    WithoutCgroup,
    /// Something was asked for that cannot be had: the error that says so.
    Explain,
}

const CGROUPS_PATH: Field = Field::named("linux.cgroupsPath");
const RESOURCES: Field = Field::named("linux.resources");

/// The plan for a new container (`config-linux.md#control-groups`).
///
/// # Errors
/// Limits that contradict each other or lack a controller, a bad `cgroupsPath`, device rules that no
/// hierarchy can enforce; each names its field.
pub fn plan(linux: Option<&Linux>, facts: &Hierarchies, request: &CgroupRequest<'_>) -> Result<CgroupPlan> {
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let asked = linux.and_then(|linux| linux.cgroups_path().as_deref());
    match request.driver {
        Driver::Cgroupfs => {}
        Driver::Systemd => return Err(systemd(asked)),
        Driver::Disabled => return Ok(disabled(resources)),
    }
    let mut warnings = Vec::new();
    let dirs = dirs(asked, facts, request.id, &mut warnings)?;
    let mut limits = Limits::new(dirs, facts);
    limits.pids_zero_is_unset = request.pids_zero_is_unset;
    if let Some(resources) = resources {
        limits.resources(resources)?;
    }
    let asked_limits = !limits.writes.is_empty();
    let devices = devices::plan(linux, &mut limits, request)?;
    limits.warnings.splice(0..0, warnings);
    let denied = request.rootless.then_some(match (asked, asked_limits) {
        (None, false) => Tolerance::WithoutCgroup,
        _ => Tolerance::Explain,
    });
    Ok(limits.finish(devices, denied))
}

/// The plan for `update`: the limits of `resources` on the container's existing cgroup, in which `now` is in
/// force. Device rules are left alone, so that rules added by GPU tooling survive.
///
/// # Errors
/// As [`plan`].
pub fn plan_update(
    resources: &LinuxResources,
    dirs: Vec<CgroupDir>,
    facts: &Hierarchies,
    now: InForce,
) -> Result<CgroupPlan> {
    let mut limits = Limits::new(dirs, facts);
    limits.now = Some(now);
    limits.pids_zero_is_unset = now.pids_zero_is_unset;
    limits.resources(resources)?;
    Ok(limits.finish(None, None))
}

fn systemd(asked: Option<&Path>) -> Error {
    let path = asked.unwrap_or(Path::new("")).to_string_lossy();
    if !path.is_empty() && path.split(':').count() != 3 {
        let text = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got";
        return Error::new(ErrorKind::CgroupsPath, format!("{text} \"{path}\" instead")).field(CGROUPS_PATH);
    }
    Error::new(ErrorKind::CgroupDriver, "the systemd cgroup driver is not yet supported")
        .hint("remove --systemd-cgroup, or use --cgroup-manager cgroupfs")
}

fn disabled(resources: Option<&LinuxResources>) -> CgroupPlan {
    let limited = resources.is_some_and(|r| {
        let asked = (r.memory().is_some(), r.cpu().is_some(), r.pids().is_some(), r.block_io().is_some());
        asked != (false, false, false, false) || r.unified().is_some() || r.hugepage_limits().is_some()
    });
    let text = "cgroups are disabled (--cgroup-manager disabled): limits are ignored";
    let warnings = if limited {
        vec![Warning::new(ErrorKind::CgroupDisabled, text).field(RESOURCES)]
    } else {
        Vec::new()
    };
    CgroupPlan { driver: Driver::Disabled, warnings, ..CgroupPlan::default() }
}

/// One directory per hierarchy. A required hierarchy comes before the ones that only track.
fn dirs(
    asked: Option<&Path>,
    facts: &Hierarchies,
    id: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<CgroupDir>> {
    let asked = cgroups_path(asked, id, warnings)?;
    if facts.mode == Mode::Absent {
        let text = "no cgroup hierarchy is mounted: the container runs without one";
        warnings.push(Warning::new(ErrorKind::CgroupAbsent, text));
    }
    let mut dirs: Vec<_> = facts.v1.iter().map(|hierarchy| v1_dir(hierarchy, &asked)).collect();
    dirs.extend(facts.v2.iter().map(|hierarchy| v2_dir(hierarchy, &asked, facts.mode)));
    dirs.sort_by_key(|dir| !dir.required);
    Ok(dirs)
}

fn v1_dir(hierarchy: &V1Hierarchy, asked: &CgroupsPath) -> CgroupDir {
    CgroupDir {
        version: Version::V1,
        mount: hierarchy.mount.clone(),
        path: asked.below(&hierarchy.own),
        controllers: hierarchy.controllers.clone(),
        required: hierarchy.name.is_none(),
        parents_made: 0,
    }
}

fn v2_dir(hierarchy: &V2Hierarchy, asked: &CgroupsPath, mode: Mode) -> CgroupDir {
    let unified = mode == Mode::Unified;
    // Our own cgroup has us in it, and a v2 cgroup with processes cannot give controllers to children: the
    // container's lies beside it. Beside v1, no controllers are given and runc puts it below.
    let base = if unified { hierarchy.own.parent().unwrap_or(Path::new("")) } else { &hierarchy.own };
    CgroupDir {
        version: Version::V2,
        mount: hierarchy.mount.clone(),
        path: asked.below(base),
        // All of them, as runc does: statistics and events come from enabled controllers only.
        controllers: if unified { hierarchy.controllers.clone() } else { Vec::new() },
        required: unified,
        parents_made: 0,
    }
}

/// `linux.cgroupsPath` without `.` and `..`: from the hierarchy's root, or below our own cgroup.
enum CgroupsPath {
    Absolute(PathBuf),
    Relative(PathBuf),
}

impl CgroupsPath {
    fn below(&self, base: &Path) -> PathBuf {
        match self {
            Self::Absolute(path) => path.clone(),
            Self::Relative(path) => base.join(path),
        }
    }
}

fn cgroups_path(asked: Option<&Path>, id: &str, warnings: &mut Vec<Warning>) -> Result<CgroupsPath> {
    let Some(asked) = asked.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(CgroupsPath::Relative(clean(Path::new(id))));
    };
    let text = asked.to_string_lossy();
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::CgroupsPath, "cgroupsPath contains a NUL byte").field(CGROUPS_PATH));
    }
    if text.split(':').count() == 3 && text.split(':').next().is_some_and(|slice| slice.ends_with(".slice")) {
        let text = format!("cgroupsPath \"{text}\" has the form of the systemd driver, which is not in use");
        let hint = "the string is used as a plain path; is --systemd-cgroup missing?";
        warnings.push(Warning::new(ErrorKind::CgroupsPathSystemd, text).field(CGROUPS_PATH).hint(hint));
    }
    let cleaned = clean(asked);
    Ok(if asked.is_absolute() { CgroupsPath::Absolute(cleaned) } else { CgroupsPath::Relative(cleaned) })
}

/// Lexically, and never above the top: `/a/../../b` is `b`.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::new(), |mut cleaned, part| {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
        cleaned
    })
}

impl fmt::Display for CgroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for dir in &self.dirs {
            writeln!(f, "{dir}")?;
        }
        if let Some(check) = &self.check {
            writeln!(f, "check usage limit={:?} memory+swap={:?}", check.limit, check.memory_swap)?;
        }
        for write in &self.writes {
            writeln!(f, "{write}")?;
        }
        if let Some(devices) = &self.devices {
            writeln!(f, "devices program of {} instructions", devices.program.len())?;
            for rule in &devices.rules {
                writeln!(f, "  {rule}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for CgroupDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.version {
            Version::V1 => "cgroup",
            Version::V2 => "cgroup2",
        };
        write!(f, "{version} {}", self.mount.join(&self.path).display())?;
        if self.version == Version::V2 && !self.controllers.is_empty() {
            write!(f, " +{}", self.controllers.join(" +"))?;
        }
        f.write_str(if self.required { "" } else { " (tracking only)" })
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {} {:?}", self.file, self.value)?;
        if self.when == When::AfterSetup {
            f.write_str(" after-setup")?;
        }
        match &self.missing {
            Missing::Fail => {}
            Missing::Skip => f.write_str(" missing=skip")?,
            Missing::Instead(file, value) => write!(f, " missing={file}:{value:?}")?,
        }
        if self.invalid == Invalid::Again {
            f.write_str(" invalid=again")?;
        }
        if self.denied == Denied::Skip {
            f.write_str(" denied=skip")?;
        }
        write!(f, "  # {}", self.field)
    }
}

#[cfg(test)]
mod tests;
