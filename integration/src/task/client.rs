//! A connection to a shim. One thread of the test drives all connections; the test asks and waits, or asks and goes
//! on. Requests carry the name of either version of the service: their bytes are the same.

use protobuf::Message;
use std::fmt;
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use ttrpc::Code;
use ttrpc::r#async::Client as Connection;
use ttrpc::r#async::transport::Socket;
use ttrpc::proto::{KeyValue, Request};

/// No answer of a shim takes longer, but that of Wait.
const LIMIT: Duration = Duration::from_secs(30);

/// The thread's handle. It ends with the test process.
fn driver() -> &'static Handle {
    static DRIVER: OnceLock<Handle> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// What a shim answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code; `None` when the connection is gone.
    pub code: Option<Code>,
    /// The sentence.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

/// It must have been refused with this code, in a sentence with these words.
#[track_caller]
pub fn refused<T: fmt::Debug>(result: Result<T, Refusal>, code: Code, words: &str) {
    match result {
        Err(refusal) => assert!(
            refusal.code == Some(code) && refusal.message.contains(words),
            "refused with {refusal}, not with {code:?} and {words:?}"
        ),
        Ok(answer) => panic!("answered {answer:?} instead of a refusal with {code:?}"),
    }
}

/// As `refused`, whatever the code.
#[track_caller]
pub fn refused_saying<T: fmt::Debug>(result: Result<T, Refusal>, words: &str) {
    match result {
        Err(refusal) => assert!(
            refusal.code.is_some() && refusal.message.contains(words),
            "refused with {refusal}, not with {words:?}"
        ),
        Ok(answer) => panic!("answered {answer:?} instead of a refusal"),
    }
}

/// A connection.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
    /// The same socket, to end it with all that waits.
    stream: Arc<UnixStream>,
    /// The name of the service.
    pub service: &'static str,
    namespace: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to a socket.
    pub fn connect(socket: &Path, service: &'static str, namespace: &str) -> Result<Self, Refusal> {
        let failed = |error: std::io::Error| Refusal { code: None, message: error.to_string() };
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let copy = stream.try_clone().map_err(failed)?;
        let _inside = driver().enter();
        let connection =
            Connection::new(Socket::new(tokio::net::UnixStream::from_std(copy).map_err(failed)?));
        Ok(Self { connection, stream: Arc::new(stream), service, namespace: namespace.to_owned() })
    }

    /// Closes the connection, also under those who wait for an answer.
    pub fn close(&self) {
        // The other side may have been first.
        self.stream.shutdown(Shutdown::Both).ok();
    }

    /// The same connection under another name of the service.
    #[must_use]
    pub fn under(&self, service: &'static str) -> Self {
        Self { service, ..self.clone() }
    }

    /// Asks and goes on.
    pub fn ask<A: Message>(&self, method: &str, question: &(impl Message + fmt::Debug)) -> Reply<A> {
        let mut request = Request::new();
        request.service = self.service.to_owned();
        request.method = method.to_owned();
        request.payload = question.write_to_bytes().expect("a message");
        let mut namespace = KeyValue::new();
        namespace.key = "containerd-namespace-ttrpc".into();
        namespace.value = self.namespace.clone();
        request.metadata = vec![namespace];
        let (sender, receiver) = channel();
        let (connection, what) = (self.connection.clone(), short(&format!("{method} {question:?}")));
        driver().spawn(async move {
            let answer = connection.request(request).await.map(|response| response.payload);
            // As above.
            sender.send(answer.map_err(refusal)).ok();
        });
        Reply { what, receiver, kind: PhantomData }
    }
}

/// A message in one line, without what every message has.
pub(crate) fn short(text: &str) -> String {
    let (noise, end) = ("special_fields: SpecialFields {", "CachedSize { size: ");
    let mut parts = text.split(noise);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once(end).map_or(part, |(_, rest)| rest);
        shown.push_str(
            rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(" } }").unwrap_or(rest),
        );
    }
    shown.chars().take(400).collect()
}

fn refusal(error: ttrpc::Error) -> Refusal {
    match error {
        ttrpc::Error::RpcStatus(status) => Refusal { code: Some(status.code()), message: status.message },
        other => Refusal { code: None, message: other.to_string() },
    }
}

/// An answer that is on its way.
#[derive(Debug)]
#[must_use]
pub struct Reply<A> {
    what: String,
    receiver: Receiver<Result<Vec<u8>, Refusal>>,
    kind: PhantomData<A>,
}

impl<A: Message + fmt::Debug> Reply<A> {
    /// Waits for it.
    #[track_caller]
    pub fn get(self) -> Result<A, Refusal> {
        match self.within(LIMIT) {
            Some(answer) => answer,
            None => panic!("no answer within {LIMIT:?} to {}", self.what),
        }
    }

    /// Waits for it, so long at most.
    pub fn within(&self, limit: Duration) -> Option<Result<A, Refusal>> {
        let answer = match self.receiver.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => panic!("the answer was taken already"),
        };
        let answer = answer.map(|bytes| A::parse_from_bytes(&bytes).expect("an answer of the right kind"));
        let shown = answer.as_ref().map_or_else(ToString::to_string, |answer| short(&format!("{answer:?}")));
        crate::Lab::note(&format!("{} -> {shown}", self.what));
        Some(answer)
    }
}
