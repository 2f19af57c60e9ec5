//! What a container would change in a namespace that it does not have for itself. The config names a namespace
//! by a path; whether that is the caller's own is only seen when it is opened, so the answer is prepared here
//! and given there (`launch::parent`). Called by `plan::namespaces`.

use oci_spec::runtime::{Linux, LinuxNamespaceType as Ns, Spec};

use crate::error::{Error, ErrorKind, Field};
use crate::spec::check::{is_ipc_key, is_network_key};

/// The error for a namespace of this kind that is the caller's own; `None` when that would do no harm.
pub(super) fn refusal(kind: Ns, spec: &Spec, linux: &Linux, field: &Field) -> Option<Error> {
    match kind {
        // All that is done to file systems would be done to the host's.
        Ns::Mount => Some(
            Error::new(ErrorKind::NamespaceOwn, "this is the mount namespace of hull itself")
                .hint("remove the path: the container needs its own mount namespace")
                .field(field.clone()),
        ),
        Ns::Network => key(linux, is_network_key).map(|(key, field)| {
            sysctl(format!("sysctl {key:?} not allowed in host network namespace"), field)
        }),
        Ns::Ipc => key(linux, is_ipc_key).map(|(key, field)| {
            sysctl(format!("sysctl {key:?} is not allowed in the hosts ipc namespace"), field)
        }),
        Ns::Uts => uts(spec, linux),
        // A hierarchy mounted from there shows all cgroups of the host.
        Ns::Cgroup => spec.mounts().iter().flatten().position(is_cgroup).map(|index| {
            Error::new(
                ErrorKind::NamespaceOwn,
                "the cgroup namespace to join is the host's: all host cgroups would be visible",
            )
            .hint("remove the namespace from linux.namespaces to share the host's")
            .field(Field::item("mounts", index))
        }),
        Ns::Pid | Ns::User | Ns::Time => None,
    }
}

fn is_cgroup(mount: &oci_spec::runtime::Mount) -> bool {
    matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
}

fn uts(spec: &Spec, linux: &Linux) -> Option<Error> {
    let names = [("hostname", spec.hostname()), ("domainname", spec.domainname())];
    if let Some((name, _)) = names.iter().find(|(_, value)| value.as_ref().is_some_and(|v| !v.is_empty())) {
        let message = format!("unable to set {name}: the UTS namespace to join is the host's");
        return Some(
            Error::new(ErrorKind::UtsNamespaceMissing, message)
                .hint("give the container its own UTS namespace")
                .field(Field::named(name)),
        );
    }
    key(linux, |key| key == "kernel.domainname")
        .map(|(key, field)| sysctl(format!("sysctl {key:?} is not in a separate kernel namespace"), field))
}

/// The first key, in order, that `is_meant` takes.
fn key(linux: &Linux, is_meant: fn(&str) -> bool) -> Option<(&str, Field)> {
    let keys = linux.sysctl().iter().flatten().map(|(key, _)| key.as_str());
    keys.filter(|key| is_meant(key)).min().map(|key| (key, Field::entry("linux.sysctl", key)))
}

fn sysctl(message: String, field: Field) -> Error {
    Error::new(ErrorKind::SysctlNotNamespaced, message)
        .hint("the namespace that the config joins is the host's")
        .field(field)
}
