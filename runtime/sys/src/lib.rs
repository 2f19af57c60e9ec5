//! Every raw system call and every `unsafe` of the runtime, on `libc` and `nix`.
//!
//! One file per kernel subject. Functions take and return owned or borrowed descriptors, never bare
//! numbers; every descriptor they make is close-on-exec. They decide nothing: which errno leads to which
//! other call is the caller's visible policy, except where an interface is merely too old for the kernel.
//!
//! The runtime is single-threaded by decision, so what is called between `clone3` and `execve` may use
//! the heap; it still should not need to.

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod arena;
pub mod bpf;
pub mod calendar;
pub mod cred;
pub mod exec;
pub mod fs;
pub mod limits;
pub mod loopdev;
pub mod mount;
pub mod mount_words;
pub mod namespace;
pub mod net;
pub mod open;
pub mod pidfd;
pub mod process;
pub mod seal;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod tty;

pub use nix::errno::Errno;

/// The result of one system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// The kernel's answer as a `Result`: -1 becomes the errno.
fn check<T: PartialOrd + From<i8>>(answer: T) -> Result<T> {
    if answer < T::from(0) { Err(Errno::last()) } else { Ok(answer) }
}

/// As [`check`], for calls that answer only success.
fn check_unit<T: PartialOrd + From<i8>>(answer: T) -> Result<()> {
    check(answer).map(drop)
}

/// The kernel's answer in the words callers match: lower case, as the C library and Go print it.
pub fn words(errno: Errno) -> String {
    // Where nix has a text of its own.
    const OTHERS: [(Errno, &str); 17] = [
        (Errno::EIO, "input/output error"),
        (Errno::EBADF, "bad file descriptor"),
        (Errno::EAGAIN, "resource temporarily unavailable"),
        (Errno::ENOMEM, "cannot allocate memory"),
        (Errno::EXDEV, "invalid cross-device link"),
        (Errno::ENFILE, "too many open files in system"),
        (Errno::ENOTTY, "inappropriate ioctl for device"),
        (Errno::EDOM, "numerical argument out of domain"),
        (Errno::ERANGE, "numerical result out of range"),
        (Errno::EDEADLK, "resource deadlock avoided"),
        (Errno::ENOLCK, "no locks available"),
        (Errno::ELOOP, "too many levels of symbolic links"),
        (Errno::ENETRESET, "network dropped connection on reset"),
        (Errno::EBADMSG, "bad message"),
        (Errno::EILSEQ, "invalid or incomplete multibyte or wide character"),
        (Errno::EOPNOTSUPP, "operation not supported"),
        (Errno::EDQUOT, "disk quota exceeded"),
    ];
    if let Some((_, text)) = OTHERS.iter().find(|(one, _)| *one == errno) {
        return (*text).to_owned();
    }
    let mut letters = errno.desc().chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
