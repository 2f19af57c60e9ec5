//! Owns the choice of another cgroup for a process that joins a container: a sub-cgroup asked for, or init's own.
//! It may not make directories: what `exec --cgroup` names must be there.
//! `launch` calls it for exec.

use std::path::{Component, Path, PathBuf};

use hull_sys::Errno;

use super::dir::Dir;
use super::{Cgroup, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupDir, Version};

/// One `--cgroup [CONTROLLER[,CONTROLLER]:]PATH` of exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubCgroup {
    /// v1 controllers; empty for all hierarchies.
    pub controllers: Vec<String>,
    /// Relative to the container's cgroup; a leading slash means the same.
    pub path: PathBuf,
}

impl SubCgroup {
    /// Reads the option's value.
    pub fn parse(text: &str) -> Self {
        let (controllers, path) = text.split_once(':').unwrap_or(("", text));
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
        Self { controllers: controllers.collect(), path: PathBuf::from(path) }
    }
}

impl Cgroup {
    /// The same cgroup with the sub-cgroups in place of the hierarchies they name.
    ///
    /// # Errors
    /// `unknown controller X`, `bad sub cgroup path: P`, or what opening the directory answers.
    pub fn sub(&self, asked: &[SubCgroup]) -> Result<Self> {
        let mut planned = self.planned.clone();
        for sub in asked {
            let path = below(&sub.path)?;
            let wanted = |dir: &CgroupDir| sub.controllers.is_empty() || sub.covers(dir);
            for controller in &sub.controllers {
                if !self.planned.iter().any(|dir| names(dir).any(|name| name == controller)) {
                    let text = format!("unknown controller {controller} in --cgroup option");
                    return Err(Error::new(ErrorKind::SubCgroup, text));
                }
            }
            for (dir, old) in planned.iter_mut().zip(&self.planned).filter(|(_, old)| wanted(old)) {
                dir.path = old.path.join(&path);
            }
        }
        self.at(planned)
    }

    /// The cgroup that the process `init` is in now. A container's own cgroup takes no processes once it gave
    /// controllers to sub-cgroups (`EBUSY`), and init has moved to one of those.
    ///
    /// # Errors
    /// When `/proc/PID/cgroup` or the directory cannot be read.
    pub fn of_init(&self, init: i32) -> Result<Self> {
        let file = PathBuf::from(format!("/proc/{init}/cgroup"));
        let text = std::fs::read_to_string(&file).map_err(|error| super::failed_io("read", &file, &error))?;
        let v2 = text.lines().find_map(|line| line.strip_prefix("0::"));
        let mut planned = self.planned.clone();
        if let Some(path) = v2 {
            for dir in planned.iter_mut().filter(|dir| dir.version == Version::V2) {
                dir.path = below(Path::new(path))?;
            }
        }
        self.at(planned)
    }

    fn at(&self, planned: Vec<CgroupDir>) -> Result<Self> {
        let open = |(index, planned): (usize, &CgroupDir)| {
            let path = planned.mount.join(&planned.path);
            // Where the container itself has no cgroup, neither has who joins it.
            let there = self.dirs.iter().any(|dir| dir.index == index);
            there.then(|| Dir::open(index, planned, path))
        };
        let dirs = planned.iter().enumerate().filter_map(open).zip(&planned);
        let dirs = dirs.map(|(dir, planned)| {
            dir.map_err(|errno: Errno| failed("open", &planned.mount.join(&planned.path), errno))
        });
        let dirs = dirs.collect::<Result<_>>()?;
        Ok(Self { driver: self.driver, planned, dirs, made: Vec::new() })
    }
}

impl SubCgroup {
    fn covers(&self, dir: &CgroupDir) -> bool {
        names(dir).any(|name| self.controllers.iter().any(|wanted| wanted == name))
    }
}

fn names(dir: &CgroupDir) -> impl Iterator<Item = &String> {
    dir.controllers.iter().filter(|_| dir.version == Version::V1)
}

/// A path that stays below; `..` is refused rather than cleaned away, so that a typing error is seen.
fn below(path: &Path) -> Result<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        let text = format!("bad sub cgroup path: {}", path.display());
        return Err(Error::new(ErrorKind::SubCgroup, text));
    }
    Ok(path.components().filter(|part| matches!(part, Component::Normal(_))).collect())
}
