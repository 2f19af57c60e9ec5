//! The connections that are served: those of processes that run as our own user, so many at a time, and none that
//! stops in the middle of a message. Knows of a message only where it ends. `server` takes them in.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use ttrpc::proto::MESSAGE_HEADER_LENGTH;

use crate::log;

/// How many are served at once: a daemon holds one, and tools one each for a moment.
const MOST: usize = 64;
/// How long the rest of a message may take, from its first byte on.
const REST: Duration = Duration::from_secs(10);

/// Gives out the connections that come in.
#[derive(Debug)]
pub struct Connections {
    listener: UnixListener,
    open: Arc<AtomicUsize>,
}

impl Connections {
    /// Those of this socket; `open` is how many there are.
    pub fn of(listener: UnixListener, open: Arc<AtomicUsize>) -> Self {
        Self { listener, open }
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (stream, _) = match ready!(self.listener.poll_accept(context)) {
                Ok(accepted) => accepted,
                Err(why) => return Poll::Ready(Some(Err(why))),
            };
            if !getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == hull_sys::cred::euid()) {
                log::warning("refused a connection from another user");
            } else if self.open.load(Ordering::Relaxed) >= MOST {
                log::warning(&format!("refused a connection: {MOST} are open"));
            } else {
                return Poll::Ready(Some(Ok(Connection::new(stream, Arc::clone(&self.open)))));
            }
        }
    }
}

/// One of them.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    place: Place,
    /// Runs while a message has come in part.
    rest: Option<Pin<Box<Sleep>>>,
    open: Arc<AtomicUsize>,
}

impl Connection {
    fn new(stream: UnixStream, open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self { stream, place: Place::default(), rest: None, open }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let had = buffer.filled().len();
        if let Poll::Ready(done) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            if this.place.pass(buffer.filled().get(had..).unwrap_or_default()) {
                this.rest = None;
            }
            if !this.place.is_between() && this.rest.is_none() {
                this.rest = Some(Box::pin(tokio::time::sleep(REST)));
            }
            return Poll::Ready(done);
        }
        let Some(rest) = &mut this.rest else { return Poll::Pending };
        ready!(rest.as_mut().poll(context));
        log::warning("closed a connection: the rest of a message did not arrive");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where in a message the next byte belongs: a message is a header, which begins with the length of the rest, and
/// that rest.
#[derive(Debug, Default)]
struct Place {
    /// How much of the header has come; 0 between messages.
    header: usize,
    /// The length, in the part of it that has come; then what is left of the rest.
    left: usize,
}

impl Place {
    fn is_between(&self) -> bool {
        self.header == 0
    }

    /// Whether a message ends in these bytes.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut ends = false;
        while let Some((first, others)) = bytes.split_first() {
            if self.header < MESSAGE_HEADER_LENGTH {
                if self.header < size_of::<u32>() {
                    self.left = self.left << u8::BITS | usize::from(*first);
                }
                self.header += 1;
                bytes = others;
            } else {
                let now = self.left.min(bytes.len());
                self.left -= now;
                bytes = bytes.get(now..).unwrap_or_default();
            }
            if self.header == MESSAGE_HEADER_LENGTH && self.left == 0 {
                self.header = 0;
                ends = true;
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_length_says() {
        let message = |length: u32| {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.resize(MESSAGE_HEADER_LENGTH + length as usize, 0xff);
            bytes
        };
        let stream = [message(0), message(3), message(300), message(1)].concat();
        let ends = [10, 23, 333, 344];
        for step in [1, 2, 7, 10, 13, 344] {
            let mut place = Place::default();
            let mut passed = 0;
            for part in stream.chunks(step) {
                let before = passed;
                passed += part.len();
                let ended = ends.iter().any(|end| (before + 1..=passed).contains(end));
                assert_eq!(place.pass(part), ended, "{passed} by {step}");
                assert_eq!(place.is_between(), ends.contains(&passed), "{passed} by {step}");
            }
        }
    }
}
