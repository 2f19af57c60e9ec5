//! A procfs of a pid namespace that this process is not in. The kernel makes one for the namespace of whoever
//! begins to (`fsopen(2)`), and a process in there can be looked at by the container: so it is one that has an
//! empty root and nothing of the host, begins, hands over what it has begun and ends. Called by `init`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{self, propagation};
use hull_sys::open::{self, How};
use hull_sys::process::{self, Clone, Forked};
use hull_sys::{Errno, fs, namespace, socket};

use crate::apply::hide::empty_directory;
use crate::apply::{At, Call, Failure};

/// A procfs of the pid namespace `pids`, to be configured.
pub(super) fn of(pids: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = socket::pair().at(Call::CreateFs)?;
    let outside = match process::clone(Clone::default()).at(Call::CreateFs)? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            if let Err(failure) = go_in(pids, theirs.as_fd()) {
                tell(theirs.as_fd(), failure);
            }
            process::exit(0)
        }
    };
    drop(theirs);
    let mut words = [0; LENGTH];
    let heard = socket::receive(ours.as_fd(), &mut words);
    process::wait(outside.as_fd(), true).at(Call::CreateFs)?;
    match heard.at(Call::CreateFs)? {
        (_, Some(begun)) => Ok(begun),
        (LENGTH, None) => Err(from_words(words)),
        _ => Err(Failure::new(Call::CreateFs, Errno::EPIPE)),
    }
}

/// Leaves the host behind, then makes the process that is seen in there, and waits for it.
fn go_in(pids: BorrowedFd<'_>, answer: BorrowedFd<'_>) -> Result<(), Failure> {
    process::wipe_environment();
    fs::close_all_but(3, [pids, answer].into_iter()).at(Call::CreateFs)?;
    namespace::unshare(libc::CLONE_NEWNS.cast_unsigned().into()).at(Call::CreateFs)?;
    mount::set_propagation(c"/", propagation::SLAVE | mount::RECURSIVE).at(Call::Propagation)?;
    let empty = empty_directory()?;
    let top = open::on_host(None, c"/", How::DIRECTORY).at(Call::OpenTarget)?;
    // On top of the root: from there `..` leads nowhere, with whatever root one looks.
    mount::attach(empty.as_fd(), top.as_fd()).at(Call::Attach)?;
    fs::enter_dir(empty.as_fd()).at(Call::CreateFs)?;
    fs::chroot_here().at(Call::CreateFs)?;
    namespace::enter(pids, libc::CLONE_NEWPID.cast_unsigned().into()).at(Call::CreateFs)?;
    fs::close_all_but(3, [answer].into_iter()).at(Call::CreateFs)?;
    match process::clone(Clone::default()).at(Call::CreateFs)? {
        Forked::Parent { pidfd, .. } => process::wait(pidfd.as_fd(), true).at(Call::CreateFs).map(drop),
        Forked::Child => {
            match mount::open_fs(c"proc").at(Call::OpenFs) {
                // Nobody is left to be told when this fails; the other side finds nothing.
                Ok(begun) => drop(socket::send(answer, &[0], Some(begun.as_fd())).is_ok()),
                Err(failure) => tell(answer, failure),
            }
            process::exit(0)
        }
    }
}

const LENGTH: usize = 6;

fn tell(answer: BorrowedFd<'_>, failure: Failure) {
    let [a, b, c, d] = failure.errno.to_ne_bytes();
    // As above.
    let _told = socket::send(answer, &[failure.call as u8, failure.detail, a, b, c, d], None).is_ok();
}

fn from_words([call, detail, a, b, c, d]: [u8; LENGTH]) -> Failure {
    Failure { call: Call::from_number(call), detail, errno: i32::from_ne_bytes([a, b, c, d]) }
}
