//! File systems that are programs (FUSE), mounted by the helpers of `mount(8)`. Called by `mount_one`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use hull_proto::types::Mount;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Reason, Step, at, by_number};

/// The helper for a type of mounts, and what it is to mount: `fuse3.sshfs` by `mount.fuse3`, `sshfs`.
pub(super) fn of(kind: &str) -> Option<(&'static str, &str)> {
    let helpers = [("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];
    helpers.iter().find_map(|(prefix, program)| Some((*program, kind.strip_prefix(prefix)?)))
}

/// Mounts by `program`, and waits until it says so by its exit.
pub(super) fn run(program: &str, kind: &str, mount: &Mount, place: BorrowedFd<'_>) -> Step<()> {
    let target = std::fs::read_link(OsStr::from_bytes(by_number(place).to_bytes()))?;
    // Not a pipe: the file system goes on running, and may keep it open.
    let mut words = File::from(memfd_create("mount-helper", MFdFlags::MFD_CLOEXEC)?);
    let options = mount.options.iter().flat_map(|option| ["-o", option.as_str()]);
    let status = Command::new(program)
        .arg(&mount.source)
        .arg(target)
        .args(options)
        .args(["-t", kind])
        .stdin(Stdio::null())
        .stdout(words.try_clone()?)
        .stderr(words.try_clone()?)
        .status()
        .map_err(|error| at("run", program, error))?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    words.rewind()?;
    words.read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    Err(Reason::invalid(format!("{program} ended with {status}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_tells_the_helper() {
        assert_eq!(of("fuse.sshfs"), Some(("mount.fuse", "sshfs")));
        assert_eq!(of("fuse3.fuse-overlayfs"), Some(("mount.fuse3", "fuse-overlayfs")));
        assert_eq!(of("fuseblk"), None);
        assert_eq!(of("overlay"), None);
    }
}
