//! What is done to the file systems of a container, as a list of operations in the order they are carried
//! out. Pure: it reads the spec and facts and opens nothing; `apply::fs` carries the list out in the child,
//! `plan::text` prints it.

use std::ffi::CString;

use hull_sys::mount::{Change, attr, propagation};
use oci_spec::runtime::{Linux, Spec};

use super::caps::SYS_ADMIN;
use super::cgroup::CgroupPlan;
use super::devices::{self, Node};
use super::mounts;
use super::path::{HostPath, InRoot};
use crate::error::{Error, ErrorKind, Field, Result, Warning};
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
    /// Take the mode of the directory it hides, where there is one.
    pub mode_of_target: bool,
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
    /// A path of the host that lies in the container's root, and where an earlier mount of the config is: opened
    /// by the child, below the root.
    Inside(HostPath, InRoot),
}

impl Source {
    /// As the config has it.
    pub fn path(&self) -> &HostPath {
        match self {
            Self::Host(path) | Self::Opened(path, _) | Self::Inside(path, _) => path,
        }
    }
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
    /// It stays a peer of the host's mount, so that what is mounted below one is seen below the other: only
    /// where the mount and the root both ask for `shared`.
    pub stays_peer: bool,
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
    /// Propagation kind of every mount of the new namespace before anything else happens to it: slave or
    /// private, so that nothing done here is seen on the host.
    pub cut: u64,
    /// Propagation of the root's tree before anything is mounted in it, where the cut is not enough: kind,
    /// recursive.
    pub first_propagation: Option<(u64, bool)>,
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
    /// What is done only in part.
    pub warnings: Vec<Warning>,
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
    let missing = || Error::new(ErrorKind::RootMissing, "is required").field(Field::named("root"));
    let root = spec.root().as_ref().ok_or_else(missing)?;
    let linux = spec.linux().as_ref();
    let asked = asked_propagation(linux)?;
    let mut context = mounts::Context::new(spec, facts, request.bundle, cgroup);
    context.root_is_shared = asked.is_some_and(|(kind, _)| kind == propagation::SHARED);
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
    let warnings = std::mem::take(&mut context.warnings);
    RootfsPlan {
        path: HostPath::new(mounts::absolute(request.bundle, &root.path().to_string_lossy()))?,
        cut: cut(asked),
        first_propagation: first_propagation(asked),
        last_propagation: asked.filter(|(kind, _)| *kind != propagation::PRIVATE),
        before,
        change: if request.no_pivot { RootChange::Move } else { RootChange::Pivot },
        after: after_pivot(spec, context)?,
        opened: 0,
        warnings,
    }
    .with_opened_sources(linux.is_some_and(has_user_namespace), facts.effective >> SYS_ADMIN & 1 == 1)
}

impl RootfsPlan {
    /// Whether a mount is mapped by the user namespace of the container's init.
    pub fn needs_own_user_namespace(&self) -> bool {
        self.before.iter().any(|step| {
            matches!(&step.op, FsOp::Bind(bind) if bind.idmap.as_ref().is_some_and(|idmap| idmap.maps.is_none()))
        })
    }

    /// Gives each bind mount that only the host side can open (all of them, when the container has a user
    /// namespace, the idmapped ones, and those that stay peers of the host's mount, which the cut would end) a
    /// slot in the table of trees.
    ///
    /// Without the right to mount nobody can open them but the child, as root in its own namespaces.
    fn with_opened_sources(mut self, user_namespace: bool, may_mount: bool) -> Result<Self> {
        if !may_mount {
            return Ok(self);
        }
        let root = InRoot::new(self.path.to_string())?;
        let mut earlier: Vec<InRoot> = Vec::new();
        for step in &mut self.before {
            let FsOp::Bind(bind) = &mut step.op else {
                earlier.extend(step.op.mounted_at().cloned());
                continue;
            };
            if let Source::Host(path) = &bind.source
                && (user_namespace || bind.idmap.is_some() || bind.stays_peer)
                && !bind.copy_symlink
            {
                let inside = inside(path, &root)?.filter(|from| {
                    let reaches = |at: &InRoot| from.is_within(at.as_str()) || at.is_within(from.as_str());
                    earlier.iter().any(reaches)
                });
                if inside.is_some() && bind.idmap.is_some() {
                    let message = "an idmapped mount of what an earlier mount brings is not yet supported";
                    return Err(Error::new(ErrorKind::MountIdmap, message).field(step.field.member("source")));
                }
                bind.source = match inside {
                    Some(from) => Source::Inside(path.clone(), from),
                    None => {
                        self.opened += 1;
                        Source::Opened(path.clone(), self.opened - 1)
                    }
                };
            }
            earlier.push(bind.at.clone());
        }
        Ok(self)
    }
}

impl FsOp {
    /// Where it mounts something.
    fn mounted_at(&self) -> Option<&InRoot> {
        match self {
            Self::Mount(new) => Some(&new.at),
            Self::Bind(bind) => Some(&bind.at),
            Self::Node(_)
            | Self::Symlink { .. }
            | Self::Directory { .. }
            | Self::Attributes { .. }
            | Self::Console
            | Self::Mask(_)
            | Self::ReadOnly(_) => None,
        }
    }
}

/// The place in the container of a path of the host, when it lies below the root.
fn inside(path: &HostPath, root: &InRoot) -> Result<Option<InRoot>> {
    let path = InRoot::new(path.to_string())?;
    let rest = path.as_str().strip_prefix(root.as_str()).filter(|_| path.is_within(root.as_str()));
    rest.map(InRoot::new).transpose()
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
            return Err(Error::new(ErrorKind::PropagationUnknown, format!("unknown propagation {wanted:?}"))
                .hint("use private, slave, shared or unbindable, or one of them with an r before it")
                .field(Field::named("linux.rootfsPropagation")));
        }
    };
    Ok(Some((kind, wanted.starts_with('r'))))
}

/// Slave lets a mount that asks for it still receive from the host; `rprivate` and `runbindable` ask for
/// nothing to be received anywhere. The cut does not depend on anything else, and is recursive.
fn cut(asked: Option<(u64, bool)>) -> u64 {
    match asked {
        Some((propagation::PRIVATE | propagation::UNBINDABLE, true)) => propagation::PRIVATE,
        _ => propagation::SLAVE,
    }
}

/// What is mounted below the root on the host while the container runs stays outside, unless the config asks
/// for slave. A shared or unbindable root is private until it is the root, as `pivot_root` wants it.
fn first_propagation(asked: Option<(u64, bool)>) -> Option<(u64, bool)> {
    match asked {
        None => Some((propagation::PRIVATE, true)),
        Some((propagation::SLAVE, _)) => None,
        Some((propagation::PRIVATE, recursive)) => Some((propagation::PRIVATE, recursive)),
        Some(_) => Some((propagation::PRIVATE, false)),
    }
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
        let mut seen = std::collections::BTreeSet::new();
        for (index, path) in list.into_iter().flatten().enumerate() {
            let field = Field::item(name, index);
            let at = InRoot::new(path).map_err(|error| error.field(field.clone()))?;
            if at.is_root() && name == "linux.maskedPaths" {
                return Err(Error::new(ErrorKind::MaskRoot, "/ cannot be hidden").field(field));
            }
            if seen.insert(at.to_string()) {
                after.push(Step { op: op(at), field, fallback: None });
            }
        }
    }
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        let op = FsOp::Attributes { at: InRoot::new("/")?, change, recursive: false };
        after.push(Step { op, field: Field::named("root.readonly"), fallback: None });
    }
    Ok(after)
}
