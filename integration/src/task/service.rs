//! One container of a shim: the methods of the task service, with the words the daemon uses.

use super::client::Reply;
use super::daemon::any;
use super::{Client, Daemon, Refusal, Started};
use crate::{Bundle, Stop};
use hull_proto::process::Status;
use hull_proto::task::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
    StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::empty::Empty;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// The streams of a process, as requests name them.
#[derive(Clone, Debug, Default)]
pub struct Stdio {
    /// Empty for none.
    pub stdin: String,
    /// Empty for none.
    pub stdout: String,
    /// Empty for none.
    pub stderr: String,
    /// One terminal in place of them.
    pub terminal: bool,
}

impl Stdio {
    /// Output and errors to the same place.
    pub fn to(stdout: impl Into<String>) -> Self {
        let stdout = stdout.into();
        Self { stderr: stdout.clone(), stdout, ..Self::default() }
    }
}

/// A process to be executed in a container.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Its id.
    pub id: String,
    /// The process object of config.json.
    pub process: Value,
    /// Its streams.
    pub stdio: Stdio,
}

impl Exec {
    /// A shell script.
    pub fn sh(id: impl Into<String>, script: &str) -> Self {
        let process = json!({
            "args": ["/bin/sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        });
        Self { id: id.into(), process, stdio: Stdio::default() }
    }

    /// With these streams.
    #[must_use]
    pub fn on(self, stdio: Stdio) -> Self {
        Self { stdio, ..self }
    }
}

/// A container.
#[derive(Debug)]
pub struct Task<'d> {
    /// Whose it is.
    pub daemon: &'d Daemon<'d>,
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: Bundle,
    /// What `start` answered.
    pub started: Started,
    /// The connection to its shim.
    pub client: Client,
}

type Answer<A> = Result<A, Refusal>;

impl Task<'_> {
    /// Create, with the default options.
    pub fn create(&self, stdio: &Stdio) -> Answer<u32> {
        self.create_with(stdio, |_| {})
    }

    /// Create, with a changed request.
    pub fn create_with(&self, stdio: &Stdio, edit: impl FnOnce(&mut CreateTaskRequest)) -> Answer<u32> {
        self.ask_create(stdio, edit).get().map(|answer| answer.pid)
    }

    /// Create, and goes on.
    pub fn ask_create(
        &self,
        stdio: &Stdio,
        edit: impl FnOnce(&mut CreateTaskRequest),
    ) -> Reply<CreateTaskResponse> {
        let mut request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.dir.to_string_lossy().into_owned(),
            terminal: stdio.terminal,
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            options: MessageField::some(self.daemon.options(|_| {})),
            ..CreateTaskRequest::default()
        };
        edit(&mut request);
        self.client.ask("Create", &request)
    }

    /// Create and Start; the pid.
    pub fn up(&self, stdio: &Stdio) -> Answer<u32> {
        self.create(stdio)?;
        self.start("")
    }

    /// As `up` without streams, until the script `WAITS` is ready for signals.
    #[track_caller]
    pub fn up_waiting(&self) -> Answer<u32> {
        self.create(&Stdio::default())?;
        self.start_waiting()
    }

    /// Start, until the script `WAITS` is ready for signals.
    #[track_caller]
    pub fn start_waiting(&self) -> Answer<u32> {
        let pid = self.start("")?;
        self.daemon.lab.eventually("the script", || self.bundle.path("/up").exists());
        Ok(pid)
    }

    /// Start of init, or of an exec.
    pub fn start(&self, exec: &str) -> Answer<u32> {
        self.ask_start(exec).get().map(|answer| answer.pid)
    }

    /// Start, and goes on.
    pub fn ask_start(&self, exec: &str) -> Reply<StartResponse> {
        let request = StartRequest { id: self.id.clone(), exec_id: exec.into(), ..StartRequest::default() };
        self.client.ask("Start", &request)
    }

    /// Delete of init, or of an exec.
    pub fn delete(&self, exec: &str) -> Answer<DeleteResponse> {
        let request = DeleteRequest { id: self.id.clone(), exec_id: exec.into(), ..DeleteRequest::default() };
        self.client.ask("Delete", &request).get()
    }

    /// Exec: the process is known, not started.
    pub fn exec(&self, exec: &Exec) -> Answer<()> {
        self.ask_exec(exec).get().map(drop)
    }

    /// Exec, and goes on.
    pub fn ask_exec(&self, exec: &Exec) -> Reply<Empty> {
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: exec.process.to_string().into_bytes(),
            ..Any::default()
        };
        let request = ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.id.clone(),
            terminal: exec.stdio.terminal,
            stdin: exec.stdio.stdin.clone(),
            stdout: exec.stdio.stdout.clone(),
            stderr: exec.stdio.stderr.clone(),
            spec: MessageField::some(spec),
            ..ExecProcessRequest::default()
        };
        self.client.ask("Exec", &request)
    }

    /// Exec and Start; the pid.
    pub fn run(&self, exec: &Exec) -> Answer<u32> {
        self.exec(exec)?;
        self.start(&exec.id)
    }

    /// Exec, Start, Wait and Delete; the exit code.
    pub fn run_to_end(&self, exec: &Exec) -> Answer<u32> {
        self.run(exec)?;
        let code = self.wait(&exec.id).get()?.exit_status;
        self.delete(&exec.id)?;
        Ok(code)
    }

    /// State.
    pub fn state(&self, exec: &str) -> Answer<StateResponse> {
        let request = StateRequest { id: self.id.clone(), exec_id: exec.into(), ..StateRequest::default() };
        self.client.ask("State", &request).get()
    }

    /// The status of State.
    #[track_caller]
    pub fn status(&self, exec: &str) -> Status {
        self.state(exec).expect("a state").status.enum_value().expect("a known status")
    }

    /// Kill.
    pub fn kill(&self, exec: &str, signal: i32) -> Answer<()> {
        self.kill_with(exec, signal, false)
    }

    /// Kill of every process of the container.
    pub fn kill_all(&self, signal: i32) -> Answer<()> {
        self.kill_with("", signal, true)
    }

    fn kill_with(&self, exec: &str, signal: i32, all: bool) -> Answer<()> {
        let request = KillRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            signal: signal as u32,
            all,
            ..KillRequest::default()
        };
        self.client.ask::<Empty>("Kill", &request).get().map(drop)
    }

    /// Wait.
    pub fn wait(&self, exec: &str) -> Reply<WaitResponse> {
        let request = WaitRequest { id: self.id.clone(), exec_id: exec.into(), ..WaitRequest::default() };
        self.client.ask("Wait", &request)
    }

    /// Pids: each with the exec id, if it has one.
    pub fn pids(&self) -> Answer<Vec<(u32, String)>> {
        let request = PidsRequest { id: self.id.clone(), ..PidsRequest::default() };
        let answer = self.client.ask::<PidsResponse>("Pids", &request).get()?;
        let exec = |info: &Any| {
            use hull_proto::runc_options::ProcessDetails;
            use protobuf::Message;
            ProcessDetails::parse_from_bytes(&info.value).map(|details| details.exec_id).unwrap_or_default()
        };
        Ok(answer
            .processes
            .iter()
            .map(|one| (one.pid, one.info.as_ref().map(exec).unwrap_or_default()))
            .collect())
    }

    /// Pause.
    pub fn pause(&self) -> Answer<()> {
        let request = PauseRequest { id: self.id.clone(), ..PauseRequest::default() };
        self.client.ask::<Empty>("Pause", &request).get().map(drop)
    }

    /// Resume.
    pub fn resume(&self) -> Answer<()> {
        let request = ResumeRequest { id: self.id.clone(), ..ResumeRequest::default() };
        self.client.ask::<Empty>("Resume", &request).get().map(drop)
    }

    /// Checkpoint.
    pub fn checkpoint(&self, path: &str) -> Answer<()> {
        let options = hull_proto::runc_options::CheckpointOptions::new();
        let request = CheckpointTaskRequest {
            id: self.id.clone(),
            path: path.into(),
            options: MessageField::some(any("containerd.runc.v1.CheckpointOptions", &options)),
            ..CheckpointTaskRequest::default()
        };
        self.client.ask::<Empty>("Checkpoint", &request).get().map(drop)
    }

    /// ResizePty.
    pub fn resize(&self, exec: &str, width: u32, height: u32) -> Answer<()> {
        let (id, exec_id) = (self.id.clone(), exec.into());
        let request = ResizePtyRequest { id, exec_id, width, height, ..ResizePtyRequest::default() };
        self.client.ask::<Empty>("ResizePty", &request).get().map(drop)
    }

    /// CloseIO of stdin.
    pub fn close_stdin(&self, exec: &str) -> Answer<()> {
        let (id, exec_id) = (self.id.clone(), exec.into());
        let request = CloseIORequest { id, exec_id, stdin: true, ..CloseIORequest::default() };
        self.client.ask::<Empty>("CloseIO", &request).get().map(drop)
    }

    /// Update with a resources object.
    pub fn update(&self, resources: &Value) -> Answer<()> {
        let resources = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources.to_string().into_bytes(),
            ..Any::default()
        };
        let request = UpdateTaskRequest {
            id: self.id.clone(),
            resources: MessageField::some(resources),
            ..UpdateTaskRequest::default()
        };
        self.client.ask::<Empty>("Update", &request).get().map(drop)
    }

    /// Stats.
    pub fn stats(&self) -> Answer<Any> {
        let request = StatsRequest { id: self.id.clone(), ..StatsRequest::default() };
        Ok(self.client.ask::<StatsResponse>("Stats", &request).get()?.stats.unwrap_or_default())
    }

    /// Connect.
    pub fn connect(&self, id: &str) -> Answer<ConnectResponse> {
        let request = ConnectRequest { id: id.into(), ..ConnectRequest::default() };
        self.client.ask("Connect", &request).get()
    }

    /// The process of the shim.
    #[track_caller]
    pub fn shim_pid(&self) -> i32 {
        self.connect(&self.id).expect("an answer to Connect").shim_pid as i32
    }

    /// Shutdown.
    pub fn shutdown(&self) -> Answer<()> {
        let request = ShutdownRequest { id: self.id.clone(), ..ShutdownRequest::default() };
        self.client.ask::<Empty>("Shutdown", &request).get().map(drop)
    }

    /// SIGKILL, Wait and Delete of init; the code that Delete tells.
    pub fn kill_and_delete(&self) -> Answer<u32> {
        // It may have ended: Wait then answers at once.
        self.kill("", libc::SIGKILL).ok();
        self.wait("").get()?;
        Ok(self.delete("")?.exit_status)
    }

    /// The steps of a daemon after Delete: Shutdown, the shim's end, `delete`, the bundle.
    pub fn retire(&self) -> Result<DeleteResponse, Stop> {
        let pid = self.shim_pid();
        // The connection may close before the answer.
        self.shutdown().ok();
        self.daemon.lab.eventually("the end of the shim", || is_gone(pid));
        let answer = self.daemon.delete(&self.bundle)?;
        self.daemon.remove_bundle(&self.bundle);
        Ok(answer)
    }

    /// The events of this container so far.
    pub fn events(&self) -> Vec<String> {
        self.daemon.events.of(&self.id)
    }

    /// Waits for an event of this container.
    #[track_caller]
    pub fn event(&self, line: &str) -> Vec<String> {
        self.daemon.events.until(&self.id, line)
    }
}

/// No such process, or one that only waits to be reaped.
pub fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// A signal to a process the test knows to be a shim's.
#[track_caller]
pub fn signal_process(pid: i32, signal: i32) {
    let shim = crate::sys::Pidfd::open(pid).expect("a process");
    shim.signal(signal).expect("send a signal");
}

/// SIGKILL, and the end; one that has ended already is fine.
#[track_caller]
pub fn kill_process(pid: i32) {
    let Ok(shim) = crate::sys::Pidfd::open(pid) else { return };
    // ESRCH: ended meanwhile.
    shim.signal(libc::SIGKILL).ok();
    while !is_gone(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a container whatever its state; the process of its shim.
pub(super) fn finish(client: &Client, id: &str) -> Option<i32> {
    let limit = Duration::from_secs(20);
    let id = || id.to_owned();
    let connect =
        client.ask::<ConnectResponse>("Connect", &ConnectRequest { id: id(), ..Default::default() });
    let shim = connect.within(limit)?.ok()?.shim_pid as i32;
    let kill = KillRequest { id: id(), signal: libc::SIGKILL as u32, all: true, ..Default::default() };
    // Each of these may be refused: the container may never have been made, have ended, be deleted.
    client.ask::<Empty>("Kill", &kill).within(limit);
    client.ask::<WaitResponse>("Wait", &WaitRequest { id: id(), ..Default::default() }).within(limit);
    client.ask::<DeleteResponse>("Delete", &DeleteRequest { id: id(), ..Default::default() }).within(limit);
    client.ask::<Empty>("Shutdown", &ShutdownRequest { id: id(), ..Default::default() }).within(limit);
    Some(shim)
}
