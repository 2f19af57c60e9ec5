//! The daemon's end of a FIFO, read only when the test wants to.

use crate::Stop;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An end of a FIFO.
#[derive(Debug)]
pub struct Fifo {
    /// Its path, as requests name it.
    pub path: PathBuf,
    file: Option<File>,
    seen: Vec<u8>,
}

impl Fifo {
    /// Makes one that is read here.
    pub fn output(path: &Path) -> Result<Self, Stop> {
        mkfifo(path, Mode::from_bits_truncate(0o700))?;
        let mut fifo = Self { path: path.to_owned(), file: None, seen: Vec::new() };
        fifo.open()?;
        Ok(fifo)
    }

    /// Makes one that nobody has open.
    pub fn closed(path: &Path) -> Result<Self, Stop> {
        mkfifo(path, Mode::from_bits_truncate(0o700))?;
        Ok(Self { path: path.to_owned(), file: None, seen: Vec::new() })
    }

    /// As requests name it.
    pub fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Opens for reading, at once.
    pub fn open(&mut self) -> Result<(), Stop> {
        let flags = OFlag::O_NONBLOCK.bits();
        self.file = Some(OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?);
        Ok(())
    }

    /// Opens for writing: within 10 s somebody must be reading. Writes block.
    pub fn open_for_writing(&mut self) -> Result<(), Stop> {
        let flags = OFlag::O_NONBLOCK.bits();
        let until = Instant::now() + Duration::from_secs(10);
        let file = loop {
            match OpenOptions::new().write(true).custom_flags(flags).open(&self.path) {
                Ok(file) => break file,
                Err(error) if Instant::now() > until => {
                    return Err(Stop::Fail(format!("nobody reads {}: {error}", self.path.display())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
        self.file = Some(file);
        Ok(())
    }

    /// Closes this end.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Writes.
    pub fn send(&mut self, text: &str) -> Result<(), Stop> {
        Ok(self.file.as_mut().ok_or("the FIFO is closed")?.write_all(text.as_bytes())?)
    }

    /// Everything read so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// How many bytes were read so far.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// The bytes read so far.
    pub fn bytes(&self) -> &[u8] {
        &self.seen
    }

    /// Reads until the text is there; all that was read.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        self.read_while(|all| !String::from_utf8_lossy(all).contains(text), &format!("{text:?}"));
        self.text()
    }

    /// Reads until so many bytes are there.
    #[track_caller]
    pub fn until_count(&mut self, count: usize) {
        self.read_while(|all| all.len() < count, &format!("{count} bytes"));
    }

    /// Reads until every writer has closed; all that was read.
    #[track_caller]
    pub fn to_end(&mut self) -> String {
        self.read_while(|_| true, "the end");
        self.text()
    }

    /// Reads what is there now.
    pub fn now(&mut self) -> String {
        self.step(PollTimeout::ZERO);
        self.text()
    }

    /// For 20 s without progress at most. Ends at the end of the data.
    #[track_caller]
    fn read_while(&mut self, mut goes_on: impl FnMut(&[u8]) -> bool, what: &str) {
        let mut until = Instant::now() + Duration::from_secs(20);
        while goes_on(&self.seen) {
            match self.step(PollTimeout::from(200u8)) {
                Step::Read => until = Instant::now() + Duration::from_secs(20),
                Step::Nothing => {}
                Step::End => return,
            }
            let tail: String =
                self.text().chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
            assert!(
                Instant::now() < until,
                "{what} did not come within 20 s from {}; {} bytes came, the last: {tail:?}",
                self.path.display(),
                self.seen.len(),
            );
        }
    }

    fn step(&mut self, timeout: PollTimeout) -> Step {
        let Some(file) = &mut self.file else { return Step::End };
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        // Interrupted is as good as nothing.
        poll(&mut fds, timeout).ok();
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if !events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            return Step::Nothing;
        }
        let mut buffer = vec![0; 65536];
        match file.read(&mut buffer) {
            Ok(0) if events.contains(PollFlags::POLLHUP) => Step::End,
            Ok(n) if n > 0 => {
                self.seen.extend_from_slice(&buffer[..n]);
                Step::Read
            }
            _ => Step::Nothing,
        }
    }
}

enum Step {
    Read,
    Nothing,
    End,
}
