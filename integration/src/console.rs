//! Terminals: a pty for foreground calls, and the receiver of `--console-socket`.

use crate::{Stop, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// The side of a terminal that the user sits at.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// A pty of this size: our side, and the side for the runtime.
    pub fn open(rows: u16, columns: u16) -> Result<(Self, OwnedFd), Stop> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        Ok((Self(File::from(pty.master)), pty.slave))
    }

    /// Types.
    pub fn send(&mut self, text: &str) -> Result<(), Stop> {
        Ok(self.0.write_all(text.as_bytes())?)
    }

    /// Another size: the programs at the other side get SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Stop> {
        Ok(crate::sys::set_size(self.0.as_fd(), rows, columns)?)
    }

    /// Reads until the text appears, the other side closes, or 10 s pass; all that was read, without carriage
    /// returns.
    pub fn read_until(&mut self, text: &str) -> String {
        self.read_raw_until(text).replace('\r', "")
    }

    /// The same, with them.
    pub fn read_raw_until(&mut self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        while Instant::now() < until && !String::from_utf8_lossy(&seen).contains(text) {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::from(200u8)), Ok(1..)) {
                continue;
            }
            let mut buffer = [0; 4096];
            // EIO is how a pty says that the other side is closed.
            match self.0.read(&mut buffer) {
                Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads until the other side closes.
    pub fn read_all(&mut self) -> String {
        self.read_until("\u{0}never")
    }
}

impl AsRawFd for Terminal {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A listening console socket.
#[derive(Debug)]
pub struct ConsoleSocket(UnixListener);

impl ConsoleSocket {
    /// Binds.
    pub fn bind(path: &Path) -> Result<Self, Stop> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The terminal that must already have been sent, and the name that came with it.
    pub fn receive(&self) -> Result<(Terminal, String), Stop> {
        let (stream, _) =
            self.0.accept().map_err(|e| format!("nobody connected to the console socket: {e}"))?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (name, mut fds) = receive(stream.as_fd())?;
        let fd = fds.pop().ok_or("no descriptor came with the message")?;
        Ok((Terminal(File::from(fd)), name))
    }
}

/// One message of a socket and the descriptors that came with it (SCM_RIGHTS).
pub fn receive(socket: BorrowedFd<'_>) -> Result<(String, Vec<OwnedFd>), Stop> {
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.extend(received.into_iter().map(sys::adopt));
        }
    }
    let length = message.bytes;
    Ok((String::from_utf8_lossy(&bytes[..length]).into_owned(), fds))
}
