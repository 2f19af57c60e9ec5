//! Runs hooks, all six kinds in the same way: the state on stdin, the plan's arguments and environment, at
//! most the plan's time, default signals, umask 022, no other descriptor, the bundle as the working directory
//! (in the container, where no bundle is: that of the process). Called by `parent` for those of the
//! runtime's side, by `init` for those of the container's, by `start` and `delete` for the last two kinds.

use std::ffi::CStr;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::exec::{Strings, exec};
use hull_sys::open::{self, How};
use hull_sys::process::{self, Clone, Exit, Forked};
use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, fs, pidfd, socket};

use super::report;
use crate::apply::{At, Call, Failure};
use crate::error;
use crate::plan::hooks::HookPlan;
use crate::spec::state::HookState;

/// More than this of what a hook printed is not repeated in an error.
const LIMIT_BYTES: u64 = 4096;

/// Where the output of hooks goes, so that an error can repeat it: a file in memory that parent and child
/// share.
pub struct Output(std::fs::File);

impl Output {
    /// An empty one.
    pub fn new() -> hull_sys::Result<Self> {
        socket::memory_file(c"hull-hook").map(std::fs::File::from).map(Self)
    }

    /// Another handle of the same file, for the child.
    pub fn share(&self) -> hull_sys::Result<Self> {
        let copy = self.0.try_clone();
        copy.map(Self).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// What was written, as one line.
    pub fn text(&self) -> String {
        let (mut bytes, mut file) = (Vec::new(), &self.0);
        let read = file.rewind().and_then(|()| file.take(LIMIT_BYTES).read_to_end(&mut bytes));
        if read.is_err() {
            return String::new();
        }
        shown(String::from_utf8_lossy(&bytes).trim())
    }

    /// Forgets what the hook before has written.
    fn clear(&self) -> Result<(), Failure> {
        let cleared = (&self.0).rewind().and_then(|()| self.0.set_len(0));
        cleared.map_err(|_refused| Failure::new(Call::Execute, Errno::EIO))
    }
}

/// On one line, and without what would mean something to a terminal: the program is the image's.
fn shown(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push_str("; "),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Holds a hook to what the program of the container is held to: called in its process, before `execve`.
pub type Confine<'a> = &'a dyn Fn() -> hull_sys::Result<()>;

/// Runs the hooks of one kind on our side, in the bundle.
///
/// # Errors
/// The first that fails: `error running <kind> hook #N: ...`.
pub fn run_all(kind: &str, list: &[HookPlan], state: &HookState<'_>, output: &Output) -> error::Result<()> {
    let told = state.to_json();
    let bundle = crate::plan::path::c_string(state.bundle)?;
    for (index, hook) in list.iter().enumerate() {
        run(hook, &told, output, Side::Runtime(&bundle))
            .map_err(|failure| report::hook_error(kind, index, hook, failure, &output.text()))?;
    }
    Ok(())
}

/// Where a hook runs, and held to what.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    /// On the host's side, in this directory.
    Runtime(&'a CStr),
    /// In the container, where the process stands.
    Container(Confine<'a>),
}

/// Runs one hook and waits for it. `output` holds what it has written, and nothing else.
pub fn run(hook: &HookPlan, state: &str, output: &Output, side: Side<'_>) -> Result<(), Failure> {
    output.clear()?;
    let input = input(state)?;
    let (args, env) = (Strings::new(hook.args.clone()), Strings::new(hook.env.clone()));
    // Closed by a successful exec; else it carries the errno.
    let (refusal, report) = socket::pipe().at(Call::Execute)?;
    let parent = process::own_pid();
    let child = match process::clone(Clone::default()).at(Call::Execute)? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            let stdio = [(input.as_fd(), 0), (output.as_fd(), 1), (output.as_fd(), 2)];
            let errno = become_hook(hook, &args, &env, stdio, report.as_fd(), side, parent);
            let number = (errno as i32).to_ne_bytes();
            // Nobody is left to be told when this fails; the exit code says it too.
            let _told = fs::write_once(report.as_fd(), &number).is_ok();
            process::exit(127)
        }
    };
    drop(report);
    let exit = wait(child.as_fd(), hook.timeout_s)?;
    let mut number = [0; 4];
    if std::fs::File::from(refusal).read_exact(&mut number).is_ok() {
        return Err(Failure { call: Call::Execute, detail: 0, errno: i32::from_ne_bytes(number) });
    }
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(Failure { call: Call::Exited, detail: 0, errno: code }),
        Exit::Signal(signal) => Err(Failure { call: Call::Signalled, detail: 0, errno: signal }),
    }
}

fn input(state: &str) -> Result<std::fs::File, Failure> {
    let mut input = socket::memory_file(c"hull-state").map(std::fs::File::from).at(Call::Execute)?;
    input
        .write_all(state.as_bytes())
        .and_then(|()| input.rewind())
        .map_err(|_full| Failure::new(Call::Execute, Errno::ENOSPC))?;
    Ok(input)
}

fn become_hook(
    hook: &HookPlan,
    args: &Strings,
    env: &Strings,
    stdio: [(BorrowedFd<'_>, i32); 3],
    report: BorrowedFd<'_>,
    side: Side<'_>,
    parent: process::Pid,
) -> Errno {
    signal::reset();
    // Who is killed while it waits for a hook does not leave it running.
    if process::set_parent_death_signal(9).is_err() || process::parent_pid() != parent {
        return Errno::EOWNERDEAD;
    }
    process::set_umask(0o022);
    let ready = stdio.into_iter().try_for_each(|(fd, number)| fs::replace_stdio(fd, number));
    let ready = ready.and_then(|()| fs::close_all_but(3, [report].into_iter()));
    let ready = ready.and_then(|()| match side {
        Side::Runtime(bundle) => enter(bundle),
        Side::Container(confine) => confine(),
    });
    match ready.and_then(|()| exec(hook.path.as_c_str(), args, env)) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// Enters the bundle; one that is gone by now (a hook of `delete`) leaves `/`.
fn enter(bundle: &CStr) -> hull_sys::Result<()> {
    let dir = open::on_host(None, bundle, How::DIRECTORY);
    let dir = dir.or_else(|_gone| open::on_host(None, c"/", How::DIRECTORY))?;
    fs::enter_dir(dir.as_fd())
}

/// Waits for the end of a hook; one that takes too long is killed.
fn wait(child: BorrowedFd<'_>, timeout_s: Option<u32>) -> Result<Exit, Failure> {
    if let Some(seconds) = timeout_s {
        let timeout_ms = i32::try_from(u64::from(seconds) * 1000).unwrap_or(i32::MAX);
        let [ended] =
            signal::poll([Interest { fd: child, events: libc::POLLIN }], timeout_ms).at(Call::Execute)?;
        if ended == 0 {
            pidfd::signal(child, libc::SIGKILL).at(Call::TimedOut)?;
            process::wait(child, true).at(Call::TimedOut)?;
            return Err(Failure {
                call: Call::TimedOut,
                detail: 0,
                errno: i32::try_from(seconds).unwrap_or(0),
            });
        }
    }
    process::wait(child, true).at(Call::Execute).map(|exit| exit.unwrap_or(Exit::Code(0)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn output_of_a_hook_is_one_line_that_a_terminal_only_shows() {
        assert_eq!(super::shown("a\nb\u{1b}[2J\r\0é"), "a; b\\u{1b}[2J\\r\\u{0}é");
    }
}
