//! User namespaces that exist only for the ids of a mount. Called by `mount_one`.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::open::{self, How};
use hull_sys::process::{self, Clone, Forked, Pid};
use hull_sys::{Errno, fs, pidfd, signal};

use super::{Reason, Step, at, text};

/// A user namespace with these maps: `inside:outside:size`, several with commas between them. On a mount,
/// `inside` is what the file system has. It takes a process to begin with, which is gone again on return.
pub(super) fn namespace(uids: &str, gids: &str) -> Step<OwnedFd> {
    let (uids, gids) = (lines(uids)?, lines(gids)?);
    let namespaces = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let made = process::clone(Clone { namespaces, ..Clone::default() });
    let (pid, handle) = match made.map_err(|errno| at("create", "a user namespace", errno))? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => signal::wait_to_be_killed(),
    };
    let made = write(pid, "uid_map", &uids)
        .and_then(|()| write(pid, "gid_map", &gids))
        .and_then(|()| open_namespace(pid));
    pidfd::signal(handle.as_fd(), libc::SIGKILL)?;
    process::wait(handle.as_fd(), true)?;
    made
}

fn write(pid: Pid, file: &str, lines: &str) -> Step<()> {
    let path = text(format!("/proc/{pid}/{file}"))?;
    let written = open::on_host(None, &path, How::WRITE)
        .and_then(|file| fs::write_once(file.as_fd(), lines.as_bytes()));
    written.map_err(|errno| at("write", format!("{lines:?} as {file}"), errno))
}

fn open_namespace(pid: Pid) -> Step<OwnedFd> {
    let path = text(format!("/proc/{pid}/ns/user"))?;
    open::on_host(None, &path, How::READ).map_err(Errno::into)
}

/// `0:1000:10,10:5000:1` as the kernel wants it.
fn lines(maps: &str) -> Step<String> {
    maps.split(',').map(line).collect()
}

fn line(map: &str) -> Step<String> {
    let numbers: Vec<Option<u32>> = map.split(':').map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [Some(inside), Some(outside), Some(size)] => Ok(format!("{inside} {outside} {size}\n")),
        _ => Err(Reason::invalid(format!("id map {map} is not inside:outside:size"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_become_lines() {
        assert_eq!(lines("0:1000:10,10:5000:1").unwrap(), "0 1000 10\n10 5000 1\n");
    }

    #[test]
    fn odd_maps_are_named() {
        for odd in ["", "0:1", "0:1:-1", "0:1:2:3", "a:1:2"] {
            assert_eq!(lines(odd).unwrap_err().text, format!("id map {odd} is not inside:outside:size"));
        }
    }
}
