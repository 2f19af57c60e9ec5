//! The socket over which a runtime sends the other end of a new terminal.

use std::env;
use std::fs::{DirBuilder, Permissions, remove_dir, remove_file, set_permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_sys::socket;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::open::failed;
use crate::error::{Error, Result};

/// How long the runtime may take to send it.
const LIMIT: Duration = Duration::from_secs(30);
/// How many names of others are met before that is an error.
const TRIES: usize = 16;

/// A socket that waits for one terminal. Its file goes with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    place: Place,
}

impl ConsoleSocket {
    /// Listens at a fresh path, short enough for a socket's address.
    ///
    /// # Errors
    /// When no directory for it can be made.
    pub fn bind() -> Result<Self> {
        let given = env::var_os("XDG_RUNTIME_DIR").filter(|given| !given.is_empty()).map(PathBuf::from);
        let bases = given.into_iter().chain(["/run".into(), env::temp_dir()]);
        let mut last = Error::other("no directory for the console socket");
        for base in bases {
            match Self::bind_below(&base) {
                Err(why) => last = failed(format!("create a console socket below {}", base.display()), &why),
                Ok(bound) => return Ok(bound),
            }
        }
        Err(last)
    }

    fn bind_below(base: &Path) -> io::Result<Self> {
        let place = Place::make(base)?;
        // Nobody else can look into the directory: the socket is never open to others.
        let listener = UnixListener::bind(&place.socket)?;
        set_permissions(&place.socket, Permissions::from_mode(0o600))?;
        Ok(Self { listener, place })
    }

    /// For `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.place.socket
    }

    /// The terminal.
    ///
    /// # Errors
    /// When the runtime sends none within 30 s.
    pub async fn receive(self) -> Result<OwnedFd> {
        match timeout(LIMIT, self.exchange()).await {
            Ok(Ok(Some(terminal))) if terminal.is_terminal() => Ok(terminal),
            Ok(Ok(_)) => Err(Error::other("receive the terminal: the runtime sent no terminal")),
            Ok(Err(why)) => Err(failed("receive the terminal", &why)),
            Err(_elapsed) => {
                Err(Error::other(format!("receive the terminal: none arrived within {LIMIT:?}")))
            }
        }
    }

    async fn exchange(&self) -> io::Result<Option<OwnedFd>> {
        let (peer, _address) = self.listener.accept().await?;
        peer.async_io(Interest::READABLE, || take(&peer)).await
    }
}

/// The descriptor comes with the first byte of the name that runtimes send, which is of no interest.
fn take(peer: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let (_length, terminal) = socket::receive(peer.as_fd(), &mut [0; 64])?;
    Ok(terminal)
}

/// A directory with a socket, until it is dropped.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    socket: PathBuf,
}

impl Place {
    /// Anyone who can guess the name still cannot enter; it only has to be fresh.
    fn make(base: &Path) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let dir = base.join(format!("pty{}", RandomState::new().hash_one(tries)));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(taken) if taken.kind() == ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
                done => return done.map(|()| Self { socket: dir.join("pty.sock"), dir }),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // There may be no socket yet; and what cannot be removed is empty and harmless.
        let _socket = remove_file(&self.socket).is_ok();
        let _dir = remove_dir(&self.dir).is_ok();
    }
}
