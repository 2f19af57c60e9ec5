//! The rules of the runtime spec that config.json decides alone, before anything of the host is looked at.
//! It may not touch the host, and it changes nothing: a rule passes, warns or refuses. `cli` calls it after `load`.

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Process, Spec};

use super::warnings::short;
use crate::error::{Error, ErrorKind, Field, Result, Warning};

mod at;
mod devices;
mod hooks;
mod ids;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod sysctl;
mod version;

pub use sysctl::{is_ipc_key, is_network_key};
pub use version::is_since;

/// Every rule on a whole config.json; the first violation is the error.
pub fn check(spec: &Spec) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    version::check(spec.version(), &mut warnings)?;
    let Some(process) = spec.process() else {
        return Err(refuse(
            ErrorKind::ProcessMissing,
            Field::named("process"),
            "process property must not be empty",
        ));
    };
    process::check(process, &mut warnings)?;
    root(spec)?;
    // Without a `linux` section there is no namespace: the rule on mount namespaces answers for it.
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let owned = namespaces::check(namespaces)?;
    names(spec, owned)?;
    mounts::check(spec.mounts().as_deref().unwrap_or_default(), owned)?;
    hooks::check(spec.hooks().as_ref())?;
    if let Some(linux) = linux {
        self::linux(spec, linux, owned, &mut warnings)?;
    }
    Ok(warnings)
}

/// The rules on a process, for the process.json of `exec`.
pub fn check_process(process: &Process) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    process::check(process, &mut warnings)?;
    Ok(warnings)
}

/// The rules on resources, for the file of `update --resources`.
pub fn check_resources(resources: &LinuxResources) -> Result<()> {
    resources::check(resources)
}

fn linux(spec: &Spec, linux: &Linux, owned: Namespaces, warnings: &mut Vec<Warning>) -> Result<()> {
    ids::check(linux, owned)?;
    namespaces::check_time(linux, owned)?;
    namespaces::check_net_devices(linux, owned)?;
    sysctl::check(linux, owned)?;
    devices::check(linux)?;
    paths(linux)?;
    if let Some(resources) = linux.resources() {
        resources::check(resources)?;
    }
    if let Some(seccomp) = linux.seccomp() {
        seccomp::check(seccomp, spec.annotations().as_ref())?;
    }
    if let Some(personality) = linux.personality()
        && personality.flags().as_ref().is_some_and(|flags| !flags.is_empty())
    {
        let field = Field::named("linux.personality.flags");
        warnings.push(refuse(
            ErrorKind::PersonalityFlags,
            field,
            "the spec defines no personality flags: they are ignored",
        ));
    }
    Ok(())
}

/// The namespaces a config asks for, and which of them are new.
#[derive(Clone, Copy, Debug, Default)]
struct Namespaces {
    asked: u32,
    joined: u32,
}

impl Namespaces {
    /// New or joined: not the caller's own.
    fn has(self, kind: LinuxNamespaceType) -> bool {
        self.asked & bit(kind) != 0
    }

    /// New.
    fn makes(self, kind: LinuxNamespaceType) -> bool {
        self.has(kind) && self.joined & bit(kind) == 0
    }
}

fn bit(kind: LinuxNamespaceType) -> u32 {
    // The enum's numbers are the clone(2) flags: one bit each.
    kind as u32
}

fn refuse(kind: ErrorKind, at: impl Into<Field>, message: impl Into<String>) -> Error {
    Error::new(kind, short(message.into())).field(at.into())
}

fn root(spec: &Spec) -> Result<()> {
    match spec.root() {
        None => Err(refuse(ErrorKind::RootMissing, Field::named("root"), "root must be specified")),
        // runc takes the bundle itself for the root: config.json and log would be inside the container.
        Some(root) if root.path().as_os_str().is_empty() => {
            Err(refuse(ErrorKind::RootPathEmpty, Field::named("root.path"), "root path must not be empty"))
        }
        Some(_) => Ok(()),
    }
}

/// `utsname(2)`: 64 bytes.
const MAX_HOSTNAME: usize = 64;

fn names(spec: &Spec, owned: Namespaces) -> Result<()> {
    for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        let field = Field::named(name);
        if !owned.has(LinuxNamespaceType::Uts) {
            let message = format!("unable to set {name} without a private UTS namespace");
            return Err(refuse(ErrorKind::UtsNamespaceMissing, field, message)
                .hint("add {\"type\": \"uts\"} to linux.namespaces"));
        }
        if value.len() > MAX_HOSTNAME {
            let message =
                format!("{name} has {} bytes, and the kernel accepts at most {MAX_HOSTNAME}", value.len());
            return Err(refuse(ErrorKind::HostnameTooLong, field, message));
        }
        if value.chars().any(char::is_control) {
            let message = format!("{name} {value:?} contains a control character");
            return Err(refuse(ErrorKind::HostnameControl, field, message));
        }
    }
    Ok(())
}

/// `NAME_MAX`, and what leaves room for the hierarchy and a file below `PATH_MAX`.
const MAX_NAME: usize = 255;
const MAX_CGROUPS_PATH: usize = 3584;

/// The values runc takes for `linux.rootfsPropagation`.
const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

fn paths(linux: &Linux) -> Result<()> {
    for (name, paths) in
        [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())]
    {
        for (index, path) in paths.iter().flatten().enumerate() {
            if !path.starts_with('/') {
                let message = format!("path {path:?} must be absolute");
                return Err(refuse(ErrorKind::PathRelative, Field::item(name, index), message));
            }
        }
    }
    if let Some(propagation) = linux.rootfs_propagation()
        && !propagation.is_empty()
        && !PROPAGATIONS.contains(&propagation.as_str())
    {
        let message = format!("rootfsPropagation={propagation} is not supported");
        return Err(refuse(ErrorKind::PropagationUnknown, Field::named("linux.rootfsPropagation"), message)
            .hint(format!("must be one of {}", PROPAGATIONS.join(", "))));
    }
    if let Some(path) = linux.cgroups_path()
        && path.components().any(|part| part == std::path::Component::ParentDir)
    {
        let message = format!("cgroupsPath {} contains `..`", path.display());
        return Err(refuse(ErrorKind::CgroupsPath, Field::named("linux.cgroupsPath"), message));
    }
    if let Some(path) = linux.cgroups_path() {
        let bytes = path.as_os_str().len();
        let longest = path.components().map(|part| part.as_os_str().len()).max().unwrap_or(0);
        if bytes > MAX_CGROUPS_PATH || longest > MAX_NAME {
            let message = format!(
                "cgroupsPath has {bytes} bytes and its longest component {longest}: at most {MAX_CGROUPS_PATH} and {MAX_NAME} are allowed"
            );
            return Err(refuse(ErrorKind::CgroupsPath, Field::named("linux.cgroupsPath"), message));
        }
    }
    if let Some(rdt) = linux.intel_rdt()
        && let Some(id) = rdt.clos_id()
        && (id == "." || id == ".." || id.contains('/'))
    {
        return Err(refuse(
            ErrorKind::IntelRdtClosId,
            Field::named("linux.intelRdt.closID"),
            format!("invalid intelRdt.ClosID {id:?}"),
        ));
    }
    Ok(())
}
