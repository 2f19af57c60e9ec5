//! Makes the container's root a mount of its own, and later the root of the process. Called by
//! `launch::init` before and after the file system operations.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{self, Change, propagation};
use hull_sys::open::{self, How};
use hull_sys::{Errno, fs};

use super::{At, Call, Failure};
use crate::plan::path::HostPath;
use crate::plan::rootfs::{RootChange, RootfsPlan};

/// Cuts the new mount namespace off from the host's as the plan says, mounts a copy of the root's tree over
/// itself and opens it.
pub fn prepare(path: &HostPath, wanted: u64) -> Result<OwnedFd, Failure> {
    mount::set_propagation(c"/", wanted).at(Call::Propagation)?;
    let tree = mount::clone_tree(None, path.as_c_str(), true, false).at(Call::OpenSource)?;
    let place = open::on_host(None, path.as_c_str(), How::DIRECTORY).at(Call::OpenTarget)?;
    if wanted & propagation::SHARED != 0 {
        make_parent_private(&place)?;
    }
    mount::attach(tree.as_fd(), place.as_fd()).at(Call::Attach)?;
    if wanted & propagation::SHARED != 0 {
        // Not seen on the host, and `pivot_root` wants it so; the wanted kind is set again later.
        let private = Change { propagation: propagation::PRIVATE, ..Change::default() };
        mount::set_attributes(tree.as_fd(), private, false, None).at(Call::Propagation)?;
    }
    Ok(tree)
}

/// Makes the mount that `place` lies on private, so that what is attached there is not seen on the host.
/// `mount_setattr(2)` wants the root of a mount: walk up until it takes one.
fn make_parent_private(place: &OwnedFd) -> Result<(), Failure> {
    let private = Change { propagation: propagation::PRIVATE, ..Change::default() };
    let mut here = place.try_clone().map_err(|_full| Failure::new(Call::OpenTarget, Errno::EMFILE))?;
    loop {
        match mount::set_attributes(here.as_fd(), private, false, None) {
            Err(Errno::EINVAL) => {}
            other => return other.at(Call::Propagation),
        }
        here = open::on_host(Some(here.as_fd()), c"..", How::DIRECTORY).at(Call::OpenTarget)?;
    }
}

/// Makes `root` the root and working directory of this process.
pub fn change(root: BorrowedFd<'_>, plan: &RootfsPlan) -> Result<(), Failure> {
    match plan.change {
        RootChange::Pivot => pivot(root, plan.is_shared())?,
        RootChange::Move => {
            let here = format!("/proc/self/fd/{}", root.as_raw_fd());
            let here =
                std::ffi::CString::new(here).map_err(|_nul| Failure::new(Call::Only, Errno::EINVAL))?;
            mount::move_to_root(&here, c"/").at(Call::Attach)?;
            fs::enter_dir(root).at(Call::Only)?;
            fs::chroot_here().at(Call::Only)?;
        }
    }
    let Some((propagation, recursive)) = plan.last_propagation else { return Ok(()) };
    let change = Change { propagation, ..Change::default() };
    mount::set_attributes(root, change, recursive, None).at(Call::Propagation)
}

fn pivot(root: BorrowedFd<'_>, shared: bool) -> Result<(), Failure> {
    let old =
        if shared { Some(open::on_host(None, c"/", How::DIRECTORY).at(Call::OpenSource)?) } else { None };
    fs::enter_dir(root).at(Call::Only)?;
    mount::pivot_root_here().at(Call::Only)?;
    if let Some(old) = old {
        // Else taking the old tree away here would take it away on the host.
        fs::enter_dir(old.as_fd()).at(Call::Only)?;
        mount::set_propagation(c".", propagation::SLAVE | mount::RECURSIVE).at(Call::Propagation)?;
    }
    mount::unmount_detached(c".").at(Call::Only)?;
    fs::enter_dir(root).at(Call::Only)
}
