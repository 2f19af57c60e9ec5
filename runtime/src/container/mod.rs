//! The life of a container, as verbs on a state root: each locks what it changes, checks that the move is allowed, and
//! leaves the container as it was, or gone, when it fails. One file for each verb; they do not call each other.
//!
//! ```text
//! Bundle ── plan ──> Planned                                  nothing has changed
//! Reserved ── create ──> Created ── start ──> Running ── wait  in one process: run
//!                           └── (left to a later start)        create
//! ```
//! `cli` calls it, and so may other programs. It prints nothing: warnings are returned, and what is being done is
//! told to [`Runtime::trace`].

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result, Warning, internal, io_words};
use crate::spec::ContainerId;
use crate::state::{Record, StateDir};

pub mod announce;
pub mod bundle;
pub mod create;
mod delete;
pub mod exec;
mod hooks;
mod kill;
mod pause;
mod start;
mod status;
mod undo;
pub mod update;

pub use bundle::{Bundle, Planned};
pub use create::{Created, Reserved, Running};
pub use status::Found;

pub use crate::plan::cgroup::Driver;
pub use crate::plan::text;
pub use crate::state::StateRoot;

/// A state root, and how this process makes and changes the containers below it.
pub struct Runtime {
    /// Where the containers' directories lie.
    pub root: StateRoot,
    /// Who makes cgroups.
    pub driver: Driver,
    /// Whether missing rights over cgroups are tolerated; `None` where this process has none.
    pub rootless: Option<bool>,
    /// Warnings are errors.
    pub strict: bool,
    /// Is told what is being done.
    pub trace: Trace,
}

/// Is told what is being done, in a sentence.
pub type Trace = Box<dyn Fn(fmt::Arguments<'_>)>;

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Runtime {
    /// The containers below `root`, or else below where this user has theirs; their cgroups are made by this process.
    ///
    /// # Errors
    /// When a relative root cannot be made absolute.
    pub fn at(root: Option<PathBuf>) -> Result<Self> {
        let root = root.unwrap_or_else(default_root);
        let root = std::path::absolute(&root).map_err(|error| {
            let text = format!("use the state root {}: {}", root.display(), io_words(&error));
            Error::new(ErrorKind::RootUnusable, text)
        })?;
        Ok(Self {
            root: StateRoot::new(root),
            driver: Driver::default(),
            rootless: None,
            strict: false,
            trace: Box::new(|_what| {}),
        })
    }

    /// Takes warnings as what they are, or as an error when they are to be one.
    ///
    /// # Errors
    /// The first, with [`Self::strict`].
    pub fn accept(&self, warnings: &[Warning]) -> Result<()> {
        match warnings.first() {
            Some(first) if self.strict => Err(first.clone()),
            _ => Ok(()),
        }
    }

    /// The directory and the record of a container.
    fn find(&self, id: &ContainerId) -> Result<(StateDir, Record)> {
        let dir = self.root.open(id)?;
        let record = dir.load()?;
        Ok((dir, record))
    }
}

/// runc's rule with our name: an ordinary user has `$XDG_RUNTIME_DIR/hull`, also as root of a user namespace of
/// their own (as Podman makes one), where `$USER` still tells.
fn default_root() -> PathBuf {
    let is_root = || std::env::var_os("USER").is_some_and(|user| user == "root");
    let is_users = || hull_sys::cred::euid() != 0 || crate::host::probe_user_namespace() && !is_root();
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty() && is_users());
    of_user.map_or_else(|| PathBuf::from("/run/hull"), |dir| PathBuf::from(dir).join("hull"))
}
