//! Where a container's cgroup is and what its files say, on cgroup v1 and v2.

use crate::{Lab, Mode, Stop, TestResult, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

impl Lab {
    /// The cgroup directory of a process for a v1 controller, or its one cgroup on v2.
    pub fn cgroup_of(&self, pid: i32, controller: &str) -> Result<PathBuf, Stop> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let line = |wanted: &dyn Fn(&str) -> bool| {
            let mut fields = table.lines().map(|l| l.splitn(3, ':'));
            fields.find_map(|mut f| f.nth(1).filter(|c| wanted(c)).and_then(|_| f.next().map(str::to_owned)))
        };
        let (mount, path) = if self.host.mode == Mode::V2 {
            (self.host.v2.clone(), line(&|c| c.is_empty()))
        } else {
            let mount = self.host.v1.iter().find(|(c, _)| c == controller).map(|(_, at)| at.clone());
            (mount, line(&|c| c.split(',').any(|c| c == controller)))
        };
        match (mount, path) {
            (Some(mount), Some(path)) => Ok(mount.join(path.trim_start_matches('/'))),
            _ => skip(format!("the cgroup controller {controller} is not available")),
        }
    }

    /// A limit of a running container, read from the kernel: `(controller, v1 file)` or the v2 file.
    pub fn limit(&self, id: &str, v1: (&str, &str), v2: &str) -> Result<String, Stop> {
        self.needs_controller(if self.host.mode == Mode::V2 {
            v2.split('.').next().unwrap_or(v2)
        } else {
            v1.0
        })?;
        let dir = self.cgroup_of(self.pid(id), v1.0)?;
        let file = dir.join(if self.host.mode == Mode::V2 { v2 } else { v1.1 });
        if !file.exists() {
            return skip(format!("this kernel has no {}", file.file_name().unwrap_or_default().display()));
        }
        Ok(fs::read_to_string(file)?.trim().to_owned())
    }

    /// Every directory on a cgroup mount whose name begins with the test's tag.
    pub fn cgroups_left(&self) -> Vec<PathBuf> {
        tagged(&self.tag)
    }

    /// Skips unless the layout is one with v1 controllers.
    pub fn needs_v1(&self) -> TestResult {
        match self.host.mode {
            Mode::V1 | Mode::Hybrid => Ok(()),
            _ => skip("not a cgroup v1 host"),
        }
    }

    /// Skips unless the layout is cgroup2 alone.
    pub fn needs_v2(&self) -> TestResult {
        if self.host.mode == Mode::V2 { Ok(()) } else { skip("not a cgroup v2 host") }
    }
}

/// Directories whose name begins with the tag, at the top of every cgroup mount and below our own cgroup (where a
/// relative or missing `cgroupsPath` goes): the cgroups themselves and, deepest last, what is below them.
pub(crate) fn tagged(tag: &str) -> Vec<PathBuf> {
    let (v1, v2) = crate::host::cgroup_mounts();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for mount in v1.iter().map(|(_, at)| at).chain(&v2) {
        let mut tops: Vec<PathBuf> = own
            .lines()
            .filter_map(|l| l.splitn(3, ':').nth(2))
            .map(|path| mount.join(path.trim_start_matches('/')))
            .collect();
        tops.extend([mount.clone(), mount.join("user.slice"), mount.join("system.slice")]);
        tops.sort();
        tops.dedup();
        for dir in tops.iter().flat_map(|top| subdirs(top)) {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.contains(tag) {
                below(&dir, &mut found);
            }
        }
    }
    found
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    found.push(dir.to_owned());
    for sub in subdirs(dir) {
        below(&sub, found);
    }
}

/// Writes a kernel file.
pub fn write_file(path: &Path, text: &str) -> TestResult {
    fs::write(path, text).map_err(|e| Stop::Fail(format!("write {text:?} to {}: {e}", path.display())))
}

/// Removes every tagged cgroup that is empty, the deepest first. A conmon in it needs a moment to end; what else
/// is not empty was reported as a leftover.
pub(crate) fn remove_tagged(tag: &str) {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let found = tagged(tag);
        found.iter().rev().for_each(|cgroup| drop(fs::remove_dir(cgroup)));
        if found.is_empty() || Instant::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
