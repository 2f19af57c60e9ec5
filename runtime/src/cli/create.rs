//! `hull create`: makes a container that waits for `start`.

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "create",
    arguments: "ID",
    count: (1, 1),
    about: "create a container; its process waits for \"hull start\"",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    bundle::BUNDLE,
    bundle::CONFIG,
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
    Flag::switch("detach", "accepted: create always detaches").short('d').hidden(),
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = super::id(parsed)?;
    let planned = global.runtime.plan_to_create(&id, &bundle::named(parsed)?)?;
    let console = parsed.value("console-socket");
    let warnings = global.runtime.create(&id, &planned, console, &bundle::announce(parsed))?;
    global.log.warnings(&warnings);
    Ok(0)
}
