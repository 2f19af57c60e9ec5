//! Where the cgroups of a process are: from what the kernel says of the process and from what is mounted, as
//! the runtime decides it. Never from the mere existence of a directory. `Cgroup::of` calls it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use hull_sys::Errno;
use hull_sys::fs::{magic, magic_of_host};

use super::Cgroup;
use super::read::errno;
use crate::error::{Error, Result};
use crate::mounts::table::{self, Entry};

/// Where every distribution mounts cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Inode of the root of a hierarchy (`kernfs_fill_super`, every kernel).
const ROOT_INODE: u64 = 1;
/// `PF_EXITING` of the kernel.
const EXITING: u32 = 0x4;

pub(super) fn of(pid: i32) -> Result<Cgroup> {
    let gone = || Error::not_found(format!("process {pid} is gone"));
    let text = of_process(pid, "cgroup")?.ok_or_else(gone)?;
    if text.lines().any(|line| line.ends_with(" (deleted)")) {
        return Err(Error::not_found(format!("the cgroup of process {pid} is gone")));
    }
    let found = find(Path::new(ROOT), &text)?;
    // The kernel lists an exiting process in the roots of all v1 hierarchies.
    if !found.v1.is_empty() && of_process(pid, "stat")?.is_none_or(|stat| is_exiting(&stat)) {
        return Err(gone());
    }
    if found.v1.is_empty() && found.v2.is_none() {
        return Err(Error::other(format!("cgroup of process {pid}: none is mounted at {ROOT}")));
    }
    Ok(found)
}

fn of_process(pid: i32, file: &str) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/{file}");
    match std::fs::read_to_string(&path).map_err(errno) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(errno) => Err(Error::failed(format!("read {path}"), errno.desc())),
    }
}

/// From `/proc/PID/stat`; the name in it may have any character.
fn is_exiting(stat: &str) -> bool {
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6));
    flags.and_then(|flags| flags.parse::<u32>().ok()).is_none_or(|flags| flags & EXITING != 0)
}

/// The directories of a `/proc/PID/cgroup`.
fn find(root: &Path, own: &str) -> Result<Cgroup> {
    let mut table = Table::default();
    let own_v2 = lines(own).find(|(names, _)| names.is_empty()).map_or("/", |(_, path)| path);
    if is(root, magic::CGROUP2) {
        let v2 = table.dir(root.to_owned(), own_v2)?;
        return Ok(Cgroup { v1: Vec::new(), v2: Some(v2) });
    }
    let mut v1 = Vec::new();
    for (names, path) in lines(own).filter(|(names, _)| has_controllers(names)) {
        if let Some(mount) = find_v1(root, names, path, &mut table)? {
            v1.push((names.to_owned(), table.dir(mount, path)?));
        }
    }
    // Every host lists the v2 hierarchy, mounted or not: it is worth a search only without any other.
    let mut v2 = Some(root.join("unified")).filter(|mount| is(mount, magic::CGROUP2));
    if v2.is_none() && v1.is_empty() {
        v2 = table.find(own_v2, |entry| entry.kind == b"cgroup2")?;
    }
    let v2 = v2.map(|mount| table.dir(mount, own_v2)).transpose()?;
    Ok(Cgroup { v1, v2 })
}

/// (controllers, path) of each line; the v2 line has no controllers.
fn lines(own: &str) -> impl Iterator<Item = (&str, &str)> {
    own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

fn has_controllers(names: &str) -> bool {
    !names.is_empty() && !names.starts_with("name=")
}

/// Hierarchies lie below the name of all their controllers, or of one (`cpu` of `cpu,cpuacct`).
fn find_v1(root: &Path, names: &str, own: &str, table: &mut Table) -> Result<Option<PathBuf>> {
    let mut usual = std::iter::once(names).chain(names.split(',')).map(|name| root.join(name));
    if let Some(mount) = usual.find(|mount| is(mount, magic::CGROUP)) {
        return Ok(Some(mount));
    }
    let has = |options: &[u8], name: &str| options.split(|b| *b == b',').any(|o| o == name.as_bytes());
    table.find(own, |entry| entry.kind == b"cgroup" && names.split(',').all(|name| has(entry.options, name)))
}

fn is(path: &Path, filesystem: u64) -> bool {
    // What statfs refuses is not a hierarchy we could read.
    CString::new(path.as_os_str().as_bytes()).is_ok_and(|path| magic_of_host(&path) == Ok(filesystem))
}

/// The mounts, read at most once and only when the usual places do not answer: there may be thousands.
#[derive(Default)]
struct Table(Option<Vec<u8>>);

impl Table {
    fn entries(&mut self) -> Result<impl Iterator<Item = Entry<'_>>> {
        if self.0.is_none() {
            let failed = |error| Error::failed("read the table of mounts", errno(error).desc());
            self.0 = Some(table::read().map_err(failed)?);
        }
        Ok(table::entries(self.0.as_deref().unwrap_or_default()))
    }

    /// Where a mount lies that shows the cgroup `own`: the table also has the views of containers.
    fn find(&mut self, own: &str, wanted: impl Fn(&Entry<'_>) -> bool) -> Result<Option<PathBuf>> {
        let found = self.entries()?.find(|entry| wanted(entry) && Path::new(own).starts_with(&entry.root));
        Ok(found.map(|entry| entry.point))
    }

    /// The directory of the cgroup `own` below `mount`, which need not show the whole hierarchy.
    fn dir(&mut self, mount: PathBuf, own: &str) -> Result<PathBuf> {
        let root = if own == "/" || is_root(&mount) { None } else { self.root_of(&mount)? };
        Ok(mount.join(below(own, root.as_deref())))
    }

    fn root_of(&mut self, mount: &Path) -> Result<Option<PathBuf>> {
        let mount = mount.canonicalize().unwrap_or_else(|_not_there| mount.to_owned());
        // The last line for a place is the mount on top.
        Ok(self.entries()?.filter(|entry| entry.point == mount).last().map(|entry| entry.root))
    }
}

/// Whether `dir` is the root of its hierarchy.
pub(super) fn is_root(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|data| data.ino() == ROOT_INODE)
}

fn below(own: &str, root: Option<&Path>) -> PathBuf {
    let own = Path::new(own);
    let shown = root.and_then(|root| own.strip_prefix(root).ok()).unwrap_or(own);
    shown.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroups_exist() {
        let own = of(std::process::id().cast_signed()).unwrap();
        assert!(own.dirs().next().is_some());
        for dir in own.dirs() {
            assert!(dir.join("cgroup.procs").exists(), "{}", dir.display());
        }
    }

    #[test]
    fn process_that_is_no_more_is_not_found() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        while !is_exiting(&of_process(pid, "stat").unwrap().unwrap()) {
            std::thread::yield_now();
        }
        // A zombie still has a place on v2, but not on v1.
        assert_eq!(of(pid).is_ok(), is(Path::new(ROOT), magic::CGROUP2));
        child.wait().unwrap();
        let error = of(pid).unwrap_err();
        assert_eq!((error.code, error.message), (ttrpc::Code::NOT_FOUND, format!("process {pid} is gone")));
    }

    #[test]
    fn exiting_is_told_by_a_flag() {
        assert!(!is_exiting("7 (a) b) S 1 7 7 0 -1 4194560 99 0"));
        assert!(is_exiting("7 (a) Z 1 7 7 0 -1 4194572 99 0"));
        assert!(is_exiting(""));
    }

    #[test]
    fn lines_give_controllers_and_path() {
        let text = "9:name=systemd:/\n2:cpu,cpuacct:/docker/a:b\n0::/user.slice\n";
        let got: Vec<_> = lines(text).collect();
        assert_eq!(got, [("name=systemd", "/"), ("cpu,cpuacct", "/docker/a:b"), ("", "/user.slice")]);
        assert_eq!(got.iter().filter(|(names, _)| has_controllers(names)).count(), 1);
    }

    #[test]
    fn directory_that_is_no_mount_does_not_count() {
        let scratch = crate::scratch::Scratch::new("place");
        scratch.dir("memory/x");
        scratch.dir("unified/x");
        let mut table = Table(Some(Vec::new()));
        assert_eq!(find_v1(scratch.path(), "memory", "/x", &mut table).unwrap(), None);
        assert!(!is(&scratch.path().join("unified"), magic::CGROUP2));
    }

    #[test]
    fn view_of_a_container_is_not_taken() {
        let text = b"1 1 0:1 /c1 /lab/sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
                     2 1 0:1 / /mnt/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let mut table = Table(Some(text.to_vec()));
        let mut found = |own| find_v1(Path::new("/none"), "cpu,cpuacct", own, &mut table).unwrap();
        assert_eq!(found("/c10"), Some("/mnt/cpu".into()));
        assert_eq!(found("/c1/sub"), Some("/lab/sys/fs/cgroup/cpu".into()));
    }

    #[test]
    fn path_is_relative_to_what_the_mount_shows() {
        assert_eq!(below("/docker/x/sub", Some(Path::new("/docker/x"))), Path::new("sub"));
        assert_eq!(below("/docker/x", None), Path::new("docker/x"));
        assert_eq!(below("/../y", None), Path::new("y"));
    }
}
