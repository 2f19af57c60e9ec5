//! Log programs: started with the read ends of the process's pipes, waited for, told to end. They read from the
//! pipes themselves; no byte comes through here. Owns the program, and nothing of the process. `Streams` calls.
//!
//! | descriptor of the program | what |
//! |---|---|
//! | 3, 4 | standard output, standard error of the process, for reading |
//! | 5 | a byte written to it, or its close, says that the program is ready |

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Duration;

use hull_sys::exec::Strings;
use hull_sys::spawn::{self, spawn};
use hull_sys::{pidfd, process, socket};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Owner;
use super::name::Program;
use super::open::{because, failed, pipe, unblock};
use super::outputs::{Output, Outputs};
use super::progress;
use super::wait::Waited;
use crate::error::{Error, Result};

/// How long a program may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long a program that has read the end of its input may take to end by itself.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a program may take to end once it is told.
const END_LIMIT: Duration = Duration::from_secs(12);

/// A running log program. It is told to end when this is dropped.
#[derive(Debug)]
pub(super) struct Logger {
    stop: oneshot::Sender<()>,
    over: JoinHandle<()>,
}

/// The write ends of a process's pipes: its standard output and standard error.
pub(super) type Writers = (OwnedFd, OwnedFd);

impl Logger {
    /// Starts the program and waits until it is ready.
    pub(super) async fn start(
        program: &Program,
        owner: &Owner,
        outputs: &Rc<Outputs>,
    ) -> Result<(Self, Writers)> {
        let (out, out_writer) = pipe(owner)?;
        let (err, err_writer) = pipe(owner)?;
        let (ready, ready_writer) =
            socket::pipe().map_err(|why| because("create a pipe for a log program", why))?;
        let handle = execute(program, owner, [out.as_fd(), err.as_fd(), ready_writer.as_fd()])?;
        drop(ready_writer);
        let handle = Waited::new(handle, Interest::READABLE);
        let (stop, stopped) = oneshot::channel();
        let over = tokio::task::spawn_local(keep(handle, [out, err], stopped, outputs.add()));
        let logger = Self { stop, over };
        until_ready(program, unblock(ready)?).await?;
        Ok((logger, (out_writer, err_writer)))
    }

    /// Tells it to end, and waits until it has.
    pub(super) async fn end(self) {
        drop(self.stop);
        let _ended = self.over.await.is_ok();
    }
}

fn execute(program: &Program, owner: &Owner, own: [BorrowedFd<'_>; 3]) -> Result<OwnedFd> {
    let what = || format!("execute log program {}", program.path.display());
    let null =
        File::options().read(true).write(true).open("/dev/null").map_err(|why| failed(what(), &why))?;
    let path = program.path.as_os_str().as_bytes();
    let env = [("CONTAINER_ID", &owner.container), ("CONTAINER_NAMESPACE", &owner.namespace)];
    let env = env.map(|(key, value)| format!("{key}={value}").into_bytes()).to_vec();
    let words = [vec![path.to_vec()], program.args.clone()].concat();
    let strings =
        |texts: Vec<Vec<u8>>| texts.into_iter().map(string).collect::<Result<_>>().map(Strings::new);
    let [out, err, ready] = own;
    spawn(&spawn::Program {
        path: &string(path.to_vec())?,
        args: &strings(words)?,
        env: &strings(env)?,
        descriptors: [null.as_fd(), null.as_fd(), null.as_fd(), out, err, ready],
    })
    .map_err(|why| because(what(), why))
}

fn string(text: Vec<u8>) -> Result<CString> {
    CString::new(text).map_err(|null| Error::invalid(format!("execute a log program: {null}")))
}

/// Waits for the byte, or for the end without one.
async fn until_ready(program: &Program, pipe: OwnedFd) -> Result<()> {
    let mut pipe = Waited::new(pipe, Interest::READABLE);
    let answer = async {
        pipe.until(libc::POLLIN | libc::POLLHUP).await;
        read(&pipe, &mut [0])
    };
    let name = program.path.display();
    match timeout(READY_LIMIT, answer).await {
        Err(_) => {
            Err(Error::other(format!("log program {name}: not ready within {} s", READY_LIMIT.as_secs())))
        }
        Ok(Err(why)) => Err(because(format!("log program {name}: wait until it is ready"), why)),
        Ok(Ok(0)) if program.says_ready => {
            Err(Error::other(format!("log program {name}: did not call ready")))
        }
        Ok(Ok(_)) => Ok(()),
    }
}

/// Holds the pipes until the program has taken everything, then waits until it ends or is to end.
async fn keep(mut program: Waited, pipes: [OwnedFd; 2], mut stopped: oneshot::Receiver<()>, output: Output) {
    let served = tokio::select! {
        // The pipes are closed with it: a process must not fill one that nobody will ever read.
        () = ended(&mut program) => true,
        () = taken(pipes) => true,
        _ = &mut stopped => false,
    };
    drop(output);
    if served {
        tokio::select! {
            () = ended(&mut program) => {}
            _ = stopped => {}
        }
    }
    end(program, if served { FAREWELL } else { Duration::ZERO }).await;
}

/// Ends the program, if it does not end by itself within `patience`, and reaps it.
async fn end(mut program: Waited, patience: Duration) {
    for (limit, number) in [(patience, libc::SIGTERM), (END_LIMIT, libc::SIGKILL)] {
        if timeout(limit, ended(&mut program)).await.is_ok() {
            break;
        }
        // One that has just ended needs no signal.
        let _sent = pidfd::signal(program.as_fd(), number).is_ok();
    }
    ended(&mut program).await;
    // Whoever reaps the orphans may have been faster.
    let _ours = process::wait(program.as_fd(), false).is_ok();
}

/// A pidfd is readable from the end of its process on.
async fn ended(program: &mut Waited) {
    program.until(libc::POLLIN).await;
}

/// Waits until nobody writes to the pipes any more and the program has read what was in them.
async fn taken(pipes: [OwnedFd; 2]) {
    for pipe in pipes {
        // Bytes do not wake this: only the leaving of the last writer does.
        let mut pipe = Waited::new(pipe, Interest::PRIORITY);
        pipe.until(libc::POLLHUP).await;
        progress::emptied(pipe.fd()).await;
    }
}
