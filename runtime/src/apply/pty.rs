//! A container's terminal: a pty of the container's own devpts. Called by `apply::fs` for init, and by
//! `launch::join` for one more process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::open::{self, How};
use hull_sys::{Errno, fs, tty};

use super::{At, Call, Failure};

/// Both ends of a container's terminal.
pub struct Pty {
    /// For the caller.
    pub master: OwnedFd,
    /// For the container.
    pub slave: OwnedFd,
}

impl Pty {
    /// A new pty of the devpts below `root`, checked to be one (CVE-2025-52565).
    pub fn open(root: BorrowedFd<'_>) -> Result<Self, Failure> {
        let master = open::in_root(root, c"/dev/pts/ptmx", How::TERMINAL).at(Call::Terminal)?;
        if fs::magic_of(master.as_fd()).at(Call::Terminal)? != fs::magic::DEVPTS {
            return Err(Failure::new(Call::TargetDiffers, Errno::ENOTTY));
        }
        tty::unlock(master.as_fd()).at(Call::Terminal)?;
        let slave = tty::peer(master.as_fd()).at(Call::Terminal)?;
        Ok(Self { master, slave })
    }
}
