//! Opening: `openat2` with the resolution rules of the two trees the runtime works in (the container's
//! root, and procfs), and the plain host side. A path below a container is resolved here and nowhere else.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result, check};

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// How many times a look-up is repeated when the kernel saw a rename in the middle (EAGAIN).
const RACE_RETRIES: usize = 128;

/// How the last part of a path is opened: open(2) flags, and a mode when it creates.
#[derive(Clone, Copy)]
pub struct How {
    flags: libc::c_int,
    mode: libc::mode_t,
}

impl How {
    /// `O_PATH`: a place, not its content; follows a final symlink.
    pub const PLACE: Self = Self { flags: libc::O_PATH, mode: 0 };
    /// `O_PATH | O_NOFOLLOW`: a final symlink is the place itself.
    pub const PLACE_NOFOLLOW: Self = Self { flags: libc::O_PATH | libc::O_NOFOLLOW, mode: 0 };
    /// `O_PATH | O_DIRECTORY`.
    pub const DIRECTORY: Self = Self { flags: libc::O_PATH | libc::O_DIRECTORY, mode: 0 };
    /// A directory to list.
    pub const LIST: Self = Self { flags: libc::O_RDONLY | libc::O_DIRECTORY, mode: 0 };
    /// For reading.
    pub const READ: Self = Self { flags: libc::O_RDONLY, mode: 0 };
    /// For reading what somebody else chose: a fifo without a writer, or a device, does not hold us up.
    pub const READ_NOW: Self = Self { flags: libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, mode: 0 };
    /// For writing, must exist.
    pub const WRITE: Self = Self { flags: libc::O_WRONLY, mode: 0 };
    /// For reading and writing, must exist, does not become the controlling terminal.
    pub const TERMINAL: Self = Self { flags: libc::O_RDWR | libc::O_NOCTTY, mode: 0 };

    /// A new file for writing that must not exist, with this mode.
    pub const fn create_new(mode: u32) -> Self {
        Self { flags: libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, mode }
    }

    /// A file for writing that is made with this mode or emptied.
    pub const fn create(mode: u32) -> Self {
        Self { flags: libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, mode }
    }

    /// A file to append to, made with this mode when missing; each write reaches the disk. A fifo is not waited for.
    pub const fn append(mode: u32) -> Self {
        Self {
            flags: libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_SYNC | libc::O_NONBLOCK,
            mode,
        }
    }
}

fn openat2(dir: RawFd, path: &CStr, how: How, resolve: u64) -> Result<OwnedFd> {
    let args = OpenHow {
        flags: u64::from((how.flags | libc::O_CLOEXEC).cast_unsigned()),
        mode: u64::from(how.mode),
        resolve,
    };
    let mut left = RACE_RETRIES;
    loop {
        // SAFETY: `path` is a C string and `args` a live open_how of the size passed; both are only read.
        let answer = unsafe {
            let size = size_of::<OpenHow>();
            libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), &raw const args, size)
        };
        match check(answer) {
            Err(Errno::EAGAIN) if left > 0 => left -= 1,
            Err(Errno::EINTR) => {}
            Err(other) => return Err(other),
            Ok(fd) => {
                let fd = RawFd::try_from(fd).map_err(|_out_of_range| Errno::EOVERFLOW)?;
                // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
}

/// Opens `path` as a process whose root is `root` would see it: absolute links and `..` stay inside, and
/// magic links of procfs are refused (`RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`).
pub fn in_root(root: BorrowedFd<'_>, path: &CStr, how: How) -> Result<OwnedFd> {
    openat2(root.as_raw_fd(), path, how, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
}

/// Opens `path` below a procfs handle: no links at all, no other mount on the way
/// (`RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV`).
pub fn in_proc(proc: BorrowedFd<'_>, path: &CStr, how: How) -> Result<OwnedFd> {
    openat2(proc.as_raw_fd(), path, how, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
}

/// Opens the single name `name` in `dir`; a symlink of that name is refused.
pub fn name_in(dir: BorrowedFd<'_>, name: &CStr, how: How) -> Result<OwnedFd> {
    openat2(dir.as_raw_fd(), name, how, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
}

/// Opens a path of the host, relative to `dir` or to the working directory, by the host's own rules.
pub fn on_host(dir: Option<BorrowedFd<'_>>, path: &CStr, how: How) -> Result<OwnedFd> {
    openat2(dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd()), path, how, 0)
}
