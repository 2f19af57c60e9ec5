//! The rules on `linux.namespaces` and on what needs a namespace of its own: clocks and network devices.
//! It reads the config only; whether the kernel has the namespace is `host`'s question. `check` calls it.

use std::collections::BTreeSet;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};

use super::at::At;
use super::{Namespaces, bit, refuse};
use crate::error::{ErrorKind, Field, Result};

const LIST: &str = "linux.namespaces";

pub(super) fn check(list: &[LinuxNamespace]) -> Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    for (index, namespace) in list.iter().enumerate() {
        let kind = namespace.typ();
        let list = At::Named(LIST);
        let at = list.index(index);
        if namespaces.has(kind) {
            return Err(refuse(
                ErrorKind::NamespaceDuplicate,
                at,
                format!("malformed spec file: duplicated ns {}", name(kind)),
            ));
        }
        namespaces.asked |= bit(kind);
        if let Some(path) = namespace.path()
            && !path.as_os_str().is_empty()
        {
            if !path.is_absolute() {
                let message = format!("namespace path {} must be absolute", path.display());
                return Err(refuse(ErrorKind::NamespacePathRelative, at.member("path"), message));
            }
            namespaces.joined |= bit(kind);
        }
    }
    if !namespaces.has(LinuxNamespaceType::Mount) {
        // Every mount of the container would be one of the host.
        return Err(refuse(
            ErrorKind::MountNamespaceMissing,
            Field::named(LIST),
            "a container needs a mount namespace",
        )
        .hint("add {\"type\": \"mount\"} to linux.namespaces"));
    }
    Ok(namespaces)
}

pub(super) fn check_time(linux: &Linux, owned: Namespaces) -> Result<()> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(());
    };
    if !owned.has(LinuxNamespaceType::Time) {
        let message = "time namespace offsets specified, but time namespace isn't enabled in the config";
        return Err(refuse(ErrorKind::TimeNamespaceMissing, Field::named("linux.timeOffsets"), message));
    }
    let mut clocks: Vec<_> = offsets.iter().collect();
    clocks.sort_by_key(|(clock, _)| *clock);
    for (clock, offset) in clocks {
        let at = Field::named("linux.timeOffsets").member(clock);
        // timens_offsets knows these two (time_namespaces(7)).
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(refuse(
                ErrorKind::TimeClockUnknown,
                at,
                format!("clock {clock:?} cannot have an offset"),
            )
            .hint("must be monotonic or boottime"));
        }
        if offset.nanosecs().unwrap_or(0) >= 1_000_000_000 {
            return Err(refuse(
                ErrorKind::TimeNanosecs,
                at.member("nanosecs"),
                "nanosecs must be below 1000000000",
            ));
        }
    }
    Ok(())
}

/// `IFNAMSIZ` without its NUL.
const MAX_DEVICE_NAME: usize = 15;

pub(super) fn check_net_devices(linux: &Linux, owned: Namespaces) -> Result<()> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
        return Ok(());
    };
    if !owned.has(LinuxNamespaceType::Network) {
        let message = "unable to move network devices without a private NET namespace";
        return Err(refuse(ErrorKind::NetNamespaceMissing, Field::named("linux.netDevices"), message));
    }
    let mut devices: Vec<_> = devices.iter().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut inside = BTreeSet::new();
    for (name, device) in devices {
        let at = Field::entry("linux.netDevices", name);
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        if let Some(bad) = [name.as_str(), new].into_iter().find(|name| !is_device_name(name)) {
            return Err(refuse(ErrorKind::NetDeviceName, at, format!("invalid network device name {bad:?}")));
        }
        if !inside.insert(new) {
            return Err(refuse(
                ErrorKind::NetDeviceName,
                at,
                format!("network device name {new:?} is given twice"),
            ));
        }
    }
    Ok(())
}

/// The kernel's rule (`dev_valid_name`).
fn is_device_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_DEVICE_NAME
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace())
}

/// The spec's word; oci-spec displays the kernel's (`mnt`).
const fn name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}
