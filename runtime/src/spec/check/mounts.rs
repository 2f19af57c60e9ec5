//! The rules on `mounts` that need no look at the root filesystem.
//! It resolves nothing: a destination is compared as it is written, the same rule holds again on the resolved path
//! when `apply` mounts. `check` calls it.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount};

use super::at::At;
use super::{Namespaces, ids, refuse};
use crate::error::{ErrorKind, Result};

/// Files of /proc that lxcfs and its like may cover; the same as runc's.
const PROC_ALLOWED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Options that make a mount need no file system type.
const TYPELESS: [&str; 11] = [
    "bind",
    "rbind",
    "remount",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

pub(super) fn check(mounts: &[Mount], owned: Namespaces) -> Result<()> {
    for (index, mount) in mounts.iter().enumerate() {
        let list = At::Named("mounts");
        let at = list.index(index);
        let destination = mount.destination();
        if destination.as_os_str().is_empty() {
            return Err(refuse(
                ErrorKind::MountDestinationEmpty,
                at.member("destination"),
                "mount destination must not be empty",
            ));
        }
        proc(mount, at)?;
        if mount.typ().as_deref().unwrap_or_default().is_empty() && !has_any(mount, &TYPELESS) {
            let message =
                format!("mount on {} has neither a type nor the option bind", destination.display());
            return Err(refuse(ErrorKind::MountTypeMissing, at.member("type"), message));
        }
        if is_bind(mount)
            && !has_any(mount, &["remount"])
            && mount.source().as_ref().is_none_or(|s| s.as_os_str().is_empty())
        {
            let message = format!("bind mount on {} has no source", destination.display());
            return Err(refuse(ErrorKind::MountSourceEmpty, at.member("source"), message));
        }
        mappings(mount, at, owned)?;
    }
    Ok(())
}

fn has_any(mount: &Mount, options: &[&str]) -> bool {
    mount.options().iter().flatten().any(|option| options.contains(&option.as_str()))
}

fn is_bind(mount: &Mount) -> bool {
    has_any(mount, &["bind", "rbind"])
}

/// Nothing but a proc file system on /proc, and nothing inside it (CVE-2019-16884, CVE-2019-19921). Whether the
/// source of a bind on /proc is a proc file system is seen when it is opened.
fn proc(mount: &Mount, at: At<'_>) -> Result<()> {
    let path = clean(mount.destination());
    let refused = |why: &str| -> Result<()> {
        let message = format!("{:?} cannot be mounted because it is {why}", path.display().to_string());
        Err(refuse(ErrorKind::MountProc, at.member("destination"), message))
    };
    if path == Path::new("/proc") {
        let fresh = mount.typ().as_deref() == Some("proc");
        return if fresh || is_bind(mount) { Ok(()) } else { refused("not of type proc") };
    }
    if path.starts_with("/proc") && !PROC_ALLOWED.iter().any(|allowed| path == Path::new(allowed)) {
        return refused("inside /proc");
    }
    Ok(())
}

/// The path without `.`, `..` and doubled slashes, as a reader of the text means it.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn mappings(mount: &Mount, at: At<'_>, owned: Namespaces) -> Result<()> {
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    if uids.is_empty() != gids.is_empty() {
        let (here, missing) =
            if uids.is_empty() { ("gidMappings", "uidMappings") } else { ("uidMappings", "gidMappings") };
        let message = format!("{here} is set but {missing} is not: a mount needs both or neither");
        return Err(refuse(ErrorKind::MountMappings, at.member(here), message));
    }
    if uids.is_empty() {
        let idmap = has_any(mount, &["idmap", "ridmap"]);
        if idmap && !owned.has(LinuxNamespaceType::User) {
            let message =
                "an idmapped mount needs uidMappings and gidMappings, or a user namespace to take them from";
            return Err(refuse(ErrorKind::MountMappings, at.member("options"), message));
        }
        return Ok(());
    }
    if !is_bind(mount) {
        let message = "gidMappings/uidMappings is supported only for mounts with the option 'bind'";
        return Err(refuse(ErrorKind::MountMappings, at.member("uidMappings"), message));
    }
    ids::check_lines(at.member("uidMappings"), uids)?;
    ids::check_lines(at.member("gidMappings"), gids)
}
