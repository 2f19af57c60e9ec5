//! The mount interface of Linux 5.2 and later: trees and file systems are descriptors first and are
//! attached to a descriptor, so that no path of a container is resolved twice. Also `pivot_root` and the
//! few old calls that have no newer form. Called by `apply` and by `launch` (trees made on the host side).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Result, check, check_unit};

/// `MOUNT_ATTR_*` bits of `fsmount` and `mount_setattr`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No execution.
    pub const NOEXEC: u64 = 0x8;
    /// The bits that say how access times are kept; relatime is zero.
    pub const ATIME: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times at every access.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by a user namespace.
    pub const IDMAP: u64 = 0x10_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Attributes of a mount as the `MS_*` bits of `mount(2)`.
pub fn legacy_flags(attributes: u64) -> u64 {
    let pairs = [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NOATIME, libc::MS_NOATIME),
        (attr::STRICTATIME, libc::MS_STRICTATIME),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
        // MS_NOSYMFOLLOW, Linux 5.10; not in every libc.
        (attr::NOSYMFOLLOW, 0x100),
    ];
    pairs.iter().filter(|(new, _)| attributes & new != 0).fold(0, |flags, (_, old)| flags | old)
}

/// `MS_REC`: with all mounts below.
pub const RECURSIVE: u64 = libc::MS_REC;

/// `MS_*` propagation kinds.
pub mod propagation {
    /// Shared with its peers.
    pub const SHARED: u64 = libc::MS_SHARED;
    /// Receives, does not send.
    pub const SLAVE: u64 = libc::MS_SLAVE;
    /// Neither.
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    /// Neither, and cannot be bound.
    pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
}

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = 0o2_000_000;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

fn new_fd(answer: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(check(answer)?).map_err(|_out_of_range| crate::Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(dir: Option<BorrowedFd<'_>>) -> RawFd {
    dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

/// A detached copy of the mount (or, when `recursive`, of the mount tree) at `path` below `dir`
/// (`open_tree(2)` with `OPEN_TREE_CLONE`). An empty path means `dir` itself.
pub fn clone_tree(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    recursive: bool,
    nofollow: bool,
) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | OPEN_TREE_CLOEXEC
        | AT_EMPTY_PATH
        | if recursive { AT_RECURSIVE } else { 0 }
        | if nofollow { libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() } else { 0 };
    // SAFETY: `path` is a C string that outlives the call; the kernel writes nothing.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, raw(dir), path.as_ptr(), flags) })
}

/// Attaches the mount behind `mount`, a detached one or one to be moved, onto what `target` is open on (`move_mount(2)`).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: both paths are the same static C string; the kernel writes nothing.
    check_unit(unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty, target.as_raw_fd(), empty, flags)
    })
}

/// A file system being configured (`fsopen(2)`).
pub fn open_fs(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: `kind` is a C string that outlives the call.
    new_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets `key=value` on a file system being configured (`fsconfig(2)`); without a value `key` is a flag.
pub fn configure(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    // SAFETY: `key` and `value` are C strings that outlive the call, or null where the command takes none.
    check_unit(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key.as_ptr(), value, 0) })
}

/// Creates the superblock and a detached mount of it with these `MOUNT_ATTR_*` bits.
pub fn make_mount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no strings.
    check_unit(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    })?;
    // SAFETY: takes numbers only.
    new_fd(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// What `mount_setattr(2)` changes on a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// One `MS_*` propagation kind, or 0.
    pub propagation: u64,
}

impl Change {
    /// Nothing to change.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount that `mount` is open on, and when `recursive` all mounts below it. `idmap` is the
/// user namespace whose mapping `MOUNT_ATTR_IDMAP` takes. Linux 5.12.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    change: Change,
    recursive: bool,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let args = MountAttr {
        set: change.set | if idmap.is_some() { attr::IDMAP } else { 0 },
        clear: change.clear,
        propagation: change.propagation,
        userns_fd: idmap.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string and `args` a live mount_attr of the size passed; both are
    // only read.
    check_unit(unsafe {
        let size = size_of::<MountAttr>();
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const args, size)
    })
}

/// `mount(2)`, for what has no newer form: options longer than `fsconfig` takes. `target` is a path.
pub fn mount_legacy(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Result<()> {
    // SAFETY: all four are C strings that outlive the call; the kernel only reads them.
    check_unit(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
}

/// Changes the propagation of the mount at `target`, a path, with `MS_*` bits (`MS_REC` allowed).
pub fn set_propagation(target: &CStr, flags: u64) -> Result<()> {
    let none = std::ptr::null();
    // SAFETY: `target` is a C string that outlives the call; the other strings may be null here.
    check_unit(unsafe { libc::mount(none, target.as_ptr(), none, flags, none.cast()) })
}

/// `pivot_root(".", ".")`: the working directory becomes the root, the former root lies on top of it.
pub fn pivot_root_here() -> Result<()> {
    let here = c".".as_ptr();
    // SAFETY: both arguments are the same static C string.
    check_unit(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })
}

/// `umount2(target, MNT_DETACH)`.
pub fn unmount_detached(target: &CStr) -> Result<()> {
    // SAFETY: `target` is a C string that outlives the call.
    check_unit(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
}

/// `umount2(target, UMOUNT_NOFOLLOW)`: what is in use stays (EBUSY).
pub fn unmount(target: &CStr) -> Result<()> {
    // SAFETY: `target` is a C string that outlives the call.
    check_unit(unsafe { libc::umount2(target.as_ptr(), libc::UMOUNT_NOFOLLOW) })
}
