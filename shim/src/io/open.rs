//! Opening what a stream's name means: FIFOs so that nobody waits and no reader is missed, files for appending,
//! and the pipes for the process. `Streams` calls it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use hull_sys::{Errno, fs, socket};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Owner;
use super::name::Name;
use crate::error::{Error, Result};

/// A stream that input comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) fd: OwnedFd,
    /// A write end of the FIFO: as long as it is held, a client that goes is not the end of input.
    pub(super) held: Option<OwnedFd>,
}

/// Opens where input comes from.
pub(super) fn source(name: &Name) -> Result<Option<Source>> {
    let (path, wants_fifo) = match name {
        Name::Nowhere => return Ok(None),
        Name::Path(path) => (path, false),
        Name::Fifo(path) => (path, true),
        Name::File(path) => return Err(unfit(path, "standard input must be a FIFO")),
        Name::Program(program) => return Err(unfit(&program.path, "a log program cannot be used for input")),
    };
    let is_fifo = is_fifo(path, wants_fifo)?;
    let fd = open(path, OpenOptions::new().read(true))?;
    // The reader is there: neither this waits.
    let held = if is_fifo { Some(open(path, OpenOptions::new().write(true))?) } else { None };
    Ok(Some(Source { fd, held }))
}

/// Opens where output goes; nothing for nowhere.
pub(super) fn sink(name: &Name) -> Result<Option<OwnedFd>> {
    match name {
        Name::Nowhere => Ok(None),
        Name::Path(path) => path_sink(path, false).map(Some),
        Name::Fifo(path) => path_sink(path, true).map(Some),
        Name::File(path) => file(path).map(Some),
        Name::Program(program) => Err(unfit(&program.path, "a log program must be given for both outputs")),
    }
}

fn path_sink(path: &Path, wants_fifo: bool) -> Result<OwnedFd> {
    if is_fifo(path, wants_fifo)? {
        // One descriptor that is both ends: a reader that goes takes nothing with it, and kills nobody.
        open(path, OpenOptions::new().read(true).write(true))
    } else {
        open(path, OpenOptions::new().append(true))
    }
}

fn file(path: &Path) -> Result<OwnedFd> {
    if let Some(dir) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|why| failed(format!("create directory {}", dir.display()), &why))?;
    }
    if !path.exists() {
        open(path, OpenOptions::new().append(true).create(true).mode(0o644))?;
    }
    path_sink(path, false)
}

fn is_fifo(path: &Path, wanted: bool) -> Result<bool> {
    let kind =
        std::fs::metadata(path).map_err(|why| failed(format!("open stream {}", path.display()), &why))?;
    match kind.file_type().is_fifo() {
        false if wanted => Err(unfit(path, "not a FIFO")),
        known => Ok(known),
    }
}

/// Never waits for another end, never becomes the controlling terminal.
fn open(path: &Path, how: &mut OpenOptions) -> Result<OwnedFd> {
    let opened: io::Result<File> = how.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    opened.map(OwnedFd::from).map_err(|why| failed(format!("open stream {}", path.display()), &why))
}

fn unfit(path: &Path, why: &str) -> Error {
    Error::invalid(format!("open stream {}: {why}", path.display()))
}

/// A pipe of the owner's: read end, write end, both blocking.
pub(super) fn pipe(owner: &Owner) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = socket::pipe().map_err(|why| because("create a pipe for a stream", why))?;
    if (owner.uid, owner.gid) != (0, 0) {
        fs::chown_fd(reader.as_fd(), owner.uid, owner.gid).map_err(|why| {
            because(format!("change the owner of a pipe to {}:{}", owner.uid, owner.gid), why)
        })?;
    }
    Ok((reader, writer))
}

/// Makes an end never wait. The flag is the descriptor's: the other end of a pipe does not have it.
pub(super) fn unblock(fd: OwnedFd) -> Result<OwnedFd> {
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags
        .and_then(|flags| fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)))
        .map_err(|why| because("set a stream to non-blocking", why))?;
    Ok(fd)
}

/// One more descriptor of the same open file, which closes when the last of them does.
pub(super) fn share(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|why| failed("duplicate the descriptor of a stream", &why))
}

/// The error of a system call.
pub(super) fn because(what: impl std::fmt::Display, why: Errno) -> Error {
    Error::failed(what, why.desc())
}

/// The error of a call of the standard library, without the number it adds.
pub(super) fn failed(what: impl std::fmt::Display, why: &io::Error) -> Error {
    match why.raw_os_error() {
        Some(number) => because(what, Errno::from_raw(number)),
        None => Error::failed(what, why),
    }
}
