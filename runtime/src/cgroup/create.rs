//! Owns the making of a container's cgroup: directories, v1's cpusets, v2's controllers, and the refusal of one in use.
//! It may not write limits or put processes in.
//! `launch` calls [`Cgroup::create`], and [`Cgroup::undo`] when the container does not come to be.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hull_sys::Errno;

use super::dir::{self, Dir};
use super::remove::{REMOVE_LIMIT, retry, rmdir};
use super::{Cgroup, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupDir, CgroupPlan, Tolerance, Version};

impl Cgroup {
    /// Makes the container's directory in every hierarchy. A directory that is there already is taken if
    /// nothing is in it.
    ///
    /// # Errors
    /// `container's cgroup is not empty`, `container's cgroup unexpectedly frozen`, or what the kernel
    /// answers; everything made so far is removed again.
    pub fn create(plan: &CgroupPlan) -> Result<Self> {
        let planned = plan.dirs.clone();
        let mut cgroup = Self { driver: plan.driver, planned, dirs: Vec::new(), made: Vec::new() };
        for (index, wanted) in plan.dirs.iter().enumerate() {
            match cgroup.make(index, wanted, plan) {
                Ok(dir) => cgroup.dirs.push(dir),
                // It only tracks: runc goes on without it as well.
                Err(_) if !wanted.required => {}
                Err(Refused::Denied(_)) if plan.denied == Some(Tolerance::WithoutCgroup) => {}
                Err(refused) => {
                    // A failure has the same reason as the error that is being told.
                    let _undone = cgroup.undo().is_ok();
                    return Err(refused.explain(plan.denied));
                }
            }
        }
        if let Some(owner) = &plan.owner
            && let Err(error) = cgroup.delegate(owner.uid)
        {
            let _undone = cgroup.undo().is_ok();
            return Err(error.field(owner.field.clone()));
        }
        Ok(cgroup)
    }

    /// Removes the directories this handle made, and only those: for a container that did not come to be. One that
    /// is not empty stays, as long as it is not the container's own: it is no longer ours alone.
    ///
    /// # Errors
    /// A directory of the container that is still there after 2 s.
    pub fn undo(&mut self) -> Result<()> {
        let own: Vec<PathBuf> = self.dirs.drain(..).map(|dir| dir.path).collect();
        let deadline = Instant::now() + REMOVE_LIMIT;
        let mut left = Ok(());
        for path in self.made.drain(..).rev() {
            if !own.contains(&path) {
                // A parent that somebody else uses by now.
                std::fs::remove_dir(path).ok();
            } else if let Err(errno) = retry(deadline, || rmdir(&path)) {
                left = Err(failed("remove cgroup", &path, errno));
            }
        }
        left
    }

    fn make(&mut self, index: usize, wanted: &CgroupDir, plan: &CgroupPlan) -> Result<Dir, Refused> {
        let path = wanted.mount.join(&wanted.path);
        let before = self.made.len();
        let fresh = make_dirs(wanted, &path, &mut self.made)?;
        let parents_made = self.made.len() - before - usize::from(fresh);
        if let Some(planned) = self.planned.get_mut(index).filter(|_| !wanted.required) {
            planned.parents_made = parents_made;
        }
        let dir = Dir::open(index, wanted, path).map_err(|errno| {
            let path = wanted.mount.join(&wanted.path);
            Refused::by(errno, failed("open", &path, errno))
        })?;
        let dir = Dir { fresh, ..dir };
        check_unused(&dir)?;
        match dir.version {
            Version::V1 if dir.has_v1("cpuset") => inherit_cpuset(&dir, wanted, plan)?,
            Version::V1 => {}
            Version::V2 => give_controllers(&dir, wanted, plan)?,
        }
        Ok(dir)
    }
}

/// Why a directory could not be had.
enum Refused {
    /// `EPERM`, `EACCES` or `EROFS`: what a rootless runtime meets.
    Denied(Error),
    Failed(Error),
}

impl Refused {
    fn by(errno: Errno, error: Error) -> Self {
        let denied = matches!(errno, Errno::EPERM | Errno::EACCES | Errno::EROFS);
        if denied { Self::Denied(error) } else { Self::Failed(error) }
    }

    fn explain(self, tolerance: Option<Tolerance>) -> Error {
        let apply = "unable to apply cgroup configuration";
        match (self, tolerance) {
            (Self::Denied(error), Some(_)) => {
                let rule =
                    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
                Error { message: format!("{apply}: {rule}: {}", error.message), ..error }
                    .hint("remove linux.cgroupsPath and linux.resources, or delegate a cgroup to this user")
            }
            (Self::Denied(error) | Self::Failed(error), _) => {
                Error { message: format!("{apply}: {}", error.message), ..error }
            }
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// How often the directories above are made anew when another container's delete removes them meanwhile.
const TRIES: usize = 8;

/// Whether the last directory is new. Those above it are made as needed.
fn make_dirs(wanted: &CgroupDir, path: &Path, made: &mut Vec<PathBuf>) -> Result<bool, Refused> {
    let mut make = |path: &Path| match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {
            made.push(path.to_owned());
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(dir::errno(&error)),
    };
    let refused = |path: &Path, errno| Refused::by(errno, failed("mkdir", path, errno));
    for _ in 0..TRIES {
        match make(path) {
            Err(Errno::ENOENT) => {}
            done => return done.map_err(|errno| refused(path, errno)),
        }
        let mut above = wanted.mount.clone();
        for part in wanted.path.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            match make(&above) {
                Ok(_) => {}
                Err(Errno::ENOENT) => break,
                Err(errno) => return Err(refused(&above, errno)),
            }
        }
    }
    make(path).map_err(|errno| refused(path, errno))
}

/// A new directory can be frozen too, by an ancestor: whoever enters it would hang (runc #4481).
fn check_unused(dir: &Dir) -> Result<()> {
    if dir.frozen().unwrap_or(false) {
        let text = format!("container's cgroup unexpectedly frozen: {}", dir.path.display());
        return Err(Error::new(ErrorKind::CgroupFrozen, text));
    }
    if dir.fresh {
        return Ok(());
    }
    let found = dir.all_procs().map_err(|errno| dir.failed("list the processes of", errno))?.len();
    if found == 0 {
        return Ok(());
    }
    let text =
        format!("container's cgroup is not empty: {found} process(es) found in {}", dir.path.display());
    Err(Error::new(ErrorKind::CgroupNotEmpty, text)
        .hint("stop the processes there, or use another linux.cgroupsPath"))
}

const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// v1's cpusets start empty and take nobody in until they have CPUs and memory nodes: what the plan does not
/// set is copied from the parent, on every level that is still empty.
fn inherit_cpuset(dir: &Dir, wanted: &CgroupDir, plan: &CgroupPlan) -> Result<()> {
    let planned = |file: &str| plan.writes.iter().any(|write| write.dir == dir.index && write.file == file);
    for file in CPUSET_FILES.into_iter().filter(|file| !planned(file)) {
        copy_down(wanted, file)?;
    }
    // The plan's own value is written later; its parents must hold something before.
    if let Some(above) = wanted.path.parent() {
        let above = CgroupDir { path: above.to_owned(), ..wanted.clone() };
        for file in CPUSET_FILES.into_iter().filter(|file| planned(file)) {
            copy_down(&above, file)?;
        }
    }
    Ok(())
}

/// Fills `file` on every empty level down to the directory from the level above. From below, because the
/// lowest levels are the empty ones.
fn copy_down(wanted: &CgroupDir, file: &str) -> Result<()> {
    let mut empty = Vec::new();
    let mut level = wanted.path.as_path();
    let value = loop {
        let path = wanted.mount.join(level);
        let value = std::fs::read_to_string(path.join(file))
            .map_err(|error| super::failed_io("read", &path.join(file), &error))?;
        match (value.trim().is_empty(), level.parent()) {
            (true, Some(above)) => {
                empty.push(path);
                level = above;
            }
            _ => break value,
        }
    };
    for path in empty.into_iter().rev() {
        let path = path.join(file);
        std::fs::write(&path, value.trim()).map_err(|error| super::failed_io("write", &path, &error))?;
    }
    Ok(())
}

/// Sees that the controllers of the plan are enabled for this cgroup, and that it is of a kind that can have
/// them.
fn give_controllers(dir: &Dir, wanted: &CgroupDir, plan: &CgroupPlan) -> Result<()> {
    let enabled = |dir: &Dir| {
        let text = dir.read("cgroup.controllers").unwrap_or_default();
        wanted.controllers.iter().all(|wanted| text.split_whitespace().any(|name| name == wanted))
    };
    if !enabled(dir) {
        enable(wanted);
    }
    // The root has no type.
    let kind = dir.read("cgroup.type").unwrap_or_default();
    let kind = kind.trim();
    let domain = plan.writes.iter().any(|write| {
        write.dir == dir.index && matches!(&*write.controller, "memory" | "io" | "hugetlb" | "rdma")
    });
    let refuse = |state: &str| {
        let path = dir.path.display();
        let text = format!("cannot enter cgroupv2 \"{path}\" with domain controllers -- it is in {state}");
        Err(Error::new(ErrorKind::CgroupThreaded, text))
    };
    match kind {
        "domain invalid" if domain => refuse("an invalid state"),
        // Its parent has processes and a threaded subtree: joining that is the only way in.
        "domain invalid" => {
            dir.write("cgroup.type", "threaded").map_err(|errno| dir.failed("make threaded", errno))
        }
        "threaded" | "domain threaded" if domain => refuse(&format!("{kind} mode")),
        _ => Ok(()),
    }
}

/// Enables the controllers from the top down to the parent. A refusal (`EBUSY`: a level has processes of its
/// own; `EACCES`: not ours) is no error yet: it is one when a limit needs the controller, at its write.
fn enable(wanted: &CgroupDir) {
    let all = wanted.controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>();
    let mut level = wanted.mount.clone();
    for part in wanted.path.components() {
        let file = level.join("cgroup.subtree_control");
        if std::fs::write(&file, all.join(" ")).is_err() {
            for one in &all {
                std::fs::write(&file, one).ok();
            }
        }
        level.push(part);
    }
}
