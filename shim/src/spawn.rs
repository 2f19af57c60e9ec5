//! Processes the shim starts and waits for, each by a pidfd: its number is never another's while it is waited
//! for. Everything that ends is reaped here or by `reaper`.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::SystemTime;

use hull_sys::process::{self, Pid};
use hull_sys::{Errno, pidfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::watch::watch;

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its code, or 128 and the number of the signal that killed it.
    pub status: u32,
    /// When that was seen.
    pub at: SystemTime,
}

/// A child of ours, until it is reaped.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    handle: AsyncFd<OwnedFd>,
}

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|why| Error::failed(format!("execute {name}"), why))?;
        let pid = Pid::try_from(child.id()).map_err(|why| Error::failed(format!("execute {name}"), why))?;
        Self::adopt(pid)
    }

    /// One that has become our child; it may have ended already, and is reaped by nobody else.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn adopt(pid: Pid) -> Result<Self> {
        let failed = |why: Errno| Error::failed(format!("watch process {pid}"), why.desc());
        let handle = pidfd::open(pid).map_err(failed)?;
        let handle = watch(handle, Interest::READABLE)
            .map_err(|why| Error::failed(format!("watch process {pid}"), why))?;
        Ok(Self { pid, handle })
    }

    /// Waits for its end and reaps it.
    pub async fn wait(&self) -> Exit {
        loop {
            // A pidfd is readable from the end of its process on; nothing else makes it ready.
            let ready = self.handle.readable().await;
            let at = SystemTime::now();
            match process::wait(self.handle.get_ref().as_fd(), false) {
                Ok(Some(exit)) => return Exit { status: exit.code().unsigned_abs(), at },
                Ok(None) => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                // Not a child of ours: its status is lost.
                Err(_) => return Exit { status: UNKNOWN, at },
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, signal: i32) -> hull_sys::Result<()> {
        pidfd::signal(self.handle.get_ref().as_fd(), signal)
    }
}

/// The status of a process whose end nobody saw.
pub const UNKNOWN: u32 = 255;
