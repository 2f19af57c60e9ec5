//! The states of a container and its processes, and which moves between them are allowed. No I/O and no
//! waiting but for a change of state: what is done about it is `task`'s.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use hull_proto::process::Status;
use tokio::sync::{Mutex, Notify};

use crate::error::{Error, Result};
use crate::io::{Stdio, Streams};
use crate::oom::Watch;
use crate::runtime::Runtime;
use crate::spawn::{self, Exit};
use crate::stats::Cgroup;

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is there, or can be made, and its program does not run yet.
    Created,
    /// The runtime has been asked to run it.
    Starting,
    /// Its program runs.
    Running,
    /// It has ended, and everybody has been told.
    Stopped(Exit),
    /// It is gone.
    Deleted,
}

/// Init, or a process that was added by Exec.
#[derive(Debug)]
pub struct Process {
    /// The exec's id; empty for init.
    pub exec_id: String,
    /// Its streams, as the daemon names them.
    pub stdio: Stdio,
    /// What is to be run, for an exec: a process as JSON.
    pub spec: Vec<u8>,
    /// Held by whoever changes it and waits for the runtime meanwhile.
    pub turn: Mutex<()>,
    /// Our side of its streams, once it has been made.
    pub streams: OnceCell<Streams>,
    phase: Cell<Phase>,
    /// It has ended, but not everybody has been told.
    ended: Cell<Option<Exit>>,
    handle: OnceCell<Rc<spawn::Process>>,
    changed: Notify,
}

impl Process {
    /// One that does not run yet.
    pub fn new(exec_id: &str, stdio: Stdio, spec: Vec<u8>) -> Rc<Self> {
        Rc::new(Self {
            exec_id: exec_id.to_owned(),
            stdio,
            spec,
            turn: Mutex::new(()),
            streams: OnceCell::new(),
            phase: Cell::new(Phase::Created),
            ended: Cell::new(None),
            handle: OnceCell::new(),
            changed: Notify::new(),
        })
    }

    /// Whether it is the container's init.
    pub fn is_init(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Its number; 0 before there is one.
    pub fn pid(&self) -> i32 {
        self.handle.get().map_or(0, |handle| handle.pid)
    }

    /// The process itself, once there is one.
    pub fn handle(&self) -> Option<&Rc<spawn::Process>> {
        self.handle.get()
    }

    /// It has been made.
    pub fn made(&self, handle: Rc<spawn::Process>) {
        // There is one for each process, and `turn` is held meanwhile.
        let _first = self.handle.set(handle).is_ok();
    }

    /// How it ended, told or not.
    pub fn end(&self) -> Option<Exit> {
        match self.phase.get() {
            Phase::Stopped(exit) => Some(exit),
            Phase::Created | Phase::Starting | Phase::Running | Phase::Deleted => self.ended.get(),
        }
    }

    /// It has ended; whether that may be told at once. While its start is on the way it may not.
    pub fn has_ended(&self, exit: Exit) -> bool {
        self.ended.set(Some(exit));
        self.phase.get() != Phase::Starting
    }

    /// Everybody has been told.
    pub fn stop(&self) {
        if let Some(exit) = self.ended.take() {
            self.set(Phase::Stopped(exit));
        }
    }

    /// Goes on to another phase.
    pub fn set(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Waits for its end to be told.
    pub async fn stopped(&self) -> Option<Exit> {
        loop {
            let changed = self.changed.notified();
            match self.phase.get() {
                Phase::Stopped(exit) => return Some(exit),
                Phase::Deleted => return None,
                Phase::Created | Phase::Starting | Phase::Running => changed.await,
            }
        }
    }

    /// The move to running.
    ///
    /// # Errors
    /// It runs already, or is over.
    pub fn check_start(&self) -> Result<()> {
        match self.phase.get() {
            Phase::Created if self.ended.get().is_none() => Ok(()),
            Phase::Starting | Phase::Running => Err(Error::precondition("cannot start a running process")),
            Phase::Created | Phase::Stopped(_) => Err(Error::precondition("cannot start a stopped process")),
            Phase::Deleted => Err(Error::precondition("cannot start a deleted process")),
        }
    }

    /// The move to deleted.
    ///
    /// # Errors
    /// It runs, or is gone.
    pub fn check_delete(&self) -> Result<()> {
        match self.phase.get() {
            Phase::Created | Phase::Stopped(_) => Ok(()),
            Phase::Starting | Phase::Running => Err(Error::precondition("cannot delete a running process")),
            Phase::Deleted => Err(Error::not_found("process already deleted: not found")),
        }
    }

    /// Whether a signal can reach it.
    ///
    /// # Errors
    /// Not found when it has ended; a failed precondition when it has not begun.
    pub fn check_kill(&self) -> Result<&Rc<spawn::Process>> {
        if self.end().is_some() || self.phase.get() == Phase::Deleted {
            return Err(Error::not_found("process already finished: not found"));
        }
        self.handle.get().ok_or_else(|| {
            let what = if self.is_init() { "container" } else { "exec" };
            Error::precondition(format!("{what} process is not started"))
        })
    }
}

/// Whether the processes of a container are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// They run.
    No,
    /// The runtime has been asked to freeze them.
    Pausing,
    /// They are.
    Paused,
}

/// A container, from its create to its delete.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// How it is made and changed.
    pub runtime: Runtime,
    /// Owner of the pipes, from the options.
    pub io_owner: (u32, u32),
    /// The process it lives and ends with.
    pub init: Rc<Process>,
    /// The checkpoint its start goes on from; empty for none.
    pub checkpoint: String,
    /// Whether its processes are seen by others, so that the kernel does not end them with init.
    pub shares_pids: bool,
    /// Where its processes are counted.
    pub cgroup: OnceCell<Cgroup>,
    /// The watch for its want of memory.
    pub oom: RefCell<Option<Watch>>,
    /// Whether it is frozen.
    pub freeze: Cell<Freeze>,
    /// Whether init's end can be told, as soon as no other process runs.
    pub init_settled: Cell<bool>,
    execs: RefCell<BTreeMap<String, Rc<Process>>>,
}

impl Container {
    /// One that has just been made.
    pub fn new(id: &str, bundle: PathBuf, runtime: Runtime, init: Rc<Process>, rest: Traits) -> Self {
        Self {
            id: id.to_owned(),
            bundle,
            runtime,
            io_owner: rest.io_owner,
            init,
            checkpoint: rest.checkpoint,
            shares_pids: rest.shares_pids,
            cgroup: OnceCell::new(),
            oom: RefCell::default(),
            freeze: Cell::new(Freeze::No),
            init_settled: Cell::new(false),
            execs: RefCell::default(),
        }
    }

    /// A process by its exec id; init when that is empty.
    ///
    /// # Errors
    /// Not found.
    pub fn process(&self, exec_id: &str) -> Result<Rc<Process>> {
        if exec_id.is_empty() {
            return Ok(Rc::clone(&self.init));
        }
        let found = self.execs.borrow().get(exec_id).cloned();
        found.ok_or_else(|| Error::not_found(format!("process does not exist {exec_id}: not found")))
    }

    /// All added processes.
    pub fn execs(&self) -> Vec<Rc<Process>> {
        self.execs.borrow().values().cloned().collect()
    }

    /// Takes a process in, under an id that nobody has. Until the end of init has been told everybody takes the
    /// container for a running one: only the start of the process is refused then.
    ///
    /// # Errors
    /// The id is taken, the end of init has been told, or the container is frozen.
    pub fn add(&self, process: Rc<Process>) -> Result<()> {
        let refused =
            |state: &str| Error::precondition(format!("cannot exec in a {state} container {}", self.id));
        match (self.init.phase(), self.freeze.get()) {
            (Phase::Stopped(_), _) => return Err(refused("stopped")),
            (Phase::Deleted, _) => return Err(refused("deleted")),
            (Phase::Created | Phase::Starting | Phase::Running, Freeze::Pausing | Freeze::Paused) => {
                return Err(refused("paused"));
            }
            (Phase::Created | Phase::Starting | Phase::Running, Freeze::No) => {}
        }
        let mut execs = self.execs.borrow_mut();
        if execs.contains_key(&process.exec_id) {
            return Err(Error::exists(format!("id {}: already exists", process.exec_id)));
        }
        execs.insert(process.exec_id.clone(), process);
        Ok(())
    }

    /// Lets an added process go.
    pub fn remove(&self, exec_id: &str) {
        self.execs.borrow_mut().remove(exec_id);
    }

    /// Whether an added process still runs, or may just begin to.
    pub fn has_running_execs(&self) -> bool {
        let runs = |process: &Rc<Process>| matches!(process.phase(), Phase::Starting | Phase::Running);
        self.execs.borrow().values().any(runs)
    }

    /// What a process looks like to the daemon.
    pub fn status(&self, process: &Process) -> Status {
        match (process.phase(), self.freeze.get()) {
            (Phase::Stopped(_) | Phase::Deleted, _) => Status::STOPPED,
            (Phase::Created | Phase::Starting, Freeze::No) => Status::CREATED,
            (_, Freeze::Pausing) => Status::PAUSING,
            (_, Freeze::Paused) => Status::PAUSED,
            (Phase::Running, Freeze::No) => Status::RUNNING,
        }
    }
}

/// What else a container is made with.
#[derive(Debug)]
pub struct Traits {
    /// Owner of the pipes.
    pub io_owner: (u32, u32),
    /// The checkpoint its start goes on from.
    pub checkpoint: String,
    /// Whether its pid namespace is another's, too.
    pub shares_pids: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::reaper::Reaper;
    use std::path::Path;
    use std::time::SystemTime;

    fn exit(status: u32) -> Exit {
        Exit { status, at: SystemTime::UNIX_EPOCH }
    }

    fn process(exec_id: &str) -> Rc<Process> {
        Process::new(exec_id, Stdio::default(), Vec::new())
    }

    fn container() -> Container {
        let runtime =
            Runtime::new(&Options::default(), "ns", Path::new("/b"), "c", &Rc::new(Reaper::default()));
        let rest = Traits { io_owner: (0, 0), checkpoint: String::new(), shares_pids: false };
        Container::new("c", "/b".into(), runtime, process(""), rest)
    }

    #[test]
    fn a_process_starts_once() {
        let one = process("");
        assert!(one.check_start().is_ok());
        one.set(Phase::Running);
        assert_eq!(one.check_start().unwrap_err().message, "cannot start a running process");
        one.has_ended(exit(3));
        one.stop();
        assert_eq!(one.check_start().unwrap_err().message, "cannot start a stopped process");
        assert_eq!(one.phase(), Phase::Stopped(exit(3)));
    }

    #[test]
    fn an_end_during_the_start_waits_to_be_told() {
        let one = process("");
        one.set(Phase::Starting);
        assert!(!one.has_ended(exit(7)));
        assert_eq!((one.phase(), one.end()), (Phase::Starting, Some(exit(7))));
        one.set(Phase::Running);
        one.stop();
        assert_eq!(one.phase(), Phase::Stopped(exit(7)));
    }

    #[test]
    fn what_runs_is_not_deleted_and_what_has_ended_is_not_killed() {
        let one = process("e");
        assert!(one.check_delete().is_ok());
        assert_eq!(one.check_kill().unwrap_err().code, ttrpc::Code::FAILED_PRECONDITION);
        one.set(Phase::Running);
        assert_eq!(one.check_delete().unwrap_err().code, ttrpc::Code::FAILED_PRECONDITION);
        one.has_ended(exit(0));
        assert_eq!(one.check_kill().unwrap_err().code, ttrpc::Code::NOT_FOUND);
    }

    #[test]
    fn an_exec_id_is_taken_once() {
        let one = container();
        one.add(process("e")).unwrap();
        assert_eq!(one.add(process("e")).unwrap_err().code, ttrpc::Code::ALREADY_EXISTS);
        one.remove("e");
        one.add(process("e")).unwrap();
        assert_eq!(one.process("x").unwrap_err().code, ttrpc::Code::NOT_FOUND);
    }

    #[test]
    fn an_exec_is_added_until_the_end_of_init_is_told() {
        let one = container();
        one.init.set(Phase::Running);
        one.init.has_ended(exit(0));
        one.add(process("e")).unwrap();
        one.freeze.set(Freeze::Paused);
        assert_eq!(one.add(process("f")).unwrap_err().message, "cannot exec in a paused container c");
        one.init.stop();
        assert_eq!(one.add(process("f")).unwrap_err().message, "cannot exec in a stopped container c");
        one.init.set(Phase::Deleted);
        let refused = one.add(process("f")).unwrap_err();
        assert_eq!(refused.message, "cannot exec in a deleted container c");
        assert_eq!(refused.code, ttrpc::Code::FAILED_PRECONDITION);
    }

    #[test]
    fn a_frozen_container_shows_in_all_its_processes() {
        let one = container();
        let added = process("e");
        added.set(Phase::Running);
        one.init.set(Phase::Running);
        one.freeze.set(Freeze::Pausing);
        assert_eq!((one.status(&one.init), one.status(&added)), (Status::PAUSING, Status::PAUSING));
        one.freeze.set(Freeze::Paused);
        assert_eq!(one.status(&added), Status::PAUSED);
        added.has_ended(exit(0));
        added.stop();
        assert_eq!(one.status(&added), Status::STOPPED);
    }
}
