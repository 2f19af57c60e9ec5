//! The rule on `linux.sysctl`: only keys of namespaces the container has or joins, spelled so that no other file can
//! be meant (CVE-2022-0811). It reads the config only: whether a joined one is the host's is seen when it is opened; `apply` writes below a procfs of its own. `check` calls it.

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::{Namespaces, refuse};
use crate::error::{Error, ErrorKind, Field, Result};
use crate::spec::warnings::short;

pub(super) fn check(linux: &Linux, owned: Namespaces) -> Result<()> {
    let mut keys: Vec<_> = linux.sysctl().iter().flatten().collect();
    keys.sort();
    for (key, value) in keys {
        check_key(key, owned).map_err(|error| {
            let message = short(error.message.clone());
            Error { message, ..error }.field(Field::entry("linux.sysctl", key))
        })?;
        if value.contains('\n') && value.trim_end_matches('\n').contains('\n') {
            let field = Field::entry("linux.sysctl", key);
            return Err(refuse(
                ErrorKind::SysctlValue,
                field,
                format!("sysctl {key:?} has a multi-line value"),
            ));
        }
    }
    Ok(())
}

pub use hull_sys::namespace::{is_ipc_sysctl as is_ipc_key, is_network_sysctl as is_network_key};

fn check_key(key: &str, owned: Namespaces) -> Result<()> {
    let plain = key.split('.').all(|part| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'@' | b':'))
    });
    if !plain {
        return Err(Error::new(ErrorKind::SysctlKey, format!("sysctl {key:?} is not a dotted name"))
            .hint("write it like net.ipv4.ip_forward"));
    }
    if is_ipc_key(key) {
        return require(owned, LinuxNamespaceType::Ipc, || {
            format!("sysctl {key:?} is not allowed in the hosts ipc namespace")
        });
    }
    if is_network_key(key) {
        return require(owned, LinuxNamespaceType::Network, || {
            format!("sysctl {key:?} not allowed in host network namespace")
        });
    }
    if owned.has(LinuxNamespaceType::Uts) {
        match key {
            "kernel.domainname" => return Ok(()),
            "kernel.hostname" => {
                let message =
                    format!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field");
                return Err(Error::new(ErrorKind::SysctlNotNamespaced, message).hint("use hostname"));
            }
            _ => {}
        }
    }
    Err(Error::new(
        ErrorKind::SysctlNotNamespaced,
        format!("sysctl {key:?} is not in a separate kernel namespace"),
    ))
}

fn require(owned: Namespaces, kind: LinuxNamespaceType, message: impl FnOnce() -> String) -> Result<()> {
    if owned.has(kind) { Ok(()) } else { Err(Error::new(ErrorKind::SysctlNotNamespaced, message())) }
}
