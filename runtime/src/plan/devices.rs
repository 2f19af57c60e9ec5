//! What /dev holds: the nodes and links every container gets, and those of `linux.devices`. Pure; called by
//! `plan::rootfs`.

use std::ffi::CString;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::path::{HostPath, InRoot};
use super::rootfs::{FsOp, Step};
use crate::error::{Error, ErrorKind, Field, Result};

/// A device node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it goes.
    pub at: InRoot,
    /// File type bits and permissions.
    pub mode: u32,
    /// Major and minor number; both 0 for a fifo.
    pub device: (u32, u32),
    /// Owner, inside the container.
    pub uid: u32,
    /// Group, inside the container.
    pub gid: u32,
    /// The host's node to bind, where a node cannot be made.
    pub host: HostPath,
    /// Bind at once instead of trying to make it.
    pub bind: bool,
}

/// The nodes every container gets (`config-linux.md#default-devices`).
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links every container gets (`runtime-linux.md#dev-symbolic-links`).
const LINKS: [(&std::ffi::CStr, &str); 4] = [
    (c"/proc/self/fd", "/dev/fd"),
    (c"/proc/self/fd/0", "/dev/stdin"),
    (c"/proc/self/fd/1", "/dev/stdout"),
    (c"/proc/self/fd/2", "/dev/stderr"),
];

/// Adds what fills /dev.
pub fn plan_dev(spec: &Spec, bind: bool, kcore: bool, steps: &mut Vec<Step>) -> Result<()> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    let field = Field::named("linux.devices");
    let named = |path: &str| asked.into_iter().flatten().any(|device| device.path().as_os_str() == path);
    for (path, major, minor) in DEFAULT.into_iter().filter(|(path, ..)| !named(path)) {
        let at = InRoot::new(path)?;
        let mode = libc::S_IFCHR | 0o666;
        let host = HostPath::new(path)?;
        let node = Node { at, mode, device: (major, minor), uid: 0, gid: 0, host, bind };
        steps.push(Step { op: FsOp::Node(node), field: field.clone(), fallback: None });
    }
    for (index, device) in asked.into_iter().flatten().enumerate() {
        let field = Field::item("linux.devices", index);
        if let Some(node) = plan_device(device, &field, bind)? {
            steps.push(Step { op: FsOp::Node(node), field, fallback: None });
        }
    }
    let core: &[(&std::ffi::CStr, &str)] = if kcore { &[(c"/proc/kcore", "/dev/core")] } else { &[] };
    for (target, path) in LINKS.iter().chain(core) {
        steps.push(link(target, path, false, &field)?);
    }
    steps.push(link(c"pts/ptmx", "/dev/ptmx", true, &field)?);
    Ok(())
}

fn link(target: &std::ffi::CStr, path: &str, replace: bool, field: &Field) -> Result<Step> {
    let op = FsOp::Symlink { target: CString::from(target), at: InRoot::new(path)?, replace };
    Ok(Step { op, field: field.clone(), fallback: None })
}

/// One entry of `linux.devices`; `None` for /dev/ptmx and /dev/console, which the runtime makes itself.
fn plan_device(device: &LinuxDevice, field: &Field, bind: bool) -> Result<Option<Node>> {
    let path = device.path().to_string_lossy();
    if path == "/dev/ptmx" || path == "/dev/console" {
        return Ok(None);
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(Error::new(ErrorKind::DeviceType, "a device node cannot have type \"a\"")
                .hint("use c, b, u or p; \"a\" is only valid in linux.resources.devices")
                .field(field.member("type")));
        }
    };
    let number = |value: i64, name: &str| {
        u32::try_from(value).map_err(|_out_of_range| {
            Error::new(ErrorKind::DeviceNumber, format!("{value} is not a device number"))
                .field(field.member(name))
        })
    };
    let numbers = match kind {
        libc::S_IFIFO => (0, 0),
        _ => (number(device.major(), "major")?, number(device.minor(), "minor")?),
    };
    Ok(Some(Node {
        at: InRoot::new(&path).map_err(|error| error.field(field.member("path")))?,
        // Podman hands over the file type bits as well.
        mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
        device: numbers,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        host: HostPath::new(path)?,
        // A fifo can be made anywhere, and the host has none of that name.
        bind: bind && kind != libc::S_IFIFO,
    }))
}
