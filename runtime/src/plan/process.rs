//! The process that runs in a container, in the kernel's terms: who it is, what it may do, what it is held
//! to, and what is executed. Pure; used for a container's init and for `exec`; carried out by
//! `apply::process`.

use std::ffi::CString;

use hull_sys::cred::Caps;
use hull_sys::limits::{Limit, Scheduler};
use oci_spec::runtime::Process;

use super::caps;
use super::path::{InRoot, c_string};
use crate::error::{Error, ErrorKind, Field, Result, Warning};
use crate::host::Facts;

/// Where a program is looked for when the container's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The capability sets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapsPlan {
    /// What stays in the bounding set.
    pub bounding: u64,
    /// The three sets of `capset(2)`.
    pub sets: Caps,
    /// The ambient set.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq)]
pub struct RlimitPlan {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// The values.
    pub limit: Limit,
    /// The config field.
    pub field: Field,
}

/// A terminal for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalPlan {
    /// Its first size.
    pub size: Option<hull_sys::tty::Size>,
}

/// The process.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessPlan {
    /// Arguments, the program's name first.
    pub args: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
    /// Whether `HOME` must be found in the container's passwd file.
    pub find_home: bool,
    /// The files to try, in order, for the program.
    pub candidates: Vec<CString>,
    /// Working directory.
    pub cwd: InRoot,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups; `None` keeps those of the caller.
    pub groups: Option<Vec<u32>>,
    /// `umask(2)`.
    pub umask: u32,
    /// Capabilities.
    pub caps: CapsPlan,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Resource limits, in the order of the spec.
    pub rlimits: Vec<RlimitPlan>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile to change to at exec.
    pub apparmor: Option<CString>,
    /// The SELinux label to change to at exec.
    pub selinux: Option<CString>,
    /// `sched_setattr(2)`.
    pub scheduler: Option<Scheduler>,
    /// `ioprio_set(2)`.
    pub io_priority: Option<u32>,
    /// Its terminal.
    pub terminal: Option<TerminalPlan>,
}

impl ProcessPlan {
    /// Whether a security module is asked for a label.
    pub fn has_labels(&self) -> bool {
        self.apparmor.is_some() || self.selinux.is_some()
    }
}

/// Computes the process; `warnings` takes what is granted only in part.
///
/// # Errors
/// What this host cannot do at all, with its field.
pub fn plan(
    process: &Process,
    facts: &Facts,
    user_namespace: bool,
    keep_groups: bool,
    warnings: &mut Vec<Warning>,
) -> Result<ProcessPlan> {
    let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
        list.iter().flatten().map(|text| c_string(text)).collect()
    };
    let args = strings(process.args())?;
    let cwd = InRoot::new(process.cwd().to_string_lossy())?;
    let user = process.user();
    let size = process.console_size().map(|size| hull_sys::tty::Size {
        rows: u16::try_from(size.height()).unwrap_or(u16::MAX),
        columns: u16::try_from(size.width()).unwrap_or(u16::MAX),
    });
    let env = environment(process);
    let groups = user.additional_gids().clone().unwrap_or_default();
    Ok(ProcessPlan {
        candidates: candidates(process, &cwd)?,
        args,
        find_home: !env.iter().any(|one| one.starts_with("HOME=")),
        env: env.into_iter().map(c_string).collect::<Result<_>>()?,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups: (!keep_groups || !groups.is_empty()).then_some(groups),
        umask: user.umask().unwrap_or(0o022),
        caps: plan_caps(process, facts, user_namespace, warnings),
        no_new_privs: process.no_new_privileges() == Some(true),
        rlimits: plan_rlimits(process, facts, warnings),
        oom_score_adj: process.oom_score_adj().map(|wanted| plan_oom_score(wanted, facts, warnings)),
        apparmor: plan_label(
            process.apparmor_profile(),
            Field::named("process.apparmorProfile"),
            "AppArmor",
            facts.apparmor,
        )?,
        selinux: plan_label(
            process.selinux_label(),
            Field::named("process.selinuxLabel"),
            "SELinux",
            facts.selinux,
        )?,
        scheduler: super::scheduler::plan(process)?,
        io_priority: super::scheduler::plan_io_priority(process)?,
        terminal: (process.terminal() == Some(true)).then_some(TerminalPlan { size }),
    })
}

/// The variables, each once: of equal names the last counts. An empty HOME is none, and looked up.
fn environment(process: &Process) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    let all = process.env().iter().flatten().map(String::as_str).rev();
    let mut kept: Vec<&str> = all
        .filter(|one| *one != "HOME=")
        .filter(|one| one.split_once('=').is_none_or(|(name, _)| seen.insert(name)))
        .collect();
    kept.reverse();
    kept
}

/// The files that may be meant by `args[0]`: itself when it has a slash, else one for each absolute part of
/// PATH.
fn candidates(process: &Process, cwd: &InRoot) -> Result<Vec<CString>> {
    let Some(program) = process.args().iter().flatten().next() else { return Ok(Vec::new()) };
    if program.starts_with('/') {
        return Ok(vec![c_string(program)?]);
    }
    if program.contains('/') {
        return Ok(vec![c_string(&format!("{cwd}/{program}"))?]);
    }
    if program.is_empty() {
        return Ok(Vec::new());
    }
    let path = process.env().iter().flatten().rev().find_map(|one| one.strip_prefix("PATH="));
    // An empty or relative part means the working directory: a program there was not meant by its bare name.
    let dirs = path.unwrap_or(DEFAULT_PATH).split(':').filter(|dir| dir.starts_with('/'));
    dirs.map(|dir| c_string(&format!("{dir}/{program}"))).collect()
}

/// What of the wanted capabilities this process can hand on. The spec asks that one which cannot be granted
/// is logged, not failed on (`config.md#linux-process`).
fn plan_caps(
    process: &Process,
    facts: &Facts,
    user_namespace: bool,
    warnings: &mut Vec<Warning>,
) -> CapsPlan {
    let Some(wanted) = process.capabilities() else {
        return CapsPlan::default();
    };
    let known = (1_u64 << facts.last_cap << 1).wrapping_sub(1);
    let grantable = known & if user_namespace { u64::MAX } else { facts.bounding & facts.permitted };
    let mut refused = 0;
    let mut take = |set: &Option<oci_spec::runtime::Capabilities>| {
        let bits = caps::bits(set.as_ref());
        refused |= bits & !grantable;
        bits & grantable
    };
    let bounding = take(wanted.bounding());
    let permitted = take(wanted.permitted());
    let effective = take(wanted.effective()) & permitted;
    // The kernel takes nothing into the inheritable set that the bounding set does not have.
    let inheritable = take(wanted.inheritable()) & bounding;
    // The kernel raises an ambient capability only when it is permitted and inheritable.
    let ambient = take(wanted.ambient()) & permitted & inheritable;
    if refused != 0 {
        let names = caps::names(refused).join(", ");
        let message =
            format!("{names} cannot be granted: hull does not have it itself; the container runs without it");
        warnings.push(
            Warning::new(ErrorKind::CapabilityNotGrantable, message)
                .hint("run the engine with the capability, or remove it from the config")
                .field(Field::named("process.capabilities")),
        );
    }
    CapsPlan { bounding, sets: Caps { effective, permitted, inheritable }, ambient }
}

/// The limits, lowered to the hard limit of this process where it may not raise it.
fn plan_rlimits(process: &Process, facts: &Facts, warnings: &mut Vec<Warning>) -> Vec<RlimitPlan> {
    let may_raise = facts.effective >> caps::SYS_RESOURCE & 1 == 1;
    let mut plans = Vec::new();
    for (index, wanted) in process.rlimits().iter().flatten().enumerate() {
        let field = Field::item("process.rlimits", index);
        let resource = crate::host::rlimit_number(wanted.typ());
        let mut limit = Limit { soft: wanted.soft(), hard: wanted.hard() };
        let ceiling = facts.hard_limit(resource);
        if !may_raise && limit.hard > ceiling {
            let message = format!(
                "{} cannot be raised to {}: the hard limit here is {ceiling} and raising it needs CAP_SYS_RESOURCE; \
                 the container gets {ceiling}",
                wanted.typ(),
                limit.hard,
            );
            warnings.push(
                Warning::new(ErrorKind::RlimitAboveHard, message)
                    .hint(format!("request at most {ceiling}, or raise the limit of the engine"))
                    .field(field.clone()),
            );
            limit = Limit { soft: limit.soft.min(ceiling), hard: ceiling };
        }
        plans.push(RlimitPlan { resource, limit, field });
    }
    plans
}

/// Lowering the score below our own needs `CAP_SYS_RESOURCE`: it is clamped to what is allowed.
fn plan_oom_score(wanted: i32, facts: &Facts, warnings: &mut Vec<Warning>) -> i32 {
    let floor = facts.oom_floor;
    if wanted >= floor || facts.effective >> caps::SYS_RESOURCE & 1 == 1 {
        return wanted;
    }
    let message = format!(
        "{wanted} cannot be set: lowering it below {floor} needs CAP_SYS_RESOURCE; the container gets {floor}"
    );
    warnings.push(
        Warning::new(ErrorKind::OomScoreNotAllowed, message)
            .hint("run the engine with CAP_SYS_RESOURCE, or request a higher value")
            .field(Field::named("process.oomScoreAdj")),
    );
    floor
}

/// A label of a security module; one that is not there must not be dropped in silence.
pub fn plan_label(
    label: &Option<String>,
    field: Field,
    module: &str,
    active: bool,
) -> Result<Option<CString>> {
    let Some(label) = label.as_deref().filter(|label| !label.is_empty()) else { return Ok(None) };
    if module == "AppArmor" && label == "unconfined" && !active {
        return Ok(None);
    }
    if !active {
        let message = format!("{label:?} cannot be applied: {module} is not enabled on this host");
        return Err(Error::new(ErrorKind::LsmNotEnabled, message)
            .hint(format!("enable {module}, or remove the label from the config"))
            .field(field));
    }
    c_string(label).map(Some)
}
