//! Id maps that an ordinary user may only have written by the setuid tools of the host (newuidmap(1), newgidmap(1)).
//! Called by `parent`.

use hull_sys::process::Pid;

use crate::error::{Error, ErrorKind, Field, Result, io_words};

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
