//! The harness of the integration tests: it runs a runtime's binary and looks at the result from outside.
//! It never links the `hull` library, so the same tests run on runc and crun. The tests themselves are in
//! `integration/tests`, compiled into the one binary `hull-integration` by `main.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::wildcard_enum_match_arm,
    reason = "test code: a panic is a failed test and shows the runtime's last calls"
)]

/// The time of one call, several runtimes in one run.
pub mod bench;
/// Memory, switches and time of shims, several in one run.
mod bench_shim;
/// A bundle: config.json as a value, and a busybox root file system.
pub mod bundle;
/// One call of the runtime and what came back.
pub mod call;
/// Where a container's cgroup is and what its files say.
pub mod cgroup;
/// Terminals: the receiver of `--console-socket`.
pub mod console;
/// A kubelet as containerd sees it: pods through the CRI.
pub mod cri;
/// Container engines as callers of the runtime: each in namespaces of its own, once for a run.
pub mod engine;
/// What this host is and has.
pub mod host;
/// What a test holds in its hand: a directory, a state root, a runtime to call.
pub mod lab;
/// This binary as a program inside the container.
pub mod probe;
/// The command line: which tests, how many at once, the summary.
pub mod runner;
/// Around one test: time limit, strays, leftovers.
pub mod supervise;
/// The few calls `std` and `nix` do not have.
pub mod sys;
/// A daemon as a shim sees it: the task service's client, the service for events, the shim's command lines.
pub mod task;
/// One entry of the test table, and how a test ends.
pub mod test;
/// Mount namespaces in which the host looks like another host.
pub mod view;
/// A process of a container that looks at each new one it can see.
mod watcher;

pub use bundle::Bundle;
pub use call::{Call, Output, Running};
pub use cgroup::write_file;
pub use engine::{Caller, Ctr, Engine};
pub use host::{Host, Mode};
pub use lab::{Lab, Shim};
pub use test::{Stop, Test, TestResult, skip};
pub use view::View;
