//! One direction of a stream: from a pipe, a FIFO or a terminal to another, or to a file. The kernel moves
//! the pages (splice(2)); what it cannot splice goes through a few kilobytes of stack. Owns both ends while
//! it runs, and knows nothing of names and containers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use hull_sys::{Errno, signal};
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::unistd::{read, write};
use tokio::io::Interest;

use super::progress::{self, Progress};
use super::wait::Waited;

/// How much one call moves: what a pipe holds.
const PIPE_BYTES: usize = 64 * 1024;
/// What the pipes of a copy that never rests are made to hold: a quarter of the changes of process.
const BUSY_PIPE_BYTES: usize = 256 * 1024;
/// After this many full pipes in a row it never rests.
const BUSY: u32 = 64;
/// A terminal never has more, and the kernel takes pages for all that is asked for.
const TERMINAL_BYTES: usize = 4 * 1024;
/// After this many calls the other tasks have their turn.
const TURN: u32 = 16;
/// When the kernel can neither move anything nor say what to wait for.
const PAUSE: Duration = Duration::from_millis(1);

/// What happens to bytes that the destination refuses, as a full disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// They are lost: a process must not stand still or be killed because nobody takes its output.
    Lost,
    /// Nobody reads there any more: the copy is over.
    Over,
}

/// A copy, until its source ends.
#[derive(Debug)]
pub(super) struct Copy {
    source: Waited,
    /// Without one, everything is thrown away.
    sink: Option<Waited>,
    refused: Refused,
    /// How much is moved at once.
    most: usize,
    by_splice: bool,
    /// Bytes that have been read but not yet written; only without splice.
    rest: Vec<u8>,
    /// Bytes that the sink has taken, in all.
    moved: Rc<Cell<u64>>,
    /// Who of the outputs of a process moved something last.
    order: Option<Rc<Order>>,
}

/// The order in which the outputs of one process became ready, kept up to the reader: two FIFOs that are filled
/// at once are read in whichever order it likes.
#[derive(Debug, Default)]
pub(super) struct Order(RefCell<Weak<OwnedFd>>);

impl Order {
    /// How long an output waits for what another one has moved to be read.
    const LOOKS: u32 = 2;

    fn note(&self, sink: &Rc<OwnedFd>) {
        self.0.replace(Rc::downgrade(sink));
    }

    /// Gives the reader of another output the time to take what came first.
    async fn keep(&self, sink: &Rc<OwnedFd>) {
        for _ in 0..Self::LOOKS {
            let last = self.0.borrow().upgrade().filter(|last| !Rc::ptr_eq(last, sink));
            if last.is_none_or(|last| progress::left(&last) == 0) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Copy {
    fn new(source: OwnedFd, sink: Option<OwnedFd>, refused: Refused, most: usize) -> Self {
        Self {
            source: Waited::new(source, Interest::READABLE),
            by_splice: sink.is_some(),
            sink: sink.map(|sink| Waited::new(sink, Interest::WRITABLE)),
            refused,
            most,
            rest: Vec::new(),
            moved: Rc::default(),
            order: None,
        }
    }

    /// Makes it one of several whose order is kept.
    pub(super) fn ordered(self, order: &Rc<Order>) -> Self {
        Self { order: Some(Rc::clone(order)), ..self }
    }

    /// How far it has come; nothing when everything is thrown away.
    pub(super) fn progress(&self) -> Option<Progress> {
        let sink = self.sink.as_ref()?;
        Some(Progress::new(self.source.fd(), sink.fd(), &self.moved))
    }

    /// What a process writes. Neither end may block.
    pub(super) fn output(pipe: OwnedFd, sink: Option<OwnedFd>) -> Self {
        Self::new(pipe, sink, Refused::Lost, PIPE_BYTES)
    }

    /// What processes write to a terminal. Neither end may block.
    pub(super) fn screen(terminal: OwnedFd, sink: Option<OwnedFd>) -> Self {
        Self::new(terminal, sink, Refused::Lost, TERMINAL_BYTES)
    }

    /// What a process, or a terminal, is to read. Neither end may block.
    pub(super) fn input(source: OwnedFd, sink: OwnedFd) -> Self {
        Self::new(source, Some(sink), Refused::Over, PIPE_BYTES)
    }

    /// Copies until the source ends, and closes it. Answers the sink.
    pub(super) async fn run(mut self) -> Option<Rc<OwnedFd>> {
        self.run_to_end().await;
        self.sink.map(|sink| Rc::clone(sink.fd()))
    }

    async fn run_to_end(&mut self) {
        let (mut calls, mut full) = (0, 0);
        loop {
            match self.step() {
                Ok(0) => return,
                Ok(length) => {
                    calls += 1;
                    full = if length == PIPE_BYTES { full + 1 } else { 0 };
                    if full == BUSY {
                        self.widen();
                    }
                    if calls % TURN == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !self.wait().await {
                        return;
                    }
                    if let (Some(order), Some(sink)) = (&self.order, &self.sink) {
                        order.keep(sink.fd()).await;
                    }
                }
                // The end of a terminal is EIO.
                Err(_) => return,
            }
        }
    }

    /// Asks for larger pipes. What is none, or may not be larger, stays as it is.
    fn widen(&mut self) {
        let size = i32::try_from(BUSY_PIPE_BYTES).unwrap_or(0);
        for end in std::iter::once(&self.source).chain(&self.sink) {
            let _widened = fcntl(end, FcntlArg::F_SETPIPE_SZ(size)).is_ok();
        }
        self.most = BUSY_PIPE_BYTES;
    }

    /// Moves what can be moved now; 0 is the end.
    fn step(&mut self) -> nix::Result<usize> {
        if let (true, Some(sink)) = (self.by_splice, &self.sink) {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
            match splice(&self.source, None, sink, None, self.most, flags) {
                // A file that is appended to, a terminal of Linux 5.10, or an error of one side: read and
                // write tell which.
                Err(why) if !matches!(why, Errno::EAGAIN | Errno::EINTR) => self.by_splice = false,
                done => return done.inspect(|length| self.count(*length)),
            }
        }
        if self.rest.is_empty() { self.carry() } else { self.hand_over_rest() }
    }

    /// Reads a little and writes what is taken of it.
    fn carry(&mut self) -> nix::Result<usize> {
        let mut room = [0; TERMINAL_BYTES];
        let length = read(&self.source, &mut room)?;
        let bytes = room.get(..length).unwrap_or_default();
        let taken = match self.write(bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            done => done?,
        };
        self.rest = bytes.get(taken..).unwrap_or_default().to_vec();
        Ok(length)
    }

    fn hand_over_rest(&mut self) -> nix::Result<usize> {
        let taken = self.write(&self.rest)?;
        self.rest = self.rest.split_off(taken.min(self.rest.len()));
        Ok(taken)
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        let Some(sink) = &self.sink else { return Ok(bytes.len()) };
        match write(sink, bytes) {
            Ok(0) => Err(Errno::EAGAIN),
            Err(why) if !matches!(why, Errno::EAGAIN | Errno::EINTR) && self.refused == Refused::Lost => {
                Ok(bytes.len())
            }
            done => done.inspect(|length| self.count(*length)),
        }
    }

    fn count(&self, length: usize) {
        self.moved.set(self.moved.get() + length as u64);
        if let (Some(order), Some(sink)) = (&self.order, &self.sink) {
            order.note(sink.fd());
        }
    }

    /// Waits for the end that holds the copy up. False when it will never go on.
    async fn wait(&mut self) -> bool {
        let changed = match self.look() {
            Ok(Held::Source) => self.source.changed().await,
            Ok(Held::Sink) => match &mut self.sink {
                Some(sink) => sink.changed().await,
                None => Ok(()),
            },
            Ok(Held::Forever) => return false,
            // Something has come since the step.
            Ok(Held::Nothing) => Err(io::ErrorKind::WouldBlock.into()),
            Err(why) => Err(why.into()),
        };
        if changed.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    fn look(&self) -> nix::Result<Held> {
        let source = signal::Interest { fd: self.source.as_fd(), events: libc::POLLIN };
        let [source, sink] = match &self.sink {
            None => signal::poll([source], 0).map(|[source]| [source, libc::POLLOUT]),
            Some(sink) => {
                signal::poll([source, signal::Interest { fd: sink.as_fd(), events: libc::POLLOUT }], 0)
            }
        }?;
        Ok(match (source, sink) {
            // Waiting bytes of our own come first.
            _ if !self.rest.is_empty() => Held::by_sink(sink),
            // The last writer has gone and has left nothing.
            (libc::POLLHUP, _) => Held::Forever,
            (0, _) => Held::Source,
            _ => Held::by_sink(sink),
        })
    }
}

/// What a copy waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Source,
    Sink,
    Nothing,
    Forever,
}

impl Held {
    /// From the `POLL*` bits of a sink.
    fn by_sink(bits: i16) -> Self {
        match bits {
            0 => Self::Sink,
            // A terminal at which nobody is, and which has no room left.
            libc::POLLHUP => Self::Forever,
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tokio::task::spawn_local;
    use tokio::time::sleep;

    use super::super::open::unblock;
    use super::super::tests::{A_WHILE, MEBIBYTE, get, pattern, put, reads, run, terminal, writes};
    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = hull_sys::socket::pipe().unwrap();
        (unblock(reader).unwrap(), unblock(writer).unwrap())
    }

    fn pty() -> (OwnedFd, OwnedFd) {
        let (master, slave) = terminal();
        (unblock(master).unwrap(), slave)
    }

    #[test]
    fn pipes_and_terminals_are_spliced() {
        let (from, mut to) = pipe();
        let (end, out) = pipe();
        let (master, slave) = pty();
        write(&mut to, b"four").unwrap();
        write(&slave, b"tty").unwrap();
        let copies = [
            (Copy::output(from.try_clone().unwrap(), Some(out.try_clone().unwrap())), 4),
            (Copy::screen(master.try_clone().unwrap(), Some(out)), 3),
            (Copy::input(end, master), 7),
        ];
        for (mut copy, expected) in copies {
            assert_eq!(copy.step(), Ok(expected));
            assert!(copy.by_splice, "{copy:?}");
        }
    }

    #[test]
    fn an_output_without_end_leaves_others_their_turn() {
        run(async {
            let open = |path| OwnedFd::from(File::options().read(true).write(true).open(path).unwrap());
            let copied = spawn_local(Copy::output(open("/dev/zero"), Some(open("/dev/null"))).run());
            sleep(A_WHILE).await;
            assert!(!copied.is_finished());
            copied.abort();
        });
    }

    #[test]
    fn without_splice_a_slow_terminal_gets_everything() {
        run(async {
            let (from, to) = pipe();
            let (master, slave) = pty();
            let copy = Copy { by_splice: false, ..Copy::input(from, master.try_clone().unwrap()) };
            spawn_local(copy.run());
            let mut client = writes(Some(to));
            spawn_local(async move { put(&mut client, &pattern(MEBIBYTE / 4)).await });
            sleep(A_WHILE).await;
            assert!(get(&mut reads(Some(slave)), MEBIBYTE / 4).await == pattern(MEBIBYTE / 4));
        });
    }

    #[test]
    fn without_splice_a_slow_reader_gets_everything() {
        run(async {
            let (end, to) = pipe();
            let (master, slave) = pty();
            let copy = Copy { by_splice: false, ..Copy::screen(master, Some(to)) };
            let copied = spawn_local(async move { drop(copy.run().await) });
            let mut process = writes(Some(slave));
            spawn_local(async move { put(&mut process, &pattern(MEBIBYTE / 4)).await });
            sleep(A_WHILE).await;
            assert!(get(&mut reads(Some(end)), usize::MAX).await == pattern(MEBIBYTE / 4));
            copied.await.unwrap();
        });
    }
}
