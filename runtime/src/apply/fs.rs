//! Carries out the file system operations of a plan, in the child, against the descriptor of the
//! container's root. Every place is resolved once and everything else is done to its descriptor. Called by
//! `launch::init`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{self, Change, attr};
use hull_sys::open::{self, How};
use hull_sys::{Errno, fs, tty};

use super::target::{Kind, open_or_make, parent_of};
use super::{At, Call, Failure, copy_up};
use crate::plan::devices::Node;
use crate::plan::path::InRoot;
use crate::plan::rootfs::{Bind, FsOp, NewMount, Source, Step};

/// A value longer than this cannot be given to `fsconfig(2)`.
const LONGEST_OPTION: usize = 255;

/// What the operations share.
pub struct Fs<'a> {
    /// The container's root.
    root: BorrowedFd<'a>,
    /// The trees the parent has opened.
    trees: &'a [OwnedFd],
    /// The directory the last node or link went to; forgotten when something is mounted.
    parent: Option<(String, OwnedFd)>,
    /// The first mount that hides a directory; the others are copies of it.
    empty: Option<OwnedFd>,
    /// The pty, once [`FsOp::Console`] is done.
    pub console: Option<Pty>,
}

/// Both ends of a container's terminal.
pub struct Pty {
    /// For the caller.
    pub master: OwnedFd,
    /// For the container.
    pub slave: OwnedFd,
}

impl Pty {
    /// A new pty of the devpts below `root`, checked to be one (CVE-2025-52565).
    pub fn open(root: BorrowedFd<'_>) -> Result<Self, Failure> {
        let master = open::in_root(root, c"/dev/pts/ptmx", How::TERMINAL).at(Call::Terminal)?;
        if fs::magic_of(master.as_fd()).at(Call::Terminal)? != fs::magic::DEVPTS {
            return Err(Failure::new(Call::TargetDiffers, Errno::ENOTTY));
        }
        tty::unlock(master.as_fd()).at(Call::Terminal)?;
        let slave = tty::peer(master.as_fd()).at(Call::Terminal)?;
        Ok(Self { master, slave })
    }
}

impl<'a> Fs<'a> {
    /// The state before the first operation.
    pub fn new(root: BorrowedFd<'a>, trees: &'a [OwnedFd]) -> Self {
        Self { root, trees, parent: None, empty: None, console: None }
    }

    /// Carries out one step, or its fallback when it fails in the way that leads there.
    pub fn apply(&mut self, step: &Step) -> Result<(), Failure> {
        match (self.carry_out(&step.op), &step.fallback) {
            (Err(failure), Some((errnos, other))) if errnos.contains(&failure.errno) => self.carry_out(other),
            (result, _) => result,
        }
    }

    fn carry_out(&mut self, op: &FsOp) -> Result<(), Failure> {
        match op {
            FsOp::Mount(new) => self.mount(new),
            FsOp::Bind(bind) => self.bind(bind),
            FsOp::Node(node) => self.node(node),
            FsOp::Symlink { target, at, replace } => self.link(target, at, *replace),
            FsOp::Directory { at } => open_or_make(self.root, at, Kind::Directory, false).map(drop),
            FsOp::Attributes { at, change, recursive } => {
                let place = open::in_root(self.root, at.as_c_str(), How::PLACE).at(Call::OpenTarget)?;
                mount::set_attributes(place.as_fd(), *change, *recursive, None).at(Call::Attributes)
            }
            FsOp::Console => self.make_console(),
            FsOp::Mask(at) => self.mask(at),
            FsOp::ReadOnly(at) => self.read_only(at),
        }
    }

    fn mount(&mut self, new: &NewMount) -> Result<(), Failure> {
        self.parent = None;
        let long = |(_, value): &(_, Option<CString>)| {
            value.as_ref().is_some_and(|v| v.count_bytes() > LONGEST_OPTION)
        };
        if new.options.iter().any(long) {
            return self.mount_with_long_options(new);
        }
        let context = mount::open_fs(&new.kind).at(Call::OpenFs)?;
        mount::configure(context.as_fd(), c"source", Some(&new.source)).at(Call::CreateFs)?;
        for (index, (key, value)) in new.options.iter().enumerate() {
            mount::configure(context.as_fd(), key, value.as_deref()).map_err(|errno| Failure {
                detail: u8::try_from(index).unwrap_or(u8::MAX),
                ..Failure::new(Call::Option, errno)
            })?;
        }
        let made = mount::make_mount(context.as_fd(), new.attributes).at(Call::CreateFs)?;
        let target = open_or_make(self.root, &new.at, Kind::Directory, new.nofollow)?;
        if new.copy_up {
            copy_up::copy_up(target.as_fd(), made.as_fd()).at(Call::CopyUp)?;
        }
        mount::attach(made.as_fd(), target.as_fd()).at(Call::Attach)?;
        set_propagation(made.as_fd(), &new.propagation)
    }

    /// The old call, for values that the new one has no room for (overlay's list of directories). The
    /// target is named through our own descriptor, never by its path.
    fn mount_with_long_options(&self, new: &NewMount) -> Result<(), Failure> {
        let target = open_or_make(self.root, &new.at, Kind::Directory, new.nofollow)?;
        let mut data = Vec::new();
        for (key, value) in &new.options {
            if !data.is_empty() {
                data.push(b',');
            }
            data.extend_from_slice(key.to_bytes());
            if let Some(value) = value {
                data.push(b'=');
                data.extend_from_slice(value.to_bytes());
            }
        }
        let text =
            |bytes: Vec<u8>| CString::new(bytes).map_err(|_nul| Failure::new(Call::CreateFs, Errno::EINVAL));
        let place = text(format!("/proc/self/fd/{}", target.as_raw_fd()).into_bytes())?;
        let flags = mount::legacy_flags(new.attributes);
        mount::mount_legacy(&new.source, &place, &new.kind, flags, &text(data)?).at(Call::CreateFs)?;
        let made = open::in_root(self.root, new.at.as_c_str(), How::PLACE).at(Call::OpenTarget)?;
        set_propagation(made.as_fd(), &new.propagation)
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), Failure> {
        self.parent = None;
        let own;
        let tree = match &bind.source {
            Source::Opened(_, slot) => {
                self.trees.get(*slot).ok_or(Failure::new(Call::OpenSource, Errno::EBADF))?.as_fd()
            }
            Source::Host(path) => {
                own = mount::clone_tree(None, path.as_c_str(), bind.recursive, bind.source_nofollow)
                    .at(Call::OpenSource)?;
                own.as_fd()
            }
        };
        let stat = fs::stat(tree).at(Call::OpenSource)?;
        if bind.copy_symlink && stat.kind() == libc::S_IFLNK {
            let target = fs::read_link(tree, c"").at(Call::OpenSource)?;
            return self.link(&target, &bind.at, false);
        }
        let kind = if stat.is_dir() { Kind::Directory } else { Kind::File };
        let target = open_or_make(self.root, &bind.at, kind, bind.nofollow)?;
        // One call where the kernel allows it: a change of this mount alone together with a propagation
        // of this mount alone, or a propagation of all.
        if !bind.change.is_none() {
            mount::set_attributes(tree, bind.change, false, None).at(Call::Attributes)?;
        }
        if !bind.recursive_change.is_none() {
            mount::set_attributes(tree, bind.recursive_change, true, None).at(Call::Attributes)?;
        }
        mount::attach(tree, target.as_fd()).at(Call::Attach)?;
        set_propagation(tree, &bind.propagation)
    }

    fn node(&mut self, node: &Node) -> Result<(), Failure> {
        if node.bind {
            return self.bind_node(node);
        }
        let device = fs::device(node.device.0, node.device.1);
        let (parent, name) = self.parent(&node.at)?;
        match fs::make_node(parent, &name, node.mode, device) {
            Ok(()) if node.uid == 0 && node.gid == 0 => Ok(()),
            Ok(()) => {
                fs::chown(parent, &name, node.uid, node.gid).at(Call::Chown)?;
                // A change of owner clears the set-id bits.
                fs::chmod(parent, &name, node.mode & 0o7777).at(Call::Chown)
            }
            Err(Errno::EEXIST) => {
                let there = fs::stat_name(parent, &name).at(Call::MakeNode)?;
                let same = there.kind() == node.mode & libc::S_IFMT && there.rdev == device;
                if same { Ok(()) } else { Err(Failure::new(Call::TargetDiffers, Errno::EEXIST)) }
            }
            // Device nodes are refused in a user namespace and on some file systems.
            Err(Errno::EPERM) => self.bind_node(node),
            Err(errno) => Err(Failure::new(Call::MakeNode, errno)),
        }
    }

    fn bind_node(&mut self, node: &Node) -> Result<(), Failure> {
        let tree = mount::clone_tree(None, node.host.as_c_str(), false, false).at(Call::OpenSource)?;
        let target = open_or_make(self.root, &node.at, Kind::File, true)?;
        mount::attach(tree.as_fd(), target.as_fd()).at(Call::Attach)
    }

    fn link(&mut self, target: &std::ffi::CStr, at: &InRoot, replace: bool) -> Result<(), Failure> {
        let (parent, name) = self.parent(at)?;
        match fs::make_link(target, parent, &name) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) if replace => {
                fs::remove_file(parent, &name).at(Call::MakeTarget)?;
                fs::make_link(target, parent, &name).at(Call::MakeTarget)
            }
            // An image that brings its own is left as it is.
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(Failure::new(Call::MakeTarget, errno)),
        }
    }

    /// The directory `at` lies in, opened once for a run of nodes and links.
    fn parent(&mut self, at: &InRoot) -> Result<(BorrowedFd<'_>, CString), Failure> {
        let (dir, name) = at.as_str().rsplit_once('/').unwrap_or(("", at.as_str()));
        let name = match &self.parent {
            Some((known, _)) if known == dir => {
                CString::new(name).map_err(|_nul| Failure::new(Call::MakeTarget, Errno::EINVAL))?
            }
            _ => {
                let (fd, name) = parent_of(self.root, at)?;
                self.parent = Some((dir.to_owned(), fd));
                name
            }
        };
        let fd = self.parent.as_ref().ok_or(Failure::new(Call::OpenTarget, Errno::ENOENT))?;
        Ok((fd.1.as_fd(), name))
    }

    fn make_console(&mut self) -> Result<(), Failure> {
        self.parent = None;
        let Pty { master, slave } = Pty::open(self.root)?;
        let at = InRoot::new("/dev/console").map_err(|_nul| Failure::new(Call::MakeTarget, Errno::EINVAL))?;
        let target = open_or_make(self.root, &at, Kind::File, true)?;
        let tree = mount::clone_tree(Some(slave.as_fd()), c"", false, false).at(Call::OpenSource)?;
        mount::attach(tree.as_fd(), target.as_fd()).at(Call::Attach)?;
        self.console = Some(Pty { master, slave });
        Ok(())
    }

    fn mask(&mut self, at: &InRoot) -> Result<(), Failure> {
        let place = match open::in_root(self.root, at.as_c_str(), How::PLACE) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.at(Call::OpenTarget)?,
        };
        if fs::stat(place.as_fd()).at(Call::OpenTarget)?.is_dir() {
            let copy = match &self.empty {
                Some(first) => {
                    mount::clone_tree(Some(first.as_fd()), c"", false, false).at(Call::OpenSource)?
                }
                None => empty_directory()?,
            };
            mount::attach(copy.as_fd(), place.as_fd()).at(Call::Attach)?;
            self.empty.get_or_insert(copy);
            return Ok(());
        }
        // The host's own null device, checked: the container's might be anything (CVE-2025-31133).
        let null = mount::clone_tree(None, c"/dev/null", false, false).at(Call::OpenSource)?;
        let stat = fs::stat(null.as_fd()).at(Call::OpenSource)?;
        if stat.kind() != libc::S_IFCHR || stat.rdev != fs::device(1, 3) {
            return Err(Failure::new(Call::TargetDiffers, Errno::ENODEV));
        }
        mount::attach(null.as_fd(), place.as_fd()).at(Call::Attach)
    }

    fn read_only(&mut self, at: &InRoot) -> Result<(), Failure> {
        let place = match open::in_root(self.root, at.as_c_str(), How::PLACE) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.at(Call::OpenTarget)?,
        };
        let tree = mount::clone_tree(Some(place.as_fd()), c"", true, false).at(Call::OpenSource)?;
        let change = Change { set: attr::RDONLY, ..Change::default() };
        mount::set_attributes(tree.as_fd(), change, true, None).at(Call::Attributes)?;
        mount::attach(tree.as_fd(), place.as_fd()).at(Call::Attach)
    }
}

/// An empty directory that nobody can write to, as a detached mount.
fn empty_directory() -> Result<OwnedFd, Failure> {
    let context = mount::open_fs(c"tmpfs").at(Call::OpenFs)?;
    for (key, value) in [(c"source", c"tmpfs"), (c"mode", c"755"), (c"nr_inodes", c"2"), (c"size", c"0")] {
        mount::configure(context.as_fd(), key, Some(value)).at(Call::Option)?;
    }
    mount::make_mount(context.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
        .at(Call::CreateFs)
}

fn set_propagation(made: BorrowedFd<'_>, wanted: &[(u64, bool)]) -> Result<(), Failure> {
    for (kind, recursive) in wanted {
        let change = Change { propagation: *kind, ..Change::default() };
        mount::set_attributes(made, change, *recursive, None).at(Call::Propagation)?;
    }
    Ok(())
}
