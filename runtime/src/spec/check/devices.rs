//! The rules on `linux.devices` and on the device rules of the cgroup.
//! It reads the config only. `check` and `check::resources` call it.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::at::At;
use super::process::NO_ID;
use super::refuse;
use crate::error::{ErrorKind, Result};

/// Bits of a device number inside the kernel (`kdev_t.h`): more would be cut off, and the node be another device.
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

/// File type and permissions of an inode; podman sends the type along.
const MODE_BITS: u32 = 0o177_777;

pub(super) fn check(linux: &Linux) -> Result<()> {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        node(device, At::Named("linux.devices").index(index))?;
    }
    Ok(())
}

fn node(device: &LinuxDevice, at: At<'_>) -> Result<()> {
    let path = device.path();
    if !path.is_absolute() || path.file_name().is_none() {
        let message =
            format!("device path {:?} must be absolute and name a file", path.display().to_string());
        return Err(refuse(ErrorKind::DevicePath, at.member("path"), message));
    }
    if device.typ() == LinuxDeviceType::A {
        return Err(refuse(ErrorKind::DeviceType, at.member("type"), "invalid device type \"a\"")
            .hint("must be one of c, b, u, p"));
    }
    if device.typ() != LinuxDeviceType::P {
        for (name, number, max) in
            [("major", device.major(), MAX_MAJOR), ("minor", device.minor(), MAX_MINOR)]
        {
            if !(0..=max).contains(&number) {
                return Err(refuse(
                    ErrorKind::DeviceNumber,
                    at.member(name),
                    format!("{name} must be 0 to {max}, is {number}"),
                ));
            }
        }
    }
    if let Some(mode) = device.file_mode()
        && mode > MODE_BITS
    {
        return Err(refuse(
            ErrorKind::DeviceMode,
            at.member("fileMode"),
            format!("fileMode {mode:#o} has bits that are not file mode bits"),
        ));
    }
    for (name, id) in [("uid", device.uid()), ("gid", device.gid())] {
        if id == Some(NO_ID) {
            return Err(refuse(
                ErrorKind::IdInvalid,
                at.member(name),
                format!("{name} {NO_ID} is not a valid id"),
            ));
        }
    }
    Ok(())
}

/// One rule of `linux.resources.devices`; -1 is a wildcard as an absent number is.
pub(super) fn rule(rule: &LinuxDeviceCgroup, at: At<'_>) -> Result<()> {
    let access = rule.access().as_deref().unwrap_or_default();
    if access.is_empty() {
        return Err(refuse(
            ErrorKind::DeviceAccess,
            at.member("access"),
            "device access field cannot be empty",
        ));
    }
    if let Some(odd) = access.chars().find(|c| !matches!(c, 'r' | 'w' | 'm')) {
        let message = format!("device access {access:?} contains {odd:?}: only r, w and m are allowed");
        return Err(refuse(ErrorKind::DeviceAccess, at.member("access"), message));
    }
    if matches!(rule.typ(), Some(LinuxDeviceType::U | LinuxDeviceType::P)) {
        let kind = rule.typ().unwrap_or_default();
        let message = format!("invalid cgroup device type {:?}", kind.as_str());
        return Err(refuse(ErrorKind::DeviceType, at.member("type"), message).hint("must be one of a, c, b"));
    }
    for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
        let max = if name == "major" { MAX_MAJOR } else { MAX_MINOR };
        // v1 takes what does not fit for "all".
        if let Some(number) = number.filter(|number| !(-1..=max).contains(number)) {
            return Err(refuse(
                ErrorKind::DeviceNumber,
                at.member(name),
                format!("{name} must be 0 to {max}, or -1 for all, is {number}"),
            ));
        }
    }
    Ok(())
}
