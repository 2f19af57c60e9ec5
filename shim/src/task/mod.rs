//! The task service: what each method does to the containers of this shim. Owns them; calls the runtime, the
//! streams, the cgroups and the outbox. `service` calls it, one call beside the other, on one thread: state
//! changes between two awaits are seen by nobody half done.

mod checkpoint;
mod create;
mod end;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hull_proto::{events, process, runc_options, task};
use protobuf::well_known_types::any::Any;
use protobuf::{EnumOrUnknown, Message, MessageField};
use tokio::sync::Notify;
use ttrpc::Code;

use crate::container::{Container, Freeze, Phase, Process};
use crate::error::{Error, Result};
use crate::events::Outbox;
use crate::io::Stdio;
use crate::io::console::ConsoleSocket;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;
use crate::spawn::{self, Exit};
use crate::{bundle, log, mounts, start, stats, time};

/// How long output may take to be handed over before a process is deleted.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take once the reader has all that was written, or reads no more.
const LAST_COPY: Duration = Duration::from_secs(2);
/// How long to wait before the next look at what cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// All containers of one shim.
#[derive(Debug)]
pub struct Shim {
    /// The daemon's namespace.
    pub namespace: String,
    /// What the daemon is told.
    pub outbox: Rc<Outbox>,
    /// Who is waited for.
    pub reaper: Rc<Reaper>,
    /// Told when this shim has nothing to do any more.
    pub over: Notify,
    /// Where this shim is reached; none once it exits.
    pub socket: RefCell<Option<PathBuf>>,
    /// How many daemons and tools are connected.
    pub connected: Arc<AtomicUsize>,
    /// The pod that lives in this shim, if the sandbox service has made one.
    pub sandbox: RefCell<Option<Rc<Sandbox>>>,
    containers: RefCell<BTreeMap<String, Rc<Container>>>,
    /// Ids whose create is on the way.
    making: RefCell<BTreeSet<String>>,
    was_used: Cell<bool>,
}

impl Shim {
    /// One without containers.
    pub fn new(namespace: &str, outbox: Rc<Outbox>) -> Rc<Self> {
        Rc::new(Self {
            namespace: namespace.to_owned(),
            outbox,
            reaper: Rc::default(),
            over: Notify::new(),
            socket: RefCell::default(),
            connected: Arc::default(),
            sandbox: RefCell::default(),
            containers: RefCell::default(),
            making: RefCell::default(),
            was_used: Cell::new(false),
        })
    }

    /// Waits until no daemon, and no tool, is connected.
    async fn disconnected(&self) {
        while self.connected.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether it keeps no container.
    pub fn is_empty(&self) -> bool {
        self.containers.borrow().is_empty() && self.making.borrow().is_empty()
    }

    /// Whether nothing has been made here, ever.
    pub fn is_unused(&self) -> bool {
        !self.was_used.get() && self.sandbox.borrow().is_none()
    }

    /// Ends the shim, once its answers and events have left. A `start` makes a new one from now on, also for the same
    /// container: this one will not serve it.
    pub fn end(&self) {
        if let Some(Err(left)) = self.socket.take().map(|path| start::withdraw(&path)) {
            log::warning(&format!("exiting: {left}"));
        }
        self.over.notify_one();
    }

    /// Lines about every container, for those who look for a fault.
    pub fn describe(&self) -> Vec<String> {
        let containers = self.containers.borrow();
        let line = |container: &Rc<Container>| {
            let execs = container.execs();
            let execs =
                execs.iter().map(|exec| format!("{} {:?} pid {}", exec.exec_id, exec.phase(), exec.pid()));
            let execs = execs.collect::<Vec<_>>().join(", ");
            let init = &container.init;
            format!("container {} {:?} pid {}; execs: [{execs}]", container.id, init.phase(), init.pid())
        };
        containers.values().map(line).collect()
    }

    fn container(&self, id: &str) -> Result<Rc<Container>> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Error::not_found(format!("container not created: {id}: not found")))
    }

    fn process(&self, id: &str, exec_id: &str) -> Result<(Rc<Container>, Rc<Process>)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        Ok((container, process))
    }

    // ---------------------------------------------------------------- start

    /// Runs a process's program.
    pub async fn start(self: Rc<Self>, request: task::StartRequest) -> Result<task::StartResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let _turn = process.turn.lock().await;
        process.check_start()?;
        if !process.is_init() && container.init.end().is_some() {
            return Err(Error::precondition(format!(
                "container {} init process is not running",
                container.id
            )));
        }
        process.set(Phase::Starting);
        let started = match process.is_init() {
            true if container.checkpoint.is_empty() => container.runtime.start().await,
            true => self.make_init(&container).await,
            false => self.start_exec(&container, &process).await,
        };
        if let Err(error) = started {
            self.start_failed(&container, &process);
            return Err(error);
        }
        process.set(Phase::Running);
        let pid = process.pid().unsigned_abs();
        if process.is_init() {
            self.outbox.publish(&events::TaskStart { container_id: request.id, pid, ..Default::default() });
        } else {
            self.outbox.publish(&events::TaskExecStarted {
                container_id: request.id,
                exec_id: request.exec_id,
                pid,
                ..Default::default()
            });
        }
        // What ended meanwhile is told now.
        if process.end().is_some() {
            self.settle(&container, &process);
        } else if !process.is_init() || !container.checkpoint.is_empty() {
            self.watch(&container, &process);
        }
        Ok(task::StartResponse { pid, ..Default::default() })
    }

    /// An init that could not be run ends by itself; an exec is over, and nobody waits for it in vain.
    fn start_failed(self: &Rc<Self>, container: &Rc<Container>, process: &Rc<Process>) {
        process.set(Phase::Created);
        if process.is_init() {
            if process.end().is_some() {
                self.settle(container, process);
            }
            return;
        }
        process.has_ended(Exit { status: spawn::UNKNOWN, at: SystemTime::now() });
        process.stop();
        self.settle(container, process);
    }

    async fn start_exec(&self, container: &Rc<Container>, process: &Rc<Process>) -> Result<()> {
        let spec = container.bundle.join(format!("{}-process.json", process.exec_id));
        let pid_file = container.bundle.join(format!("{}.pid", process.exec_id));
        bundle::write(&spec, &bundle::process_json(&process.spec, process.stdio.terminal)?)?;
        let run = async {
            let (ends, console) = self.open(container, process).await?;
            let path = console.as_ref().map(ConsoleSocket::path);
            let _hold = self.reaper.hold();
            container.runtime.exec(ends, &spec, &pid_file, path).await?;
            process.made(self.adopt(&pid_file)?);
            create::attach(process, console).await
        };
        let done = run.await;
        for file in [&spec, &pid_file] {
            // The second is not there when the runtime has failed.
            let _removed = std::fs::remove_file(file).is_ok();
        }
        if done.is_err()
            && let Some(streams) = process.streams.get()
        {
            streams.close().await;
        }
        done
    }

    /// Adds a process, which does not run yet.
    pub async fn exec(self: Rc<Self>, request: task::ExecProcessRequest) -> Result<()> {
        bundle::check_id(&request.exec_id)?;
        let container = self.container(&request.id)?;
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = request.spec.into_option().unwrap_or_default().value;
        container.add(Process::new(&request.exec_id, stdio, spec))?;
        self.outbox.publish(&events::TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..Default::default()
        });
        Ok(())
    }

    // ---------------------------------------------------------------- delete

    /// Removes a process that has ended or never ran; with init, the container.
    pub async fn delete(self: Rc<Self>, request: task::DeleteRequest) -> Result<task::DeleteResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let _turn = process.turn.lock().await;
        process.check_delete()?;
        if process.is_init() {
            self.delete_container(&container).await?;
        }
        if let Some(streams) = process.streams.get() {
            let stalled = async {
                streams.taken().await;
                tokio::time::sleep(LAST_COPY).await;
            };
            let is_whole = tokio::select! {
                () = streams.drained() => true,
                () = stalled => false,
                () = tokio::time::sleep(DRAIN_LIMIT) => false,
            };
            if !is_whole {
                log::warning(&format!("output of {} {} is cut off", container.id, process.exec_id));
            }
            streams.close().await;
        }
        let exit = process.end();
        let pid = process.pid().unsigned_abs();
        process.set(Phase::Deleted);
        if process.is_init() {
            self.containers.borrow_mut().remove(&request.id);
        } else {
            container.remove(&process.exec_id);
        }
        self.outbox.publish(&events::TaskDelete {
            container_id: request.id,
            pid,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            id: request.exec_id,
            ..Default::default()
        });
        Ok(task::DeleteResponse {
            pid,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            ..Default::default()
        })
    }

    async fn delete_container(&self, container: &Container) -> Result<()> {
        container.runtime.delete(false).await?;
        if let Some(handle) = container.init.handle() {
            // One that was only created has been killed by that, unless the runtime had no record of it.
            let _killed = handle.signal(libc::SIGKILL).is_ok();
            let _told = tokio::time::timeout(KILL_LIMIT, container.init.stopped()).await.is_ok();
        }
        drop(container.oom.take());
        mounts::unmount_all_async(&container.bundle.join("rootfs")).await
    }

    // ---------------------------------------------------------------- what is asked and told

    /// What a process looks like.
    pub async fn state(self: Rc<Self>, request: task::StateRequest) -> Result<task::StateResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let exit = match process.phase() {
            Phase::Stopped(exit) => Some(exit),
            Phase::Created | Phase::Starting | Phase::Running | Phase::Deleted => None,
        };
        let stdio = process.stdio.clone();
        Ok(task::StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid().unsigned_abs(),
            status: EnumOrUnknown::new(container.status(&process)),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            exec_id: process.exec_id.clone(),
            ..Default::default()
        })
    }

    /// Waits for the end of a process.
    pub async fn wait(self: Rc<Self>, request: task::WaitRequest) -> Result<task::WaitResponse> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let exit = process.stopped().await;
        Ok(task::WaitResponse {
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            ..Default::default()
        })
    }

    /// Sends a signal.
    pub async fn kill(self: Rc<Self>, request: task::KillRequest) -> Result<()> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let handle = process.check_kill()?;
        let signal = i32::try_from(request.signal).map_err(|_large| Error::invalid("no such signal"))?;
        // A frozen process does not even die: the runtime knows what to do about that. Of a container that was
        // deleted by hand it says so.
        let is_frozen = container.freeze.get() != Freeze::No;
        let by_runtime = request.all || is_frozen || !container.runtime.knows();
        if process.is_init() && by_runtime {
            let killed = container.runtime.kill(request.signal, request.all).await;
            if killed.as_ref().is_err_and(|error| error.code == Code::NOT_FOUND) {
                // Where the record alone is gone, init still runs, and only we can reach it.
                let _sent = handle.signal(signal).is_ok();
            }
            return killed;
        }
        handle.signal(signal).map_err(|errno| {
            if errno == hull_sys::Errno::ESRCH {
                return Error::not_found("process already finished: not found");
            }
            Error::failed(format!("kill process {}", process.pid()), errno.desc())
        })
    }

    /// Its processes.
    pub async fn pids(self: Rc<Self>, request: task::PidsRequest) -> Result<task::PidsResponse> {
        let container = self.container(&request.id)?;
        let mut pids = container.cgroup.get().map(stats::Cgroup::pids).transpose()?.unwrap_or_default();
        if pids.is_empty() && container.init.pid() != 0 {
            // Until it is deleted: a daemon that comes back takes a task without processes for a leak, and would
            // remove it with its exit untold.
            pids.push(container.init.pid());
        }
        let execs: BTreeMap<_, _> =
            container.execs().iter().map(|exec| (exec.pid(), exec.exec_id.clone())).collect();
        let describe = |pid: i32| {
            let info = execs.get(&pid).map(|exec_id| {
                let details = runc_options::ProcessDetails { exec_id: exec_id.clone(), ..Default::default() };
                any("containerd.runc.v1.ProcessDetails", &details)
            });
            process::ProcessInfo { pid: pid.unsigned_abs(), info: info.into(), ..Default::default() }
        };
        Ok(task::PidsResponse { processes: pids.into_iter().map(describe).collect(), ..Default::default() })
    }

    /// Freezes the container.
    pub async fn pause(self: Rc<Self>, request: task::PauseRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        running(&container, "pause")?;
        container.freeze.set(Freeze::Pausing);
        let done = container.runtime.pause().await;
        container.freeze.set(if done.is_ok() { Freeze::Paused } else { Freeze::No });
        done?;
        self.outbox.publish(&events::TaskPaused { container_id: request.id, ..Default::default() });
        Ok(())
    }

    /// Lets it go on.
    pub async fn resume(self: Rc<Self>, request: task::ResumeRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        running(&container, "resume")?;
        container.runtime.resume().await?;
        container.freeze.set(Freeze::No);
        self.outbox.publish(&events::TaskResumed { container_id: request.id, ..Default::default() });
        Ok(())
    }

    /// Sets the size of a terminal.
    pub async fn resize(self: Rc<Self>, request: task::ResizePtyRequest) -> Result<()> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        match (process.phase(), process.streams.get()) {
            (Phase::Stopped(_) | Phase::Deleted, _) if !process.is_init() => {
                Err(Error::precondition("cannot resize a stopped process"))
            }
            (_, Some(streams)) => streams.resize(request.width, request.height),
            (_, None) => Ok(()),
        }
    }

    /// Lets a process read the end of its input.
    pub async fn close_io(self: Rc<Self>, request: task::CloseIORequest) -> Result<()> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if let Some(streams) = process.streams.get().filter(|_| request.stdin) {
            streams.close_stdin();
        }
        Ok(())
    }

    /// Changes limits.
    pub async fn update(self: Rc<Self>, request: task::UpdateTaskRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        let resources = request.resources.into_option().unwrap_or_default();
        let file = container.bundle.join("resources.json");
        bundle::write(&file, &resources.value)?;
        let done = container.runtime.update(&file).await;
        // It is read, or it is not.
        let _removed = std::fs::remove_file(&file).is_ok();
        done
    }

    /// Writes the container's processes down.
    pub async fn checkpoint(self: Rc<Self>, request: task::CheckpointTaskRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        running(&container, "checkpoint")?;
        let options = match request.options.as_ref() {
            Some(any) => runc_options::CheckpointOptions::parse_from_bytes(&any.value)
                .map_err(|why| Error::invalid(format!("read the checkpoint options: {why}")))?,
            None => runc_options::CheckpointOptions::default(),
        };
        let words = checkpoint::words(&request.path, &container.bundle, &options);
        container.runtime.checkpoint(words).await?;
        let (container_id, checkpoint) = (request.id, request.path);
        self.outbox.publish(&events::TaskCheckpointed { container_id, checkpoint, ..Default::default() });
        Ok(())
    }

    /// What it uses.
    pub async fn stats(self: Rc<Self>, request: task::StatsRequest) -> Result<task::StatsResponse> {
        let container = self.container(&request.id)?;
        let cgroup = container.cgroup.get();
        let cgroup =
            cgroup.ok_or_else(|| Error::not_found(format!("cgroup of {} does not exist", request.id)))?;
        Ok(task::StatsResponse { stats: MessageField::some(cgroup.metrics()?), ..Default::default() })
    }

    /// Says that the shim is there, whatever it is asked about.
    pub async fn connect(self: Rc<Self>, request: task::ConnectRequest) -> Result<task::ConnectResponse> {
        let task_pid = self.container(&request.id).map_or(0, |container| container.init.pid().unsigned_abs());
        Ok(task::ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    /// Ends the shim, when it has no container any more.
    pub async fn shutdown(self: Rc<Self>, _request: task::ShutdownRequest) -> Result<()> {
        // A sandbox is ended by its own service.
        if self.is_empty() && self.sandbox.borrow().is_none() {
            self.end();
        }
        Ok(())
    }
}

/// Only a running container can be frozen and written down.
fn running(container: &Container, what: &str) -> Result<()> {
    match container.init.phase() {
        Phase::Running if container.init.end().is_none() => Ok(()),
        Phase::Created | Phase::Starting => {
            Err(Error::precondition(format!("cannot {what} task {} in created state", container.id)))
        }
        Phase::Running | Phase::Stopped(_) | Phase::Deleted => {
            Err(Error::precondition(format!("cannot {what} task {} in stopped state", container.id)))
        }
    }
}

fn any(kind: &str, message: &impl Message) -> Any {
    Any { type_url: kind.to_owned(), value: message.write_to_bytes().unwrap_or_default(), ..Any::default() }
}

fn exited_at(exit: Option<Exit>) -> MessageField<protobuf::well_known_types::timestamp::Timestamp> {
    exit.map_or_else(MessageField::none, |exit| time::stamp(exit.at))
}
