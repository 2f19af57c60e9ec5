//! The place in a container that a mount, node or link goes to: resolved below the root's descriptor, made
//! one part at a time where it is missing. Called by the other files of `apply`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::open::How;
use hull_sys::{Errno, fs, mount, open};

use super::{At, Call, Failure};
use crate::plan::path::InRoot;

/// What a missing place becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// A place that is there.
#[derive(Debug)]
pub struct Place {
    /// Open as a place (`O_PATH`).
    pub fd: OwnedFd,
    /// It was not there before.
    pub made: bool,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `at`, making it and its parents when missing. With `nofollow` a symlink in its place is refused.
pub fn open_or_make(root: BorrowedFd<'_>, at: &InRoot, kind: Kind, nofollow: bool) -> Result<Place, Failure> {
    let how = if nofollow { How::PLACE_NOFOLLOW } else { How::PLACE };
    match open::in_root(root, at.as_c_str(), how) {
        Ok(fd) if nofollow && is_link(fd.as_fd())? => Err(Failure::new(Call::TargetIsLink, Errno::ELOOP)),
        Ok(fd) => Ok(Place { fd, made: false }),
        Err(Errno::ENOENT) => Walk::new(root, at)?.make(kind, nofollow),
        Err(errno) => Err(Failure::new(Call::OpenTarget, errno)),
    }
}

fn is_link(fd: BorrowedFd<'_>) -> Result<bool, Failure> {
    fs::stat(fd).map(|stat| stat.kind() == libc::S_IFLNK).at(Call::OpenTarget)
}

/// The directory that `at` lies in (made when missing), and its last part.
pub fn parent_of(root: BorrowedFd<'_>, at: &InRoot) -> Result<(OwnedFd, CString), Failure> {
    let bad = |_nul| Failure::new(Call::MakeTarget, Errno::EINVAL);
    let Some((parent, name)) = at.as_str().rsplit_once('/').filter(|(_, name)| !name.is_empty()) else {
        return Err(Failure::new(Call::MakeTarget, Errno::EEXIST));
    };
    let parent = InRoot::new(parent).map_err(|_nul| Failure::new(Call::MakeTarget, Errno::EINVAL))?;
    let dir = open_or_make(root, &parent, Kind::Directory, false)?;
    Ok((dir.fd, CString::new(name).map_err(bad)?))
}

/// Attaches a detached mount. `move_mount(2)` answers EINVAL where `mount(2)` answers ENOTDIR, whose words
/// engines match.
pub fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), Failure> {
    mount::attach(tree, place).map_err(|errno| {
        let is_dir = |fd| fs::stat(fd).is_ok_and(|stat| stat.is_dir());
        let differs = errno == Errno::EINVAL && is_dir(tree) != is_dir(place);
        Failure::new(Call::Attach, if differs { Errno::ENOTDIR } else { errno })
    })
}

/// Symlinks followed on one way, as many as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// The way to a place of which a part is missing. A symlink that leads nowhere is followed, and what it
/// names is made below the root: images bring `/etc/resolv.conf -> ../run/..` without what it points to.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directory reached.
    dir: OwnedFd,
    /// How it was reached from the root, without links: what `..` goes back.
    way: Vec<CString>,
    /// What is still to be walked, the next part last.
    left: Vec<CString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(root: BorrowedFd<'a>, at: &InRoot) -> Result<Self, Failure> {
        let dir = open::in_root(root, c"/", How::DIRECTORY).at(Call::OpenTarget)?;
        let mut walk = Self { root, dir, way: Vec::new(), left: Vec::new(), links: 0 };
        walk.push(at.as_c_str().to_bytes())?;
        Ok(walk)
    }

    /// Puts the parts of a path in front of what is left.
    fn push(&mut self, path: &[u8]) -> Result<(), Failure> {
        for part in path.split(|byte| *byte == b'/').rev().filter(|part| !matches!(*part, b"" | b".")) {
            let part = CString::new(part).map_err(|_nul| Failure::new(Call::OpenTarget, Errno::EINVAL))?;
            self.left.push(part);
        }
        Ok(())
    }

    fn make(mut self, kind: Kind, nofollow: bool) -> Result<Place, Failure> {
        let mut made = false;
        while let Some(name) = self.left.pop() {
            let is_last = self.left.is_empty();
            if name.as_c_str() == c".." {
                self.way.pop();
                self.dir = self.reopen()?;
                continue;
            }
            let found = match open::name_in(self.dir.as_fd(), &name, How::PLACE_NOFOLLOW) {
                Err(Errno::ENOENT) => {
                    made = true;
                    make_one(self.dir.as_fd(), &name, if is_last { kind } else { Kind::Directory })?
                }
                other => other.at(Call::OpenTarget)?,
            };
            if is_link(found.as_fd())? {
                if is_last && nofollow {
                    return Err(Failure::new(Call::TargetIsLink, Errno::ELOOP));
                }
                self.follow(found.as_fd())?;
                continue;
            }
            self.way.push(name);
            self.dir = found;
        }
        Ok(Place { fd: self.dir, made })
    }

    fn follow(&mut self, link: BorrowedFd<'_>) -> Result<(), Failure> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Failure::new(Call::OpenTarget, Errno::ELOOP));
        }
        let text = fs::read_link(link, c"").at(Call::OpenTarget)?;
        if text.to_bytes().starts_with(b"/") {
            self.way.clear();
            self.dir = self.reopen()?;
        }
        self.push(text.to_bytes())
    }

    fn reopen(&self) -> Result<OwnedFd, Failure> {
        let mut path = b"/".to_vec();
        path.extend(self.way.iter().map(|part| part.to_bytes()).collect::<Vec<_>>().join(&b'/'));
        let path = CString::new(path).map_err(|_nul| Failure::new(Call::OpenTarget, Errno::EINVAL))?;
        open::in_root(self.root, &path, How::DIRECTORY).at(Call::OpenTarget)
    }
}

/// Makes one missing part. One that somebody else has just made is taken.
fn make_one(parent: BorrowedFd<'_>, name: &CStr, kind: Kind) -> Result<OwnedFd, Failure> {
    let made = match kind {
        Kind::Directory => fs::make_dir(parent, name, 0o755),
        Kind::File => open::name_in(parent, name, How::create_new(0o755)).map(drop),
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => open::name_in(parent, name, How::PLACE_NOFOLLOW).at(Call::MakeTarget),
        Err(errno) => Err(Failure::new(Call::MakeTarget, errno)),
    }
}
