//! What the plan needs to know of this host, as plain data. The probes look only at what neither hooks nor
//! a container can change, and only when the spec asks for something that depends on it; they decide
//! nothing. `cli` calls [`probe`], every planner reads [`Facts`].

use hull_cgroup::Hierarchies;
use oci_spec::runtime::{PosixRlimitType, Process, Spec};

use crate::error::{Error, ErrorKind, Result, words};

/// The facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The cgroup hierarchies.
    pub cgroup: Hierarchies,
    /// Our bounding set, bit n for capability n.
    pub bounding: u64,
    /// Our permitted set.
    pub permitted: u64,
    /// Our effective set.
    pub effective: u64,
    /// The last capability the kernel knows.
    pub last_cap: u8,
    /// Our effective user id.
    pub euid: u32,
    /// Our effective group id.
    pub egid: u32,
    /// We are in a user namespace that does not map all ids to themselves.
    pub in_user_namespace: bool,
    /// AppArmor is enabled (looked at when a profile is asked for).
    pub apparmor: bool,
    /// SELinux is enabled (looked at when a label is asked for).
    pub selinux: bool,
    /// The host has /proc/kcore.
    pub kcore: bool,
    /// The lowest `oom_score_adj` that we may give, as far as one is asked for.
    pub oom_floor: i32,
    /// Our hard resource limits (looked at for those asked for): number, limit.
    pub hard_limits: Vec<(u32, u64)>,
}

impl Facts {
    /// The hard limit of this process; no limit when it was not looked at.
    pub fn hard_limit(&self, resource: u32) -> u64 {
        self.hard_limits.iter().find(|(number, _)| *number == resource).map_or(u64::MAX, |(_, hard)| *hard)
    }
}

/// Looks at the host for a container with this spec.
///
/// # Errors
/// When the kernel's own files cannot be read.
pub fn probe(spec: &Spec) -> Result<Facts> {
    let mut facts = probe_process(spec.process().as_ref())?;
    facts.cgroup = Hierarchies::of_self()?;
    let mount_label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    facts.selinux = facts.selinux || mount_label.is_some_and(|label| !label.is_empty()) && probe_selinux();
    facts.kcore = hull_sys::fs::stat_host(c"/proc/kcore").is_ok();
    Ok(facts)
}

/// Looks at what matters for one more process in a container; the cgroup facts stay empty.
///
/// # Errors
/// When the kernel's own files cannot be read.
pub fn probe_process(process: Option<&Process>) -> Result<Facts> {
    let caps =
        hull_sys::cred::caps().map_err(|errno| unreadable("the capabilities of this process", errno))?;
    let (bounding, last_cap) =
        hull_sys::cred::bounding().map_err(|errno| unreadable("the bounding set of this process", errno))?;
    let labelled = |label: &Option<String>| label.as_deref().is_some_and(|label| !label.is_empty());
    Ok(Facts {
        cgroup: Hierarchies::absent(),
        bounding,
        permitted: caps.permitted,
        effective: caps.effective,
        last_cap,
        euid: hull_sys::cred::euid(),
        egid: hull_sys::cred::egid(),
        in_user_namespace: probe_user_namespace(),
        apparmor: process.is_some_and(|p| labelled(p.apparmor_profile())) && probe_apparmor(),
        selinux: process.is_some_and(|p| labelled(p.selinux_label())) && probe_selinux(),
        kcore: false,
        oom_floor: process.and_then(|process| process.oom_score_adj()).map_or(0, probe_oom_floor),
        hard_limits: process.map(probe_hard_limits).transpose()?.unwrap_or_default(),
    })
}

fn unreadable(what: &str, errno: hull_sys::Errno) -> Error {
    Error::new(ErrorKind::HostProbe, format!("read {what}: {}", words(errno)))
}

/// Whether we are in a user namespace that does not map all ids to themselves.
pub fn probe_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // The initial user namespace maps the whole range of ids to itself.
    !map.is_empty() && map.split_ascii_whitespace().ne(["0", "0", "4294967295"])
}

fn probe_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn probe_selinux() -> bool {
    hull_sys::fs::stat_host(c"/sys/fs/selinux/enforce").is_ok()
}

/// Without CAP_SYS_RESOURCE a score may be lowered to one that somebody with it has set before, which only an
/// attempt tells: on ourselves, and taken back.
fn probe_oom_floor(wanted: i32) -> i32 {
    const OWN: &str = "/proc/self/oom_score_adj";
    let text = std::fs::read_to_string(OWN).unwrap_or_default();
    let now = text.trim().parse().unwrap_or(0);
    if wanted >= now || std::fs::write(OWN, wanted.to_string()).is_err() {
        return now;
    }
    // Raising it is always allowed.
    let _raised = std::fs::write(OWN, now.to_string()).is_ok();
    wanted
}

/// The kernel's number of a resource limit (`asm-generic/resource.h`).
pub fn rlimit_number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

fn probe_hard_limits(process: &Process) -> Result<Vec<(u32, u64)>> {
    let mut limits = Vec::new();
    for wanted in process.rlimits().iter().flatten() {
        let number = rlimit_number(wanted.typ());
        let now = hull_sys::limits::get(number).map_err(|errno| unreadable("the resource limits", errno))?;
        limits.push((number, now.hard));
    }
    Ok(limits)
}
