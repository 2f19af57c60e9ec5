//! Local sockets: the channel between parent and child, descriptors sent over it, the start socket in a
//! state directory, the console, pidfd and notify sockets of callers.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result, check, check_unit};

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor the kernel has just made and nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A connected pair that keeps message borders (`SOCK_SEQPACKET`): what is sent arrives whole, and the
/// end of the peer is seen as a message of length 0.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors into the live array.
    check_unit(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((own(fds[0]), own(fds[1])))
}

fn address(path: &[u8]) -> Result<libc::sockaddr_un> {
    // SAFETY: sockaddr_un is plain data; all-zero is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
    if path.len() >= address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (slot, byte) in address.sun_path.iter_mut().zip(path) {
        *slot = libc::c_char::from_ne_bytes([*byte]);
    }
    Ok(address)
}

/// The kinds of local socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A byte stream.
    Stream,
    /// Whole messages, connected.
    Packets,
    /// Single messages.
    Datagram,
}

fn socket(kind: Kind) -> Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => libc::SOCK_STREAM,
        Kind::Packets => libc::SOCK_SEQPACKET,
        Kind::Datagram => libc::SOCK_DGRAM,
    };
    // SAFETY: takes numbers only.
    check(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) }).map(own)
}

#[allow(clippy::cast_possible_truncation, reason = "110 bytes")]
const ADDRESS_SIZE: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

/// Connects to the socket at a host path of up to 107 bytes.
pub fn connect(path: &[u8], kind: Kind) -> Result<OwnedFd> {
    let address = address(path)?;
    let socket = socket(kind)?;
    // SAFETY: the kernel reads one sockaddr_un of the size passed.
    check_unit(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_SIZE) })?;
    Ok(socket)
}

/// Binds a socket at a host path of up to 107 bytes; it must not exist.
pub fn bind(path: &[u8], kind: Kind) -> Result<OwnedFd> {
    let address = address(path)?;
    let socket = socket(kind)?;
    // SAFETY: the kernel reads one sockaddr_un of the size passed.
    check_unit(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_SIZE) })?;
    Ok(socket)
}

/// The path by which a name below an open directory can be bound or connected to, however long the
/// directory's own path is.
fn by_descriptor(dir: BorrowedFd<'_>, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// [`connect`] to the name `name` in `dir`.
pub fn connect_in(dir: BorrowedFd<'_>, name: &str, kind: Kind) -> Result<OwnedFd> {
    connect(by_descriptor(dir, name).as_bytes(), kind)
}

/// [`bind`] of the name `name` in `dir`.
pub fn bind_in(dir: BorrowedFd<'_>, name: &str, kind: Kind) -> Result<OwnedFd> {
    bind(by_descriptor(dir, name).as_bytes(), kind)
}

/// `listen(2)` for one caller at a time.
pub fn listen(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::listen(socket.as_raw_fd(), 1) })
}

/// `accept4(2)`; waits.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let none = std::ptr::null_mut();
    let length = std::ptr::null_mut();
    loop {
        // SAFETY: address and length may be null when the peer's address is not wanted.
        match check(unsafe { libc::accept4(socket.as_raw_fd(), none, length, libc::SOCK_CLOEXEC) }) {
            Err(Errno::EINTR) => {}
            other => return other.map(own),
        }
    }
}

/// Sends one message and up to one descriptor (`SCM_RIGHTS`).
#[allow(clippy::cast_possible_truncation, reason = "a size of 20 bytes, whose type differs between libcs")]
pub fn send(socket: BorrowedFd<'_>, text: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    let mut control = Control { bytes: [0; 24] };
    // SAFETY: msghdr is plain data; all-zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        control.put(fd.as_raw_fd());
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = Control::LENGTH as _;
    }
    loop {
        // SAFETY: every pointer in `message` is to a live local or to `text`; the kernel only reads.
        let answer = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match check(answer) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message into `buffer`, and the descriptor that came with it, if any. Length 0 is the end
/// of the peer.
#[allow(clippy::cast_possible_truncation, reason = "a size of 24 bytes, whose type differs between libcs")]
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control { bytes: [0; 24] };
    // SAFETY: msghdr is plain data; all-zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let length = loop {
        // SAFETY: every pointer in `message` is to a live local or to `buffer`, with its true length.
        let answer = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check(answer) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    #[allow(clippy::unnecessary_cast, reason = "the type differs between libcs")]
    let fd = control.take(message.msg_controllen as usize);
    Ok((usize::try_from(length).unwrap_or(0), fd))
}

/// Room for one `SCM_RIGHTS` message with one descriptor, laid out as the kernel wants it on 64-bit
/// machines: length (8), level (4), type (4), descriptor (4), padding (4).
#[repr(C, align(8))]
struct Control {
    bytes: [u8; 24],
}

impl Control {
    /// Length of the header and one descriptor, without the padding.
    const LENGTH: usize = 20;

    fn put(&mut self, fd: RawFd) {
        self.bytes[0..8].copy_from_slice(&(Self::LENGTH as u64).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        self.bytes[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        self.bytes[16..20].copy_from_slice(&fd.to_ne_bytes());
    }

    fn take(&self, filled: usize) -> Option<OwnedFd> {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&self.bytes[at..at + 4]);
            i32::from_ne_bytes(word)
        };
        let is_rights = filled >= Self::LENGTH && word(8) == libc::SOL_SOCKET && word(12) == libc::SCM_RIGHTS;
        is_rights.then(|| own(word(16)))
    }
}

/// A pipe: read end, write end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the kernel writes two descriptors into the live array.
    check_unit(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((own(fds[0]), own(fds[1])))
}

/// How many bytes wait to be read: in a pipe, asked at either end, or at a terminal (`ioctl(FIONREAD)`).
pub fn unread(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int into the live variable.
    check_unit(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD as _, &raw mut count) })?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// A file that lives in memory only (`memfd_create(2)`).
pub fn memory_file(name: &CStr) -> Result<OwnedFd> {
    // SAFETY: `name` is a C string that outlives the call.
    check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }).map(own)
}
