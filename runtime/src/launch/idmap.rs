//! Id maps that an ordinary user may only have written by the setuid tools of the host (newuidmap(1), newgidmap(1)).
//! Called by `parent`.

use hull_sys::process::Pid;
use hull_sys::{Errno, namespace};

use super::report;
use crate::error::{Error, ErrorKind, Field, Result, io_words};
use crate::plan::namespaces::IdMaps;

/// Has `tool` write `lines` as a map of process `pid`.
pub fn by_tool(tool: &str, pid: Pid, lines: &str, field: &'static str) -> Result<()> {
    let refused = |why: String| {
        Error::new(ErrorKind::IdMap, format!("{tool} {pid}: {why}"))
            .hint("install the package uidmap, and allow the range in /etc/subuid and /etc/subgid")
            .field(Field::named(field))
    };
    let output = std::process::Command::new(tool)
        .arg(pid.to_string())
        .args(lines.split_ascii_whitespace())
        .output()
        .map_err(|error| refused(io_words(&error)))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

pub(super) fn write_maps(pid: Pid, ids: &IdMaps) -> Result<()> {
    let refused = |name: &'static str, errno: Errno| {
        Error::new(ErrorKind::IdMap, format!("write the ID map of process {pid}: {}", report::words(errno)))
            .hint("an unprivileged user can map only their own ID and the IDs in /etc/subuid and /etc/subgid")
            .field(Field::named(name))
    };
    let privileged = hull_sys::cred::euid() == 0;
    if !privileged && !ids.own_ids_only {
        by_tool("newuidmap", pid, &ids.uid, "linux.uidMappings")?;
        return by_tool("newgidmap", pid, &ids.gid, "linux.gidMappings");
    }
    if !privileged {
        namespace::write_proc(pid, "setgroups", "deny")
            .map_err(|errno| refused("linux.gidMappings", errno))?;
    }
    namespace::write_proc(pid, "uid_map", &ids.uid).map_err(|errno| refused("linux.uidMappings", errno))?;
    namespace::write_proc(pid, "gid_map", &ids.gid).map_err(|errno| refused("linux.gidMappings", errno))
}
