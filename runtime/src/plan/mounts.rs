//! One entry of `mounts` as operations: binds, new file systems, and the views of the cgroup hierarchies.
//! Pure; called by `plan::rootfs` for each entry in the order of the spec.

use std::ffi::CString;
use std::path::Path;

use hull_sys::mount::{Change, attr, propagation};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount, Spec};

use super::cgroup::CgroupPlan;
use super::mount_options::{self, Word};
use super::namespaces;
use super::path::{HostPath, InRoot, c_string};
use super::rootfs::{Bind, FsOp, Idmap, NewMount, Source, Step};
use crate::error::{Error, ErrorKind, Field, Result, Warning};
use crate::host::Facts;

/// What is bound from the host without being asked for receives nothing from there.
const PRIVATE: [(u64, bool); 1] = [(propagation::PRIVATE, true)];

/// What the entries before one mean for it, and what they leave for the end.
pub struct Context<'a> {
    facts: &'a Facts,
    bundle: &'a str,
    label: Option<&'a str>,
    own_cgroup_namespace: bool,
    has_user_namespace: bool,
    cgroup: &'a CgroupPlan,
    /// Device nodes are bound from the host, since this process may not make them.
    pub bind_devices: bool,
    /// Something is bound on /dev, which is therefore left alone.
    pub dev_is_bound: bool,
    /// Without power over cgroups the container may have none of its own.
    is_rootless: bool,
    /// The container's root is to be shared: mounts that ask for it stay peers of the host's.
    pub root_is_shared: bool,
    /// Steps that would bite the set-up if they came at once: read-only tmpfs.
    pub deferred: Vec<Step>,
    /// What is done only in part.
    pub warnings: Vec<Warning>,
}

impl<'a> Context<'a> {
    /// The state before the first entry.
    pub fn new(spec: &'a Spec, facts: &'a Facts, bundle: &'a str, cgroup: &'a CgroupPlan) -> Self {
        let linux = spec.linux().as_ref();
        let has = |kind| linux.is_some_and(|l| l.namespaces().iter().flatten().any(|ns| ns.typ() == kind));
        Self {
            facts,
            bundle,
            label: linux.and_then(|l| l.mount_label().as_deref()).filter(|label| !label.is_empty()),
            own_cgroup_namespace: has(LinuxNamespaceType::Cgroup),
            has_user_namespace: has(LinuxNamespaceType::User),
            cgroup,
            bind_devices: has(LinuxNamespaceType::User) || facts.in_user_namespace,
            dev_is_bound: false,
            is_rootless: cgroup.denied.is_some(),
            root_is_shared: false,
            deferred: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The bind mount by which a container sees its own directory in the hierarchy mounted at `mount`, and what
    /// is bound where that could not be made, as for an ordinary user: the cgroup of the caller, in which the
    /// container then is.
    fn cgroup_binds(
        &self,
        mount: &Path,
        callers: &Path,
        at: &InRoot,
        options: &Options,
    ) -> Result<(FsOp, FsOp)> {
        let callers = mount.join(callers).to_string_lossy().into_owned();
        Ok((cgroup_bind(&self.own_cgroup(mount), at, options)?, cgroup_bind(&callers, at, options)?))
    }

    /// The container's own directory in the hierarchy mounted at `mount`: the mount itself where the
    /// container has none.
    fn own_cgroup(&self, mount: &Path) -> String {
        let dir = self.cgroup.dirs.iter().find(|dir| dir.mount == mount);
        dir.map_or_else(|| mount.to_owned(), |dir| mount.join(&dir.path)).to_string_lossy().into_owned()
    }
}

/// The options of one entry, understood.
#[derive(Clone, Debug, Default)]
struct Options {
    bind: Option<bool>,
    change: Change,
    recursive_change: Change,
    propagation: Vec<(u64, bool)>,
    /// Flags of the file system.
    flags: Vec<&'static str>,
    /// Options that only the file system knows.
    data: Vec<(CString, Option<CString>)>,
    copy_up: bool,
    idmap: Option<bool>,
    source_nofollow: bool,
    dest_nofollow: bool,
    copy_symlink: bool,
}

fn read_options(mount: &Mount, field: &Field) -> Result<Options> {
    let mut options = Options::default();
    for (index, word) in mount.options().iter().flatten().enumerate() {
        let at = || field.member("options").index(index);
        // What an engine adds for itself (`x-...`) never reaches a file system.
        if word.is_empty() || word.starts_with("x-") {
            continue;
        }
        match mount_options::meaning(word) {
            Some(known) => options.add(known, at)?,
            None => options.add_data(word).map_err(|error| error.field(at()))?,
        }
    }
    Ok(options)
}

impl Options {
    fn add(&mut self, word: Word, field: impl Fn() -> Field) -> Result<()> {
        match word {
            Word::Nothing => {}
            Word::Attr(bits) => mount_options::add(&mut self.change, bits, 0),
            Word::NoAttr(bits) => mount_options::add(&mut self.change, 0, bits),
            Word::RecAttr(bits) => mount_options::add(&mut self.recursive_change, bits, 0),
            Word::NoRecAttr(bits) => mount_options::add(&mut self.recursive_change, 0, bits),
            Word::Super(name) => self.flags.push(name),
            Word::Bind(recursive) => self.bind = Some(recursive || self.bind == Some(true)),
            Word::Propagation(kind, recursive) => self.propagation.push((kind, recursive)),
            Word::CopyUp => self.copy_up = true,
            Word::Idmap(recursive) => self.idmap = Some(recursive),
            Word::SourceNofollow => self.source_nofollow = true,
            Word::DestNofollow => self.dest_nofollow = true,
            Word::CopySymlink => self.copy_symlink = true,
            Word::Remount => {
                return Err(
                    Error::new(ErrorKind::MountRemount, "remount is not yet supported").field(field())
                );
            }
        }
        Ok(())
    }

    fn add_data(&mut self, word: &str) -> Result<()> {
        if let Some((how, rest)) = word.split_once('=')
            && (how == "idmap" || how == "ridmap")
        {
            return Err(Error::new(
                ErrorKind::MountIdmap,
                format!("idmap ranges ({rest}) are not yet supported"),
            ));
        }
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(c_string(value)?)),
            None => (word, None),
        };
        self.data.push((c_string(key)?, value));
        Ok(())
    }
}

/// Adds the operations of one entry to `steps`.
///
/// # Errors
/// Options that exclude each other, or are not supported, with their field.
pub fn plan_mount(
    mount: &Mount,
    field: &Field,
    context: &mut Context<'_>,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let at = InRoot::new(mount.destination().to_string_lossy())
        .map_err(|error| error.field(field.member("destination")))?;
    let options = read_options(mount, field)?;
    let kind = mount.typ().as_deref().unwrap_or("");
    if kind == "bind" || options.bind.is_some() {
        if at.as_str() == "/dev" {
            context.dev_is_bound = true;
        }
        let bind = plan_bind(mount, field, context, at, options)?;
        steps.push(Step { op: FsOp::Bind(bind), field: field.clone(), fallback: None });
        return Ok(());
    }
    if at.is_root() {
        return Err(Error::new(
            ErrorKind::MountOnRoot,
            format!("a new {kind} on / would cover the root file system of the container"),
        )
        .hint("the root file system is set by root.path; only a bind mount on / may replace it")
        .field(field.member("destination")));
    }
    match kind {
        "" => Err(Error::new(ErrorKind::MountTypeMissing, "a mount without a type must be a bind mount")
            .hint("set `type`, or add `bind` to `options`")
            .field(field.member("type"))),
        "cgroup" | "cgroup2" => plan_cgroup_view(&at, field, &options, context, steps),
        _ => {
            let source = mount.source().as_ref().map_or("none".into(), |s| s.to_string_lossy().into_owned());
            let step = plan_new(kind, &source, at, field, options, context)?;
            steps.push(step);
            Ok(())
        }
    }
}

/// How the entry's ids are mapped: by its own maps, by the container's, or not.
fn plan_idmap(
    mount: &Mount,
    field: &Field,
    wanted: Option<bool>,
    user_namespace: bool,
) -> Result<Option<Idmap>> {
    let lines =
        |maps: &Option<Vec<LinuxIdMapping>>| maps.as_deref().map(namespaces::map_lines).unwrap_or_default();
    let (uids, gids) = (lines(mount.uid_mappings()), lines(mount.gid_mappings()));
    let maps = match (uids.is_empty(), gids.is_empty()) {
        (false, false) => Some((uids, gids)),
        (true, true) => None,
        (uids_missing, _) => {
            let missing = if uids_missing { "uidMappings" } else { "gidMappings" };
            return Err(Error::new(
                ErrorKind::MountIdmap,
                "an idmapped mount needs uidMappings and gidMappings",
            )
            .field(field.member(missing)));
        }
    };
    if wanted.is_some() && maps.is_none() && !user_namespace {
        let message = "idmap without mappings uses those of the user namespace, but the container has none";
        return Err(Error::new(ErrorKind::MountIdmap, message)
            .hint("give the mount uidMappings and gidMappings, or the container a user namespace")
            .field(field.member("options")));
    }
    let recursive = wanted == Some(true);
    Ok((wanted.is_some() || maps.is_some()).then_some(Idmap { recursive, maps }))
}

fn plan_bind(
    mount: &Mount,
    field: &Field,
    context: &mut Context<'_>,
    at: InRoot,
    options: Options,
) -> Result<Bind> {
    let Some(source) = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty()) else {
        return Err(Error::new(ErrorKind::MountSourceMissing, "a bind mount needs a source")
            .field(field.member("source")));
    };
    if let Some((key, _)) = options.data.first() {
        let key = key.to_string_lossy();
        return Err(Error::new(
            ErrorKind::MountOption,
            format!("a bind mount does not support the option {key:?}"),
        )
        .hint("options of the file system can only be given to the mount that created it")
        .field(field.member("options")));
    }
    if !options.flags.is_empty() {
        let words = options.flags.join(", ");
        let message = format!("{words}: no effect on a bind mount, see mount(2)");
        context.warnings.push(
            Warning::new(ErrorKind::MountOptionUnused, message)
                .hint("these can only be given to the mount that created the file system")
                .field(field.member("options")),
        );
    }
    // In a user namespace others than the host's root could mount there.
    let stays_peer = context.root_is_shared
        && !context.has_user_namespace
        && options.propagation.last().is_some_and(|(kind, _)| *kind == propagation::SHARED);
    Ok(Bind {
        source: Source::Host(HostPath::new(absolute(context.bundle, &source.to_string_lossy()))?),
        // A `type` of bind without `bind` or `rbind` is a plain bind, as in runc.
        recursive: options.bind == Some(true),
        change: options.change,
        recursive_change: options.recursive_change,
        at,
        propagation: options.propagation,
        source_nofollow: options.source_nofollow || options.copy_symlink,
        copy_symlink: options.copy_symlink,
        nofollow: options.dest_nofollow,
        idmap: plan_idmap(mount, field, options.idmap, context.has_user_namespace)?,
        stays_peer,
    })
}

fn plan_new(
    kind: &str,
    source: &str,
    at: InRoot,
    field: &Field,
    mut options: Options,
    context: &mut Context<'_>,
) -> Result<Step> {
    let mut attributes = options.change.set;
    if kind == "tmpfs" && attributes & attr::RDONLY != 0 {
        // Mount points below it are still to be made: it becomes read-only at the end.
        attributes &= !attr::RDONLY;
        let change = Change { set: attr::RDONLY, ..Change::default() };
        let op = FsOp::Attributes { at: at.clone(), change, recursive: false };
        context.deferred.push(Step { op, field: field.clone(), fallback: None });
    }
    if let Some(label) = context.label.filter(|_| takes_label(kind)) {
        options.data.push((c"context".into(), Some(c_string(label)?)));
    }
    let flags = options.flags.iter().map(|flag| Ok((c_string(flag)?, None)));
    options.data.extend(flags.collect::<Result<Vec<_>>>()?);
    let has_mode = options.data.iter().any(|(key, _)| key.as_c_str() == c"mode");
    let op = FsOp::Mount(NewMount {
        kind: c_string(kind)?,
        source: c_string(source)?,
        options: options.data,
        attributes,
        at: at.clone(),
        propagation: options.propagation,
        copy_up: options.copy_up,
        mode_of_target: kind == "tmpfs" && !has_mode,
        nofollow: options.dest_nofollow || kind == "proc" || kind == "sysfs",
    });
    let fallback = (kind == "sysfs").then(|| sysfs_fallback(at, attributes)).transpose()?;
    Ok(Step { op, field: field.clone(), fallback })
}

/// procfs, sysfs and mqueue refuse a `context` option.
fn takes_label(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

/// A new sysfs needs the owner of the network namespace; a container that shares the host's from within a
/// user namespace gets the host's view of it instead, as crun does.
fn sysfs_fallback(at: InRoot, attributes: u64) -> Result<(&'static [i32], Box<FsOp>)> {
    let bind = Bind {
        source: Source::Host(HostPath::new("/sys")?),
        recursive: true,
        change: Change::default(),
        recursive_change: Change { set: attributes, ..Change::default() },
        at,
        propagation: PRIVATE.to_vec(),
        source_nofollow: false,
        copy_symlink: false,
        nofollow: true,
        idmap: None,
        stays_peer: false,
    };
    Ok((&[libc::EPERM, libc::EBUSY], Box::new(FsOp::Bind(bind))))
}

/// A mount of type `cgroup`: on a v2 host the one hierarchy, on v1 a tmpfs with one directory for each.
fn plan_cgroup_view(
    at: &InRoot,
    field: &Field,
    options: &Options,
    context: &mut Context<'_>,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let facts = &context.facts.cgroup;
    if facts.v1.is_empty() {
        let step = cgroup2_view(at, field, options, context)?;
        steps.push(step);
        return Ok(());
    }
    let read_only = options.change.set & attr::RDONLY;
    steps.push(Step {
        op: FsOp::Mount(NewMount {
            kind: c"tmpfs".into(),
            source: c"tmpfs".into(),
            options: vec![(c"mode".into(), Some(c"755".into()))],
            attributes: options.change.set & !attr::RDONLY,
            at: at.clone(),
            propagation: Vec::new(),
            copy_up: false,
            mode_of_target: false,
            nofollow: true,
        }),
        field: field.clone(),
        fallback: None,
    });
    for hierarchy in &facts.v1 {
        let Some(name) = hierarchy.mount.file_name().map(|name| name.to_string_lossy()) else { continue };
        let place = InRoot::new(format!("{at}/{name}"))?;
        let (own, callers) = context.cgroup_binds(&hierarchy.mount, &hierarchy.own, &place, options)?;
        let (op, fallback): (_, (&[i32], _)) = if context.own_cgroup_namespace {
            // Not from within a user namespace that does not own the cgroup namespace.
            (v1_mount(hierarchy, &place, options)?, (&[libc::EPERM, libc::EBUSY, libc::EINVAL], callers))
        } else {
            (own, (&[libc::ENOENT], callers))
        };
        let fallback = context.is_rootless.then(|| (fallback.0, Box::new(fallback.1)));
        steps.push(Step { op, field: field.clone(), fallback });
        for controller in hierarchy.controllers.iter().filter(|one| **one != name) {
            let op = FsOp::Symlink {
                target: c_string(&name)?,
                at: InRoot::new(format!("{at}/{controller}"))?,
                replace: false,
            };
            steps.push(Step { op, field: field.clone(), fallback: None });
        }
    }
    if read_only != 0 {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        let op = FsOp::Attributes { at: at.clone(), change, recursive: false };
        steps.push(Step { op, field: field.clone(), fallback: None });
    }
    Ok(())
}

/// One v1 hierarchy as a container in its own cgroup namespace sees it.
fn v1_mount(hierarchy: &hull_cgroup::V1Hierarchy, at: &InRoot, options: &Options) -> Result<FsOp> {
    let mut words = Vec::new();
    match &hierarchy.name {
        Some(name) => {
            words.push((c"none".into(), None));
            words.push((c"name".into(), Some(c_string(name)?)));
        }
        None => {
            for controller in &hierarchy.controllers {
                words.push((c_string(controller)?, None));
            }
        }
    }
    Ok(FsOp::Mount(NewMount {
        kind: c"cgroup".into(),
        source: c"cgroup".into(),
        options: words,
        attributes: options.change.set,
        at: at.clone(),
        propagation: Vec::new(),
        copy_up: false,
        mode_of_target: false,
        nofollow: true,
    }))
}

fn cgroup_bind(source: &str, at: &InRoot, options: &Options) -> Result<FsOp> {
    Ok(FsOp::Bind(Bind {
        source: Source::Host(HostPath::new(source)?),
        recursive: false,
        change: Change { set: options.change.set, ..Change::default() },
        recursive_change: Change::default(),
        at: at.clone(),
        propagation: [PRIVATE.as_slice(), &options.propagation].concat(),
        source_nofollow: false,
        copy_symlink: false,
        nofollow: true,
        idmap: None,
        stays_peer: false,
    }))
}

/// The v2 hierarchy. Without a cgroup namespace of its own the container sees its own cgroup by a bind
/// mount; with one that this process may not mount from, likewise.
fn cgroup2_view(at: &InRoot, field: &Field, options: &Options, context: &Context<'_>) -> Result<Step> {
    let v2 = context.facts.cgroup.v2.as_ref();
    let mount = v2.map_or(Path::new("/sys/fs/cgroup"), |v2| &v2.mount);
    let callers = v2.map_or(Path::new(""), |v2| &v2.own);
    let (own, callers) = context.cgroup_binds(mount, callers, at, options)?;
    if !context.own_cgroup_namespace {
        let missing: &'static [i32] = &[libc::ENOENT];
        let fallback = context.is_rootless.then(|| (missing, Box::new(callers)));
        return Ok(Step { op: own, field: field.clone(), fallback });
    }
    let bind = if context.is_rootless { callers } else { own };
    let op = FsOp::Mount(NewMount {
        kind: c"cgroup2".into(),
        source: c"cgroup".into(),
        options: Vec::new(),
        attributes: options.change.set,
        at: at.clone(),
        propagation: options.propagation.clone(),
        copy_up: false,
        mode_of_target: false,
        nofollow: true,
    });
    let fallback: (&'static [i32], Box<FsOp>) = (&[libc::EPERM, libc::EBUSY], Box::new(bind));
    Ok(Step { op, field: field.clone(), fallback: Some(fallback) })
}

/// The bind mount by which a container reaches the notify socket hull forwards (`sd_notify(3)`).
pub fn notify_bind(dir: &str) -> Result<Step> {
    let bind = Bind {
        source: Source::Host(HostPath::new(dir)?),
        recursive: false,
        // To send to the socket takes no write to the mount; all else in the directory is hull's own.
        change: Change { set: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, ..Change::default() },
        recursive_change: Change::default(),
        at: InRoot::new("/run/notify")?,
        propagation: PRIVATE.to_vec(),
        source_nofollow: false,
        copy_symlink: false,
        nofollow: true,
        idmap: None,
        stays_peer: false,
    };
    Ok(Step { op: FsOp::Bind(bind), field: Field::named("process.env"), fallback: None })
}

/// A path of the config, relative ones below the bundle.
pub fn absolute(bundle: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{bundle}/{path}") }
}
