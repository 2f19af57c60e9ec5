//! The outbox: events leave in the order they were put in, each once the one before it has been taken by the
//! daemon. While the daemon is away they wait here; none is dropped and none overtakes another. `container`
//! puts them in; `server` runs it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hull_proto::events;
use hull_proto::forward::{Envelope, ForwardRequest};
use hull_proto::forward_ttrpc::EventsClient;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use tokio::sync::Notify;

use crate::{log, time};

/// How long the daemon may take for one event.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before the daemon is tried again: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the daemon may refuse an event that it has understood.
const REFUSALS: u32 = 5;

/// Something that has happened to a task.
pub trait Event: Message {
    /// Where it is published, and its type's name.
    const NAMES: (&'static str, &'static str);
}

macro_rules! events {
    ($($kind:ident $topic:literal,)*) => {$(
        impl Event for events::$kind {
            const NAMES: (&'static str, &'static str) =
                (concat!("/tasks/", $topic), concat!("containerd.events.", stringify!($kind)));
        }
    )*};
}

events! {
    TaskCreate "create",
    TaskStart "start",
    TaskExecAdded "exec-added",
    TaskExecStarted "exec-started",
    TaskExit "exit",
    TaskDelete "delete",
    TaskOOM "oom",
    TaskPaused "paused",
    TaskResumed "resumed",
    TaskCheckpointed "checkpointed",
}

/// The events that the daemon has not taken yet.
#[derive(Debug)]
pub struct Outbox {
    namespace: String,
    /// The daemon's ttrpc socket; empty when there is nobody to tell.
    address: String,
    waiting: RefCell<VecDeque<Envelope>>,
    added: Notify,
    sent: Notify,
}

impl Outbox {
    /// An empty one.
    pub fn new(namespace: &str, address: &str) -> Rc<Self> {
        Rc::new(Self {
            namespace: namespace.to_owned(),
            address: address.to_owned(),
            waiting: RefCell::default(),
            added: Notify::new(),
            sent: Notify::new(),
        })
    }

    /// Puts an event in.
    pub fn publish<E: Event>(&self, event: &E) {
        let (topic, kind) = E::NAMES;
        let value = event.write_to_bytes().unwrap_or_default();
        log::debug(&format!("event {topic}"));
        if self.address.is_empty() {
            return;
        }
        self.waiting.borrow_mut().push_back(Envelope {
            timestamp: time::stamp(SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(Any { type_url: kind.to_owned(), value, ..Any::default() }),
            ..Envelope::default()
        });
        self.added.notify_one();
    }

    /// Sends what is put in, for as long as the shim lives.
    pub async fn run(self: Rc<Self>) {
        let mut connection = None;
        let mut pause = FIRST_PAUSE;
        let mut refusals = 0;
        loop {
            let Some(envelope) = self.first() else {
                // Nothing is kept open for what may not come for days.
                self.sent.notify_waiters();
                self.added.notified().await;
                continue;
            };
            match self.send(&mut connection, envelope).await {
                Sent::Taken => {}
                Sent::Refused(why) if refusals < REFUSALS => {
                    refusals += 1;
                    log::warning(&format!("the daemon rejected an event: {why}"));
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Sent::Refused(why) => log::warning(&format!("gave up sending an event: {why}")),
                Sent::Lost => {
                    connection = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            }
            self.waiting.borrow_mut().pop_front();
            (pause, refusals) = (FIRST_PAUSE, 0);
        }
    }

    /// Waits until the daemon has taken all of them, but no longer than `limit`.
    pub async fn flush(&self, limit: Duration) {
        let emptied = async {
            while self.first().is_some() {
                self.sent.notified().await;
            }
        };
        if tokio::time::timeout(limit, emptied).await.is_err() {
            log::warning("the daemon did not accept the last events");
        }
    }

    fn first(&self) -> Option<Envelope> {
        self.waiting.borrow().front().cloned()
    }

    async fn send(&self, connection: &mut Option<EventsClient>, envelope: Envelope) -> Sent {
        if connection.is_none() {
            let address = format!("unix://{}", self.address.trim_start_matches("unix://"));
            match ttrpc::asynchronous::Client::connect(&address).await {
                Ok(client) => *connection = Some(EventsClient::new(client)),
                Err(_) => return Sent::Lost,
            }
        }
        let Some(client) = connection else { return Sent::Lost };
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
        let context = ttrpc::context::with_duration(PATIENCE);
        match tokio::time::timeout(PATIENCE, client.forward(context, &request)).await {
            Ok(Ok(_)) => Sent::Taken,
            Ok(Err(ttrpc::Error::RpcStatus(status))) => Sent::Refused(status.message),
            Ok(Err(_)) | Err(_) => Sent::Lost,
        }
    }
}

/// What became of an event.
enum Sent {
    Taken,
    /// The daemon has answered with an error.
    Refused(String),
    /// There is no daemon.
    Lost,
}
