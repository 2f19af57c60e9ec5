//! A unary gRPC call: a connection, one request of HTTP/2, one answer. No pool, no streams: a test makes some
//! dozens of calls.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use protobuf::Message;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// No call of a test takes longer, that of a slow stop of a container included.
const LIMIT: Duration = Duration::from_secs(45);
/// `DEADLINE_EXCEEDED`.
const LATE: u32 = 4;

/// What the daemon answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code; `None` when there is no connection, or it broke.
    pub code: Option<u32>,
    /// The sentence.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl Refusal {
    /// The daemon's own limit of time ran out.
    pub fn is_late(&self) -> bool {
        self.code == Some(LATE)
    }

    fn broken(error: impl fmt::Display) -> Self {
        Self { code: None, message: error.to_string() }
    }
}

/// Asks `/runtime.v1.SERVICE/METHOD` and waits for the answer.
pub(super) fn ask<A: Message>(socket: &Path, method: &str, question: &impl Message) -> Result<A, Refusal> {
    let payload = question.write_to_bytes().map_err(Refusal::broken)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    let answer = runtime.block_on(async {
        let unary = unary(socket, method, &payload);
        tokio::time::timeout(LIMIT, unary).await.unwrap_or_else(|_| Err(Refusal::broken("no answer in time")))
    })?;
    A::parse_from_bytes(&answer).map_err(Refusal::broken)
}

async fn unary(socket: &Path, method: &str, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let stream = UnixStream::connect(socket).await.map_err(Refusal::broken)?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(Refusal::broken)?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost/runtime.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(Refusal::broken)?;
    let mut client = client.ready().await.map_err(Refusal::broken)?;
    let (response, mut body) = client.send_request(request, false).map_err(Refusal::broken)?;
    body.send_data(framed(payload), true).map_err(Refusal::broken)?;
    let (head, mut body) = response.await.map_err(Refusal::broken)?.into_parts();
    // An answer that is only a refusal has no trailers: its headers say it.
    verdict(&head.headers)?;
    let mut answer = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk: Bytes = chunk.map_err(Refusal::broken)?;
        body.flow_control().release_capacity(chunk.len()).map_err(Refusal::broken)?;
        answer.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await.map_err(Refusal::broken)?;
    verdict(&trailers.unwrap_or_default())?;
    // The flag of compression and the length, as `framed` writes them.
    answer.get(5..).map(<[u8]>::to_vec).ok_or_else(|| Refusal::broken("an answer without a message"))
}

fn framed(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 5);
    frame.put_u8(0);
    frame.put_u32(payload.len() as u32);
    frame.put_slice(payload);
    frame.freeze()
}

fn verdict(headers: &HeaderMap) -> Result<(), Refusal> {
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let Some(code) = text("grpc-status") else { return Ok(()) };
    match code.parse() {
        Ok(0) => Ok(()),
        code => Err(Refusal { code: code.ok(), message: text("grpc-message").unwrap_or_default() }),
    }
}
