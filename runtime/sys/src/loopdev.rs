//! Loop devices (`loop(4)`): block devices whose content is a file. Called by the shim's `mounts`.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Errno, Result, check, check_unit};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How a device shows its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// Nothing can be written.
    pub read_only: bool,
    /// The file is read and written past the page cache.
    pub direct_io: bool,
}

/// `struct loop_info64`; what is not set here is zero.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Number of a device that is free now; `control` is `/dev/loop-control`.
pub fn free(control: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: takes no argument.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(|_out_of_range| Errno::EOVERFLOW)
}

/// Gives `device` the content of `file` until its last user is gone (Linux 5.8). `name` is for those who
/// list devices, cut after 63 bytes. EBUSY: somebody else was faster.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, show: Show, name: &[u8]) -> Result<()> {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    // SAFETY: loop_config is plain numbers; all-zero is a valid value.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd().cast_unsigned();
    config.info.flags = LO_FLAGS_AUTOCLEAR
        | flag(show.read_only, LO_FLAGS_READ_ONLY)
        | flag(show.direct_io, LO_FLAGS_DIRECT_IO);
    for (to, from) in config.info.file_name.iter_mut().take(63).zip(name) {
        *to = *from;
    }
    // SAFETY: the kernel reads one loop_config at the pointer, which is live and of that layout.
    check_unit(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_have_the_kernels_size() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
    }
}
