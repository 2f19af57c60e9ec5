//! The containerd shim: keeps containers for containerd. The files, in call order:
#![forbid(unsafe_code)]

// The files of a bundle.
pub mod bundle;
// Who is served.
pub mod connection;
// The states of containers and processes.
pub mod container;
// `delete`: cleans up without a server.
pub mod delete;
// The one error type.
pub mod error;
// What the daemon is told, in order.
pub mod events;
// The command line.
pub mod flags;
// `-info`.
pub mod info;
// Standard streams.
pub mod io;
// The shim's own log.
pub mod log;
// The mounts of a rootfs.
pub mod mounts;
// The OOM killer's victims.
pub mod oom;
// What the daemon's configuration asks of the runtime.
pub mod options;
// Orphans.
pub mod reaper;
// How the runtime is called.
pub mod runtime;
// Pods whose namespaces are ours.
pub mod sandbox;
// Directories of tests.
#[cfg(test)]
mod scratch;
// The event loop.
pub mod server;
// ttrpc.
pub mod service;
// Processes we wait for.
pub mod spawn;
// `start`: makes a server and answers with its address.
pub mod start;
// What a container uses.
pub mod stats;
// The task service.
pub mod task;
// Moments.
pub mod time;
// Descriptors in the event loop.
pub mod watch;

use std::io::Write;
use std::process::ExitCode;

use flags::Action;

/// Does what the words after the program's name say.
pub fn run(words: &[String]) -> ExitCode {
    let (action, flags) = match flags::parse(words) {
        Ok(parsed) => parsed,
        Err(why) => return fail(&why),
    };
    let answer = match action {
        Action::Start => start::start(&flags),
        Action::Delete => delete::delete(&flags),
        Action::Serve => server::serve(&flags).map(|()| Vec::new()),
        Action::Info => info::info(&flags),
        Action::Version => Ok(info::version()),
        Action::Help => Ok(flags::help().as_bytes().to_vec()),
    };
    match answer {
        // The daemon reads all of it, or has gone.
        Ok(bytes) if std::io::stdout().write_all(&bytes).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(&error.message),
    }
}

fn fail(why: &str) -> ExitCode {
    // Nobody may be there to read it.
    let _told = writeln!(std::io::stderr(), "containerd-shim-hull-v1: {why}").is_ok();
    ExitCode::FAILURE
}
