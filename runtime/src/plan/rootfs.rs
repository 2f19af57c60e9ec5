//! What is done to the file systems of a container, as a list of operations in the order they are carried
//! out. Pure: it reads the spec and facts and opens nothing; `apply::fs` carries the list out in the child,
//! `plan::text` prints it.

use std::ffi::CString;

use hull_sys::mount::{Change, attr, propagation};
use oci_spec::runtime::{Linux, Spec};

use super::cgroup::CgroupPlan;
use super::devices::{self, Node};
use super::mounts;
use super::path::{HostPath, InRoot};
use crate::error::{Error, Field, Result};
use crate::host::Facts;

/// One operation in the root of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum FsOp {
    /// Make a file system and mount it.
    Mount(NewMount),
    /// Mount a copy of a tree that exists.
    Bind(Bind),
    /// Make a device node (or bind the host's, where nodes cannot be made).
    Node(Node),
    /// Make a symlink; when `replace`, instead of what is there.
    Symlink {
        /// What it points to.
        target: CString,
        /// Where it lies.
        at: InRoot,
        /// Whether something in its place is removed first.
        replace: bool,
    },
    /// Make a directory and its parents.
    Directory {
        /// Where.
        at: InRoot,
    },
    /// Change the attributes of a mount.
    Attributes {
        /// The mount.
        at: InRoot,
        /// The change.
        change: Change,
        /// Also of all below it.
        recursive: bool,
    },
    /// Put the pty's slave on /dev/console.
    Console,
    /// Hide a path: a file behind /dev/null, a directory behind an empty one. A missing one is skipped.
    Mask(InRoot),
    /// Make a path read-only. A missing one is skipped.
    ReadOnly(InRoot),
}

/// A new file system.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMount {
    /// Type, for example `tmpfs`.
    pub kind: CString,
    /// What mountinfo shows as its source.
    pub source: CString,
    /// Options of the file system; a key without value is a flag.
    pub options: Vec<(CString, Option<CString>)>,
    /// `MOUNT_ATTR_*` of the mount.
    pub attributes: u64,
    /// Where it goes.
    pub at: InRoot,
    /// Propagation changes afterwards, in order: kind, recursive.
    pub propagation: Vec<(u64, bool)>,
    /// Copy what it hides into it.
    pub copy_up: bool,
    /// Refuse a destination that is a symlink.
    pub nofollow: bool,
}

/// Where the tree of a bind mount comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A path of the host, opened by the child.
    Host(HostPath),
    /// The same, opened by the parent before the clone: slot in the table of trees.
    Opened(HostPath, usize),
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    /// What is mounted.
    pub source: Source,
    /// With all mounts below it.
    pub recursive: bool,
    /// Attributes of the mount itself.
    pub change: Change,
    /// Attributes of the mount and all below it.
    pub recursive_change: Change,
    /// Where it goes.
    pub at: InRoot,
    /// Propagation changes afterwards, in order: kind, recursive.
    pub propagation: Vec<(u64, bool)>,
    /// Take the source itself when it is a symlink.
    pub source_nofollow: bool,
    /// Make the symlink that the source is, instead of mounting it.
    pub copy_symlink: bool,
    /// Refuse a destination that is a symlink.
    pub nofollow: bool,
    /// Map ids.
    pub idmap: Option<Idmap>,
}

/// How the ids of a bind mount are mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct Idmap {
    /// Also of all mounts below it.
    pub recursive: bool,
    /// The maps of this mount (lines of `uid_map` and `gid_map`); `None` takes the container's.
    pub maps: Option<(String, String)>,
}

/// One operation with where it came from and what is tried when it fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub op: FsOp,
    /// The config field that asked for it.
    pub field: Field,
    /// The errnos that lead to another operation, and that operation.
    pub fallback: Option<(&'static [i32], Box<FsOp>)>,
}

/// How the container's root becomes the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootChange {
    /// `pivot_root(2)`.
    Pivot,
    /// Move the mount over `/` and `chroot(2)`: for roots that cannot be pivoted away.
    Move,
}

/// All that is done to file systems.
#[derive(Clone, Debug, PartialEq)]
pub struct RootfsPlan {
    /// The root file system on the host, absolute.
    pub path: HostPath,
    /// Propagation of the whole tree before anything is mounted, `MS_REC` included.
    pub propagation: u64,
    /// Before the hooks.
    pub before: Vec<Step>,
    /// How the root changes.
    pub change: RootChange,
    /// Propagation of the root in the end, when the spec names one: kind, recursive.
    pub last_propagation: Option<(u64, bool)>,
    /// After the hooks.
    pub after: Vec<Step>,
    /// How many trees the parent opens for [`Source::Opened`].
    pub opened: usize,
}

/// What of the request matters here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The bundle directory, absolute.
    pub bundle: &'a str,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// The host directory with the notify socket, when the caller gave one.
    pub notify_dir: Option<&'a str>,
}

/// Computes the list.
///
/// # Errors
/// A mount or device that cannot be asked of the kernel, with its field.
pub fn plan(spec: &Spec, facts: &Facts, request: Request<'_>, cgroup: &CgroupPlan) -> Result<RootfsPlan> {
    let missing = || Error::new("root-missing", "is required").field(Field::named("root"));
    let root = spec.root().as_ref().ok_or_else(missing)?;
    let linux = spec.linux().as_ref();
    let mut context = mounts::Context::new(spec, facts, request.bundle, cgroup);
    let mut before = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts::plan_mount(mount, &Field::item("mounts", index), &mut context, &mut before)?;
    }
    if let Some(dir) = request.notify_dir {
        before.push(mounts::notify_bind(dir)?);
    }
    if !context.dev_is_bound {
        devices::plan_dev(spec, context.bind_devices, facts.kcore, &mut before)?;
    }
    before.extend(working_directory(spec)?);
    Ok(RootfsPlan {
        path: HostPath::new(mounts::absolute(request.bundle, &root.path().to_string_lossy()))?,
        propagation: first_propagation(linux)?,
        last_propagation: last_propagation(linux)?,
        before,
        change: if request.no_pivot { RootChange::Move } else { RootChange::Pivot },
        after: after_pivot(spec, context)?,
        opened: 0,
    }
    .with_opened_sources(linux.is_some_and(has_user_namespace)))
}

impl RootfsPlan {
    /// Whether mounts of the container are seen on the host.
    pub fn is_shared(&self) -> bool {
        self.propagation & propagation::SHARED != 0
    }

    /// Whether a mount is mapped by the user namespace of the container's init.
    pub fn needs_own_user_namespace(&self) -> bool {
        self.before.iter().any(|step| match &step.op {
            FsOp::Bind(bind) => bind.idmap.as_ref().is_some_and(|idmap| idmap.maps.is_none()),
            _ => false,
        })
    }

    /// Gives each bind mount that only the host side can open (all of them, when the container has a user
    /// namespace, and the idmapped ones) a slot in the table of trees.
    fn with_opened_sources(mut self, user_namespace: bool) -> Self {
        for step in &mut self.before {
            if let FsOp::Bind(bind) = &mut step.op
                && let Source::Host(path) = &bind.source
                && (user_namespace || bind.idmap.is_some())
                && !bind.copy_symlink
            {
                bind.source = Source::Opened(path.clone(), self.opened);
                self.opened += 1;
            }
        }
        self
    }
}

fn has_user_namespace(linux: &Linux) -> bool {
    use oci_spec::runtime::LinuxNamespaceType::User;
    linux.namespaces().iter().flatten().any(|ns| ns.typ() == User)
}

/// The propagation that the spec names: kind, recursive.
fn asked_propagation(linux: Option<&Linux>) -> Result<Option<(u64, bool)>> {
    let wanted = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("");
    let kind = match wanted.strip_prefix('r').unwrap_or(wanted) {
        "" => return Ok(None),
        "slave" => propagation::SLAVE,
        "private" => propagation::PRIVATE,
        "shared" => propagation::SHARED,
        "unbindable" => propagation::UNBINDABLE,
        _ => {
            return Err(Error::new("propagation-unknown", format!("unknown propagation {wanted:?}"))
                .hint("use private, slave, shared or unbindable, or one of them with an r before it")
                .field(Field::named("linux.rootfsPropagation")));
        }
    };
    Ok(Some((kind, wanted.starts_with('r'))))
}

/// What every mount of the new namespace becomes first, so that nothing done here is seen on the host,
/// unless the spec asks for just that. What cannot be bound could not become the root either: private.
fn first_propagation(linux: Option<&Linux>) -> Result<u64> {
    Ok(match asked_propagation(linux)? {
        None => propagation::SLAVE | hull_sys::mount::RECURSIVE,
        Some((propagation::UNBINDABLE, _)) => propagation::PRIVATE | hull_sys::mount::RECURSIVE,
        Some((kind, recursive)) => kind | if recursive { hull_sys::mount::RECURSIVE } else { 0 },
    })
}

/// The root mount is private until it is the root, as `pivot_root` wants it, and gets what was asked then.
fn last_propagation(linux: Option<&Linux>) -> Result<Option<(u64, bool)>> {
    Ok(asked_propagation(linux)?.filter(|(kind, _)| *kind != propagation::PRIVATE))
}

fn working_directory(spec: &Spec) -> Result<Option<Step>> {
    let Some(process) = spec.process() else { return Ok(None) };
    let at = InRoot::new(process.cwd().to_string_lossy())?;
    if at.is_root() {
        return Ok(None);
    }
    Ok(Some(Step { op: FsOp::Directory { at }, field: Field::named("process.cwd"), fallback: None }))
}

fn after_pivot(spec: &Spec, context: mounts::Context<'_>) -> Result<Vec<Step>> {
    let mut after = Vec::new();
    let linux = spec.linux().as_ref();
    if spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true)) {
        let field = Field::named("process.terminal");
        after.push(Step { op: FsOp::Console, field, fallback: None });
    }
    after.extend(context.deferred);
    let lists = [
        (
            "linux.readonlyPaths",
            linux.and_then(|l| l.readonly_paths().as_ref()),
            FsOp::ReadOnly as fn(_) -> _,
        ),
        ("linux.maskedPaths", linux.and_then(|l| l.masked_paths().as_ref()), FsOp::Mask as fn(_) -> _),
    ];
    for (name, list, op) in lists {
        for (index, path) in list.into_iter().flatten().enumerate() {
            let field = Field::item(name, index);
            let at = InRoot::new(path).map_err(|error| error.field(field.clone()))?;
            after.push(Step { op: op(at), field, fallback: None });
        }
    }
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        let op = FsOp::Attributes { at: InRoot::new("/")?, change, recursive: false };
        after.push(Step { op, field: Field::named("root.readonly"), fallback: None });
    }
    Ok(after)
}
