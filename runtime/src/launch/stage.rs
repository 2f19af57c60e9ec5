//! The intermediate process of a staged launch: it exists only when namespaces are joined, which changes the
//! caller for good. It joins, makes the container's init as a child of our
//! own parent, says its number and ends. Called by `parent` in the process that becomes the stage.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use hull_sys::namespace::CLONE_NEWUSER;
use hull_sys::process::{self, Clone, Forked, Pid};
use hull_sys::{Errno, cred, namespace, socket};

use super::channel::{In, Report, Stage};
use super::init::enter_cgroup;
use crate::apply::{Call, Failure};
use crate::cgroup::Cgroup;
use crate::plan::namespaces::NamespacePlan;

/// Joins, then makes init. Answers in init; the stage itself ends here.
///
/// # Errors
/// The step that failed, for the parent.
pub fn run(
    spaces: &NamespacePlan,
    joined: &[OwnedFd],
    cgroup: &Cgroup,
    answer: BorrowedFd<'_>,
) -> Result<(), Report> {
    enter_cgroup(cgroup)?;
    join(spaces, joined)?;
    let init = Clone { namespaces: spaces.new, sibling: true, ..Clone::default() };
    match process::clone(init).during(Stage::Clone, 0)? {
        Forked::Child => Ok(()),
        Forked::Parent { pid, pidfd } => {
            // The table of descriptors is the parent's own: the handle is there already, and must stay.
            let said = say(answer, pid, pidfd.into_raw_fd());
            process::exit(i32::from(said.is_err()))
        }
    }
}

fn say(answer: BorrowedFd<'_>, pid: Pid, pidfd: i32) -> hull_sys::Result<()> {
    let mut text = [0; 8];
    text[..4].copy_from_slice(&pid.to_ne_bytes());
    text[4..].copy_from_slice(&pidfd.to_ne_bytes());
    socket::send(answer, &text, None)
}

/// What a stage says: number of init, and of its handle in the shared table.
pub fn heard(text: [u8; 8]) -> (Pid, i32) {
    let word = |at: usize| i32::from_ne_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
    (word(0), word(4))
}

/// Joins all but the user namespace, then that, then those that only its owner may join.
fn join(spaces: &NamespacePlan, joined: &[OwnedFd]) -> Result<(), Report> {
    // Those of others come last, and by init itself.
    let later = spaces.shared_pids();
    let all: Vec<_> =
        spaces.join.iter().zip(joined).enumerate().filter(|(index, _)| later != Some(*index)).collect();
    let user = all.iter().find(|(_, (join, _))| join.kind == CLONE_NEWUSER);
    let mut left = Vec::new();
    for (index, (join, fd)) in all.iter().filter(|(_, (join, _))| join.kind != CLONE_NEWUSER) {
        match namespace::enter(fd.as_fd(), join.kind) {
            Err(Errno::EPERM) if user.is_some() => left.push((*index, join.kind, fd)),
            other => other.during(Stage::Join, *index)?,
        }
    }
    if let Some((index, (join, fd))) = user {
        namespace::enter(fd.as_fd(), join.kind).during(Stage::Join, *index)?;
        cred::set_gid(0).during(Stage::IdMap, 1)?;
        cred::set_uid(0).during(Stage::IdMap, 2)?;
        process::set_dumpable(false).during(Stage::IdMap, 3)?;
    }
    for (index, kind, fd) in left {
        namespace::enter(fd.as_fd(), kind).during(Stage::Join, index)?;
    }
    Ok(())
}

/// The failure of a stage that ended without a word.
pub fn silent() -> Report {
    Report::new(Stage::Clone, 0, Failure::new(Call::Only, Errno::EPIPE))
}
