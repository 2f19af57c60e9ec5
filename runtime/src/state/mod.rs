//! The containers hull knows of: a directory for each below the state root, with a record that is replaced
//! at once or not at all, and a lock that covers a whole transition. It may not touch cgroups or plans.
//! Called by every verb.

mod holder;
pub mod identity;
pub mod record;

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::open::{self, How};
use hull_sys::{Errno, fs, socket};

use crate::error::{Error, ErrorKind, Result, words};
use crate::spec::ContainerId;
use crate::spec::state::Status;
pub use identity::Identity;
pub use record::{Phase, Record};

/// File names in a container's directory. The intent is written before the first side effect and never
/// again: it also says what to look for when the record is damaged.
const INTENT: &CStr = c"intent.json";
const RECORD: &CStr = c"state.json";
const RECORD_NEW: &CStr = c".state.json";
/// The process of the config, for `exec` without a process of its own.
const PROCESS: &CStr = c"process.json";
/// The compiled filter, for `exec`.
const SECCOMP: &CStr = c"seccomp.bpf";
/// The socket a created container waits on; gone once it is started.
const START: &str = "start";

/// How long another command may hold a container before we give up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may before `delete --force` ends it: a create that is well takes milliseconds.
const GRACE: Duration = Duration::from_millis(500);

/// Where the containers' directories lie.
#[derive(Clone, Debug)]
pub struct StateRoot {
    path: PathBuf,
}

impl fmt::Display for StateRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// The directory of one container.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    id: ContainerId,
    dir: OwnedFd,
}

/// A [`StateDir`] that this process has locked: only through it is anything changed.
#[derive(Debug)]
pub struct Locked {
    dir: StateDir,
}

impl StateRoot {
    /// The root at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn name_of(&self, id: &ContainerId) -> Result<CString> {
        let path = self.path.join(id.as_str());
        CString::new(path.as_os_str().as_bytes())
            .map_err(|_nul| Error::new(ErrorKind::NulByte, "the path of the state root contains a NUL byte"))
    }

    /// Makes and locks the directory of a new container.
    ///
    /// # Errors
    /// `container with given ID already exists`, or the state root cannot be written.
    pub fn reserve(&self, id: &ContainerId) -> Result<Locked> {
        let name = self.name_of(id)?;
        let made = match make_dir(&name) {
            Err(Errno::ENOENT) => {
                let builder = &mut std::fs::DirBuilder::new();
                std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
                builder.create(&self.path).map_err(|error| self.unusable(&error.to_string()))?;
                make_dir(&name)
            }
            other => other,
        };
        match made {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(in_use(id)),
            Err(errno) => return Err(self.unusable(&words(errno))),
        }
        self.take(id).inspect_err(|error| {
            // What could not be taken is not left behind, unless it is another's by now.
            let _removed =
                error.kind != ErrorKind::IdInUse && std::fs::remove_dir(self.path.join(id.as_str())).is_ok();
        })
    }

    /// Locks a directory that was made just now.
    fn take(&self, id: &ContainerId) -> Result<Locked> {
        let dir = self
            .open(id)
            .map_err(|error| if error.kind == ErrorKind::ContainerMissing { swept(id) } else { error })?;
        let locked = dir.lock()?;
        // Between the making and the lock the empty directory may have been swept away, and made again by
        // another create, whose it then is.
        if locked.dir.is_gone()? {
            return Err(swept(id));
        }
        if fs::stat_name(locked.dir.fd(), INTENT).is_ok() {
            return Err(in_use(id));
        }
        Ok(locked)
    }

    fn unusable(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::RootUnusable,
            format!("use the state root {}: {}", self.path.display(), why.to_lowercase()),
        )
        .hint("choose another one with --root")
    }

    /// Opens the directory of a container.
    ///
    /// # Errors
    /// `container does not exist`.
    pub fn open(&self, id: &ContainerId) -> Result<StateDir> {
        match open::on_host(None, &self.name_of(id)?, How::LIST) {
            Ok(dir) => Ok(StateDir { root: self.path.clone(), id: id.clone(), dir }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(missing(id)),
            Err(errno) => Err(self.unusable(&words(errno))),
        }
    }

    /// The ids of all containers, sorted; `None` when the root does not exist.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn ids(&self) -> Result<Option<Vec<ContainerId>>> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(&error.to_string())),
        };
        let names = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<_> = names
            .filter_map(|entry| entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok()))
            .collect();
        ids.sort();
        Ok(Some(ids))
    }
}

fn make_dir(path: &CStr) -> hull_sys::Result<()> {
    let here = open::on_host(None, c"/", How::DIRECTORY)?;
    fs::make_dir(here.as_fd(), path, 0o700)
}

fn in_use(id: &ContainerId) -> Error {
    Error::new(ErrorKind::IdInUse, format!("container with given ID already exists: {id}"))
        .hint(format!("choose another ID, or delete the existing container: hull delete --force {id}"))
}

fn swept(id: &ContainerId) -> Error {
    Error::new(ErrorKind::IdInUse, format!("container {id} was deleted while it was being created"))
}

fn missing(id: &ContainerId) -> Error {
    Error::new(ErrorKind::ContainerMissing, format!("container does not exist: {id}"))
        .hint("hull list shows the existing containers")
}

impl StateDir {
    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Locks it: no other command changes this container until the lock is dropped.
    ///
    /// # Errors
    /// When another command holds it for too long, or deleted the container meanwhile.
    pub fn lock(self) -> Result<Locked> {
        if self.wait_for_lock(PATIENCE)? {
            return Ok(Locked { dir: self });
        }
        let message = format!(
            "container {} is busy: another command has held it for {} s",
            self.id,
            PATIENCE.as_secs()
        );
        Err(Error::new(ErrorKind::ContainerBusy, message)
            .hint(format!("a hook may be hanging; hull delete --force {} kills it", self.id)))
    }

    /// Locks it within 2 s: a command that holds it for longer is ended, with the hook it waits for.
    ///
    /// # Errors
    /// When the lock is still held then: its holder is not ours to see or to end.
    pub fn lock_by_force(self) -> Result<Locked> {
        if self.wait_for_lock(GRACE)? || holder::end(self.dir.as_fd()) && self.wait_for_lock(GRACE)? {
            return Ok(Locked { dir: self });
        }
        let message =
            format!("container {} is busy, and the command that holds it cannot be killed", self.id);
        Err(Error::new(ErrorKind::ContainerBusy, message)
            .hint("the FLOCK lines of /proc/locks show which process holds the lock"))
    }

    /// Whether the lock could be had in time.
    fn wait_for_lock(&self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(100);
        loop {
            match fs::try_lock(self.dir.as_fd()) {
                Ok(()) => return Ok(true),
                Err(Errno::EWOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(pause),
                Err(Errno::EWOULDBLOCK) => return Ok(false),
                Err(errno) => {
                    return Err(Error::new(
                        ErrorKind::Lock,
                        format!("lock container {}: {}", self.id, words(errno)),
                    ));
                }
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    fn is_gone(&self) -> Result<bool> {
        let stat =
            fs::stat(self.dir.as_fd()).map_err(|errno| Error::new(ErrorKind::Internal, words(errno)))?;
        Ok(stat.links == 0)
    }

    /// Reads the record (of a container being created, the intent); no lock is needed, since it is replaced
    /// at once.
    ///
    /// # Errors
    /// `state-missing` when `create` has not got that far or is over, `state-corrupt` when it cannot be read.
    pub fn load(&self) -> Result<Record> {
        let Some(text) = self.read(RECORD)? else {
            // Half of an intent is none: nothing was made yet.
            return self.load_intent().ok_or_else(|| self.no_record());
        };
        Record::decode(&text).map_err(|why| {
            let file = self.path().join("state.json");
            let message =
                format!("container {}: the record {} is unreadable: {why}", self.id, file.display());
            Error::new(ErrorKind::StateCorrupt, message).hint(format!(
                "hull delete --force {} cleans up from the record that create wrote first",
                self.id
            ))
        })
    }

    /// What `create` wrote down before its first side effect; `None` when it did not get that far, or when
    /// it cannot be read.
    pub fn load_intent(&self) -> Option<Record> {
        self.read(INTENT).ok().flatten().and_then(|text| Record::decode(&text).ok())
    }

    fn no_record(&self) -> Error {
        if self.is_gone().unwrap_or(false) {
            return missing(&self.id);
        }
        let message = format!("container {} has no record: create did not finish", self.id);
        Error::new(ErrorKind::StateMissing, message).hint(format!("hull delete --force {}", self.id))
    }

    /// The process of the config, as text.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&self) -> Result<Vec<u8>> {
        let none =
            || Error::new(ErrorKind::StateMissing, format!("container {} has no saved process", self.id));
        self.read(PROCESS)?.ok_or_else(none)
    }

    /// The flags of the compiled filter, and the filter; `None` when the container has none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn seccomp(&self) -> Result<Option<(u32, Vec<u8>)>> {
        let split = |text: Vec<u8>| {
            text.split_first_chunk().map(|(flags, program)| (u32::from_ne_bytes(*flags), program.to_vec()))
        };
        let short = || {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("container {}: its saved seccomp filter is truncated", self.id),
            )
        };
        self.read(SECCOMP)?.map(|text| split(text).ok_or_else(short)).transpose()
    }

    fn read(&self, name: &CStr) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let failed = |why: &str| {
            let name = name.to_string_lossy();
            Error::new(
                ErrorKind::StateUnreadable,
                format!("read {name} of container {}: {}", self.id, why.to_lowercase()),
            )
        };
        let file = match open::name_in(self.dir.as_fd(), name, How::READ) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed(&words(errno))),
        };
        let mut text = Vec::with_capacity(4096);
        std::fs::File::from(file).read_to_end(&mut text).map_err(|error| failed(&error.to_string()))?;
        Ok(Some(text))
    }

    /// Where the container stands, derived from its record, its init and whether it still waits.
    pub fn status(&self, record: &Record) -> Status {
        let alive = record.init.is_some_and(|init| init.is_alive());
        match (record.phase, alive) {
            (Phase::Creating, _) if self.is_held() => Status::Creating,
            (_, false) | (Phase::Creating, true) => Status::Stopped,
            (Phase::Created, true) if self.waits_for_start() => Status::Created,
            (Phase::Created, true) => Status::Running,
        }
    }

    /// Whether another process holds the lock.
    fn is_held(&self) -> bool {
        // A second open file: a lock taken on ours would be kept.
        let again = open::name_in(self.dir.as_fd(), c".", How::LIST);
        again.is_ok_and(|dir| fs::try_lock(dir.as_fd()) == Err(Errno::EWOULDBLOCK))
    }

    fn waits_for_start(&self) -> bool {
        fs::stat_name(self.dir.as_fd(), c"start").is_ok()
    }

    /// The directory itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.root.join(self.id.as_str())
    }
}

impl Locked {
    /// The directory, for what needs no lock.
    pub fn dir(&self) -> &StateDir {
        &self.dir
    }

    /// Writes down what is about to be made.
    ///
    /// # Errors
    /// When the state root is full or read-only.
    pub fn save_intent(&self, record: &Record) -> Result<()> {
        self.write(INTENT, &record.encode())
    }

    /// Writes the record down, beside the one that counts until [`Self::commit`].
    ///
    /// # Errors
    /// When the state root is full or read-only.
    pub fn prepare(&self, record: &Record) -> Result<()> {
        self.write(RECORD_NEW, &record.encode())
    }

    /// Puts the record of [`Self::prepare`] in place of the former one.
    ///
    /// # Errors
    /// When the state root is read-only.
    pub fn commit(&self) -> Result<()> {
        fs::rename(self.dir.fd(), RECORD_NEW, RECORD).map_err(|errno| self.unwritable(RECORD, &words(errno)))
    }

    /// Keeps the process of the config for `exec`.
    pub fn save_process(&self, text: &[u8]) -> Result<()> {
        self.write(PROCESS, text)
    }

    /// Keeps the compiled filter and its flags for `exec`.
    pub fn save_seccomp(&self, program: &[u8], flags: u32) -> Result<()> {
        self.write(SECCOMP, &[&flags.to_ne_bytes(), program].concat())
    }

    fn write(&self, name: &CStr, text: &[u8]) -> Result<()> {
        let file = open::name_in(self.dir.fd(), name, How::create(0o600))
            .map_err(|errno| self.unwritable(name, &words(errno)))?;
        std::io::Write::write_all(&mut std::fs::File::from(file), text)
            .map_err(|error| self.unwritable(name, &error.to_string()))
    }

    fn unwritable(&self, name: &CStr, why: &str) -> Error {
        let path = self.dir.path();
        Error::new(
            ErrorKind::StateUnwritable,
            format!("write {}/{}: {}", path.display(), name.to_string_lossy(), why.to_lowercase()),
        )
    }

    /// Makes the socket a created container waits on.
    pub fn listen_for_start(&self) -> Result<OwnedFd> {
        let made = socket::bind_in(self.dir.fd(), START, socket::Kind::Packets);
        made.and_then(|socket| socket::listen(socket.as_fd()).map(|()| socket))
            .map_err(|errno| self.unwritable(c"start", &words(errno)))
    }

    /// Connects to a created container and takes its socket away: nobody else starts it.
    pub fn connect_for_start(&self) -> hull_sys::Result<OwnedFd> {
        let socket = socket::connect_in(self.dir.fd(), START, socket::Kind::Packets)?;
        fs::remove_file(self.dir.fd(), c"start")?;
        Ok(socket)
    }

    /// Removes the directory with all that hull put there.
    ///
    /// # Errors
    /// When something is left.
    pub fn remove(self) -> Result<()> {
        let path = self.dir.path();
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::new(
                ErrorKind::StateUnremovable,
                format!("remove {}: {}", path.display(), error.to_string().to_lowercase()),
            )),
        }
    }
}
