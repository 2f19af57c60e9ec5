//! What only the host side of a launch can open: the trees of bind mounts, and the namespaces to join. Called by
//! `parent`, before the clone.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an errno or stage without words of its own gets the general sentence"
)]

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::mount::attr;
use hull_sys::open::{self, How};
use hull_sys::process::Pid;
use hull_sys::{Errno, mount, namespace};
use oci_spec::runtime::LinuxNamespaceType;

use super::report;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;
use crate::plan::namespaces::{self, Join};
use crate::plan::rootfs::{Bind, FsOp, Source};

/// Opens the trees of the bind mounts that only the host side can open.
pub(super) fn open_trees(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let mut trees = Vec::with_capacity(plan.rootfs.opened);
    for step in &plan.rootfs.before {
        if let FsOp::Bind(bind) = &step.op
            && let Source::Opened(path, _) = &bind.source
        {
            let tree = mount::clone_tree(None, path.as_c_str(), bind.recursive, bind.source_nofollow)
                .and_then(|tree| {
                    // Before anything else can happen to it: else it is a peer of the host's mount.
                    let cut = mount::Change { propagation: plan.rootfs.cut, ..mount::Change::default() };
                    if !bind.stays_peer {
                        mount::set_attributes(tree.as_fd(), cut, true, None)?;
                    }
                    Ok(tree)
                });
            let tree = tree.map_err(|errno| report::source_error(path, &bind.at, errno, &step.field))?;
            if plan.namespaces.has(LinuxNamespaceType::User) && clears_locked(&tree, bind) {
                return Err(report::locked_error(path, &bind.at, &step.field));
            }
            trees.push(tree);
        }
    }
    Ok(trees)
}

/// Whether a bind mount lifts a restriction of its source's own mount. A mount that a user namespace inherits has
/// them locked; this one is opened outside, where the kernel would let us (`mount_namespaces(7)`).
fn clears_locked(tree: &OwnedFd, bind: &Bind) -> bool {
    const LOCKED: [(u64, u64); 4] = [
        (libc::ST_RDONLY, attr::RDONLY),
        (libc::ST_NOSUID, attr::NOSUID),
        (libc::ST_NODEV, attr::NODEV),
        (libc::ST_NOEXEC, attr::NOEXEC),
    ];
    let cleared = bind.change.clear | bind.recursive_change.clear;
    if LOCKED.iter().all(|(_, bit)| cleared & bit == 0) {
        return false;
    }
    // Without an answer nothing is lifted.
    let flags = hull_sys::fs::mount_flags(tree.as_fd()).unwrap_or(u64::MAX);
    LOCKED.iter().any(|(flag, bit)| flags & flag != 0 && cleared & bit != 0)
}

pub(super) fn open_namespaces(plan: &Plan) -> Result<Vec<OwnedFd>> {
    plan.namespaces.join.iter().map(|join| open_namespace(join, plan)).collect()
}

fn open_namespace(join: &Join, plan: &Plan) -> Result<OwnedFd> {
    let failed = |errno: Errno| {
        let error =
            Error::new(ErrorKind::NamespacePath, format!("open {}: {}", join.path, report::words(errno)));
        let error = match errno {
            Errno::ENOENT | Errno::ESRCH => {
                error.hint("the process or file that keeps this namespace alive is gone")
            }
            Errno::EACCES | Errno::EPERM => error
                .hint("opening a file in /proc/PID/ns needs permission to trace that process (ptrace(2))"),
            _ => error,
        };
        error.field(join.field.clone())
    };
    let file = open::on_host(None, join.path.as_c_str(), How::READ).map_err(failed)?;
    // By the opened descriptor: a path may lead anywhere by now.
    match &join.not_ours {
        Some(refusal) if is_own(&file, join.kind).map_err(failed)? && !has_names(join, plan) => {
            Err(refusal.clone())
        }
        _ => Ok(file),
    }
}

/// Whether the host has the names already that the plan sets: CRI-O names its node's in pods of the node's network.
fn has_names(join: &Join, plan: &Plan) -> bool {
    let is = |name: &Option<String>, file: &str| {
        name.as_ref().is_none_or(|name| std::fs::read_to_string(file).is_ok_and(|text| text.trim() == name))
    };
    let has_sysctl = plan.sysctl.iter().any(|one| one.path.as_c_str() == c"sys/kernel/domainname");
    join.kind == namespaces::bit(LinuxNamespaceType::Uts)
        && !has_sysctl
        && is(&plan.hostname, "/proc/sys/kernel/hostname")
        && is(&plan.domainname, "/proc/sys/kernel/domainname")
}

/// Whether a namespace is the one this process is in.
fn is_own(file: &OwnedFd, kind: u64) -> hull_sys::Result<bool> {
    let Some(own) = namespaces::own_file(kind) else { return Ok(false) };
    let (one, other) = (hull_sys::fs::stat(file.as_fd())?, hull_sys::fs::stat_host(own)?);
    Ok((one.dev, one.ino) == (other.dev, other.ino))
}

/// Maps the ids of idmapped trees: those that have maps of their own before the clone (`init` is none),
/// the others by the user namespace of the child, which only then has its maps.
pub(super) fn map_trees(plan: &Plan, trees: &[OwnedFd], init: Option<Pid>) -> Result<()> {
    for step in &plan.rootfs.before {
        if let FsOp::Bind(bind) = &step.op
            && let (Some(idmap), Source::Opened(_, slot)) = (&bind.idmap, &bind.source)
            && let Some(tree) = trees.get(*slot)
        {
            let user = match (&idmap.maps, init) {
                (Some((uids, gids)), None) => namespace::user_with_maps(uids, gids),
                (None, Some(pid)) => namespace::user_of(pid),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            user.and_then(|user| {
                let change = mount::Change::default();
                mount::set_attributes(tree.as_fd(), change, idmap.recursive, Some(user.as_fd()))
            })
            .map_err(|errno| {
                Error::new(
                    ErrorKind::MountIdmap,
                    format!("map ids of the mount on {}: {}", bind.at, report::words(errno)),
                )
                .hint("the file system of the source must support idmapped mounts")
                .field(step.field.clone())
            })?;
        }
    }
    Ok(())
}
