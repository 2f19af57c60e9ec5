//! How a launch ends: with the program running, or with an error that says why there is none. Called by `parent`,
//! `join` and `container::start`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an errno or stage without words of its own gets the general sentence"
)]

use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::Errno;
use hull_sys::process::Exit;
use hull_sys::signal::{self, Interest};

use super::channel::{Channel, Message, Report, Stage};
use super::report;
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Field, Result, internal};

/// Waits for the program to run: the end of the channel after `Executing`. With `signals` (a signalfd), one that asks
/// for the end is an error.
pub fn await_program(
    channel: &Channel,
    signals: Option<BorrowedFd<'_>>,
    sentence: impl Fn(Report, &str) -> Error,
) -> Result<()> {
    let mut executing = false;
    loop {
        if let Some(signals) = signals {
            uninterrupted(channel, signals)?;
        }
        match channel.receive() {
            Ok(Some(Message::Executing)) => executing = true,
            Ok(Some(Message::Report(found))) => {
                let is_hook = found.stage == Stage::StartContainer;
                let printed = if is_hook { channel.receive_text() } else { String::new() };
                return Err(sentence(found, &printed));
            }
            Ok(None) if executing => return Ok(()),
            Ok(None) => {
                return Err(Error::new(
                    ErrorKind::InitGone,
                    "the container's init died before it ran the program",
                )
                .hint("it was killed from outside, or it ran out of memory"));
            }
            Ok(Some(_)) => {
                return Err(internal("parse the message from the container's init", Errno::EBADMSG));
            }
            Err(errno) => return Err(internal("receive a message from the container's init", errno)),
        }
    }
}

/// Waits for init to say something; a signal that asks for the end comes first.
fn uninterrupted(channel: &Channel, signals: BorrowedFd<'_>) -> Result<()> {
    const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
    let failed = |errno| internal("wait for the container's init", errno);
    loop {
        let watched = [channel.as_fd(), signals].map(|fd| Interest { fd, events: libc::POLLIN });
        let [said, signalled] = signal::poll(watched, -1).map_err(failed)?;
        if said != 0 {
            return Ok(());
        }
        let number = if signalled != 0 { signal::next(signals).map_err(failed)? } else { None };
        if let Some(number) = number.filter(|number| ENDING.contains(number)) {
            let text = format!("signal {number} came before the program was run");
            return Err(Error::new(ErrorKind::Interrupted, text));
        }
    }
}

pub(super) fn clone_failed(errno: Errno, namespaces: u64) -> Error {
    let error = Error::new(
        ErrorKind::CloneFailed,
        format!("create the container's init (clone3): {}", report::words(errno)),
    );
    match errno {
        Errno::EPERM => error
            .hint("creating namespaces needs CAP_SYS_ADMIN, or a user namespace")
            .field(Field::named("linux.namespaces")),
        Errno::EINVAL if namespaces != 0 => error
            .hint("the kernel may not support one of the namespace types")
            .field(Field::named("linux.namespaces")),
        Errno::ENOSPC => error
            .hint("a limit in /proc/sys/user/max_*_namespaces has been reached")
            .field(Field::named("linux.namespaces")),
        Errno::EAGAIN => {
            error.hint("the pids limit of the cgroup or another limit on processes has been reached")
        }
        _ => error,
    }
}

/// A child that ended without a word was killed, most often for want of memory.
pub(super) fn silent_end(exit: Option<Exit>, cgroup: &Cgroup) -> Error {
    let how = match exit {
        Some(Exit::Signal(signal)) => format!("it was killed by signal {signal}"),
        Some(Exit::Code(code)) => format!("it exited with status {code}"),
        None => "it is gone".to_owned(),
    };
    if cgroup.oom_kill_count().unwrap_or(0) > 0 {
        return Error::new(ErrorKind::OutOfMemory, format!("the container's init ran out of memory: {how}"))
            .hint("the memory limit is too low to start a process, which takes about 256 KiB")
            .field(Field::named("linux.resources.memory.limit"));
    }
    Error::new(ErrorKind::InitGone, format!("the container's init exited during set-up: {how}"))
}
