//! Carries out the file system operations of a plan, in the child, against the descriptor of the
//! container's root. Every place is resolved once and everything else is done to its descriptor. Called by
//! `launch::init`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{self, Change};
use hull_sys::open::{self, How};
use hull_sys::{Errno, fs};

use super::hide::{Covers, host_device, read_only};
use super::process::Proc;
use super::pty::Pty;
use super::target::{Kind, attach, open_or_make, parent_of};
use super::{At, Call, Failure, copy_up};
use crate::plan::devices::Node;
use crate::plan::path::InRoot;
use crate::plan::rootfs::{Bind, FsOp, NewMount, Source, Step};

/// A value longer than this cannot be given to `fsconfig(2)`.
const LONGEST_OPTION: usize = 255;

/// Begins to make a file system, as `fsopen(2)` does.
pub type OpenFs<'a> = &'a dyn Fn() -> Result<OwnedFd, Failure>;

/// What the operations share.
pub struct Fs<'a> {
    /// The container's root.
    root: OwnedFd,
    /// The trees the parent has opened.
    trees: &'a [OwnedFd],
    /// The host's procfs, to see where a descriptor is.
    proc: &'a Proc,
    /// Begins a procfs where this process is not in the container's pid namespace.
    procfs: Option<OpenFs<'a>>,
    /// The directory the last node or link went to; forgotten when something is mounted.
    parent: Option<(String, OwnedFd)>,
    covers: Covers,
    /// The pty, once [`FsOp::Console`] is done.
    console: Option<Pty>,
}

impl<'a> Fs<'a> {
    /// The state before the first operation.
    pub fn new(root: OwnedFd, trees: &'a [OwnedFd], proc: &'a Proc, procfs: Option<OpenFs<'a>>) -> Self {
        Self { root, trees, proc, procfs, parent: None, covers: Covers::default(), console: None }
    }

    /// The root with all that has been mounted on it, and the pty.
    pub fn finish(self) -> (OwnedFd, Option<Pty>) {
        (self.root, self.console)
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
            FsOp::Directory { at } => open_or_make(self.root.as_fd(), at, Kind::Directory, false).map(drop),
            FsOp::Attributes { at, change, recursive } => {
                let place =
                    open::in_root(self.root.as_fd(), at.as_c_str(), How::PLACE).at(Call::OpenTarget)?;
                mount::set_attributes(place.as_fd(), *change, *recursive, None).at(Call::Attributes)
            }
            FsOp::Console => self.make_console(),
            FsOp::Mask(at) => self.covers.mask(self.root.as_fd(), at),
            FsOp::ReadOnly(at) => read_only(self.root.as_fd(), at),
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
        let target = open_or_make(self.root.as_fd(), &new.at, Kind::Directory, new.nofollow)?;
        self.check_place(target.as_fd(), &new.at)?;
        let context = match self.procfs.filter(|_| new.kind.as_c_str() == c"proc") {
            Some(open) => open()?,
            None => mount::open_fs(&new.kind).at(Call::OpenFs)?,
        };
        let mode = (new.mode_of_target && !target.made).then(|| fs::stat(target.as_fd()));
        let mode = mode.transpose().at(Call::OpenTarget)?.map(|stat| stat.mode & 0o7777);
        let made = make_mount(context.as_fd(), new, mode)?;
        if new.copy_up {
            copy_up::copy_up(target.as_fd(), made.as_fd()).at(Call::CopyUp)?;
        }
        attach(made.as_fd(), target.as_fd())?;
        set_propagation(made.as_fd(), &new.propagation)
    }

    /// The old call, for values that the new one has no room for (overlay's list of directories). The
    /// target is named through our own descriptor, never by its path.
    fn mount_with_long_options(&self, new: &NewMount) -> Result<(), Failure> {
        let target = open_or_make(self.root.as_fd(), &new.at, Kind::Directory, new.nofollow)?;
        self.check_place(target.as_fd(), &new.at)?;
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
        let place = text(format!("/proc/self/fd/{}", target.as_fd().as_raw_fd()).into_bytes())?;
        let flags = mount::legacy_flags(new.attributes);
        mount::mount_legacy(&new.source, &place, &new.kind, flags, &text(data)?).at(Call::CreateFs)?;
        let made = open::in_root(self.root.as_fd(), new.at.as_c_str(), How::PLACE).at(Call::OpenTarget)?;
        set_propagation(made.as_fd(), &new.propagation)
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), Failure> {
        self.parent = None;
        let own;
        let tree = match &bind.source {
            Source::Opened(_, slot) => {
                self.trees.get(*slot).ok_or(Failure::new(Call::OpenSource, Errno::EBADF))?.as_fd()
            }
            Source::Inside(_, from) => {
                let how = if bind.source_nofollow { How::PLACE_NOFOLLOW } else { How::PLACE };
                let place = open::in_root(self.root.as_fd(), from.as_c_str(), how).at(Call::OpenSource)?;
                own = mount::clone_tree(Some(place.as_fd()), c"", bind.recursive, false)
                    .at(Call::OpenSource)?;
                own.as_fd()
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
        let target = open_or_make(self.root.as_fd(), &bind.at, kind, bind.nofollow)?;
        self.check_place(target.as_fd(), &bind.at)?;
        if bind.at.as_str() == "/proc" && fs::magic_of(tree).at(Call::OpenSource)? != fs::magic::PROC {
            return Err(Failure::new(Call::NotProc, Errno::EINVAL));
        }
        // One call where the kernel allows it: a change of this mount alone together with a propagation
        // of this mount alone, or a propagation of all.
        if !bind.change.is_none() {
            mount::set_attributes(tree, bind.change, false, None).at(Call::Attributes)?;
        }
        if !bind.recursive_change.is_none() {
            mount::set_attributes(tree, bind.recursive_change, true, None).at(Call::Attributes)?;
        }
        attach(tree, target.as_fd())?;
        set_propagation(tree, &bind.propagation)?;
        if self.is_root(target.as_fd())? {
            // What comes next goes onto it, and it is what becomes the root.
            self.root = tree.try_clone_to_owned().map_err(|_full| Failure::new(Call::Only, Errno::EMFILE))?;
        }
        Ok(())
    }

    /// Refuses a place inside /proc that is reached by a link of the image: `spec::check` has only seen the
    /// name. procfs is looked at, not covered (CVE-2019-19921).
    fn check_place(&self, place: BorrowedFd<'_>, at: &InRoot) -> Result<(), Failure> {
        if at.is_within("/proc") || fs::magic_of(place).at(Call::OpenTarget)? != fs::magic::PROC {
            return Ok(());
        }
        let (root, place) = (self.proc.path_of(self.root.as_fd())?, self.proc.path_of(place)?);
        let inside =
            place.to_bytes().strip_prefix(root.to_bytes()).and_then(|path| path.strip_prefix(b"/proc"));
        match inside {
            Some(b"" | [b'/', ..]) => Err(Failure::new(Call::InsideProc, Errno::EPERM)),
            _ => Ok(()),
        }
    }

    /// Whether a place is the root, by whatever name.
    fn is_root(&self, place: BorrowedFd<'_>) -> Result<bool, Failure> {
        let (one, other) =
            (fs::stat(place).at(Call::OpenTarget)?, fs::stat(self.root.as_fd()).at(Call::OpenTarget)?);
        Ok((one.dev, one.ino) == (other.dev, other.ino)
            && self.proc.path_of(place)? == self.proc.path_of(self.root.as_fd())?)
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
                let there = open::name_in(parent, &name, How::PLACE_NOFOLLOW).at(Call::MakeNode)?;
                let stat = fs::stat(there.as_fd()).at(Call::MakeNode)?;
                let is_same = stat.kind() == node.mode & libc::S_IFMT && stat.rdev == device;
                // A mount of the config comes before a device of it.
                if is_same || fs::is_mount_root(there.as_fd()).at(Call::MakeNode)? {
                    return Ok(());
                }
                Err(Failure::new(Call::TargetDiffers, Errno::EEXIST))
            }
            // Device nodes are refused in a user namespace and on some file systems.
            Err(Errno::EPERM) => self.bind_node(node),
            Err(errno) => Err(Failure::new(Call::MakeNode, errno)),
        }
    }

    fn bind_node(&mut self, node: &Node) -> Result<(), Failure> {
        let target = open_or_make(self.root.as_fd(), &node.at, Kind::File, true)?;
        // As above.
        if !target.made && fs::is_mount_root(target.as_fd()).at(Call::OpenTarget)? {
            return Ok(());
        }
        attach(host_device(node.host.as_c_str())?.as_fd(), target.as_fd())
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
                let (fd, name) = parent_of(self.root.as_fd(), at)?;
                self.parent = Some((dir.to_owned(), fd));
                name
            }
        };
        let fd = self.parent.as_ref().ok_or(Failure::new(Call::OpenTarget, Errno::ENOENT))?;
        Ok((fd.1.as_fd(), name))
    }

    fn make_console(&mut self) -> Result<(), Failure> {
        self.parent = None;
        let Pty { master, slave } = Pty::open(self.root.as_fd())?;
        let at = InRoot::new("/dev/console").map_err(|_nul| Failure::new(Call::MakeTarget, Errno::EINVAL))?;
        let target = open_or_make(self.root.as_fd(), &at, Kind::File, true)?;
        let tree = mount::clone_tree(Some(slave.as_fd()), c"", false, false).at(Call::OpenSource)?;
        attach(tree.as_fd(), target.as_fd())?;
        self.console = Some(Pty { master, slave });
        Ok(())
    }
}

/// Configures a file system and makes a detached mount of it; `mode` is for its root, where the options name none.
fn make_mount(context: BorrowedFd<'_>, new: &NewMount, mode: Option<u32>) -> Result<OwnedFd, Failure> {
    mount::configure(context, c"source", Some(&new.source)).at(Call::CreateFs)?;
    if let Some(mode) = mode {
        let mode = CString::new(format!("{mode:o}"));
        let mode = mode.map_err(|_nul| Failure::new(Call::CreateFs, Errno::EINVAL))?;
        mount::configure(context, c"mode", Some(&mode)).at(Call::CreateFs)?;
    }
    for (index, (key, value)) in new.options.iter().enumerate() {
        mount::configure(context, key, value.as_deref()).map_err(|errno| Failure {
            detail: u8::try_from(index).unwrap_or(u8::MAX),
            ..Failure::new(Call::Option, errno)
        })?;
    }
    mount::make_mount(context, new.attributes).at(Call::CreateFs)
}

fn set_propagation(made: BorrowedFd<'_>, wanted: &[(u64, bool)]) -> Result<(), Failure> {
    for (kind, recursive) in wanted {
        let change = Change { propagation: *kind, ..Change::default() };
        mount::set_attributes(made, change, *recursive, None).at(Call::Propagation)?;
    }
    Ok(())
}
