//! Files and directories by descriptor: make, describe, remove, lock. Paths are single names below a
//! directory the caller has opened, or host paths. Called by `apply`, `state`, `cgroup`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Result, check, check_unit};

/// Magic numbers of `statfs(2)`.
pub mod magic {
    /// procfs.
    pub const PROC: u64 = 0x9fa0;
    /// cgroup v2.
    pub const CGROUP2: u64 = 0x6367_7270;
    /// cgroup v1.
    pub const CGROUP: u64 = 0x27_e0eb;
    /// tmpfs.
    pub const TMPFS: u64 = 0x0102_1994;
    /// devpts.
    pub const DEVPTS: u64 = 0x1cd1;
}

/// What `fstat(2)` says, in the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device that holds the inode.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: i64,
    /// Number of links; 0 once removed.
    pub links: u64,
}

impl Stat {
    /// The file type bits (`S_IFDIR` and so on).
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
}

/// Describes what `fd` is open on (`O_PATH` is enough).
pub fn stat(fd: BorrowedFd<'_>) -> Result<Stat> {
    stat_at(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// Describes the host path `path`, following links.
pub fn stat_host(path: &CStr) -> Result<Stat> {
    stat_at(libc::AT_FDCWD, path, 0)
}

/// Describes the name `name` in `dir`, not following a link.
pub fn stat_name(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    stat_at(dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW)
}

#[allow(clippy::useless_conversion, reason = "the widths of stat fields differ between libcs")]
fn stat_at(dir: RawFd, path: &CStr, flags: libc::c_int) -> Result<Stat> {
    // SAFETY: struct stat is plain data; all-zero is a valid value.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a C string that outlives the call; the kernel writes one struct stat at `st`.
    check_unit(unsafe { libc::fstatat(dir, path.as_ptr(), &raw mut st, flags) })?;
    Ok(Stat {
        dev: st.st_dev.into(),
        ino: st.st_ino.into(),
        mode: st.st_mode,
        uid: st.st_uid,
        gid: st.st_gid,
        rdev: st.st_rdev.into(),
        size: st.st_size,
        links: u64::from(st.st_nlink),
    })
}

/// The magic number of the file system `fd` lies on (`fstatfs(2)`), one of [`magic`].
pub fn magic_of(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: struct statfs is plain data; all-zero is a valid value.
    let mut st: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one struct statfs at `st`.
    check_unit(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut st) })?;
    Ok(type_of(&st))
}

/// The magic number of the file system the host path `path` lies on.
pub fn magic_of_host(path: &CStr) -> Result<u64> {
    // SAFETY: struct statfs is plain data; all-zero is a valid value.
    let mut st: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a C string that outlives the call; the kernel writes one struct statfs at `st`.
    check_unit(unsafe { libc::statfs(path.as_ptr(), &raw mut st) })?;
    Ok(type_of(&st))
}

#[allow(
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "a 32-bit pattern whose C type differs between libcs"
)]
fn type_of(st: &libc::statfs) -> u64 {
    st.f_type as u64 & 0xffff_ffff
}

/// The `ST_*` bits of the mount `fd` lies on (`fstatvfs(3)`).
pub fn mount_flags(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: struct statvfs is plain data; all-zero is a valid value.
    let mut st: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: libc writes one struct statvfs at `st`.
    check_unit(unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut st) })?;
    Ok(st.f_flag)
}

/// Whether `fd` is open on the root of a mount (`statx(2)`, Linux 5.8; an older kernel says no).
pub fn is_mount_root(fd: BorrowedFd<'_>) -> Result<bool> {
    /// `STATX_ATTR_MOUNT_ROOT`.
    const MOUNT_ROOT: u64 = 0x2000;
    // SAFETY: struct statx is plain data; all-zero is a valid value.
    let mut st: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a static C string; the kernel writes one struct statx at `st`.
    check_unit(unsafe {
        let (path, out) = (c"".as_ptr(), &raw mut st);
        libc::syscall(libc::SYS_statx, fd.as_raw_fd(), path, libc::AT_EMPTY_PATH, 0, out)
    })?;
    Ok(st.stx_attributes & MOUNT_ROOT != 0)
}

/// `mkdirat(2)`.
pub fn make_dir(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check_unit(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) })
}

/// `mknodat(2)`; `mode` holds the type bits, `device` major and minor as `makedev` packs them.
pub fn make_node(dir: BorrowedFd<'_>, name: &CStr, mode: u32, device: u64) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check_unit(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) })
}

/// Packs a device number.
pub fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// `symlinkat(2)`.
pub fn make_link(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: both are C strings that outlive the call.
    check_unit(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) })
}

/// `fchownat(2)` of the name itself, never through a link.
pub fn chown(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check_unit(unsafe { libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) })
}

/// `fchown(2)`.
pub fn chown_fd(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) })
}

/// `fchmodat(2)` of a name the caller has just made; `mode` without type bits.
pub fn chmod(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check_unit(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) })
}

/// `fchmod(2)`.
pub fn chmod_fd(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

/// Removes a name that is not a directory.
pub fn remove_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check_unit(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })
}

/// Removes an empty directory.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check_unit(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
}

/// `renameat(2)` within one directory: `new` is replaced at once or not at all.
pub fn rename(dir: BorrowedFd<'_>, old: &CStr, new: &CStr) -> Result<()> {
    let fd = dir.as_raw_fd();
    // SAFETY: both are C strings that outlive the call.
    check_unit(unsafe { libc::renameat(fd, old.as_ptr(), fd, new.as_ptr()) })
}

/// The text of the symlink `name` in `dir` (the link `dir` itself when `name` is empty).
pub fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    let mut text = vec![0_u8; 4096];
    // SAFETY: `name` is a C string; the kernel writes at most `len` bytes into the live buffer.
    let length = check(unsafe {
        libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), text.as_mut_ptr().cast(), text.len())
    })?;
    text.truncate(usize::try_from(length).unwrap_or(0));
    CString::new(text).map_err(|_out_of_range| crate::Errno::EINVAL)
}

/// Makes `fd` the working directory.
pub fn enter_dir(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes a number only.
    check_unit(unsafe { libc::fchdir(fd.as_raw_fd()) })
}

/// `chroot(".")`.
pub fn chroot_here() -> Result<()> {
    // SAFETY: the path is a static C string.
    check_unit(unsafe { libc::chroot(c".".as_ptr()) })
}

/// An exclusive `flock(2)`, held until the last copy of the descriptor is closed; EWOULDBLOCK when another
/// has it.
pub fn try_lock(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// `write(2)` of a whole buffer in one call; a short write is an error.
pub fn write_once(fd: BorrowedFd<'_>, text: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes at the pointer, both of one live slice.
    let done = check(unsafe { libc::write(fd.as_raw_fd(), text.as_ptr().cast(), text.len()) })?;
    if usize::try_from(done) == Ok(text.len()) { Ok(()) } else { Err(crate::Errno::EIO) }
}

/// `write(2)`; answers how much was taken.
pub fn write_some(fd: BorrowedFd<'_>, text: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads `len` bytes at the pointer, both of one live slice.
    let done = check(unsafe { libc::write(fd.as_raw_fd(), text.as_ptr().cast(), text.len()) })?;
    Ok(usize::try_from(done).unwrap_or(0))
}

/// Takes over descriptor `number`, which another process put into the table we share with it.
pub fn adopt(number: RawFd) -> Result<OwnedFd> {
    if !is_open(number) {
        return Err(crate::Errno::EBADF);
    }
    // SAFETY: it is open, and the process that opened it gave it up (`into_raw_fd`) and has ended.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on but those in `keep`. For a process that is about to become
/// another one: what it closes may still have owners, which must not be dropped afterwards.
pub fn close_all_but<'a>(first: u32, keep: impl Iterator<Item = BorrowedFd<'a>>) -> Result<()> {
    close_numbers(first, keep.map(|fd| fd.as_raw_fd().cast_unsigned()).collect())
}

/// Closes every descriptor from `first` on but the numbers in `keep`. To be called before anything is opened:
/// what is closed came from our caller and has no owner here.
pub fn close_inherited(first: u32, keep: Vec<u32>) -> Result<()> {
    close_numbers(first, keep)
}

fn close_numbers(first: u32, mut keep: Vec<u32>) -> Result<()> {
    keep.sort_unstable();
    keep.dedup();
    let mut from = first;
    for kept in keep.into_iter().filter(|kept| *kept >= first) {
        if from < kept {
            close_between(from, kept - 1)?;
        }
        from = kept + 1;
    }
    close_between(from, u32::MAX)
}

/// Takes every free number below `end`, from 3 on, so that nothing of ours gets one that is passed on. What takes
/// it leads nowhere and ends with exec.
pub fn take_free_numbers(end: u32) -> Result<()> {
    if end <= 3 {
        return Ok(());
    }
    loop {
        // SAFETY: takes numbers only.
        let number = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        if number.cast_unsigned() >= end {
            // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
            return Ok(());
        }
    }
}

pub(crate) fn close_between(first: u32, last: u32) -> Result<()> {
    // SAFETY: takes numbers only. The owners of what is closed live in a process that only calls execve or
    // _exit from here on, so none of them closes a number again.
    check_unit(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Whether descriptor `number` is open and lives through exec: one that our caller gave us.
pub fn is_inherited(number: RawFd) -> bool {
    // SAFETY: takes numbers only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Whether reads of `fd` do not wait.
pub fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: takes numbers only.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// Whether descriptor `number` is open.
fn is_open(number: RawFd) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Makes `number` (0, 1 or 2) another name of `fd`, living through exec.
pub fn replace_stdio(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: stdio numbers are not owned by any OwnedFd of this program.
    check_unit(unsafe { libc::dup2(fd.as_raw_fd(), number) })
}
