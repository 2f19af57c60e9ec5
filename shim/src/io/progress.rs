//! How far an output has come: what its process has written, what the reader of the FIFO has taken. A daemon
//! that hears of an exit may stop to read at once, so nobody is told before this says so.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

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

/// What waits to be read. In a file nothing does.
fn left(fd: &OwnedFd) -> u64 {
    let is_file =
        fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
    if is_file { 0 } else { socket::unread(fd.as_fd()).unwrap_or(0) }
}
