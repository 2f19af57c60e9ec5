//! `hull run`: create, start, wait, delete.

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle};
use crate::error::Result;

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
    let (id, detach) = (super::id(parsed)?, parsed.has("detach"));
    let planned = global.runtime.plan_to_create(&id, &bundle::named(parsed)?)?;
    let console = parsed.value("console-socket");
    let running = global.runtime.run(&id, &planned, console, &bundle::announce(parsed), detach)?;
    global.log.warnings(&running.warnings);
    global.log.warnings(running.pass_readiness_on().as_slice());
    if detach {
        return Ok(0);
    }
    let (exit, warnings) = running.wait(parsed.has("keep"))?;
    global.log.warnings(&warnings);
    Ok(exit.code())
}
