//! Whose a container's v2 cgroup is (`config-linux.md#cgroup-ownership`): the user's of its process, where that
//! can manage sub-cgroups by a writable mount in a user and a cgroup namespace of its own.

use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use crate::error::Field;
use crate::host::Facts;
use crate::plan::namespaces::NamespacePlan;
use hull_cgroup::Mode;

/// Who gets the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user on the host.
    pub uid: u32,
    /// The mount that asks for it.
    pub field: Field,
}

/// The owner; `None` leaves the cgroup to us. On v1 giving it away is not safe.
pub fn plan(spec: &Spec, facts: &Facts, namespaces: &NamespacePlan) -> Option<Owner> {
    if facts.cgroup.mode != Mode::Unified || !namespaces.new_cgroup {
        return None;
    }
    namespaces.ids.as_ref()?;
    let index = spec.mounts().iter().flatten().position(is_writable_view)?;
    let user = spec.process().as_ref()?.user().uid();
    let maps = spec.linux().as_ref()?.uid_mappings().iter().flatten();
    let uid = maps.filter_map(|map| on_host(map, user)).next()?;
    // An ordinary user may give to nobody else.
    (facts.euid == 0 || facts.euid == uid).then(|| Owner { uid, field: Field::item("mounts", index) })
}

fn is_writable_view(mount: &Mount) -> bool {
    let is_read_only = |option: &String| matches!(option.as_str(), "ro" | "rro");
    mount.source().as_deref() == Some(Path::new("cgroup"))
        && mount.destination() == Path::new("/sys/fs/cgroup")
        && !mount.options().iter().flatten().any(is_read_only)
}

/// The host's id of `inside`, when this line maps it.
fn on_host(map: &LinuxIdMapping, inside: u32) -> Option<u32> {
    let offset = inside.checked_sub(map.container_id()).filter(|offset| *offset < map.size())?;
    map.host_id().checked_add(offset)
}
