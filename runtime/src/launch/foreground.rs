//! What `run` and `exec` do while the program runs in front of a person: pass signals and terminal input on,
//! and wait for the end. It owns the caller's terminal settings for that time. Called by `cli`.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::{self, Exit};
use hull_sys::signal::{self, Interest};
use hull_sys::{Errno, pidfd, socket, tty};

use crate::error::{Error, ErrorKind, Field, Result, internal, io_words};

/// The caller's terminal, in raw mode until this is dropped.
pub struct Terminal {
    /// The caller's.
    own: std::fs::File,
    settings: tty::Settings,
    /// The container's.
    master: std::fs::File,
}

/// The terminal this process sits at: the first of stdin, stdout, stderr that is one, else `/dev/tty`.
fn own_terminal() -> Result<std::fs::File> {
    let stdio = [
        std::io::stdin().as_fd().try_clone_to_owned(),
        std::io::stdout().as_fd().try_clone_to_owned(),
        std::io::stderr().as_fd().try_clone_to_owned(),
    ];
    if let Some(own) = stdio.into_iter().flatten().find(|fd| fd.is_terminal()) {
        return Ok(own.into());
    }
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|error| {
        let why = io_words(&error);
        Error::new(ErrorKind::TerminalMissing, format!("process.terminal is set but hull has no terminal: open /dev/tty: {why}"))
            .hint("run it from a terminal, set process.terminal to false, or use --console-socket with create or --detach")
            .field(Field::named("process.terminal"))
    })
}

/// The pair of sockets over which the container's side sends its pty to us; fails at once when there is no
/// terminal here.
pub fn console() -> Result<(OwnedFd, OwnedFd)> {
    own_terminal()?;
    socket::pair().map_err(|errno| internal("create a socket pair", errno))
}

impl Terminal {
    /// Takes the pty that the container's side has sent, and puts our own terminal in front of it.
    pub fn receive(console: BorrowedFd<'_>) -> Result<Self> {
        let mut name = [0; 64];
        let (_, master) =
            socket::receive(console, &mut name).map_err(|errno| internal("receive the terminal", errno))?;
        let master = master.ok_or_else(|| internal("receive the terminal", Errno::ENODATA))?;
        let own = own_terminal()?;
        let settings =
            tty::settings(own.as_fd()).map_err(|errno| internal("read the terminal's settings", errno))?;
        let terminal = Self { own, settings, master: master.into() };
        terminal.resize();
        // Ours makes lines of what it shows; whoever reads a pipe gets what the program wrote.
        tty::keep_newlines(terminal.master.as_fd())
            .map_err(|errno| internal("set the container's terminal", errno))?;
        tty::set_raw_input(terminal.own.as_fd()).map_err(|errno| internal("set the terminal", errno))?;
        Ok(terminal)
    }

    /// Gives the container's terminal the size of ours. A terminal that has none keeps what it has.
    fn resize(&self) {
        if let Ok(size) = tty::size(self.own.as_fd()) {
            let _kept = tty::set_size(self.master.as_fd(), size).is_ok();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing better can be done for a terminal that is gone.
        let _gone = tty::restore(self.own.as_fd(), &self.settings).is_ok();
    }
}

/// Signals that are passed on to the container. The others act on us alone.
const PASSED: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGWINCH,
];

/// Blocks the signals that will be passed on; from then on none of them ends us. To be called before the
/// program runs.
pub fn watch() -> Result<OwnedFd> {
    signal::watch(&PASSED).map_err(|errno| internal("watch for signals", errno))
}

/// Waits for the end of the process behind `child`, passing on what happens here.
pub fn wait(child: BorrowedFd<'_>, signals: BorrowedFd<'_>, mut terminal: Option<Terminal>) -> Result<Exit> {
    let mut input_open = true;
    loop {
        let quiet = Interest { fd: signals, events: 0 };
        let interest = |fd, on: bool| if on { Interest { fd, events: libc::POLLIN } } else { quiet };
        let (own, master) = match &terminal {
            Some(terminal) => {
                (interest(terminal.own.as_fd(), input_open), interest(terminal.master.as_fd(), true))
            }
            None => (quiet, quiet),
        };
        let watched = [interest(child, true), interest(signals, true), own, master];
        let [ended, signalled, typed, printed] =
            signal::poll(watched, -1).map_err(|errno| internal("wait for the container", errno))?;
        if signalled != 0 {
            pass_signals(child, signals, terminal.as_ref())?;
        }
        if let Some(terminal) = &mut terminal {
            if printed != 0 {
                copy(&terminal.master, &std::io::stdout());
            }
            if typed != 0 && !copy(&terminal.own, &terminal.master) {
                input_open = false;
            }
        }
        if ended != 0 && printed & libc::POLLIN == 0 {
            let exit =
                process::wait(child, true).map_err(|errno| internal("wait for the container", errno))?;
            return Ok(exit.unwrap_or(Exit::Code(0)));
        }
    }
}

/// Sends what has come by `signals` (a signalfd) to the process behind `child`.
pub(super) fn pass_signals(
    child: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
    terminal: Option<&Terminal>,
) -> Result<()> {
    while let Some(number) = signal::next(signals).map_err(|errno| internal("read a signal", errno))? {
        match terminal {
            Some(terminal) if number == libc::SIGWINCH => terminal.resize(),
            // It may have ended just now.
            _ => drop(pidfd::signal(child, number).is_ok()),
        }
    }
    Ok(())
}

/// Copies what is there; false at the end.
fn copy(mut from: &std::fs::File, to: &impl AsFd) -> bool {
    let mut buffer = [0_u8; 8192];
    match std::io::Read::read(&mut from, &mut buffer) {
        Ok(length @ 1..) => {
            let mut rest = buffer.get(..length).unwrap_or(&[]);
            while !rest.is_empty() {
                match hull_sys::fs::write_some(to.as_fd(), rest) {
                    Ok(done) => rest = rest.get(done..).unwrap_or(&[]),
                    Err(Errno::EINTR) => {}
                    Err(_gone) => return false,
                }
            }
            true
        }
        _ => false,
    }
}
