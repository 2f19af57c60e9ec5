//! Makes the container's root a mount of its own, and later the root of the process. Called by
//! `launch::init` before and after the file system operations.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::fs;
use hull_sys::mount::{self, Change, propagation};
use hull_sys::open::{self, How};

use super::process::Proc;
use super::{At, Call, Failure, old_root};
use crate::plan::rootfs::{RootChange, RootfsPlan};

/// Cuts the new mount namespace off from the host's, mounts a copy of the root's tree over itself and opens
/// it.
pub fn prepare(plan: &RootfsPlan) -> Result<OwnedFd, Failure> {
    mount::set_propagation(c"/", plan.cut | mount::RECURSIVE).at(Call::Propagation)?;
    let path = plan.path.as_c_str();
    let tree = mount::clone_tree(None, path, true, false).at(Call::OpenSource)?;
    let place = open::on_host(None, path, How::DIRECTORY).at(Call::OpenTarget)?;
    if let Some((propagation, recursive)) = plan.first_propagation {
        let change = Change { propagation, ..Change::default() };
        mount::set_attributes(tree.as_fd(), change, recursive, None).at(Call::Propagation)?;
    }
    mount::attach(tree.as_fd(), place.as_fd()).at(Call::Attach)?;
    Ok(tree)
}

/// Makes `root` the root and working directory of this process.
pub fn change(root: BorrowedFd<'_>, plan: &RootfsPlan, proc: &Proc) -> Result<(), Failure> {
    let old = open::on_host(None, c"/", How::DIRECTORY).at(Call::OpenSource)?;
    match plan.change {
        RootChange::Pivot => pivot(root, old.as_fd())?,
        RootChange::Move => {
            old_root::take_away(root, old.as_fd(), proc)?;
            mount::attach(root, old.as_fd()).at(Call::Attach)?;
            fs::enter_dir(root).at(Call::Only)?;
            fs::chroot_here().at(Call::Only)?;
        }
    }
    let Some((propagation, recursive)) = plan.last_propagation else { return Ok(()) };
    let change = Change { propagation, ..Change::default() };
    mount::set_attributes(root, change, recursive, None).at(Call::Propagation)
}

fn pivot(root: BorrowedFd<'_>, old: BorrowedFd<'_>) -> Result<(), Failure> {
    fs::enter_dir(root).at(Call::Only)?;
    mount::pivot_root_here().at(Call::Only)?;
    fs::enter_dir(old).at(Call::Only)?;
    // Again: a hook may have made something shared. What is taken away here must stay on the host.
    mount::set_propagation(c".", propagation::SLAVE | mount::RECURSIVE).at(Call::Propagation)?;
    mount::unmount_detached(c".").at(Call::Only)?;
    fs::enter_dir(root).at(Call::Only)
}
