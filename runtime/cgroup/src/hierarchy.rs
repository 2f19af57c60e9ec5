//! Which hierarchies are mounted where, and where a process is in them: from what the kernel says of the process and
//! of the mounts, never from the mere existence of a directory.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use hull_sys::Errno;
use hull_sys::fs::{magic, magic_of_host};

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::mountinfo::{self, Entry};

/// Where every distribution mounts cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Inode of the root of a kernfs hierarchy (`kernfs_fill_super`, every kernel).
const ROOT_INODE: u64 = 1;
/// `PF_EXITING` of the kernel.
const EXITING: u32 = 0x4;

/// How this host is set up, as decided by what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// cgroup2 only.
    Unified,
    /// v1 hierarchies only.
    Legacy,
    /// v1 hierarchies, and cgroup2 beside them.
    Hybrid,
    /// Nothing is mounted.
    Absent,
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Hierarchy {
    /// Where it is mounted, for example `/sys/fs/cgroup/cpu,cpuacct`.
    pub mount: PathBuf,
    /// Its controllers; empty for a named hierarchy.
    pub controllers: Vec<String>,
    /// The name of a named hierarchy, `systemd` for example.
    pub name: Option<String>,
    /// The process's own cgroup in it, relative to `mount`, without a leading slash.
    pub own: PathBuf,
}

/// The mounted v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Hierarchy {
    /// Where it is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub mount: PathBuf,
    /// The process's own cgroup in it, relative to `mount`, without a leading slash.
    pub own: PathBuf,
    /// `cgroup.controllers` at the mount: what can be enabled below it at all.
    pub controllers: Vec<String>,
}

/// The hierarchies of this host, as a process finds itself in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// The set-up in one word.
    pub mode: Mode,
    /// The v1 hierarchies, in the order of their mount points; empty in unified mode.
    pub v1: Vec<V1Hierarchy>,
    /// The v2 hierarchy, if it is mounted.
    pub v2: Option<V2Hierarchy>,
}

impl Hierarchies {
    /// Those of this process.
    ///
    /// # Errors
    /// When `/proc/self/cgroup`, or the table of mounts where that is needed, cannot be read.
    pub fn of_self() -> Result<Self> {
        Self::find(Path::new(ROOT), &read("/proc/self/cgroup")?, &mut Table::default())
    }

    /// Those of process `pid`.
    ///
    /// # Errors
    /// When the process, or one of its cgroups, is gone; when none is mounted; when a table cannot be read.
    pub fn of_process(pid: i32) -> Result<Self> {
        let gone = || Error::new(ErrorKind::Gone, format!("process {pid} is gone"));
        let text = of_process(pid, "cgroup")?.ok_or_else(gone)?;
        if text.lines().any(|line| line.ends_with(" (deleted)")) {
            return Err(Error::new(ErrorKind::Gone, format!("the cgroup of process {pid} is gone")));
        }
        let found = Self::find(Path::new(ROOT), &text, &mut Table::default())?;
        // The kernel lists an exiting process in the roots of all v1 hierarchies.
        if !found.v1.is_empty() && of_process(pid, "stat")?.is_none_or(|stat| is_exiting(&stat)) {
            return Err(gone());
        }
        if found.mode == Mode::Absent {
            let text = format!("cgroup of process {pid}: none is mounted at {ROOT}");
            return Err(Error::new(ErrorKind::NotMounted, text));
        }
        Ok(found)
    }

    /// None at all.
    pub const fn absent() -> Self {
        Self { mode: Mode::Absent, v1: Vec::new(), v2: None }
    }

    fn find(root: &Path, own: &str, table: &mut Table) -> Result<Self> {
        if is(root, magic::CGROUP2) {
            let v2 = v2_hierarchy(root.to_owned(), own_v2(own), table)?;
            return Ok(Self { mode: Mode::Unified, v1: Vec::new(), v2: Some(v2) });
        }
        let mut v1 = Vec::new();
        for (controllers, path) in lines(own).filter(|(controllers, _)| !controllers.is_empty()) {
            if let Some(mount) = find_v1(root, controllers, path, table)? {
                v1.push(v1_hierarchy(mount, controllers, path, table)?);
            }
        }
        v1.sort_by(|a, b| a.mount.cmp(&b.mount));
        let v2 = find_v2(root, own_v2(own), v1.is_empty(), table)?
            .map(|mount| v2_hierarchy(mount, own_v2(own), table))
            .transpose()?;
        Ok(Self { mode: mode(&v1, v2.as_ref()), v1, v2 })
    }
}

/// A file of a process; `None` when it is gone.
fn of_process(pid: i32, file: &str) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/{file}");
    match fs::read_to_string(&path).map_err(|error| files::errno(&error)) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(errno) => Err(unreadable(&path, errno)),
    }
}

/// From `/proc/PID/stat`; the name in it may have any character.
fn is_exiting(stat: &str) -> bool {
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6));
    flags.and_then(|flags| flags.parse::<u32>().ok()).is_none_or(|flags| flags & EXITING != 0)
}

fn mode(v1: &[V1Hierarchy], v2: Option<&V2Hierarchy>) -> Mode {
    match (v1.is_empty(), v2) {
        (true, Some(_)) => Mode::Unified,
        (true, None) => Mode::Absent,
        (false, Some(_)) => Mode::Hybrid,
        (false, None) => Mode::Legacy,
    }
}

fn v1_hierarchy(mount: PathBuf, names: &str, own: &str, table: &mut Table) -> Result<V1Hierarchy> {
    let root = table.root_if_needed(&mount, own)?;
    let own = below_mount(own, root.as_deref());
    let name = names.strip_prefix("name=").map(str::to_owned);
    let controllers = if name.is_some() { Vec::new() } else { names.split(',').map(str::to_owned).collect() };
    Ok(V1Hierarchy { mount, controllers, name, own })
}

fn v2_hierarchy(mount: PathBuf, own: &str, table: &mut Table) -> Result<V2Hierarchy> {
    let root = table.root_if_needed(&mount, own)?;
    let own = below_mount(own, root.as_deref());
    let controllers = available(&mount);
    Ok(V2Hierarchy { mount, own, controllers })
}

/// The lines of `/proc/self/cgroup` as (controllers, path); the v2 line has no controllers.
fn lines(own: &str) -> impl Iterator<Item = (&str, &str)> {
    own.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    })
}

fn own_v2(own: &str) -> &str {
    lines(own).find(|(controllers, _)| controllers.is_empty()).map_or("/", |(_, path)| path)
}

/// The usual places: `cpu,cpuacct` mounted under that name, or under one of its names by symlink.
/// A plain directory of the right name lies on the tmpfs and does not count.
fn find_v1(root: &Path, controllers: &str, own: &str, table: &mut Table) -> Result<Option<PathBuf>> {
    let name = controllers.strip_prefix("name=").unwrap_or(controllers);
    for candidate in std::iter::once(name).chain(name.split(',')) {
        let path = root.join(candidate);
        if is(&path, magic::CGROUP) {
            return Ok(Some(path));
        }
    }
    // What is listed may be covered by another mount.
    Ok(table.v1_mount(controllers, own)?.filter(|mount| is(mount, magic::CGROUP)))
}

fn find_v2(root: &Path, own: &str, search: bool, table: &mut Table) -> Result<Option<PathBuf>> {
    let usual = root.join("unified");
    if is(&usual, magic::CGROUP2) {
        return Ok(Some(usual));
    }
    // Every host lists the v2 hierarchy in /proc/self/cgroup, mounted or not: only a host without any v1
    // hierarchy is worth reading the whole mount table for it.
    if !search {
        return Ok(None);
    }
    Ok(table.v2_mount(own)?.filter(|mount| is(mount, magic::CGROUP2)))
}

fn is(path: &Path, filesystem: u64) -> bool {
    // Whatever statfs refuses is not a hierarchy we could use.
    let path = CString::new(path.as_os_str().as_bytes());
    path.is_ok_and(|path| magic_of_host(&path) == Ok(filesystem))
}

fn available(mount: &Path) -> Vec<String> {
    // Missing in the root of a cgroup namespace on kernels without delegation: nothing can be enabled.
    let text = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Our own cgroup relative to the mount point. `/proc/self/cgroup` is relative to the hierarchy (or to the
/// cgroup namespace); a mount can show less than that, as in a container without a cgroup namespace.
fn below_mount(own: &str, root: Option<&Path>) -> PathBuf {
    let own = Path::new(own);
    let shown = root.and_then(|root| own.strip_prefix(root).ok()).unwrap_or(own);
    shown.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| unreadable(path, files::errno(&error)))
}

fn unreadable(path: &str, errno: Errno) -> Error {
    Error::new(ErrorKind::Unreadable, format!("read {path}: {}", hull_sys::words(errno)))
}

/// Whether `dir` is the root of its hierarchy.
pub fn is_root(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|data| data.ino() == ROOT_INODE)
}

/// The mounts, read at most once and only when the usual places do not answer: on a host with many containers there
/// are thousands.
#[derive(Default)]
struct Table(Option<Vec<u8>>);

impl Table {
    fn entries(&mut self) -> Result<impl DoubleEndedIterator<Item = Entry<'_>>> {
        if self.0.is_none() {
            let table = mountinfo::read();
            self.0 = Some(table.map_err(|error| unreadable("the table of mounts", files::errno(&error)))?);
        }
        Ok(mountinfo::entries(self.0.as_deref().unwrap_or_default()))
    }

    /// The first mount that shows the cgroup `own`. The table also has the views of containers whose root file
    /// systems are visible here: those show a container's cgroup, and maybe one that is gone.
    fn find(&mut self, own: &str, wanted: impl Fn(&Entry<'_>) -> bool) -> Result<Option<PathBuf>> {
        let shows_it = |entry: &Entry<'_>| Path::new(own).starts_with(&entry.root);
        Ok(self.entries()?.find(|entry| wanted(entry) && shows_it(entry)).map(|entry| entry.point))
    }

    fn v1_mount(&mut self, controllers: &str, own: &str) -> Result<Option<PathBuf>> {
        let has = |options: &[u8], name: &str| options.split(|b| *b == b',').any(|o| o == name.as_bytes());
        let has_all = |entry: &Entry<'_>| controllers.split(',').all(|name| has(entry.options, name));
        self.find(own, |entry| entry.kind == b"cgroup" && has_all(entry))
    }

    fn v2_mount(&mut self, own: &str) -> Result<Option<PathBuf>> {
        self.find(own, |entry| entry.kind == b"cgroup2")
    }

    /// The root of the mount at `mount`, where it can matter: the process is not in the hierarchy's root, and the
    /// mount does not show the hierarchy's root.
    fn root_if_needed(&mut self, mount: &Path, own: &str) -> Result<Option<PathBuf>> {
        if own == "/" || is_root(mount) {
            return Ok(None);
        }
        let mount = fs::canonicalize(mount).unwrap_or_else(|_not_there| mount.to_owned());
        // The last line for a mount point is the mount on top.
        Ok(self.entries()?.rfind(|entry| entry.point == mount).map(|entry| entry.root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_give_controllers_and_path() {
        let text = "9:name=systemd:/\n2:cpu,cpuacct:/docker/a:b\n0::/user.slice\n";
        let got: Vec<_> = lines(text).collect();
        assert_eq!(got, [("name=systemd", "/"), ("cpu,cpuacct", "/docker/a:b"), ("", "/user.slice")]);
        assert_eq!(own_v2(text), "/user.slice");
    }

    #[test]
    fn view_of_a_container_is_not_taken() {
        let text = b"1 1 0:1 /c1 /lab/sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
                     2 1 0:1 / /mnt/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let mut table = Table(Some(text.to_vec()));
        let mut found = |own| table.v1_mount("cpu,cpuacct", own).unwrap();
        assert_eq!(found("/"), Some("/mnt/cpu".into()));
        assert_eq!(found("/c10"), Some("/mnt/cpu".into()));
        assert_eq!(found("/c1/sub"), Some("/lab/sys/fs/cgroup/cpu".into()));
    }

    #[test]
    fn directory_that_is_no_mount_does_not_count() {
        let mut table = Table(Some(Vec::new()));
        assert_eq!(find_v1(Path::new("/"), "tmp", "/x", &mut table).unwrap(), None);
    }

    #[test]
    fn own_path_is_relative_to_what_the_mount_shows() {
        assert_eq!(below_mount("/docker/x/sub", Some(Path::new("/docker/x"))), Path::new("sub"));
        assert_eq!(below_mount("/docker/x", None), Path::new("docker/x"));
        assert_eq!(below_mount("/../y", None), Path::new("y"));
        assert_eq!(below_mount("/", None), Path::new(""));
    }

    #[test]
    fn mode_follows_what_is_mounted() {
        let v2 = V2Hierarchy { mount: ROOT.into(), own: "".into(), controllers: vec![] };
        let v1 = V1Hierarchy { mount: ROOT.into(), controllers: vec![], name: None, own: "".into() };
        assert_eq!(mode(&[], Some(&v2)), Mode::Unified);
        assert_eq!(mode(std::slice::from_ref(&v1), Some(&v2)), Mode::Hybrid);
        assert_eq!(mode(&[v1], None), Mode::Legacy);
        assert_eq!(mode(&[], None), Mode::Absent);
    }

    #[test]
    fn own_cgroups_exist() {
        let own = Hierarchies::of_process(std::process::id().cast_signed()).unwrap();
        let v1 = own.v1.iter().map(|one| one.mount.join(&one.own));
        for dir in v1.chain(own.v2.iter().map(|one| one.mount.join(&one.own))) {
            assert!(dir.join("cgroup.procs").exists(), "{}", dir.display());
        }
    }

    #[test]
    fn process_that_is_no_more_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        while !is_exiting(&of_process(pid, "stat").unwrap().unwrap()) {
            std::thread::yield_now();
        }
        // A zombie still has a place on v2, but not on v1.
        assert_eq!(Hierarchies::of_process(pid).is_ok(), is(Path::new(ROOT), magic::CGROUP2));
        child.wait().unwrap();
        let error = Hierarchies::of_process(pid).unwrap_err();
        assert_eq!((error.kind, error.message), (ErrorKind::Gone, format!("process {pid} is gone")));
    }

    #[test]
    fn exiting_is_told_by_a_flag() {
        assert!(!is_exiting("7 (a) b) S 1 7 7 0 -1 4194560 99 0"));
        assert!(is_exiting("7 (a) Z 1 7 7 0 -1 4194572 99 0"));
        assert!(is_exiting(""));
    }
}
