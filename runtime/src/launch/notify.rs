//! Forwards the container's readiness to the caller's service manager (`sd_notify(3)`): the container gets a
//! socket of ours, and the first `READY=` it says is passed on with the number of its init. Called by
//! `cli::start` and `cli::run`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::process::{self, Pid};
use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, socket};

use super::foreground::pass_signals;
use crate::error::{Error, ErrorKind, Result, internal, io_words, words};

/// How long the service manager may take to answer the barrier.
const BARRIER_MS: i32 = 30_000;

/// The two sockets.
pub struct Notify {
    ours: OwnedFd,
    host: String,
}

/// The directory that is bound to `/run/notify` in the container.
pub fn directory(state: &Path) -> PathBuf {
    state.join("notify")
}

/// Makes the directory, before the container is made.
pub fn prepare(state: &Path) -> Result<()> {
    let dir = directory(state);
    std::fs::create_dir_all(&dir).map_err(|error| {
        Error::new(ErrorKind::Notify, format!("make {}: {}", dir.display(), io_words(&error)))
    })
}

/// The caller's `NOTIFY_SOCKET`, if it has one that is there: a variable left over from a service that has
/// ended names nothing. An abstract name (`@`) is believed.
pub fn host_socket() -> Option<String> {
    let is_socket = |path: &str| {
        let kind = std::fs::metadata(path).map(|found| found.file_type());
        kind.is_ok_and(|kind| std::os::unix::fs::FileTypeExt::is_socket(&kind))
    };
    std::env::var("NOTIFY_SOCKET").ok().filter(|socket| socket.starts_with('@') || is_socket(socket))
}

impl Notify {
    /// Makes the container's socket in the prepared directory; `None` when the caller has none or the
    /// container was not made for it.
    pub fn new(state: &Path) -> Result<Option<Self>> {
        let dir = directory(state);
        let Some(host) = host_socket().filter(|_| dir.is_dir()) else { return Ok(None) };
        let failed = |why: String| {
            Error::new(ErrorKind::Notify, format!("make the notify socket in {}: {why}", dir.display()))
        };
        let opened = std::fs::File::open(&dir).map_err(|error| failed(error.to_string()))?;
        // Whoever the container runs as must be able to say that it is ready. The mode comes from the umask:
        // the name could be a link by the time it is changed.
        let former = process::set_umask(0);
        let bound = socket::bind_in(opened.as_fd(), "notify.sock", socket::Kind::Datagram);
        process::set_umask(former);
        let ours = bound.map_err(|errno| failed(words(errno)))?;
        Ok(Some(Self { ours, host }))
    }

    /// Waits for `READY=1` and passes it on, until `ended` (a pidfd of `init`) becomes readable. What comes by `signals`
    /// (a signalfd) is sent to `init` meanwhile.
    pub fn forward(&self, init: Pid, ended: BorrowedFd<'_>, signals: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let watched = [self.ours.as_fd(), ended, signals.unwrap_or(ended)];
            let watched = watched.map(|fd| Interest { fd, events: libc::POLLIN });
            let [said, gone, signalled] =
                signal::poll(watched, -1).map_err(|errno| internal("wait for READY=", errno))?;
            if said != 0 {
                let (length, _) = socket::receive(self.ours.as_fd(), &mut buffer)
                    .map_err(|errno| internal("receive READY=", errno))?;
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or(&[])).into_owned();
                if let Some(ready) = text.lines().find(|line| line.starts_with("READY=")) {
                    return self
                        .pass_on(ready, init)
                        .map_err(|errno| internal("notify the service manager", errno));
                }
            } else if gone != 0 {
                return Ok(());
            } else if let Some(signals) = signals.filter(|_| signalled != 0) {
                pass_signals(ended, signals, None)?;
            }
        }
    }

    fn pass_on(&self, ready: &str, init: Pid) -> hull_sys::Result<()> {
        let mut address = self.host.clone().into_bytes();
        if let Some(first) = address.first_mut().filter(|first| **first == b'@') {
            *first = 0;
        }
        let host = socket::connect(&address, socket::Kind::Datagram)?;
        socket::send(host.as_fd(), ready.as_bytes(), None)?;
        socket::send(host.as_fd(), format!("MAINPID={init}").as_bytes(), None)?;
        let (wait, barrier) = socket::pipe()?;
        socket::send(host.as_fd(), b"BARRIER=1", Some(barrier.as_fd()))?;
        drop(barrier);
        let watched = [Interest { fd: wait.as_fd(), events: 0 }];
        match signal::poll(watched, BARRIER_MS)? {
            [0] => Err(Errno::ETIMEDOUT),
            _ => Ok(()),
        }
    }
}
