//! Makes this process the one of a plan: who it is, what it may do, what it is held to. In the order that
//! `launch` calls it, since each step takes a right away that an earlier one needed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::cred::{self, Caps};
use hull_sys::open::{self, How};
use hull_sys::{Errno, fs, limits};

use super::{At, Call, Failure};
use crate::plan::caps::{SYS_ADMIN, SYS_RESOURCE};
use crate::plan::process::{CapsPlan, ProcessPlan};

/// A procfs of the host, to be opened while the host's tree can still be reached.
pub struct Proc(OwnedFd);

impl Proc {
    /// Opens `/proc` and checks that it is one.
    pub fn open() -> Result<Self, Failure> {
        let fd = open::on_host(None, c"/proc", How::DIRECTORY).at(Call::OpenSource)?;
        if fs::magic_of(fd.as_fd()).at(Call::OpenSource)? != fs::magic::PROC {
            return Err(Failure::new(Call::TargetDiffers, Errno::ENODEV));
        }
        Ok(Self(fd))
    }

    /// The container's own `/proc`, which is not to be trusted: no link leads there, it is a procfs, and
    /// [`Self::write`] goes through no other mount.
    pub fn of(root: BorrowedFd<'_>) -> Result<Self, Failure> {
        let fd = open::name_in(root, c"proc", How::DIRECTORY).at(Call::OpenSource)?;
        if fs::magic_of(fd.as_fd()).at(Call::OpenSource)? != fs::magic::PROC {
            return Err(Failure::new(Call::TargetDiffers, Errno::ENODEV));
        }
        Ok(Self(fd))
    }

    /// The number of this process in the pid namespace of this procfs.
    pub fn own_pid(&self) -> Result<String, Failure> {
        let link = fs::read_link(self.0.as_fd(), c"self").at(Call::OpenSource)?;
        link.into_string().map_err(|_not_text| Failure::new(Call::OpenSource, Errno::EINVAL))
    }

    /// Writes `text` to the file `path` below it.
    pub fn write(&self, path: &CStr, text: &[u8]) -> Result<(), Failure> {
        let file = open::in_proc(self.0.as_fd(), path, How::WRITE).at(Call::OpenTarget)?;
        fs::write_once(file.as_fd(), text).at(Call::Write)
    }

    /// What a file of this process says.
    pub fn read_own(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let path = CString::new(format!("{}/{name}", self.own_pid()?))
            .map_err(|_nul| Failure::new(Call::OpenSource, Errno::EINVAL))?;
        let file = open::in_proc(self.0.as_fd(), &path, How::READ).at(Call::OpenSource)?;
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut text)
            .map_err(|_unreadable| Failure::new(Call::OpenSource, Errno::EIO))?;
        Ok(text)
    }

    /// Where a descriptor of this process is, as the host's tree has it.
    pub fn path_of(&self, fd: BorrowedFd<'_>) -> Result<CString, Failure> {
        let link = CString::new(format!("self/fd/{}", fd.as_raw_fd()));
        let link = link.map_err(|_nul| Failure::new(Call::OpenSource, Errno::EINVAL))?;
        fs::read_link(self.0.as_fd(), &link).at(Call::OpenSource)
    }

    /// Writes `text` to a file of this process.
    fn write_own(&self, name: &str, text: &[u8]) -> Result<(), Failure> {
        let path = CString::new(format!("{}/{name}", self.own_pid()?));
        self.write(&path.map_err(|_nul| Failure::new(Call::OpenTarget, Errno::EINVAL))?, text)
    }
}

/// Asks the security modules for the labels the program gets at `execve`.
pub fn set_labels(process: &ProcessPlan, proc: &Proc) -> Result<(), Failure> {
    if let Some(profile) = &process.apparmor {
        let text = [b"exec ".as_slice(), profile.to_bytes()].concat();
        match proc.write_own("attr/apparmor/exec", &text) {
            // Linux before 5.8 has the one file for all modules.
            Err(Failure { call: Call::OpenTarget, .. }) => proc.write_own("attr/exec", &text)?,
            other => other?,
        }
    }
    match &process.selinux {
        Some(label) => proc.write_own("attr/exec", label.to_bytes()),
        None => Ok(()),
    }
}

/// Scheduling policy and I/O priority.
pub fn set_scheduling(process: &ProcessPlan) -> Result<(), Failure> {
    if let Some(scheduler) = process.scheduler {
        limits::set_scheduler(scheduler).at(Call::Only)?;
    }
    process.io_priority.map_or(Ok(()), |value| limits::set_io_priority(value).at(Call::Only))
}

/// Replaces the host's null device behind stdin, stdout and stderr by the container's: who has a descriptor of
/// it can change owner and mode of the host's node.
pub fn own_null(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut own = None;
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
        .into_iter()
        .filter(|fd| fs::stat(*fd).is_ok_and(is_null))
    {
        let own = match &own {
            Some(own) => own,
            None => own.insert(open_null(root)?),
        };
        fs::replace_stdio(own.as_fd(), fd.as_raw_fd()).at(Call::Only)?;
    }
    Ok(())
}

/// The container's null device. What lies there is looked at before it is opened, and after.
fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let mut last = None;
    for how in [How::PLACE, How::TERMINAL] {
        let fd = open::in_root(root, c"/dev/null", how).at(Call::OpenTarget)?;
        if !is_null(fs::stat(fd.as_fd()).at(Call::OpenTarget)?) {
            return Err(Failure::new(Call::TargetDiffers, Errno::ENODEV));
        }
        last = Some(fd);
    }
    last.ok_or(Failure::new(Call::OpenTarget, Errno::ENOENT))
}

fn is_null(stat: fs::Stat) -> bool {
    stat.kind() == libc::S_IFCHR && stat.rdev == fs::device(1, 3)
}

/// Makes stdin, stdout and stderr the user's own, so that it can open them again by /dev/stdout: pipes, sockets,
/// and the container's terminal. A file or a terminal of the host stays whose it is. Refusals are no matter:
/// what cannot be given away can still be used.
pub fn own_stdio(process: &ProcessPlan) -> Result<(), Failure> {
    for fd in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let Ok(stat) = fs::stat(fd) else { continue };
        let is_given = match stat.kind() {
            libc::S_IFIFO | libc::S_IFSOCK => true,
            libc::S_IFCHR => process.terminal.is_some() && !is_null(stat),
            _ => false,
        };
        if stat.uid == process.uid || !is_given {
            continue;
        }
        match fs::chown_fd(fd, process.uid, stat.gid) {
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS) => {}
            Err(errno) => return Err(Failure::new(Call::Chown, errno)),
        }
    }
    Ok(())
}

/// Sets the groups; a user namespace that denies `setgroups` is no matter when there are none to set.
pub fn set_groups(process: &ProcessPlan) -> Result<(), Failure> {
    match &process.groups {
        None => Ok(()),
        Some(groups) => match cred::set_groups(groups) {
            Err(Errno::EPERM) if groups.is_empty() => Ok(()),
            other => other.at(Call::Only),
        },
    }
}

/// Sets user and group id, keeping the permitted capabilities.
pub fn set_user(process: &ProcessPlan) -> Result<(), Failure> {
    cred::keep_caps().at(Call::Only)?;
    cred::set_gid(process.gid).at(Call::Only)?;
    cred::set_uid(process.uid).at(Call::Only)
}

/// Takes the bounding set down to the plan's.
pub fn drop_bounding(caps: &CapsPlan, last: u8) -> Result<(), Failure> {
    (0..=last)
        .filter(|number| caps.bounding >> number & 1 == 0)
        .try_for_each(cred::drop_bounding)
        .at(Call::Only)
}

/// Sets the capability sets but for what the last steps need: loading a filter without `no_new_privs`, and raising a
/// limit. No more is kept: others in the container may have rights over this process.
pub fn set_caps_but_last(process: &ProcessPlan, has_filter: bool) -> Result<(), Failure> {
    let caps = &process.caps;
    let now = cred::caps().at(Call::Only)?;
    let when = |needed: bool, cap: u8| if needed { 1 << cap } else { 0 };
    let wanted = when(has_filter && !process.no_new_privs, SYS_ADMIN)
        | when(!process.rlimits.is_empty(), SYS_RESOURCE);
    let keep = now.permitted & wanted;
    cred::set_caps(Caps {
        effective: caps.sets.effective | keep,
        permitted: caps.sets.permitted | keep,
        inheritable: caps.sets.inheritable,
    })
    .at(Call::Only)?;
    cred::clear_ambient().at(Call::Only)?;
    (0..64).filter(|number| caps.ambient >> number & 1 == 1).try_for_each(cred::raise_ambient).at(Call::Only)
}

/// The first of the candidates that can be executed by this process. The answer of the last one that is
/// there but cannot be executed comes before "not found".
pub fn look_up(candidates: &[CString]) -> Result<&CStr, Failure> {
    let mut worst = Failure::new(Call::OpenSource, Errno::ENOENT);
    for candidate in candidates {
        match fs::stat_host(candidate) {
            Ok(stat) if stat.is_dir() => worst = Failure::new(Call::Execute, Errno::EISDIR),
            Ok(_) => match hull_sys::exec::may_execute(candidate) {
                Ok(()) => return Ok(candidate),
                Err(errno) => worst = Failure::new(Call::Execute, errno),
            },
            Err(Errno::ENOENT | Errno::ENOTDIR) if candidates.len() > 1 => {}
            Err(errno) => worst = Failure::new(Call::OpenSource, errno),
        }
    }
    Err(worst)
}

/// Enters the working directory, by the container's own view of it.
pub fn enter(root: BorrowedFd<'_>, cwd: &CStr) -> Result<(), Failure> {
    let dir = open::in_root(root, cwd, How::DIRECTORY).at(Call::OpenTarget)?;
    fs::enter_dir(dir.as_fd()).at(Call::Only)
}
