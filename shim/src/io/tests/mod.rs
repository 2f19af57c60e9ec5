//! Streams as the daemon, the process and the daemon's client see them. Each test is a behaviour.

mod fifo;
mod file;
mod program;
mod terminal;
mod whole;

use std::fs::{File, OpenOptions, metadata, read_to_string};
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::tty::{self, Size};
use hull_sys::{Errno, socket};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, read, write};
use tokio::io::Interest;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::console::ConsoleSocket;
use super::open::unblock;
use super::wait::Waited;
use super::{Ends, Owner, Stdio, Streams};

const SOON: Duration = Duration::from_secs(10);
pub(super) const A_WHILE: Duration = Duration::from_millis(60);
pub(super) const MEBIBYTE: usize = 1024 * 1024;

/// Runs a test the way the shim runs: one thread.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = async { timeout(6 * SOON, test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, all);
}

/// A directory of one test.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hull-io-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(super) fn fifo(&self, name: &str) -> String {
        mkfifo(&self.path(name), Mode::S_IRWXU).unwrap();
        self.name(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // A test that has failed may have left anything.
        let _gone = std::fs::remove_dir_all(&self.0).is_ok();
    }
}

fn owner() -> Owner {
    Owner { namespace: "space".into(), container: "box".into(), uid: 0, gid: 0 }
}

async fn open(stdin: &str, stdout: &str, stderr: &str) -> (Ends, Streams) {
    let stdio = Stdio { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), terminal: false };
    Streams::open(&stdio, &owner()).await.unwrap()
}

async fn open_terminal(stdin: &str, stdout: &str) -> Streams {
    let stdio = Stdio { stdin: stdin.into(), stdout: stdout.into(), stderr: String::new(), terminal: true };
    let (ends, streams) = Streams::open(&stdio, &owner()).await.unwrap();
    assert!(ends.stdin.is_none() && ends.stdout.is_none() && ends.stderr.is_none());
    streams
}

async fn refused(stdin: &str, stdout: &str, stderr: &str) -> crate::error::Error {
    let stdio = Stdio { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), terminal: false };
    Streams::open(&stdio, &owner()).await.unwrap_err()
}

fn reader(path: &str) -> Waited {
    Waited::new(
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap().into(),
        Interest::READABLE,
    )
}

fn writer(path: &str) -> Waited {
    Waited::new(
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap().into(),
        Interest::WRITABLE,
    )
}

pub(super) fn reads(end: Option<OwnedFd>) -> Waited {
    Waited::new(unblock(end.unwrap()).unwrap(), Interest::READABLE)
}

pub(super) fn writes(end: Option<OwnedFd>) -> Waited {
    Waited::new(unblock(end.unwrap()).unwrap(), Interest::WRITABLE)
}

pub(super) async fn put(to: &mut Waited, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(&*to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::EAGAIN) => to.changed().await.unwrap(),
            Err(why) => panic!("write: {why}"),
        }
    }
}

/// Up to `most` bytes; fewer at the end.
pub(super) async fn get(from: &mut Waited, most: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut room = vec![0; 65536];
    while got.len() < most {
        let free = room.len().min(most - got.len());
        match read(&*from, &mut room[..free]) {
            Ok(0) | Err(Errno::EIO) => break,
            Ok(length) => got.extend_from_slice(&room[..length]),
            Err(Errno::EAGAIN) => timeout(SOON, from.changed()).await.expect("nothing comes").unwrap(),
            Err(why) => panic!("read: {why}"),
        }
    }
    got
}

async fn text(from: &mut Waited, most: usize) -> String {
    String::from_utf8(get(from, most).await).unwrap()
}

/// Whether nothing comes, not even the end.
async fn silent(from: &Waited) -> bool {
    sleep(A_WHILE).await;
    read(from, &mut [0]) == Err(Errno::EAGAIN)
}

/// Whether nobody holds the read end any more; a child that another test has just started may, until it execs.
async fn broken(end: &OwnedFd) -> bool {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if write(end, b"x") == Err(Errno::EPIPE) {
            return true;
        }
        sleep(Duration::from_millis(5)).await;
    }
    false
}

async fn drained(streams: &Streams) {
    timeout(SOON, streams.drained()).await.expect("outputs do not end");
}

pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251).to_le_bytes()[0] ^ (at / 4096).to_le_bytes()[0]).collect()
}

/// A terminal without any processing: master, slave.
pub(super) fn terminal() -> (OwnedFd, OwnedFd) {
    let master = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx");
    let master = OwnedFd::from(master.unwrap());
    tty::unlock(master.as_fd()).unwrap();
    let slave = tty::peer(master.as_fd()).unwrap();
    tty::set_raw(slave.as_fd()).unwrap();
    (master, slave)
}

/// How long this thread has worked.
fn busy() -> Duration {
    let text = read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// How often this thread has gone to sleep.
fn sleeps() -> u64 {
    let text = read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// The URI of a log program that is this shell script.
fn script(scheme: &str, text: &str) -> String {
    let text: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("{scheme}:///bin/sh?-c={text}")
}

/// Tests that look at the whole process run in one of their own: answers whether this is it.
fn alone(name: &str) -> bool {
    if std::env::var_os("HULL_TEST_ALONE").is_some() {
        return true;
    }
    let (_crate, name) = name.split_once("::").unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let status = command.args(["--exact", name]).env("HULL_TEST_ALONE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
