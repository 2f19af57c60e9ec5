//! From the spec, the facts about the host and the request to a plan: one pure function. A plan is data in
//! the kernel's terms that `launch` and `apply` carry out without deciding anything, and that `hull plan`
//! prints. Nothing in this folder does I/O, reads the environment or the clock.

#![deny(clippy::disallowed_methods)]

pub mod caps;
pub mod cgroup;
pub mod devices;
pub mod hooks;
pub mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod path;
pub mod process;
pub mod rootfs;
pub mod scheduler;
pub mod seccomp;
pub mod text;

use std::ffi::CString;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{Error, ErrorKind, Field, Result, Warning};
use crate::host::Facts;

/// One kernel parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Sysctl {
    /// Its file below `/proc`.
    pub path: CString,
    /// What is written.
    pub value: String,
    /// The config field.
    pub field: Field,
}

/// All that `create` does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Namespaces.
    pub namespaces: namespaces::NamespacePlan,
    /// cgroups.
    pub cgroup: cgroup::CgroupPlan,
    /// File systems.
    pub rootfs: rootfs::RootfsPlan,
    /// Host name, in an own uts namespace.
    pub hostname: Option<String>,
    /// NIS domain name, in an own uts namespace.
    pub domainname: Option<String>,
    /// Kernel parameters.
    pub sysctl: Vec<Sysctl>,
    /// The name of the session keyring to join.
    pub keyring: Option<CString>,
    /// `personality(2)`.
    pub personality: Option<u64>,
    /// The process.
    pub process: process::ProcessPlan,
    /// The system call filter.
    pub seccomp: Option<hull_seccomp::Compiled>,
    /// Hooks.
    pub hooks: hooks::HooksPlan,
    /// What is done only in part, or not at all, with the field that asked for it.
    pub warnings: Vec<Warning>,
}

/// What the command line adds to the spec.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The container's id.
    pub id: String,
    /// The bundle directory, absolute.
    pub bundle: String,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// `--rootless`: no power over cgroups is expected; `None` tells by who we are.
    pub rootless: Option<bool>,
    /// Which cgroup driver was asked for.
    pub driver: cgroup::Driver,
    /// The host directory that holds the notify socket, when the caller gave one.
    pub notify_dir: Option<String>,
    /// Descriptors from 3 on that were handed over by socket activation.
    pub listen_fds: u32,
    /// Descriptors after those that are passed on.
    pub preserve_fds: u32,
}

impl Plan {
    /// Whether init waits for the parent to write id maps.
    pub fn needs_maps(&self) -> bool {
        self.namespaces.has(LinuxNamespaceType::User)
            && (self.namespaces.ids.is_some() || self.rootfs.needs_own_user_namespace())
    }
}

/// Computes the plan of `create` for a spec that `spec::check` has passed.
///
/// # Errors
/// The first thing that cannot be done, with its field.
pub fn create(spec: &Spec, facts: &Facts, request: &Request) -> Result<Plan> {
    let mut warnings = Vec::new();
    // The last guard: `spec::check` has refused a config without them.
    let missing = |kind, name| Error::new(kind, "is required").field(Field::named(name));
    let linux = spec.linux().as_ref().ok_or_else(|| missing(ErrorKind::MountNamespaceMissing, "linux"))?;
    let process = spec.process().as_ref().ok_or_else(|| missing(ErrorKind::ProcessMissing, "process"))?;
    refuse_unsupported(linux)?;
    process::plan_label(linux.mount_label(), Field::named("linux.mountLabel"), "SELinux", facts.selinux)?;
    let namespaces = namespaces::plan(spec, linux, facts.euid, facts.egid)?;
    let mut cgroup = cgroup::plan(
        Some(linux),
        &facts.cgroup,
        &cgroup::CgroupRequest {
            id: &request.id,
            driver: request.driver,
            rootless: request.rootless.unwrap_or(facts.euid != 0 || facts.in_user_namespace),
            in_userns: facts.in_user_namespace,
            pids_zero_is_unset: !crate::spec::check::is_since(spec.version(), (1, 3)),
        },
    )?;
    cgroup.owner = cgroup::owner::plan(spec, facts, &namespaces);
    warnings.extend(cgroup.warnings.iter().cloned());
    let wanted = rootfs::Request {
        bundle: &request.bundle,
        no_pivot: request.no_pivot,
        notify_dir: request.notify_dir.as_deref(),
    };
    let rootfs = rootfs::plan(spec, facts, wanted, &cgroup)?;
    warnings.extend(rootfs.warnings.iter().cloned());
    let user_namespace = namespaces.has(LinuxNamespaceType::User);
    let annotation = |name: &str| spec.annotations().as_ref().and_then(|all| all.get(name));
    let keep_groups = annotation("run.oci.keep_original_groups").is_some_and(|value| value == "1");
    let mut process = process::plan(process, facts, user_namespace, keep_groups, &mut warnings)?;
    add_environment(&mut process, request)?;
    let compile = |profile| seccomp::plan(profile, process.no_new_privs);
    let (seccomp, remarks) = linux.seccomp().as_ref().map(compile).transpose()?.unzip();
    warnings.extend(remarks.into_iter().flatten());
    Ok(Plan {
        namespaces,
        cgroup,
        rootfs,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        sysctl: plan_sysctl(linux)?,
        keyring: if request.no_new_keyring {
            None
        } else {
            Some(path::c_string(&format!("_ses.{}", request.id))?)
        },
        personality: plan_personality(linux),
        process,
        seccomp,
        hooks: hooks::plan(spec.hooks().as_ref())?,
        warnings,
    })
}

/// What a later version will do is refused by name now, never ignored.
fn refuse_unsupported(linux: &oci_spec::runtime::Linux) -> Result<()> {
    let refuse = |name: &'static str| {
        Err(Error::new(ErrorKind::NotYetSupported, "is not yet supported by this version of hull")
            .field(Field::named(name)))
    };
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return refuse("linux.netDevices");
    }
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt");
    }
    if linux.memory_policy().is_some() {
        return refuse("linux.memoryPolicy");
    }
    Ok(())
}

/// The variables that hand descriptors and the notify socket on (`sd_listen_fds(3)`, `sd_notify(3)`).
fn add_environment(process: &mut process::ProcessPlan, request: &Request) -> Result<()> {
    let mut set = |name: &str, value: String| -> Result<()> {
        let prefix = format!("{name}=");
        process.env.retain(|one| !one.as_bytes().starts_with(prefix.as_bytes()));
        process.env.push(path::c_string(&format!("{prefix}{value}"))?);
        Ok(())
    };
    if request.listen_fds > 0 {
        set("LISTEN_FDS", request.listen_fds.to_string())?;
        set("LISTEN_PID", "1".to_owned())?;
    }
    if request.notify_dir.is_some() {
        set("NOTIFY_SOCKET", "/run/notify/notify.sock".to_owned())?;
    }
    Ok(())
}

fn plan_sysctl(linux: &oci_spec::runtime::Linux) -> Result<Vec<Sysctl>> {
    let mut list: Vec<(&String, &String)> = linux.sysctl().iter().flatten().collect();
    list.sort();
    list.into_iter()
        .map(|(key, value)| {
            let field = Field::entry("linux.sysctl", key);
            let path = path::c_string(&sysctl_path(key)).map_err(|error| error.field(field.clone()))?;
            Ok(Sysctl { path, value: value.clone(), field })
        })
        .collect()
}

/// The file of a key below `/proc`; `spec::check` has refused keys with a slash.
fn sysctl_path(key: &str) -> String {
    format!("sys/{}", key.replace('.', "/"))
}

fn plan_personality(linux: &oci_spec::runtime::Linux) -> Option<u64> {
    use oci_spec::runtime::LinuxPersonalityDomain as Domain;
    linux.personality().as_ref().map(|personality| match personality.domain() {
        Domain::PerLinux => 0x0000,
        Domain::PerLinux32 => 0x0008,
    })
}
