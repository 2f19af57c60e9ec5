//! What a caller is told of a new process, and the terminal it hands over: the pid file, the pidfd, the console
//! socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::Pid;
use hull_sys::socket;

use crate::error::{Error, ErrorKind, Field, Result, words};

/// Where the caller is told which process it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announce<'a> {
    /// A file for the PID.
    pub pid_file: Option<&'a str>,
    /// A socket for a pidfd.
    pub pidfd_socket: Option<&'a str>,
}

impl Announce<'_> {
    /// Tells it.
    ///
    /// # Errors
    /// When the file or the socket cannot be written.
    pub(super) fn tell(&self, pid: Pid, process: BorrowedFd<'_>) -> Result<()> {
        write_pid_file(self.pid_file, pid).and_then(|()| send_pidfd(self.pidfd_socket, process))
    }

    /// Takes the file back: it means that the program ran.
    pub(super) fn take_back(&self) {
        if let Some(path) = self.pid_file {
            let _removed = std::fs::remove_file(path).is_ok();
        }
    }
}

/// Connects to the caller's console socket, whose use must fit the process (both wrong combinations are
/// refused in the words that scripts match).
///
/// # Errors
/// A missing or superfluous socket, or one that cannot be reached.
pub fn console_socket(path: Option<&str>, terminal: bool, detached: bool) -> Result<Option<OwnedFd>> {
    let field = Field::named("process.terminal");
    match (path, terminal, detached) {
        (None, true, true) => Err(Error::new(
            ErrorKind::ConsoleSocket,
            "cannot allocate tty if runc will detach without setting console socket",
        )
        .hint("use --console-socket, or set process.terminal to false")
        .field(field)),
        (Some(_), _, false) => Err(Error::new(
            ErrorKind::ConsoleSocket,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("remove --console-socket, or use create or --detach")),
        (Some(_), false, true) => Err(Error::new(
            ErrorKind::ConsoleSocket,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("remove --console-socket, or set process.terminal to true")
        .field(field)),
        (Some(path), true, true) => {
            socket::connect(path.as_bytes(), socket::Kind::Stream).map(Some).map_err(|errno| {
                Error::new(ErrorKind::ConsoleSocket, format!("connect to {path}: {}", words(errno)))
                    .hint("the caller must listen on this socket before it calls hull")
            })
        }
        (None, _, _) => Ok(None),
    }
}

/// Sends the handle of a new process to the caller (`--pidfd-socket`).
///
/// # Errors
/// When the socket cannot be reached.
fn send_pidfd(path: Option<&str>, process: BorrowedFd<'_>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    socket::connect(path.as_bytes(), socket::Kind::Stream)
        .and_then(|socket| socket::send(socket.as_fd(), b"pidfd", Some(process)))
        .map_err(|errno| Error::new(ErrorKind::PidfdSocket, format!("send to {path}: {}", words(errno))))
}

/// Writes the number of a process: complete or not at all, without a newline, as callers parse it.
///
/// # Errors
/// When the file cannot be written.
fn write_pid_file(path: Option<&str>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let failed = |error: std::io::Error| {
        let why = crate::error::io_words(&error);
        Error::new(ErrorKind::PidFile, format!("write the pid file {path}: {why}"))
    };
    let target = std::path::Path::new(path);
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let new = target.with_file_name(format!(".{name}"));
    let _former = std::fs::remove_file(&new).is_ok();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&new).map_err(failed)?;
    let written = std::io::Write::write_all(&mut file, pid.to_string().as_bytes());
    written.and_then(|()| std::fs::rename(&new, target)).map_err(|error| {
        let _removed = std::fs::remove_file(&new).is_ok();
        failed(error)
    })
}
