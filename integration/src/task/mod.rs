//! A daemon as a shim sees it, without containerd: it starts the shim under test as each version of containerd
//! does, asks it through the task service, takes its events, goes away and comes back. Everything is in a mount
//! namespace of the test with a fresh /run, where shims have their sockets and runtimes their state.
//!
//! | part | owns |
//! |---|---|
//! | `Daemon` | the namespace, the bundles, the command lines of the shim |
//! | `Task` | one container: the methods of the service |
//! | `Client` | a connection, and the thread that drives it |
//! | `Events` | the socket for events, and those that came, in order |
//! | `Fifo` | the daemon's end of a FIFO |

/// A script that says when it is ready, ends with 7 on TERM and waits for it.
pub const WAITS: &str = "trap 'exit 7' TERM; : >/up; while :; do sleep 0.05; done";

mod client;
mod daemon;
mod events;
mod fifo;
mod service;

pub(crate) use client::short;
pub use client::{Client, Refusal, Reply, refused, refused_saying};
pub use daemon::{Asked, Daemon, Dialect, Started, ask};
pub use events::{Event, Events};
pub use fifo::Fifo;
pub use service::{Exec, Stdio, Task, is_gone, kill_process, signal_process};
