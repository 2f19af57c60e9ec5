//! The daemon's service for events: takes what shims forward and keeps it in the order in which it came. It can
//! end as a killed daemon does (the socket's file stays), come back, and be slow or unwilling.

use hull_proto::events::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskStart,
};
use hull_proto::forward::{Envelope, ForwardRequest};
use hull_proto::forward_ttrpc::{self, Events as Service};
use protobuf::Message;
use protobuf::well_known_types::empty::Empty;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use ttrpc::r#async::{Server, TtrpcContext};

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// As it came.
    pub envelope: Envelope,
    /// The container it is about.
    pub container: String,
    /// Topic, exec id if any, exit code if any: `exit e1 3`; the exec id of init is left out.
    pub line: String,
    /// The process, 0 if it names none.
    pub pid: u32,
}

impl Event {
    fn read(envelope: Envelope) -> Self {
        let topic = envelope.topic.trim_start_matches("/tasks/").to_owned();
        let bytes = &envelope.event.value;
        let mut container = String::new();
        let (mut words, mut pid) = (vec![topic.clone()], 0);
        macro_rules! read {
            ($kind:ty) => {{
                let event = <$kind>::parse_from_bytes(bytes).expect("an event of its topic's kind");
                container.clone_from(&event.container_id);
                event
            }};
        }
        match topic.as_str() {
            "create" => pid = read!(TaskCreate).pid,
            "start" => pid = read!(TaskStart).pid,
            "exec-added" => words.push(read!(TaskExecAdded).exec_id),
            "exec-started" => {
                let event = read!(TaskExecStarted);
                pid = event.pid;
                words.push(event.exec_id);
            }
            "exit" => {
                let event = read!(TaskExit);
                pid = event.pid;
                if event.id != event.container_id {
                    words.push(event.id.clone());
                }
                words.push(event.exit_status.to_string());
            }
            "delete" => {
                let event = read!(TaskDelete);
                pid = event.pid;
                if !event.id.is_empty() && event.id != event.container_id {
                    words.push(event.id.clone());
                }
                words.push(event.exit_status.to_string());
            }
            // The others name the container first, as this one does.
            _ => drop(read!(TaskOOM)),
        }
        Self { container, line: words.join(" "), pid, envelope }
    }
}

#[derive(Debug, Default)]
struct Record {
    events: Vec<Event>,
    /// How long each answer takes.
    delay: Duration,
    /// So many of the next are refused.
    refuse: usize,
    refused: usize,
}

struct Recorder(Arc<Mutex<Record>>);

#[async_trait::async_trait]
impl Service for Recorder {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let delay = self.0.lock().expect("the record").delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let event = Event::read(request.envelope.unwrap_or_default());
        let mut record = self.0.lock().expect("the record");
        if record.refuse > 0 {
            record.refuse -= 1;
            record.refused += 1;
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::UNAVAILABLE, "not now")));
        }
        crate::Lab::note(&format!("event {}: {} (pid {})", event.container, event.line, event.pid));
        record.events.push(event);
        Ok(Empty::new())
    }
}

/// The service, on its socket.
#[derive(Debug)]
pub struct Events {
    socket: PathBuf,
    record: Arc<Mutex<Record>>,
    up: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Events {
    pub(super) fn new(socket: &Path) -> Self {
        let events = Self { socket: socket.to_owned(), record: Arc::default(), up: Mutex::default() };
        events.come_back();
        events
    }

    /// Listens again.
    pub fn come_back(&self) {
        // The file of the one before, as a starting daemon removes it.
        std::fs::remove_file(&self.socket).ok();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (record, address) = (Arc::clone(&self.record), format!("unix://{}", self.socket.display()));
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
            runtime.block_on(async move {
                let services = forward_ttrpc::create_events(Arc::new(Recorder(record)));
                let mut server =
                    Server::new().bind(&address).expect("bind the events' socket").register_service(services);
                server.start().await.expect("serve events");
                ready.send(()).expect("the test waits");
                // A dropped sender says the same as a message.
                stopped.await.ok();
                std::mem::forget(server);
            });
            // Every connection ends with the runtime.
        });
        is_ready.recv().expect("the events' socket");
        *self.up.lock().expect("up") = Some((stop, thread));
    }

    /// Ends as a daemon does that is killed: connections close, the socket's file stays.
    pub fn go_away(&self) {
        if let Some((stop, thread)) = self.up.lock().expect("up").take() {
            stop.send(()).expect("the service runs");
            thread.join().expect("the end of the service");
        }
    }

    /// From now on each answer takes so long.
    pub fn delay(&self, delay: Duration) {
        self.record.lock().expect("the record").delay = delay;
    }

    /// The next so many are refused.
    pub fn refuse(&self, count: usize) {
        self.record.lock().expect("the record").refuse = count;
    }

    /// How many were refused.
    pub fn refused(&self) -> usize {
        self.record.lock().expect("the record").refused
    }

    /// All that came, of every container.
    pub fn all(&self) -> Vec<Event> {
        self.record.lock().expect("the record").events.clone()
    }

    /// The lines of a container.
    pub fn of(&self, container: &str) -> Vec<String> {
        self.all().into_iter().filter(|event| event.container == container).map(|event| event.line).collect()
    }

    /// Waits for this line of a container, 20 s at most; the lines until then and after.
    #[track_caller]
    pub fn until(&self, container: &str, line: &str) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let lines = self.of(container);
            if lines.iter().any(|one| one == line || one.split(' ').next() == Some(line)) {
                return lines;
            }
            assert!(Instant::now() < until, "no event {line:?} within 20 s; those that came: {lines:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
