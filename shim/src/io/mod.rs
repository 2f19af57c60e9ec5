//! The standard streams of a process: what the daemon names in a request becomes descriptors for the process
//! and copies between them and the daemon's FIFOs, files or log programs. Owns every such descriptor; may not
//! touch processes and their states. `container` calls it.

pub mod console;

mod binary;
mod copy;
mod name;
mod open;
mod outputs;
mod progress;
#[cfg(test)]
mod tests;
mod wait;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use hull_sys::tty::{self, Size};
use tokio::task::JoinSet;

use self::binary::{Logger, Writers};
use self::copy::Copy;
use self::name::Name;
use self::open::{Source, because};
use self::outputs::{Output, Outputs};
use self::progress::Progress;
use crate::error::{Error, Result};

/// The streams of one process, as the daemon's request names them.
#[derive(Clone, Debug, Default)]
pub struct Stdio {
    /// Where input comes from; empty for none.
    pub stdin: String,
    /// Where output goes: a path of a FIFO, or a URI (`fifo`, `file`, `binary`, `binary-v2`); empty for nowhere.
    pub stdout: String,
    /// Where errors go; unused with a terminal.
    pub stderr: String,
    /// One pseudo-terminal instead of three streams.
    pub terminal: bool,
}

/// Whose streams they are.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The daemon's namespace.
    pub namespace: String,
    /// The container; log programs are told.
    pub container: String,
    /// The user the pipes are given to.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The process's side; with a terminal, or for an unnamed stream, nothing (the null device is meant).
#[derive(Debug, Default)]
pub struct Ends {
    /// For reading.
    pub stdin: Option<OwnedFd>,
    /// For writing.
    pub stdout: Option<OwnedFd>,
    /// For writing.
    pub stderr: Option<OwnedFd>,
}

/// Our side, until it is dropped: the copies, and what keeps the daemon's FIFOs open.
#[derive(Debug, Default)]
pub struct Streams {
    /// What [`Self::start`] will copy.
    plan: RefCell<Plan>,
    /// The copies; they end with this.
    copies: RefCell<JoinSet<()>>,
    outputs: Rc<Outputs>,
    /// How far those have come that go to the daemon's FIFOs and files.
    progress: RefCell<Vec<Rc<Progress>>>,
    /// The write end of the daemon's FIFO for input.
    input: RefCell<Option<OwnedFd>>,
    /// For its size.
    console: RefCell<Option<OwnedFd>>,
    logger: RefCell<Option<Logger>>,
}

/// Copies that have not begun. Where a pipe is missing, the terminal takes its place.
#[derive(Debug, Default)]
struct Plan {
    input: Option<(OwnedFd, Option<OwnedFd>)>,
    outputs: Vec<Outgoing>,
}

#[derive(Debug)]
struct Outgoing {
    pipe: Option<OwnedFd>,
    sink: Option<OwnedFd>,
    output: Output,
}

impl Streams {
    /// Opens what the request names. Nothing is copied before [`Self::start`].
    ///
    /// # Errors
    /// What cannot be opened, by its name; nothing stays open.
    pub async fn open(stdio: &Stdio, owner: &Owner) -> Result<(Ends, Self)> {
        let names = Names::parse(stdio)?;
        let streams = Self::default();
        let mut ends = Ends::default();
        if let Some(source) = open::source(&names.stdin)? {
            ends.stdin = streams.plan_input(source, stdio.terminal, owner)?;
        }
        if let Name::Program(program) = &names.stdout {
            let (logger, writers) = Logger::start(program, owner, &streams.outputs).await?;
            streams.logger.replace(Some(logger));
            streams.plan_logged(writers, stdio.terminal, &mut ends)?;
        } else if stdio.terminal {
            streams.plan_output(None, open::sink(&names.stdout)?);
        } else {
            streams.plan_outputs(&names, owner, &mut ends)?;
        }
        Ok((ends, streams))
    }

    /// Answers the end of the process, if it has one.
    fn plan_input(&self, source: Source, terminal: bool, owner: &Owner) -> Result<Option<OwnedFd>> {
        let pipe = if terminal { None } else { Some(open::pipe(owner)?) };
        let (end, ours) = pipe.unzip();
        let ours = ours.map(open::unblock).transpose()?;
        self.plan.borrow_mut().input = Some((source.fd, ours));
        self.input.replace(source.held);
        Ok(end)
    }

    fn plan_output(&self, pipe: Option<OwnedFd>, sink: Option<OwnedFd>) {
        let output = self.outputs.add();
        self.plan.borrow_mut().outputs.push(Outgoing { pipe, sink, output });
    }

    /// The log program reads from the process itself, unless there is a terminal in between.
    fn plan_logged(&self, (out, err): Writers, terminal: bool, ends: &mut Ends) -> Result<()> {
        if terminal {
            self.plan_output(None, Some(open::unblock(out)?));
        } else {
            (ends.stdout, ends.stderr) = (Some(out), Some(err));
        }
        Ok(())
    }

    fn plan_outputs(&self, names: &Names, owner: &Owner, ends: &mut Ends) -> Result<()> {
        let out = open::sink(&names.stdout)?;
        // The same name twice is the same FIFO or file: it ends when both have.
        let err = open::sink(&names.stderr)?;
        for (sink, end) in [(out, &mut ends.stdout), (err, &mut ends.stderr)] {
            if let Some(sink) = sink {
                let (pipe, given) = open::pipe(owner)?;
                self.plan_output(Some(open::unblock(pipe)?), Some(sink));
                *end = Some(given);
            }
        }
        Ok(())
    }

    /// Begins to copy. With a terminal, `console` is its other end.
    ///
    /// # Errors
    /// When the console cannot be watched.
    pub fn start(&self, console: Option<OwnedFd>) -> Result<()> {
        let plan = self.plan.take();
        let console = console.map(open::unblock).transpose()?;
        let terminal = || console.as_ref().map(open::share).transpose();
        let order = Rc::default();
        for Outgoing { pipe, sink, output } in plan.outputs {
            let copy = match pipe {
                Some(pipe) => Some(Copy::output(pipe, sink).ordered(&order)),
                None => terminal()?.map(|terminal| Copy::screen(terminal, sink)),
            };
            self.copy(copy, Some(output));
        }
        if let Some((source, pipe)) = plan.input {
            let sink = pipe.map_or_else(terminal, |pipe| Ok(Some(pipe)))?;
            self.copy(sink.map(|sink| Copy::input(source, sink)), None);
        }
        self.console.replace(console);
        Ok(())
    }

    fn copy(&self, copy: Option<Copy>, output: Option<Output>) {
        let Some(copy) = copy else { return };
        if output.is_some() {
            self.progress.borrow_mut().extend(copy.progress().map(Rc::new));
        }
        self.copies.borrow_mut().spawn_local(async move {
            let sink = copy.run().await;
            if let Some(output) = output {
                drop(output);
                if let Some(sink) = sink {
                    progress::emptied(&sink).await;
                    progress::met(sink).await;
                }
            }
        });
    }

    /// Drops the write end of stdin that is held here: the process reads the end of input once the daemon's
    /// client has closed its own. Twice is no error.
    pub fn close_stdin(&self) {
        self.input.take();
    }

    /// Sets the size of the terminal; without one nothing is done.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let within = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let size = Size { rows: within(height), columns: within(width) };
        match &*self.console.borrow() {
            Some(console) => tty::set_size(console.as_fd(), size)
                .map_err(|why| because(format!("resize the terminal to {width}x{height}"), why)),
            None => Ok(()),
        }
    }

    /// Waits until the daemon has read what the process has written up to now, but not for a daemon that does
    /// not read: all outputs at once, for each such wait takes a second.
    pub async fn taken(&self) {
        let mut waits = JoinSet::new();
        for way in self.progress.borrow().iter().map(Rc::clone) {
            let goal = way.written();
            waits.spawn_local(async move { way.reaches(goal).await });
        }
        while waits.join_next().await.is_some() {}
    }

    /// Waits until all output has been handed over: every writer has closed its end, and what was in the
    /// pipes is copied.
    pub async fn drained(&self) {
        self.outputs.drained().await;
    }

    /// Ends the copies, drained or not, and closes everything; log programs are told to end.
    pub async fn close(&self) {
        drop(self.plan.take());
        self.close_stdin();
        self.console.take();
        let mut copies = self.copies.take();
        copies.shutdown().await;
        let logger = self.logger.take();
        if let Some(logger) = logger {
            logger.end().await;
        }
    }
}

/// The request, understood.
struct Names {
    stdin: Name,
    stdout: Name,
    stderr: Name,
}

impl Names {
    fn parse(stdio: &Stdio) -> Result<Self> {
        let stdin = Name::parse(&stdio.stdin)?;
        let stdout = Name::parse(&stdio.stdout)?;
        if stdio.terminal {
            return Ok(Self { stdin, stdout, stderr: Name::Nowhere });
        }
        // A file or a program for output takes errors too, also when the daemon names it only once.
        let takes_both = matches!(stdout, Name::File(_) | Name::Program(_));
        let once = takes_both && stdio.stderr.is_empty();
        let stderr = if once { stdout.clone() } else { Name::parse(&stdio.stderr)? };
        if stderr != stdout && matches!(stdout, Name::Program(_)) {
            let (out, err) = (&stdio.stdout, &stdio.stderr);
            return Err(Error::invalid(format!("stderr {err}: errors go to the log program, too ({out})")));
        }
        Ok(Self { stdin, stdout, stderr })
    }
}
