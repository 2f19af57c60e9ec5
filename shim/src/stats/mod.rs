//! What a container uses, read from its cgroup, in the messages that daemons decode. Reads files only.
//! `container` calls it.

mod v1;
mod v2;

use std::path::{Path, PathBuf};

use hull_cgroup::{Hierarchies, files, hierarchy};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};

use crate::error::{Error, Result};

/// The cgroup directories of a container: one on v2, several on v1 and hybrid hosts.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// Those of v1, each with its controllers (`cpu,cpuacct`); none on a v2 host.
    v1: Vec<(String, PathBuf)>,
    /// The one of v2, where that is mounted.
    v2: Option<PathBuf>,
}

/// Where the memory controller of a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory<'a> {
    /// On a v1 hierarchy.
    V1(&'a Path),
    /// On v2.
    V2(&'a Path),
    /// Nowhere.
    None,
}

impl Cgroup {
    /// Those that process `pid` is in now.
    ///
    /// # Errors
    /// When the process is gone or its cgroups cannot be told.
    pub fn of(pid: i32) -> Result<Self> {
        let Hierarchies { v1, v2, .. } = Hierarchies::of_process(pid)?;
        let with_controllers = v1.into_iter().filter(|one| one.name.is_none());
        let v1 = with_controllers.map(|one| (one.controllers.join(","), one.mount.join(one.own))).collect();
        Ok(Self { v1, v2: v2.map(|one| one.mount.join(one.own)) })
    }

    /// The processes in it and in the cgroups below it; none when it is gone.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let whole = [self.v1("pids"), self.v1("memory")].into_iter().flatten();
        let dir = whole.chain(self.dirs()).find(|dir| !hierarchy::is_root(dir));
        let mut pids = Vec::new();
        if let Some(dir) = dir {
            files::pids(dir, &mut pids)?;
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// `io.containerd.cgroups.v1.Metrics` or `io.containerd.cgroups.v2.Metrics`, without networks: those
    /// belong to the network namespace, and no daemon looks for them here.
    ///
    /// # Errors
    /// Not found, when the cgroup is gone.
    pub fn metrics(&self) -> Result<Any> {
        let (kind, value) = match &self.v2 {
            Some(v2) if self.v1.is_empty() => ("v2", v2::metrics(v2)?.write_to_bytes()),
            _ => ("v1", v1::metrics(self)?.write_to_bytes()),
        };
        // Afterwards: a cgroup that goes while it is read leaves parts out.
        if self.dirs().all(|dir| !dir.exists()) {
            let dir = self.dirs().next().unwrap_or(Path::new("")).display();
            return Err(Error::not_found(format!("cgroup {dir} does not exist")));
        }
        let value = value.map_err(|error| Error::failed("encode metrics", error))?;
        let type_url = format!("io.containerd.cgroups.{kind}.Metrics");
        Ok(Any { type_url, value, ..Any::default() })
    }

    /// Where memory is limited and counted. On a hybrid host that is v1 unless v1 is without the controller.
    /// The root of a hierarchy counts for the whole host.
    pub fn memory(&self) -> Memory<'_> {
        match (self.v1("memory"), &self.v2) {
            (Some(dir), _) if hierarchy::is_root(dir) => Memory::None,
            (Some(dir), _) => Memory::V1(dir),
            (None, Some(dir)) if dir.join("memory.events").exists() => Memory::V2(dir),
            _ => Memory::None,
        }
    }

    /// One with this v1 controller only.
    #[cfg(test)]
    pub fn at_v1(controller: &str, dir: &Path) -> Self {
        Self { v1: vec![(controller.to_owned(), dir.to_owned())], v2: None }
    }

    /// One of a v2 host.
    #[cfg(test)]
    pub fn at_v2(dir: &Path) -> Self {
        Self { v1: Vec::new(), v2: Some(dir.to_owned()) }
    }

    /// The directory with this v1 controller.
    fn v1(&self, controller: &str) -> Option<&Path> {
        let has = |names: &str| names.split(',').any(|name| name == controller);
        self.v1.iter().find(|(names, _)| has(names)).map(|(_, dir)| dir.as_path())
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|(_, dir)| dir).chain(&self.v2).map(PathBuf::as_path)
    }
}

/// What is read from `dir`, when there is such a directory.
pub fn part<T>(
    dir: Option<&Path>,
    read: impl Fn(&Path) -> hull_cgroup::Result<Option<T>>,
) -> hull_cgroup::Result<MessageField<T>> {
    Ok(MessageField::from_option(dir.map(read).transpose()?.flatten()))
}

#[cfg(test)]
mod tests {
    use hull_proto::{cgroup1, cgroup2};

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn v2_host_answers_the_v2_message() {
        let scratch = Scratch::new("stats-v2");
        scratch.file("pids.current", "3\n");
        let any = Cgroup::at_v2(scratch.path()).metrics().unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        assert_eq!(cgroup2::Metrics::parse_from_bytes(&any.value).unwrap().pids.current, 3);
    }

    #[test]
    fn hybrid_host_answers_the_v1_message() {
        let scratch = Scratch::new("stats-hybrid");
        scratch.dir("pids");
        scratch.file("pids/pids.current", "4\n");
        let v1 = vec![("pids".to_owned(), scratch.path().join("pids"))];
        let any = Cgroup { v1, v2: Some(scratch.dir("unified")) }.metrics().unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        assert_eq!(cgroup1::Metrics::parse_from_bytes(&any.value).unwrap().pids.current, 4);
    }

    #[test]
    fn cgroup_that_is_gone_is_not_found() {
        let error = Cgroup::at_v2(Path::new("/sys/fs/cgroup/hull-shim-none")).metrics().unwrap_err();
        assert_eq!(error.code, ttrpc::Code::NOT_FOUND);
        assert_eq!(error.message, "cgroup /sys/fs/cgroup/hull-shim-none does not exist");
    }

    #[test]
    fn processes_of_cgroups_below_are_counted_in() {
        let scratch = Scratch::new("stats-pids");
        scratch.file("cgroup.procs", "1\n20\n");
        scratch.dir("a/b");
        scratch.file("a/b/cgroup.procs", "300\n");
        let cgroup = Cgroup::at_v2(scratch.path());
        assert_eq!(cgroup.pids().unwrap(), [1, 20, 300]);
        drop(scratch);
        assert!(cgroup.pids().unwrap().is_empty());
    }

    #[test]
    fn memory_of_a_hybrid_host_is_that_of_v1() {
        let scratch = Scratch::new("stats-memory");
        let v2 = scratch.path().to_owned();
        let v1 = vec![("cpu,memory".to_owned(), PathBuf::from("/m"))];
        assert_eq!(Cgroup::at_v2(&v2).memory(), Memory::None);
        scratch.file("memory.events", "");
        assert_eq!(Cgroup::at_v2(&v2).memory(), Memory::V2(&v2));
        assert_eq!(Cgroup { v1, v2: Some(v2) }.memory(), Memory::V1(Path::new("/m")));
    }
}
