//! Owns `bpf(2)` for device programs: load, attach, replace, detach, and list what is attached.
//! It may not build programs or judge refusals: `plan::cgroup` does the one, `cgroup::devices` the other.
//! `cgroup::devices` calls it with the fd of a cgroup2 directory.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::limits::{self, Limit};
use crate::{Errno, Result, check};

/// One instruction of an eBPF program, as the kernel lays it out (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Class, operation and source (`linux/bpf_common.h`, `linux/bpf.h`).
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub regs: u8,
    /// Jump distance, or offset of a load.
    pub off: i16,
    /// Immediate value.
    pub imm: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 1 << 1;
const F_REPLACE: u32 = 1 << 2;
/// The kernel's own limit of programs on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGS: u32 = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The whole of `bpf_attr.query`, with the members newer kernels write back behind `prog_cnt`.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    _padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Marks the structs that are one arm of the kernel's `union bpf_attr`: `repr(C)`, no pointers but `u64`
/// ones, no padding that is not named.
trait Attr {}
impl Attr for LoadAttr {}
impl Attr for AttachAttr {}
impl Attr for QueryAttr {}
impl Attr for IdAttr {}

/// # Safety
/// The `u64` addresses in `attr` must be valid for what `command` reads or writes through them.
unsafe fn bpf<A: Attr>(command: libc::c_long, attr: &mut A) -> Result<RawFd> {
    let size = size_of::<A>();
    // SAFETY: `attr` is a whole `repr(C)` arm of bpf_attr that outlives the call, and `size` is its own
    // size, so the kernel stays inside it; the addresses in it are the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    RawFd::try_from(check(answer)?).map_err(|_out_of_range| Errno::EOVERFLOW)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr().addr() as u64
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program.
pub fn load_device(program: &[Insn]) -> Result<OwnedFd> {
    const LICENSE: &[u8] = b"Apache-2.0\0";
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_out_of_range| Errno::E2BIG)?,
        insns: address(program),
        license: address(LICENSE),
        prog_name: *b"hull_devices\0\0\0\0",
        ..LoadAttr::default()
    };
    // SAFETY: `insns` points at `insn_cnt` instructions borrowed for this call, `license` at a static
    // string that ends in NUL; the kernel only reads both, and log_buf is null with level 0.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: a successful PROG_LOAD returns a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches `program` to the cgroup beside what is there (`BPF_F_ALLOW_MULTI`), so that programs of
/// others and of ancestors keep their say.
pub fn attach_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    attach(AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    })
}

/// Puts `program` in the place of `old` in one step, with no moment without a filter.
pub fn replace_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, old: BorrowedFd<'_>) -> Result<()> {
    attach(AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | F_REPLACE,
        replace_bpf_fd: raw(old),
    })
}

fn attach(mut attr: AttachAttr) -> Result<()> {
    // SAFETY: this arm of bpf_attr holds fds and flags only, no addresses.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes `program` off the cgroup.
pub fn detach_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    // SAFETY: this arm of bpf_attr holds fds and flags only, no addresses.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

/// The ids of the device programs attached to this cgroup itself.
pub fn attached_devices(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGS as usize];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr().addr() as u64,
        prog_cnt: MAX_PROGS,
        ..QueryAttr::default()
    };
    // SAFETY: `prog_ids` points at `prog_cnt` u32 in `ids`, which lives until after the call; the
    // kernel writes at most that many.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// A loaded program by its id.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = IdAttr { prog_id: id, ..IdAttr::default() };
    // SAFETY: this arm of bpf_attr holds integers only, no addresses.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: a successful PROG_GET_FD_BY_ID returns a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `work` with as much locked memory as the kernel lets us have, and puts the limit back, so that
/// no container inherits it. Not being allowed to raise it (no CAP_SYS_RESOURCE) is no error.
pub fn with_raised_memlock<T>(work: impl FnOnce() -> T) -> T {
    #[allow(clippy::unnecessary_cast, reason = "an int in musl")]
    const MEMLOCK: u32 = libc::RLIMIT_MEMLOCK as u32;
    let before = limits::get(MEMLOCK);
    let raised = limits::set(MEMLOCK, Limit { soft: u64::MAX, hard: u64::MAX }).is_ok();
    let answer = work();
    if let (true, Ok(before)) = (raised, before) {
        // Lowering one's own limit is always allowed: there is no failure to report.
        limits::set(MEMLOCK, before).ok();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Insn>(), 8);
        assert_eq!(size_of::<LoadAttr>(), 64);
        assert_eq!(size_of::<AttachAttr>(), 20);
        assert_eq!(size_of::<QueryAttr>(), 64);
        assert_eq!(std::mem::offset_of!(QueryAttr, revision), 56);
    }
}
