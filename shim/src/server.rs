//! The server: one thread and one event loop, until the daemon says that it is over. It owns the socket, the
//! signals and the order of the end. `main` calls it; `start` has made its socket and is gone.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hull_sys::process;
use tokio::net::UnixListener;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::connection::Connections;
use crate::error::{Error, Result};
use crate::events::Outbox;
use crate::flags::Flags;
use crate::log::{self, Level};
use crate::task::Shim;
use crate::{service, start};

/// How long the end waits for the daemon to take the last events.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// How long a daemon may take from `start` to its first Create.
const FIRST_USE: Duration = Duration::from_secs(120);
/// How long the answer to the last request may take to leave: it is written before the loop comes to rest.
const LAST_ANSWER: Duration = Duration::from_millis(2);

/// Serves on the socket that is our standard input.
///
/// # Errors
/// What cannot be had at the start; nothing ends a server that has begun but the daemon's word.
pub fn serve(flags: &Flags) -> Result<()> {
    let listener = take_socket()?;
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
    let done = serve_on(flags, listener, path.clone());
    if let (Err(_), Some(path)) = (&done, path) {
        // One that has served has taken it away itself, and another may have it by now.
        let _removed = start::withdraw(&path).is_ok();
    }
    done
}

fn serve_on(flags: &Flags, listener: StdListener, path: Option<PathBuf>) -> Result<()> {
    let bundle = std::env::current_dir().map_err(|why| Error::failed("find the bundle", why))?;
    log::open(&bundle, flags.debug);
    process::become_subreaper().map_err(|why| Error::failed("become a subreaper", why.desc()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|why| Error::failed("create an event loop", why))?;
    tokio::task::LocalSet::new().block_on(&runtime, run(flags, listener, path))
}

async fn run(flags: &Flags, listener: StdListener, path: Option<PathBuf>) -> Result<()> {
    let address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let shim = Shim::new(&flags.namespace, Outbox::new(&flags.namespace, &address));
    shim.socket.replace(path);
    watch_signals(&shim)?;
    tokio::task::spawn_local(end_unless_used(Rc::clone(&shim)));
    tokio::task::spawn_local(Rc::clone(&shim.outbox).run());
    let (jobs, mut todo) = mpsc::unbounded_channel::<service::Job>();
    let listener = UnixListener::from_std(listener).map_err(|why| Error::failed("watch the socket", why))?;
    let mut server = Server::new()
        .add_listener(Listener::new(Connections::of(listener, Arc::clone(&shim.connected))))
        .register_service(service::services(&jobs));
    server.start().await.map_err(|why| Error::failed("serve", why))?;
    log::line(Level::Info, &format!("serving group of {}, pid {}", flags.id, std::process::id()));
    loop {
        tokio::select! {
            job = todo.recv() => {
                if let Some(job) = job {
                    job(Rc::clone(&shim));
                }
            }
            () = shim.over.notified() => break,
        }
    }
    // The answer to Shutdown leaves first.
    tokio::time::sleep(LAST_ANSWER).await;
    server.stop_listen().await;
    shim.outbox.flush(LAST_EVENTS).await;
    log::line(Level::Info, "over");
    Ok(())
}

/// A daemon that was killed between `start` and Create knows nothing of us.
async fn end_unless_used(shim: Rc<Shim>) {
    tokio::time::sleep(FIRST_USE).await;
    if shim.is_unused() {
        log::line(Level::Warning, "no container was created: exiting");
        shim.end();
    }
}

/// Nobody ends containers by a signal to their shim: it stays as long as it keeps one.
fn on_signal(shim: &Rc<Shim>, number: i32) {
    match number {
        libc::SIGCHLD => shim.reaper.reap_orphans(),
        libc::SIGUSR1 => {
            let lines = shim.describe();
            log::line(Level::Info, &format!("{} containers", lines.len()));
            lines.iter().for_each(|line| log::line(Level::Info, line));
        }
        libc::SIGTERM | libc::SIGINT if shim.is_empty() => shim.end(),
        _ => log::line(Level::Info, &format!("signal {number}: ignored, containers are kept")),
    }
}

/// Signals that would end us, and mean nothing here. Those for real time follow them.
const IGNORED: [i32; 8] = [
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// By handlers, not by blocking or ignoring them: a handler is gone in what we start, the others are not.
fn watch_signals(shim: &Rc<Shim>) -> Result<()> {
    for number in IGNORED.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // The handler stays when nobody listens to it.
        let stream = unix::signal(SignalKind::from_raw(number));
        drop(stream.map_err(|why| Error::failed(format!("watch for signal {number}"), why))?);
    }
    let all = [
        SignalKind::child(),
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    all.into_iter().try_for_each(|kind| {
        let mut coming = unix::signal(kind).map_err(|why| Error::failed("watch for signals", why))?;
        let shim = Rc::clone(shim);
        tokio::task::spawn_local(async move {
            while coming.recv().await.is_some() {
                on_signal(&shim, kind.as_raw_value());
            }
        });
        Ok(())
    })
}

/// Our socket is our standard input; what we start gets another.
fn take_socket() -> Result<StdListener> {
    let failed = |why: &dyn std::fmt::Display| Error::failed("take over the socket", why);
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(|why| failed(&why))?;
    let null = std::fs::File::open("/dev/null").map_err(|why| failed(&why))?;
    hull_sys::fs::replace_stdio(null.as_fd(), 0).map_err(|why| failed(&why.desc()))?;
    let listener = StdListener::from(socket);
    listener.local_addr().map_err(|_other| {
        Error::other(
            "standard input is not a socket: only the shim itself runs this form; use the action start",
        )
    })?;
    listener.set_nonblocking(true).map_err(|why| failed(&why))?;
    Ok(listener)
}
