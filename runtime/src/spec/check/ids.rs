//! The rules on user namespace mappings: those the kernel would answer with a bare EINVAL, and those runc has.
//! It reads the config only. `check` calls it for the container, `check::mounts` for idmapped mounts.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::at::At;
use super::process::NO_ID;
use super::{Namespaces, refuse};
use crate::error::{ErrorKind, Result};

/// Lines in a `uid_map` (user_namespaces(7), since Linux 4.15).
const MAX_LINES: usize = 340;

pub(super) fn check(linux: &Linux, owned: Namespaces) -> Result<()> {
    let sides = [
        ("uid", At::Named("linux.uidMappings"), linux.uid_mappings()),
        ("gid", At::Named("linux.gidMappings"), linux.gid_mappings()),
    ];
    for (kind, field, mappings) in sides {
        let mappings = mappings.as_deref().unwrap_or_default();
        if !owned.has(LinuxNamespaceType::User) && !mappings.is_empty() {
            let message = "User namespace mappings specified, but USER namespace isn't enabled in the config";
            return Err(refuse(ErrorKind::UserNamespaceMissing, field, message)
                .hint("add {\"type\": \"user\"} to linux.namespaces, or remove the mappings"));
        }
        // With a path the mappings are those of the namespace joined; containerd and CRI-O write both.
        if owned.makes(LinuxNamespaceType::User) && mappings.is_empty() {
            let message = format!("user namespaces enabled, but no {kind} mappings found");
            return Err(refuse(ErrorKind::IdMappingsMissing, field, message));
        }
        check_lines(field, mappings)?;
        if owned.makes(LinuxNamespaceType::User) && !mappings.iter().any(|one| one.container_id() == 0) {
            let message = format!("no mapping found for {kind} 0, which is needed to set up a container");
            return Err(refuse(ErrorKind::IdMappingRoot, field, message).hint(
                "map ID 0 of the container to an ID of the host, even if the process runs as another user",
            ));
        }
    }
    Ok(())
}

/// Refuses lines that no kernel takes.
pub(super) fn check_lines(field: At<'_>, mappings: &[LinuxIdMapping]) -> Result<()> {
    if mappings.len() > MAX_LINES {
        let message = format!("{} mappings, and the kernel accepts at most {MAX_LINES}", mappings.len());
        return Err(refuse(ErrorKind::IdMappingsMany, field, message));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let at = field.index(index);
        if mapping.size() == 0 {
            return Err(refuse(
                ErrorKind::IdMappingEmpty,
                at.member("size"),
                "a mapping of size 0 maps nothing",
            ));
        }
        for (name, first) in [("containerID", mapping.container_id()), ("hostID", mapping.host_id())] {
            if first == NO_ID || first.checked_add(mapping.size()).is_none() {
                let message = format!(
                    "a range of size {} from {first} goes beyond the last ID {}",
                    mapping.size(),
                    NO_ID - 1
                );
                return Err(refuse(ErrorKind::IdMappingRange, at.member(name), message));
            }
        }
        for earlier in mappings.iter().take(index) {
            let overlap =
                |a: u32, b: u32| a < b.saturating_add(mapping.size()) && b < a.saturating_add(earlier.size());
            if overlap(earlier.container_id(), mapping.container_id())
                || overlap(earlier.host_id(), mapping.host_id())
            {
                return Err(refuse(ErrorKind::IdMappingOverlap, at, "overlaps an earlier mapping"));
            }
        }
    }
    Ok(())
}
