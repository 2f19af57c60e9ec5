//! A file as a block device, which is free again when its last user is gone. Called by `filesystem`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use hull_sys::Errno;
use hull_sys::loopdev::{self, Show};

use super::{Reason, Step, at};

/// How often another may be faster in taking the device that was free.
const TRIES: usize = 100;

/// The device and its path; it lives as long as one of its users, of which the open file is the first.
pub(super) fn show(file: &str, how: Show) -> Step<(File, String)> {
    let control = "/dev/loop-control";
    let write = !how.read_only;
    let content = open(file, write)?;
    let control = open(control, true)?;
    for _ in 0..TRIES {
        let number =
            loopdev::free(control.as_fd()).map_err(|errno| at("find", "a free loop device", errno))?;
        let name = format!("/dev/loop{number}");
        let device = open(&name, write)?;
        match loopdev::configure(device.as_fd(), content.as_fd(), how, file.as_bytes()) {
            Ok(()) => return Ok((device, name)),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(at("attach", format!("{file} to {name}"), errno)),
        }
    }
    Err(Reason { errno: Errno::EBUSY, text: format!("lost the race for a free loop device {TRIES} times") })
}

fn open(path: &str, write: bool) -> Step<File> {
    OpenOptions::new().read(true).write(write).open(path).map_err(|error| at("open", path, error))
}
