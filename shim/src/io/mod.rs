//! The standard streams of a process: what the daemon names in a request becomes descriptors for the process
//! and copies between them and the daemon's FIFOs, files or log programs. Owns every such descriptor; may not
//! touch processes and their states. `container` calls it.

pub mod console;

use std::os::fd::OwnedFd;

use crate::error::Result;

/// The streams of one process, as the daemon's request names them.
#[derive(Clone, Debug, Default)]
pub struct Stdio {
    /// Where input comes from; empty for none.
    pub stdin: String,
    /// Where output goes: a path of a FIFO, or a URI (`fifo`, `file`, `binary`, `binary-v2`); empty for nowhere.
    pub stdout: String,
    /// Where errors go; unused with a terminal.
    pub stderr: String,
    /// One pseudo-terminal instead of three streams.
    pub terminal: bool,
}

/// Whose streams they are.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The daemon's namespace.
    pub namespace: String,
    /// The container; log programs are told.
    pub container: String,
    /// The user the pipes are given to.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The process's side; with a terminal, or for an unnamed stream, nothing (the null device is meant).
#[derive(Debug, Default)]
pub struct Ends {
    /// For reading.
    pub stdin: Option<OwnedFd>,
    /// For writing.
    pub stdout: Option<OwnedFd>,
    /// For writing.
    pub stderr: Option<OwnedFd>,
}

/// Our side, until it is dropped: the copies, and what keeps the daemon's FIFOs open.
#[derive(Debug)]
pub struct Streams {}

impl Streams {
    /// Opens what the request names. Nothing is copied before [`Self::start`].
    ///
    /// # Errors
    /// What cannot be opened, by its name; nothing stays open.
    pub async fn open(_stdio: &Stdio, _owner: &Owner) -> Result<(Ends, Self)> {
        todo!()
    }

    /// Begins to copy. With a terminal, `console` is its other end.
    ///
    /// # Errors
    /// When the console cannot be watched.
    pub fn start(&self, _console: Option<OwnedFd>) -> Result<()> {
        todo!()
    }

    /// Drops the write end of stdin that is held here: the process reads the end of input once the daemon's
    /// client has closed its own. Twice is no error.
    pub fn close_stdin(&self) {
        todo!()
    }

    /// Sets the size of the terminal; without one nothing is done.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, _width: u32, _height: u32) -> Result<()> {
        todo!()
    }

    /// Waits until all output has been handed over: every writer has closed its end, and what was in the
    /// pipes is copied.
    pub async fn drained(&self) {
        todo!()
    }

    /// Ends the copies, drained or not, and closes everything; log programs are told to end.
    pub async fn close(&self) {
        todo!()
    }
}
