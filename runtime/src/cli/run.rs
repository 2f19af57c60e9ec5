//! `hull run`: create, start, wait, delete.

use std::os::fd::{AsFd, OwnedFd};

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle, container, delete, start};
use crate::error::Result;
use crate::launch::channel::Message;
use crate::launch::foreground::{self, Terminal};
use crate::launch::notify::Notify;
use crate::launch::report::check_passed_fds;

pub(super) const VERB: Verb = Verb {
    name: "run",
    arguments: "ID",
    count: (1, 1),
    about: "create and start a container, wait for it to exit, and delete it",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    bundle::BUNDLE,
    bundle::CONFIG,
    Flag::switch("detach", "return once the program is running").short('d'),
    Flag::switch("keep", "do not delete the container when it exits"),
    Flag::value("console-socket", "PATH", "send the container's terminal to this socket"),
    Flag::value("pidfd-socket", "PATH", "send a pidfd of the container's init process to this socket"),
    Flag::value("pid-file", "FILE", "write the PID of the container's init process to FILE"),
    Flag::switch("no-pivot", "move the root mount and chroot instead of using pivot_root (for an initramfs)"),
    Flag::switch("no-new-keyring", "keep the caller's session keyring"),
    Flag::value(
        "preserve-fds",
        "N",
        "pass N additional file descriptors to the process, after those of LISTEN_FDS",
    ),
    Flag::switch("no-subreaper", "accepted, has no effect").hidden(),
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = super::id(parsed)?;
    let detach = parsed.has("detach");
    let mut request = bundle::request(global, parsed, id.as_str())?;
    check_passed_fds(request.listen_fds, request.preserve_fds)?;
    request.notify_dir = bundle::notify_dir(global, &id);
    let planned = bundle::plan(global, parsed, request)?;
    let terminal = planned.plan.process.terminal.is_some();
    let point = |error| planned.source.point(error);
    let socket =
        container::console_socket(parsed.value("console-socket"), terminal, detach).map_err(point)?;
    let (ours, theirs) = consoles(socket, terminal && !detach).map_err(point)?;
    let state = global.root.reserve(&id)?;
    let made = container::make(global, &planned, &id, theirs, container::Starter::Us, state)?;
    let made = container::announce(parsed, made)?;
    let notify = Notify::new(&made.state.dir().path())?;
    let signals = foreground::watch()?;
    let terminal = ours.map(|ours| Terminal::receive(ours.as_fd())).transpose();
    let started =
        terminal.and_then(|terminal| made.init.release(Message::Start, &planned.plan).map(|()| terminal));
    let terminal = match started {
        Ok(terminal) => terminal,
        Err(error) => {
            made.init.end();
            // The first error is the one to tell.
            let _removed = delete::destroy(made.state, &made.record).is_ok();
            return Err(planned.source.point(error));
        }
    };
    let mut warnings = planned.warnings.clone();
    warnings.extend(start::poststart(&made.state, &made.record));
    global.log.warnings(&warnings);
    if let Some(notify) = notify {
        notify.forward(made.init.pid, &made.init.pidfd)?;
    }
    if detach {
        return Ok(0);
    }
    // Others may stop or delete it meanwhile.
    let container::Made { state, record, init } = made;
    drop(state);
    let exit = foreground::wait(init.pidfd.as_fd(), signals.as_fd(), terminal)?;
    if !parsed.has("keep") {
        remove(global, &id, &record)?;
    }
    Ok(exit.code())
}

/// The ends of the console: ours (in front of a terminal), and the one that the container's side sends to.
fn consoles(socket: Option<OwnedFd>, foreground: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !foreground {
        return Ok((None, socket));
    }
    let (ours, theirs) = foreground::console()?;
    Ok((Some(ours), Some(theirs)))
}

/// Deletes the container that has ended, unless somebody did so already.
fn remove(global: &Global, id: &crate::spec::ContainerId, record: &crate::state::Record) -> Result<()> {
    let Ok(state) = global.root.open(id).and_then(crate::state::StateDir::lock) else { return Ok(()) };
    match state.dir().load() {
        // The same id may be another container by now.
        Ok(now) if now.init == record.init => {
            delete::destroy(state, record)?;
            global.log.warnings(&delete::poststop(id.as_str(), record));
            Ok(())
        }
        _ => Ok(()),
    }
}
