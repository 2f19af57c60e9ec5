//! Which namespaces a container gets new, which it joins, and how ids map into its user namespace. Pure;
//! `launch` makes and joins them.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

use super::path::HostPath;
use crate::error::{Error, ErrorKind, Field, Result};

mod shared;

/// A namespace that exists already.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Its `CLONE_NEW*` bit.
    pub kind: u64,
    /// Its file.
    pub path: HostPath,
    /// The config field that names it.
    pub field: Field,
    /// The error when it turns out to be the one the caller is in: the plan changes something in it, or all.
    pub not_ours: Option<Error>,
}

/// The file of this process's own namespace of a kind.
pub fn own_file(kind: u64) -> Option<&'static std::ffi::CStr> {
    const FILES: [(LinuxNamespaceType, &std::ffi::CStr); 7] = [
        (LinuxNamespaceType::User, c"/proc/self/ns/user"),
        (LinuxNamespaceType::Pid, c"/proc/self/ns/pid"),
        (LinuxNamespaceType::Network, c"/proc/self/ns/net"),
        (LinuxNamespaceType::Ipc, c"/proc/self/ns/ipc"),
        (LinuxNamespaceType::Uts, c"/proc/self/ns/uts"),
        (LinuxNamespaceType::Mount, c"/proc/self/ns/mnt"),
        (LinuxNamespaceType::Cgroup, c"/proc/self/ns/cgroup"),
    ];
    FILES.iter().find(|(one, _)| bit(*one) == kind).map(|(_, file)| *file)
}

/// The id maps of a new user namespace, in the form of `/proc/PID/uid_map`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct IdMaps {
    /// Lines of `uid_map`.
    pub uid: String,
    /// Lines of `gid_map`.
    pub gid: String,
    /// The host's id of uid 0 inside, when it is mapped.
    pub root_uid: Option<u32>,
    /// The host's id of gid 0 inside, when it is mapped.
    pub root_gid: Option<u32>,
    /// Whether the maps need no privilege: our own id alone.
    pub own_ids_only: bool,
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespacePlan {
    /// `CLONE_NEW*` bits made by the clone itself.
    pub new: u64,
    /// A cgroup namespace, made by the child once it is in its cgroup.
    pub new_cgroup: bool,
    /// Those joined, in the order of the spec.
    pub join: Vec<Join>,
    /// The id maps of the new user namespace.
    pub ids: Option<IdMaps>,
    /// Lines of `/proc/self/timens_offsets`; with them the time namespace is made by the child.
    pub time_offsets: String,
}

impl NamespacePlan {
    /// All namespaces that are the container's own or joined, as `CLONE_NEW*` bits: what an exec enters.
    pub fn all(&self) -> u64 {
        let cgroup = if self.new_cgroup { bit(LinuxNamespaceType::Cgroup) } else { 0 };
        let time = if self.time_offsets.is_empty() { 0 } else { bit(LinuxNamespaceType::Time) };
        self.join.iter().fold(self.new | cgroup | time, |all, one| all | one.kind)
    }

    /// Whether `kind` is among [`Self::all`].
    pub fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.all() & bit(kind) != 0
    }

    /// Whether a namespace of this kind is made for the container, by whatever call.
    pub fn makes(&self, kind: LinuxNamespaceType) -> bool {
        self.has(kind) && !self.join.iter().any(|one| one.kind == bit(kind))
    }

    /// The slot in [`Self::join`] of a pid namespace that others are in: the set-up then runs outside of it, and
    /// makes the process that is in there last, so that they never see one whose root is the host's. With a user
    /// namespace they may not look into it.
    pub fn shared_pids(&self) -> Option<usize> {
        let pids = self.join.iter().position(|one| one.kind == bit(LinuxNamespaceType::Pid));
        pids.filter(|_| !self.has(LinuxNamespaceType::User))
    }

    /// Whether the container's init cannot be made by one clone of ours.
    pub fn is_staged(&self) -> bool {
        !self.join.is_empty()
    }
}

/// The `CLONE_NEW*` bit of a namespace type.
pub fn bit(kind: LinuxNamespaceType) -> u64 {
    // The enum's numbers are the kernel's.
    u64::from((kind as i32).cast_unsigned())
}

/// Computes the namespaces.
///
/// # Errors
/// A bad path or map, with its field.
pub fn plan(spec: &Spec, linux: &Linux, euid: u32, egid: u32) -> Result<NamespacePlan> {
    let mut plan = NamespacePlan::default();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = Field::item("linux.namespaces", index).member("path");
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => {
                let kind = bit(namespace.typ());
                let not_ours = shared::refusal(namespace.typ(), spec, linux, &field);
                plan.join.push(Join { kind, path: HostPath::new(path.to_string_lossy())?, field, not_ours });
            }
            None if namespace.typ() == LinuxNamespaceType::Cgroup => plan.new_cgroup = true,
            None => plan.new |= bit(namespace.typ()),
        }
    }
    if plan.new & bit(LinuxNamespaceType::User) != 0 {
        plan.ids = Some(id_maps(linux, euid, egid));
    }
    plan.time_offsets = time_offsets(linux);
    if !plan.time_offsets.is_empty() {
        if plan.new & bit(LinuxNamespaceType::Time) == 0 {
            return Err(Error::new(ErrorKind::TimeOffsets, "time offsets need a new time namespace")
                .field(Field::named("linux.timeOffsets")));
        }
        plan.new &= !bit(LinuxNamespaceType::Time);
    }
    Ok(plan)
}

/// Mappings as the lines of `uid_map` and `gid_map`.
pub fn map_lines(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}

fn id_maps(linux: &Linux, euid: u32, egid: u32) -> IdMaps {
    let lines = |maps: &Option<Vec<LinuxIdMapping>>| maps.as_deref().map(map_lines).unwrap_or_default();
    let root = |maps: &Option<Vec<LinuxIdMapping>>| {
        maps.iter().flatten().find(|m| m.container_id() == 0 && m.size() > 0).map(LinuxIdMapping::host_id)
    };
    let is_own = |maps: &Option<Vec<LinuxIdMapping>>, own: u32| {
        maps.as_deref().is_some_and(|maps| matches!(maps, [one] if one.size() == 1 && one.host_id() == own))
    };
    let (uids, gids) = (linux.uid_mappings(), linux.gid_mappings());
    IdMaps {
        uid: lines(uids),
        gid: lines(gids),
        root_uid: root(uids),
        root_gid: root(gids),
        own_ids_only: is_own(uids, euid) && is_own(gids, egid),
    }
}

fn time_offsets(linux: &Linux) -> String {
    let mut lines: Vec<String> = linux
        .time_offsets()
        .iter()
        .flatten()
        .map(|(clock, offset)| {
            format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
        })
        .collect();
    lines.sort();
    lines.concat()
}
