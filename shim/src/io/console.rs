//! The socket over which a runtime sends the other end of a new terminal.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::Result;

/// A socket that waits for one terminal. Its file goes with it.
#[derive(Debug)]
pub struct ConsoleSocket {}

impl ConsoleSocket {
    /// Listens at a fresh path, short enough for a socket's address.
    ///
    /// # Errors
    /// When no directory for it can be made.
    pub fn bind() -> Result<Self> {
        todo!()
    }

    /// For `--console-socket`.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// The terminal.
    ///
    /// # Errors
    /// When the runtime sends none within 30 s.
    pub async fn receive(self) -> Result<OwnedFd> {
        todo!()
    }
}
