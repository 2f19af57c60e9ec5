//! Owns the facts about cgroups on this host: which hierarchies are mounted where, and where we are in them.
//! It may not create, write or choose anything; what it looks at is only what neither hooks nor containers change.
//! `cli` calls [`probe`] once per command that makes a container; `plan::cgroup` reads the facts.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use hull_sys::fs::{magic, magic_of_host};

use crate::error::{Error, Result};

/// Where every distribution mounts cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Inode of the root of a kernfs hierarchy (`kernfs_fill_super`, every kernel).
const ROOT_INODE: u64 = 1;

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
    /// Our own cgroup in it, relative to `mount`, without a leading slash.
    pub own: PathBuf,
}

/// The mounted v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Hierarchy {
    /// Where it is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub mount: PathBuf,
    /// Our own cgroup in it, relative to `mount`, without a leading slash.
    pub own: PathBuf,
    /// `cgroup.controllers` at the mount: what can be enabled below it at all.
    pub controllers: Vec<String>,
}

/// All the runtime knows about cgroups before it touches any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupFacts {
    /// The set-up in one word.
    pub mode: Mode,
    /// The v1 hierarchies, in the order of their mount points; empty in unified mode.
    pub v1: Vec<V1Hierarchy>,
    /// The v2 hierarchy, if it is mounted.
    pub v2: Option<V2Hierarchy>,
}

/// Looks at the host.
///
/// # Errors
/// When `/proc/self/cgroup`, or `/proc/self/mountinfo` where that is needed, cannot be read.
pub fn probe() -> Result<CgroupFacts> {
    let own = read("/proc/self/cgroup")?;
    let root = Path::new(ROOT);
    let mut mountinfo = Mountinfo::default();
    if is(root, magic::CGROUP2) {
        let v2 = v2_hierarchy(root.to_owned(), own_v2(&own), &mut mountinfo)?;
        return Ok(CgroupFacts { mode: Mode::Unified, v1: Vec::new(), v2: Some(v2) });
    }
    let mut v1 = Vec::new();
    for (controllers, path) in lines(&own).filter(|(controllers, _)| !controllers.is_empty()) {
        if let Some(mount) = find_v1(root, controllers, path, &mut mountinfo)? {
            v1.push(v1_hierarchy(mount, controllers, path, &mut mountinfo)?);
        }
    }
    v1.sort_by(|a, b| a.mount.cmp(&b.mount));
    let v2 = find_v2(root, own_v2(&own), v1.is_empty(), &mut mountinfo)?
        .map(|mount| v2_hierarchy(mount, own_v2(&own), &mut mountinfo))
        .transpose()?;
    Ok(CgroupFacts { mode: mode(&v1, v2.as_ref()), v1, v2 })
}

fn mode(v1: &[V1Hierarchy], v2: Option<&V2Hierarchy>) -> Mode {
    match (v1.is_empty(), v2) {
        (true, Some(_)) => Mode::Unified,
        (true, None) => Mode::Absent,
        (false, Some(_)) => Mode::Hybrid,
        (false, None) => Mode::Legacy,
    }
}

fn v1_hierarchy(mount: PathBuf, names: &str, own: &str, table: &mut Mountinfo) -> Result<V1Hierarchy> {
    let root = table.root_if_needed(&mount, own)?;
    let own = below_mount(own, root.as_deref());
    let name = names.strip_prefix("name=").map(str::to_owned);
    let controllers = if name.is_some() { Vec::new() } else { names.split(',').map(str::to_owned).collect() };
    Ok(V1Hierarchy { mount, controllers, name, own })
}

fn v2_hierarchy(mount: PathBuf, own: &str, table: &mut Mountinfo) -> Result<V2Hierarchy> {
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
fn find_v1(root: &Path, controllers: &str, own: &str, table: &mut Mountinfo) -> Result<Option<PathBuf>> {
    let name = controllers.strip_prefix("name=").unwrap_or(controllers);
    for candidate in std::iter::once(name).chain(name.split(',')) {
        let path = root.join(candidate);
        if is(&path, magic::CGROUP) {
            return Ok(Some(path));
        }
    }
    table.v1_mount(controllers, own)
}

fn find_v2(root: &Path, own: &str, search: bool, table: &mut Mountinfo) -> Result<Option<PathBuf>> {
    let usual = root.join("unified");
    if is(&usual, magic::CGROUP2) {
        return Ok(Some(usual));
    }
    // Every host lists the v2 hierarchy in /proc/self/cgroup, mounted or not: only a host without any v1
    // hierarchy is worth reading the whole mount table for it.
    if search { table.v2_mount(own) } else { Ok(None) }
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
    fs::read_to_string(path).map_err(|error| Error::new("cgroup-facts", format!("read {path}: {error}")))
}

/// `/proc/self/mountinfo`, read at most once and only when the usual places do not answer: on a host with
/// many containers it has thousands of lines.
#[derive(Default)]
struct Mountinfo(Option<String>);

struct MountLine<'a> {
    root: &'a str,
    mount: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl Mountinfo {
    fn table(&mut self) -> Result<&str> {
        if self.0.is_none() {
            self.0 = Some(read("/proc/self/mountinfo")?);
        }
        Ok(self.0.as_deref().unwrap_or_default())
    }

    fn v1_mount(&mut self, controllers: &str, own: &str) -> Result<Option<PathBuf>> {
        let wanted: Vec<&str> = controllers.split(',').collect();
        let has =
            |line: &MountLine<'_>| wanted.iter().all(|name| line.options.split(',').any(|o| o == *name));
        let found = usable(self.table()?, own, |line| line.kind == "cgroup" && has(line));
        Ok(found.filter(|mount| is(mount, magic::CGROUP)))
    }

    fn v2_mount(&mut self, own: &str) -> Result<Option<PathBuf>> {
        let found = usable(self.table()?, own, |line| line.kind == "cgroup2");
        Ok(found.filter(|mount| is(mount, magic::CGROUP2)))
    }

    /// The root of the mount at `mount`, where it can matter: we are not in the hierarchy's root, and the
    /// mount does not show the hierarchy's root.
    fn root_if_needed(&mut self, mount: &Path, own: &str) -> Result<Option<PathBuf>> {
        if own == "/" || fs::metadata(mount).is_ok_and(|data| data.ino() == ROOT_INODE) {
            return Ok(None);
        }
        let mount = fs::canonicalize(mount).unwrap_or_else(|_| mount.to_owned());
        // The last line for a mount point is the mount on top.
        let found = self.table()?.lines().filter_map(parse).rfind(|line| line.mount == mount);
        Ok(found.map(|line| PathBuf::from(line.root)))
    }
}

/// The first mount that shows our own cgroup. The table also has the views of containers whose root
/// filesystems are visible here: those show a container's cgroup, and maybe one that is gone.
fn usable(table: &str, own: &str, wanted: impl Fn(&MountLine<'_>) -> bool) -> Option<PathBuf> {
    let shows_us = |line: &MountLine<'_>| Path::new(own).starts_with(line.root);
    table.lines().filter_map(parse).find(|line| wanted(line) && shows_us(line)).map(|line| line.mount)
}

/// One line of mountinfo (`proc_pid_mountinfo(5)`).
fn parse(line: &str) -> Option<MountLine<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    Some(MountLine { root, mount: PathBuf::from(unescape(mount)), kind, options })
}

/// Undoes the octal escapes of mountinfo (space, tab, newline and backslash).
fn unescape(text: &str) -> String {
    const ESCAPES: [(&str, &str); 4] = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    ESCAPES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
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
    fn mountinfo_line_is_parsed() {
        let line =
            "35 31 0:32 /docker/x /sys/fs/cgroup/a\\040b rw,relatime shared:9 - cgroup cgroup rw,memory";
        let got = parse(line).unwrap();
        assert_eq!((got.root, got.kind, got.options), ("/docker/x", "cgroup", "rw,memory"));
        assert_eq!(got.mount, Path::new("/sys/fs/cgroup/a b"));
    }

    #[test]
    fn view_of_a_container_is_not_taken_for_the_hosts() {
        let table = "1 1 0:1 /c1 /lab/rootfs/sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n\
                     2 1 0:1 / /mnt/pids rw - cgroup cgroup rw,pids\n";
        let found = |own| usable(table, own, |line| line.options.contains("pids"));
        assert_eq!(found("/"), Some("/mnt/pids".into()));
        assert_eq!(found("/c10"), Some("/mnt/pids".into()));
        assert_eq!(found("/c1/sub"), Some("/lab/rootfs/sys/fs/cgroup/pids".into()));
        assert_eq!(usable("", "/", |_| true), None);
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
}
