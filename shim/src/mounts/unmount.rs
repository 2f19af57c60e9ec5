//! Unmounting a rootfs with everything in it, by the kernel's own table, so that it does not matter who has
//! mounted what. What is in use is waited for, never detached. Called by `delete` and by the server.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_cgroup::mountinfo;
use hull_sys::open::{self, How};
use hull_sys::{Errno, mount};

use super::{Reason, Step, text};
use crate::error::{Error, Result};

/// How often a mount in use is tried again, and how long to wait before: 2.5 s in all.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// Unmounts everything at and below `target`; nothing mounted there is no error.
///
/// # Errors
/// When it stays busy for 2.5 s.
pub fn unmount_all(target: &Path) -> Result<()> {
    let mut attempts = Attempts::new(target);
    while let Some(pause) = attempts.next()? {
        std::thread::sleep(pause);
    }
    Ok(())
}

/// As [`unmount_all`], for a server that has others to serve meanwhile.
///
/// # Errors
/// When it stays busy for 2.5 s.
pub async fn unmount_all_async(target: &Path) -> Result<()> {
    let mut attempts = Attempts::new(target);
    while let Some(pause) = attempts.next()? {
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

struct Attempts {
    target: PathBuf,
    left: u32,
}

impl Attempts {
    fn new(target: &Path) -> Self {
        Self { target: resolve(target), left: TRIES }
    }

    /// Unmounts what can be; answers how long to wait before the next attempt, or nothing when all is done.
    fn next(&mut self) -> Result<Option<Duration>> {
        loop {
            match pass(&self.target)? {
                Pass::Done => return Ok(None),
                // Something may have come to light.
                Pass::Some => {}
                Pass::Stuck(point, errno) => {
                    self.left -= 1;
                    return if self.left == 0 { Err(failed(&point, errno)) } else { Ok(Some(PAUSE)) };
                }
            }
        }
    }
}

/// The outcome of unmounting once whatever there is.
enum Pass {
    /// There was nothing.
    Done,
    /// Some of it is unmounted.
    Some,
    /// Nothing could be unmounted; one of them, and why.
    Stuck(PathBuf, Errno),
}

fn pass(target: &Path) -> Result<Pass> {
    let mut stuck = None;
    let mut progress = false;
    for point in points(target)? {
        match unmount(&point).map_err(|reason| reason.errno) {
            Ok(()) => progress = true,
            // In use; or hidden by a mount on top, which then is in this list, too.
            Err(errno @ (Errno::EBUSY | Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => {
                stuck.get_or_insert((point, errno));
            }
            Err(errno) => return Err(failed(&point, errno)),
        }
    }
    Ok(match stuck {
        _ if progress => Pass::Some,
        Some((point, errno)) => Pass::Stuck(point, errno),
        None => Pass::Done,
    })
}

/// Unmounts what is at `point`, a path of the table. Where a mount on top has a symlink in its way, that may
/// lead anywhere: it is refused (ELOOP).
fn unmount(point: &Path) -> Step<()> {
    let (Some(dir), Some(name)) = (point.parent(), point.file_name()) else {
        return Err(Errno::EINVAL.into());
    };
    let root = open::on_host(None, c"/", How::DIRECTORY)?;
    let dir = Path::new(".").join(dir.strip_prefix("/").unwrap_or(dir));
    let dir = open::name_in(root.as_fd(), &text(dir)?, How::DIRECTORY)?;
    let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok(mount::unmount(&text(path)?)?)
}

/// The places at and below `target` with something mounted, the deepest and latest first; those with several
/// mounts several times.
fn points(target: &Path) -> Result<Vec<PathBuf>> {
    let table =
        mountinfo::read().map_err(|error| Error::failed("read the table of mounts", Reason::from(error)))?;
    Ok(points_in(&table, target))
}

fn points_in(table: &[u8], target: &Path) -> Vec<PathBuf> {
    let all = mountinfo::entries(table).map(|entry| entry.point);
    let mut points: Vec<_> = all.filter(|point| point.starts_with(target)).collect();
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// The path as the table has it. The last part stays as it is: not a symlink, and maybe a dead file system.
fn resolve(target: &Path) -> PathBuf {
    let target = std::path::absolute(target).unwrap_or_else(|_empty| target.to_owned());
    match (target.parent().map(Path::canonicalize), target.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        // The root, or a path that does not exist: nothing is mounted there, as the table will say.
        _ => target,
    }
}

fn failed(point: &Path, errno: Errno) -> Error {
    Error::other(format!("unmount {}: {}", point.display(), Reason::from(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_those_below_the_deepest_first() {
        let line = |point: &str| format!("1 1 0:1 / {point} rw - tmpfs tmpfs rw\n");
        let all =
            ["/", "/b/rootfs", "/b/rootfs/a", "/b/rootfs2", "/b/rootfs/a/c", "/b/rootfs", "/b/rootfs/d"];
        let table: String = all.into_iter().map(line).collect();
        let points = points_in(table.as_bytes(), Path::new("/b/rootfs"));
        let wanted = ["/b/rootfs/a/c", "/b/rootfs/d", "/b/rootfs/a", "/b/rootfs", "/b/rootfs"];
        assert_eq!(points, wanted.map(PathBuf::from));
    }

    #[test]
    fn nothing_mounted_is_no_error() {
        unmount_all(Path::new("/nonexistent/rootfs")).unwrap();
        unmount_all(&std::env::temp_dir().join("hull-shim-none")).unwrap();
    }
}
