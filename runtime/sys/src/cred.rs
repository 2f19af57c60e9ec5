//! Who a process is: user and group ids, capability sets. Bare system calls, since a libc would try to
//! reach other threads, which the runtime does not have. Called by `apply` and `host`.

use crate::process::Pid;
use crate::{Errno, Result, check, check_unit};

/// A set of capabilities as the kernel numbers them: bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// What the process can use now.
    pub effective: u64,
    /// What it may make effective.
    pub permitted: u64,
    /// What may pass through exec.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: Pid,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// The capability sets of this process.
pub fn caps() -> Result<Caps> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: the kernel reads the header and writes two data blocks into the live array.
    check_unit(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Caps {
        effective: join(halves[0].effective, halves[1].effective),
        permitted: join(halves[0].permitted, halves[1].permitted),
        inheritable: join(halves[0].inheritable, halves[1].inheritable),
    })
}

/// Sets the capability sets of this process.
pub fn set_caps(caps: Caps) -> Result<()> {
    let half = |shift: u32| {
        let part = |set: u64| u32::try_from(set >> shift & 0xffff_ffff).unwrap_or(0);
        Half {
            effective: part(caps.effective),
            permitted: part(caps.permitted),
            inheritable: part(caps.inheritable),
        }
    };
    let mut header = Header { version: VERSION, pid: 0 };
    let halves = [half(0), half(32)];
    // SAFETY: the kernel reads the header and two data blocks, all live locals.
    check_unit(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) })
}

fn prctl(option: libc::c_int, first: u64, second: u64) -> Result<libc::c_int> {
    // SAFETY: the options used in this file take numbers only.
    check(unsafe { libc::prctl(option, first, second, 0_u64, 0_u64) })
}

/// Whether capability `number` is in the bounding set; EINVAL when the kernel does not know it.
pub fn is_bounding(number: u8) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, number.into(), 0).map(|answer| answer == 1)
}

/// The bounding set, and the number of the last capability the kernel knows. Only EINVAL ends the list: what
/// any other answer hid would stay in the set.
pub fn bounding() -> Result<(u64, u8)> {
    let mut set = 0;
    for number in 0..64_u8 {
        match is_bounding(number) {
            Ok(true) => set |= 1 << number,
            Ok(false) => {}
            Err(Errno::EINVAL) if number > 0 => return Ok((set, number - 1)),
            Err(errno) => return Err(errno),
        }
    }
    Ok((set, 63))
}

/// Removes capability `number` from the bounding set.
pub fn drop_bounding(number: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map(drop)
}

/// Keeps the permitted set when the last user id of 0 goes, until the next exec.
pub fn keep_caps() -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned()), 0).map(drop)
}

/// Adds capability `number` to the ambient set.
pub fn raise_ambient(number: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, u64::from(libc::PR_CAP_AMBIENT_RAISE.cast_unsigned()), number.into())
        .map(drop)
}

/// Sets the real, effective and saved user id.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Sets the real, effective and saved group id.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: takes numbers only.
    check_unit(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// Sets the supplementary groups.
pub fn set_groups(gids: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` gids at the pointer, both of one live slice.
    check_unit(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) })
}

/// The supplementary groups.
pub fn groups() -> Result<Vec<u32>> {
    // SAFETY: with a size of 0 the kernel writes nothing and answers the count.
    let count = check(unsafe { libc::getgroups(0, std::ptr::null_mut()) })?;
    let mut gids = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the kernel writes at most `count` gids into the live buffer of that length.
    let filled = check(unsafe { libc::getgroups(count, gids.as_mut_ptr()) })?;
    gids.truncate(usize::try_from(filled).unwrap_or(0));
    Ok(gids)
}

/// Effective user id.
pub fn euid() -> u32 {
    // SAFETY: takes and touches nothing.
    unsafe { libc::geteuid() }
}

/// Effective group id.
pub fn egid() -> u32 {
    // SAFETY: takes and touches nothing.
    unsafe { libc::getegid() }
}

#[repr(C)]
struct SockFprog {
    length: u16,
    filter: *const libc::sock_filter,
}

/// Loads a seccomp filter (`seccomp(2)`, `SECCOMP_SET_MODE_FILTER`) with `SECCOMP_FILTER_FLAG_*` bits.
pub fn load_seccomp(program: &[libc::sock_filter], flags: u32) -> Result<()> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    let length = u16::try_from(program.len()).map_err(|_out_of_range| Errno::E2BIG)?;
    let args = SockFprog { length, filter: program.as_ptr() };
    // SAFETY: `args` names a live slice and its length; the kernel copies it and writes nothing. With
    // TSYNC the answer may be a thread id, which a single-threaded process cannot get.
    check_unit(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const args) })
}
