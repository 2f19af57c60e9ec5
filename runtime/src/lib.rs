//! hull as a library: containers from OCI bundles, without a runtime binary.
//!
//! [`Runtime`] is a state root, and its methods are the verbs of the OCI runtime specification: plan, create, start, run,
//! exec, kill, pause, resume, update, look (`state`), list, delete. A [`Bundle`] is planned before anything changes; the
//! plan can be printed. Errors are [`Error`]: a kind for programs, a sentence for people, and the field of config.json.
//!
//! **Processes.** `create`, `run` and `exec` clone this process and change it for good: it becomes untraceable
//! (`PR_SET_DUMPABLE`), `run` and `exec` block the signals that they pass on, and an `exec` into a container with a user
//! namespace moves later children of this process into the container's PID namespace. So call them in a process that
//! has one thread and is made for the purpose, as the `hull` command is; the others have no such effects. That command
//! also runs from a read-only copy of its file (CVE-2019-5736): a program that calls `exec` should do so, too
//! (`hull_sys::seal`).
//!
//! ```
//! use hull::{Bundle, ContainerId, Runtime, container};
//!
//! let dir = std::env::temp_dir().join(format!("bundle-{}", std::process::id()));
//! std::fs::create_dir_all(dir.join("rootfs"))?;
//! std::fs::write(dir.join("config.json"), container::bundle::first_config(true)?)?;
//!
//! let runtime = Runtime::at(Some(dir.join("state")))?;
//! let bundle = Bundle { dir: dir.to_str().unwrap_or_default(), ..Bundle::default() };
//! let planned = runtime.plan(&ContainerId::parse("web")?, &bundle)?;
//! let lines = container::text::lines(&planned.plan, &planned.warnings);
//! assert!(container::text::table(&lines).contains("<- process.args"));
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

// Who may use whom is in docs/architecture.md; a test holds the code to it.
#[doc(hidden)]
pub mod apply;
#[doc(hidden)]
pub mod cgroup;
#[doc(hidden)]
pub mod cli;
pub mod container;
pub mod error;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod launch;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod spec;
#[doc(hidden)]
pub mod state;

pub use container::{Bundle, Runtime};
pub use error::{Error, ErrorKind, Result};
pub use oci_spec;
pub use spec::ContainerId;
pub use spec::state::{State, Status};
