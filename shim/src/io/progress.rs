//! How far an output has come: what its process has written, what the reader of the FIFO has taken. A daemon
//! that hears of an exit may stop to read at once, so nobody is told before this says so.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use hull_sys::signal::{self, Interest};
use hull_sys::socket;
use nix::sys::stat::{SFlag, fstat};
use tokio::time::{Instant, sleep};

/// A reader that takes nothing for this long is not waited for.
const STALL_LIMIT: Duration = Duration::from_secs(1);
/// However it goes on, it is not waited for longer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between looks at how much is left; the kernel tells nobody.
const PAUSE: Duration = Duration::from_millis(1);
/// Between the looks of those that nobody waits for, at most.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Between the looks for a first reader, at most: the kernel wakes nobody for one.
const READER_PAUSE: Duration = Duration::from_millis(50);

/// The way of one output. It knows its descriptors only as long as the copy has them.
#[derive(Debug)]
pub(super) struct Progress {
    source: Weak<OwnedFd>,
    sink: Weak<OwnedFd>,
    moved: Rc<Cell<u64>>,
}

impl Progress {
    /// Of a copy between these two that counts what it moves.
    pub(super) fn new(source: &Rc<OwnedFd>, sink: &Rc<OwnedFd>, moved: &Rc<Cell<u64>>) -> Self {
        Self { source: Rc::downgrade(source), sink: Rc::downgrade(sink), moved: Rc::clone(moved) }
    }

    /// All that the process has written until now, in bytes.
    pub(super) fn written(&self) -> u64 {
        self.moved.get() + self.source.upgrade().map_or(0, |source| left(&source))
    }

    /// Those of them that the reader has.
    fn taken(&self) -> u64 {
        self.moved.get().saturating_sub(self.sink.upgrade().map_or(0, |sink| left(&sink)))
    }

    /// Waits until the reader has so many, as long as it goes on reading and the copy goes on copying.
    pub(super) async fn reaches(&self, count: u64) {
        let begin = Instant::now();
        let (mut taken, mut since) = (self.taken(), begin);
        while taken < count && since.elapsed() < STALL_LIMIT && begin.elapsed() < LIMIT {
            sleep(PAUSE).await;
            if self.sink.strong_count() == 0 {
                return;
            }
            let now = self.taken();
            if now > taken {
                (taken, since) = (now, Instant::now());
            }
        }
    }
}

/// Waits until a FIFO or a pipe has been read empty, however long that takes. Closed before, a FIFO would lose
/// the rest when the daemon is away.
pub(super) async fn emptied(sink: &OwnedFd) {
    let begin = Instant::now();
    while left(sink) > 0 {
        sleep((begin.elapsed() / 8).clamp(PAUSE, LONG_PAUSE)).await;
    }
}

/// Holds the write end of a FIFO until somebody reads there. A daemon opens its end when it gets to it, and waits
/// for a writer: were the only one gone by then, it would wait for ever. Our descriptor is both ends, so it is
/// changed for one that only writes, which the kernel tells of readers.
pub(super) async fn met(sink: Rc<OwnedFd>) {
    if kind(&sink) != SFlag::S_IFIFO {
        return;
    }
    let path = format!("/proc/self/fd/{}", sink.as_raw_fd());
    let writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    drop(sink);
    // What cannot be opened cannot be held.
    let Ok(writer) = writer.map(OwnedFd::from) else { return };
    let begin = Instant::now();
    while !has_reader(&writer) {
        sleep((begin.elapsed() / 8).clamp(PAUSE, READER_PAUSE)).await;
    }
}

/// Whether somebody has the other end open; an error counts as one, so that nobody waits for what cannot come.
fn has_reader(writer: &OwnedFd) -> bool {
    let watched = Interest { fd: writer.as_fd(), events: libc::POLLOUT };
    signal::poll([watched], 0).map_or(true, |[bits]| bits & libc::POLLERR == 0)
}

fn kind(fd: &OwnedFd) -> SFlag {
    fstat(fd).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

/// What waits to be read. In a file nothing does.
pub(super) fn left(fd: &OwnedFd) -> u64 {
    let is_file = kind(fd) == SFlag::S_IFREG;
    if is_file { 0 } else { socket::unread(fd.as_fd()).unwrap_or(0) }
}
