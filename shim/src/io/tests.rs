//! Streams as the daemon, the process and the daemon's client see them. Each test is a behaviour.

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
        std::fs::remove_dir_all(&self.0).unwrap();
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

#[test]
fn without_names_there_are_no_ends_and_nothing_to_wait_for() {
    run(async {
        let (ends, streams) = open("", "", "").await;
        assert!(ends.stdin.is_none() && ends.stdout.is_none() && ends.stderr.is_none());
        streams.start(None).unwrap();
        drained(&streams).await;
        streams.resize(80, 25).unwrap();
        streams.close_stdin();
        streams.close().await;
    });
}

#[test]
fn output_goes_to_its_fifo_and_ends_with_the_last_writer() {
    run(async {
        let dir = Dir::new("output");
        let (out, err) = (dir.fifo("out"), dir.fifo("err"));
        let (ends, streams) = open("", &out, &format!("fifo://{err}")).await;
        streams.start(None).unwrap();
        let (mut from_out, mut from_err) = (reader(&out), reader(&err));
        let (mut to_out, mut to_err) = (writes(ends.stdout), writes(ends.stderr));
        put(&mut to_out, b"one").await;
        put(&mut to_err, b"two").await;
        assert_eq!(text(&mut from_out, 3).await, "one");
        assert_eq!(text(&mut from_err, 3).await, "two");
        drop(to_out);
        assert_eq!(text(&mut from_out, 1).await, "", "the client sees the end before close");
        assert!(timeout(A_WHILE, streams.drained()).await.is_err(), "errors have not ended");
        drop(to_err);
        drained(&streams).await;
        assert_eq!(text(&mut from_err, 1).await, "");
    });
}

#[test]
fn nothing_is_copied_before_start() {
    run(async {
        let dir = Dir::new("start");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        assert!(ends.stderr.is_none());
        let (mut from, mut to) = (reader(&out), writes(ends.stdout));
        put(&mut to, b"x").await;
        assert!(silent(&from).await);
        streams.start(None).unwrap();
        assert_eq!(text(&mut from, 1).await, "x");
    });
}

#[test]
fn input_ends_when_both_the_client_and_our_own_end_are_closed() {
    run(async {
        let dir = Dir::new("input");
        let input = dir.fifo("in");
        for client_first in [true, false] {
            let (ends, streams) = open(&input, "", "").await;
            streams.start(None).unwrap();
            let mut from = reads(ends.stdin);
            assert!(silent(&from).await, "no client yet is no end");
            let mut client = writer(&input);
            put(&mut client, b"hello").await;
            assert_eq!(text(&mut from, 5).await, "hello");
            if client_first {
                drop(client);
                assert!(silent(&from).await, "a client may come back");
                let mut client = writer(&input);
                put(&mut client, b"again").await;
                assert_eq!(text(&mut from, 5).await, "again");
                drop(client);
                streams.close_stdin();
            } else {
                streams.close_stdin();
                put(&mut client, b"after").await;
                assert_eq!(text(&mut from, 5).await, "after");
                assert!(silent(&from).await, "the client still writes");
                drop(client);
            }
            streams.close_stdin();
            assert_eq!(text(&mut from, 1).await, "");
            drained(&streams).await;
            streams.close().await;
        }
    });
}

#[test]
fn input_that_is_not_read_waits_and_is_whole() {
    run(async {
        let dir = Dir::new("much-input");
        let input = dir.fifo("in");
        let (ends, streams) = open(&input, "", "").await;
        streams.start(None).unwrap();
        let mut client = writer(&input);
        let sent = tokio::task::spawn_local(async move { put(&mut client, &pattern(MEBIBYTE)).await });
        sleep(A_WHILE).await;
        assert!(!sent.is_finished());
        streams.close_stdin();
        assert!(get(&mut reads(ends.stdin), usize::MAX).await == pattern(MEBIBYTE));
    });
}

#[test]
fn a_process_that_ignores_its_input_ends_the_copy_only() {
    run(async {
        let dir = Dir::new("ignored-input");
        let (input, out) = (dir.fifo("in"), dir.fifo("out"));
        let (ends, streams) = open(&input, &out, "").await;
        streams.start(None).unwrap();
        drop(ends.stdin);
        let mut client = writer(&input);
        put(&mut client, b"for nobody").await;
        sleep(A_WHILE).await;
        put(&mut writes(ends.stdout), b"still here").await;
        assert_eq!(text(&mut reader(&out), 10).await, "still here");
        drained(&streams).await;
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_and_loses_nothing() {
    run(async {
        let dir = Dir::new("slow");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        streams.start(None).unwrap();
        let mut to = writes(ends.stdout);
        let all = pattern(MEBIBYTE);
        let mut written = 0;
        // Two pipes of 64 KiB are all there is.
        while let Ok(Ok(length)) = timeout(A_WHILE, async {
            loop {
                match write(&to, &all[written..]) {
                    Err(Errno::EAGAIN) => to.changed().await.unwrap(),
                    done => return done,
                }
            }
        })
        .await
        {
            written += length;
        }
        assert!(written <= 128 * 1024, "{written} bytes taken");
        let rest = all[written..].to_vec();
        tokio::task::spawn_local(async move { put(&mut to, &rest).await });
        assert!(get(&mut reader(&out), usize::MAX).await == all);
        drained(&streams).await;
    });
}

#[test]
fn a_reader_that_goes_and_comes_back_misses_nothing() {
    run(async {
        let dir = Dir::new("back");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        streams.start(None).unwrap();
        let mut to = writes(ends.stdout);
        let mut first = reader(&out);
        put(&mut to, b"before ").await;
        assert_eq!(text(&mut first, 3).await, "bef");
        drop(first);
        put(&mut to, b"meanwhile ").await;
        sleep(A_WHILE).await;
        let all = pattern(MEBIBYTE / 2);
        let much = all.clone();
        let sent = tokio::task::spawn_local(async move { put(&mut to, &much).await });
        sleep(A_WHILE).await;
        let mut second = reader(&out);
        assert_eq!(text(&mut second, 14).await, "ore meanwhile ");
        let half = get(&mut second, MEBIBYTE / 4).await;
        drop(second);
        sleep(A_WHILE).await;
        let rest = get(&mut reader(&out), usize::MAX).await;
        assert!([half, rest].concat() == all);
        sent.await.unwrap();
        drained(&streams).await;
    });
}

#[test]
fn what_is_left_of_an_ended_process_waits_for_a_reader_without_work() {
    run(async {
        let dir = Dir::new("tail");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        streams.start(None).unwrap();
        let mut to = writes(ends.stdout);
        let all = pattern(100 * 1024);
        put(&mut to, &all).await;
        drop(to);
        sleep(A_WHILE).await;
        let before = busy();
        assert!(timeout(4 * A_WHILE, streams.drained()).await.is_err());
        assert!(busy() - before < A_WHILE / 3, "it spins");
        assert!(get(&mut reader(&out), usize::MAX).await == all);
        drained(&streams).await;
    });
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

#[test]
fn idle_streams_wake_nobody() {
    run(async {
        let dir = Dir::new("idle");
        let (input, out) = (dir.fifo("in"), dir.fifo("out"));
        let (ends, streams) = open(&input, &out, &out).await;
        let (_logged, logging) = open("", &script("binary", "exec 5>&-; cat <&3"), "").await;
        let shown = open_terminal(&input, &out).await;
        let (master, slave) = terminal();
        streams.start(None).unwrap();
        logging.start(None).unwrap();
        shown.start(Some(master)).unwrap();
        let mut client = reader(&out);
        put(&mut writes(ends.stdout), b"one").await;
        put(&mut writes(Some(slave.try_clone().unwrap())), b"two").await;
        assert_eq!(get(&mut client, 6).await.len(), 6);
        put(&mut writer(&input), b"three").await;
        drop(client);
        sleep(A_WHILE).await;
        let before = sleeps();
        sleep(4 * A_WHILE).await;
        // One is the sleep of this test.
        assert!(sleeps() - before <= 2, "{} times", sleeps() - before);
    });
}

#[test]
fn both_outputs_may_share_a_fifo_which_ends_with_the_last() {
    run(async {
        let dir = Dir::new("shared");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, &out).await;
        streams.start(None).unwrap();
        let mut from = reader(&out);
        put(&mut writes(ends.stdout), b"one").await;
        assert_eq!(text(&mut from, 3).await, "one");
        assert!(silent(&from).await);
        put(&mut writes(ends.stderr), b"two").await;
        assert_eq!(text(&mut from, usize::MAX).await, "two");
        drained(&streams).await;
    });
}

#[test]
fn a_file_uri_takes_both_outputs_behind_what_is_there() {
    run(async {
        let dir = Dir::new("file");
        let log = dir.path("new/deep/log");
        let uri = format!("file://{}", log.display());
        for (stderr, expected) in [(uri.as_str(), "outerr"), ("", "outerrouterr")] {
            let (ends, streams) = open("", &uri, stderr).await;
            streams.start(None).unwrap();
            put(&mut writes(ends.stdout), b"out").await;
            sleep(A_WHILE).await;
            put(&mut writes(ends.stderr), b"err").await;
            drained(&streams).await;
            streams.close().await;
            assert_eq!(read_to_string(&log).unwrap(), expected);
        }
        assert_eq!(metadata(&log).unwrap().permissions().mode() & 0o133, 0);
    });
}

#[test]
fn a_plain_file_is_appended_to_also_after_it_was_cut() {
    run(async {
        let dir = Dir::new("plain");
        let log = dir.name("log");
        std::fs::write(&log, "old ").unwrap();
        let (ends, streams) = open("", &log, &log).await;
        streams.start(None).unwrap();
        let mut to = writes(ends.stdout);
        put(&mut to, b"new").await;
        sleep(A_WHILE).await;
        assert_eq!(read_to_string(&log).unwrap(), "old new");
        File::create(&log).unwrap();
        put(&mut to, b"rotated").await;
        drop(to);
        put(&mut writes(ends.stderr), &pattern(MEBIBYTE)).await;
        drained(&streams).await;
        let text = std::fs::read(&log).unwrap();
        assert_eq!(&text[..7], b"rotated");
        assert!(text[7..] == pattern(MEBIBYTE));
    });
}

#[test]
fn a_full_disk_loses_output_but_does_not_stop_the_process() {
    run(async {
        let (ends, streams) = open("", "/dev/full", "/dev/null").await;
        streams.start(None).unwrap();
        put(&mut writes(ends.stdout), &pattern(MEBIBYTE)).await;
        put(&mut writes(ends.stderr), &pattern(MEBIBYTE)).await;
        drained(&streams).await;
    });
}

#[test]
fn what_cannot_be_opened_is_named() {
    run(async {
        let dir = Dir::new("missing");
        let missing = dir.name("missing");
        for uri in [missing.clone(), format!("fifo://{missing}")] {
            for (stdin, stdout, stderr) in [(&*uri, "", ""), ("", &uri, ""), ("", "", &uri)] {
                let error = refused(stdin, stdout, stderr).await;
                assert_eq!(error.message, format!("open stream {missing}: no such file or directory"));
            }
        }
        assert!(!Path::new(&missing).exists());
        std::fs::write(&missing, "").unwrap();
        assert!(refused("", &format!("fifo://{missing}"), "").await.message.contains("not a FIFO"));
        assert!(refused(&format!("file://{missing}"), "", "").await.message.contains("FIFO only"));
        let other = refused("", "/dev/null", "ttrpc+unix:///s?streaming_id=1").await;
        assert_eq!(other.code, ttrpc::Code::UNIMPLEMENTED);
        let mixed = refused("", "binary:///bin/true", "/dev/null").await;
        assert!(mixed.message.contains("log program"), "{mixed}");
    });
}

#[test]
fn pipes_belong_to_the_owner() {
    run(async {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let dir = Dir::new("owner");
        let (input, out) = (dir.fifo("in"), dir.fifo("out"));
        let stdio = Stdio { stdin: input, stdout: out.clone(), stderr: out, terminal: false };
        let owner = Owner { uid: 1234, gid: 5678, ..owner() };
        let (ends, _streams) = Streams::open(&stdio, &owner).await.unwrap();
        for end in [ends.stdin, ends.stdout, ends.stderr] {
            let meta = File::from(end.unwrap()).metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 5678));
            assert!(meta.file_type().is_fifo());
        }
    });
}

#[test]
fn the_ends_of_a_process_block_and_close_on_exec() {
    run(async {
        let dir = Dir::new("flags");
        let (input, out) = (dir.fifo("in"), dir.fifo("out"));
        let (ends, _streams) = open(&input, &out, &out).await;
        for end in [ends.stdin, ends.stdout, ends.stderr].map(Option::unwrap) {
            use nix::fcntl::{FcntlArg, fcntl};
            assert_eq!(fcntl(&end, FcntlArg::F_GETFL).unwrap() & libc::O_NONBLOCK, 0);
            assert_eq!(fcntl(&end, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
        }
    });
}

/// The URI of a log program that is this shell script.
fn script(scheme: &str, text: &str) -> String {
    let text: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("{scheme}:///bin/sh?-c={text}")
}

#[test]
fn a_log_program_gets_both_outputs_and_ends_after_them() {
    run(async {
        let dir = Dir::new("program");
        let place = dir.0.display();
        let text = format!(
            "ls /proc/self/fd > {place}/fds; echo $CONTAINER_ID $CONTAINER_NAMESPACE > {place}/env; \
             echo >&5; exec 5>&-; cat <&3 > {place}/out; cat <&4 > {place}/err; sleep 0.1; echo > {place}/end"
        );
        for scheme in ["binary", "binary-v2"] {
            let (ends, streams) = open("", &script(scheme, &text), "").await;
            streams.start(None).unwrap();
            // 6 is the directory that is listed.
            assert_eq!(read_to_string(dir.path("fds")).unwrap(), "0\n1\n2\n3\n4\n5\n6\n");
            assert_eq!(read_to_string(dir.path("env")).unwrap(), "box space\n");
            let (mut to_out, mut to_err) = (writes(ends.stdout), writes(ends.stderr));
            put(&mut to_out, &pattern(MEBIBYTE)).await;
            drop(to_out);
            put(&mut to_err, b"errors").await;
            assert!(timeout(A_WHILE, streams.drained()).await.is_err());
            drop(to_err);
            drained(&streams).await;
            streams.close().await;
            assert!(std::fs::read(dir.path("out")).unwrap() == pattern(MEBIBYTE));
            assert_eq!(read_to_string(dir.path("err")).unwrap(), "errors");
            // It was left the time to end by itself.
            std::fs::remove_file(dir.path("end")).unwrap();
        }
    });
}

#[test]
fn a_log_program_that_does_not_end_is_told_to() {
    run(async {
        let dir = Dir::new("told");
        let text = format!(
            "trap 'echo > {}/told; exit' TERM; exec 5>&-; while :; do sleep 0.05; done",
            dir.0.display()
        );
        for drained_before in [true, false] {
            let (ends, streams) = open("", &script("binary", &text), "").await;
            streams.start(None).unwrap();
            if drained_before {
                drop(ends);
                drained(&streams).await;
            }
            let start = Instant::now();
            streams.close().await;
            assert!(start.elapsed() < SOON);
            std::fs::remove_file(dir.path("told")).unwrap();
        }
    });
}

#[test]
fn a_log_program_that_has_gone_breaks_the_pipe() {
    run(async {
        let (ends, streams) = open("", &script("binary", "exit 1"), "").await;
        streams.start(None).unwrap();
        drained(&streams).await;
        assert!(broken(&ends.stdout.unwrap()).await);
        streams.close().await;
    });
}

#[test]
fn a_log_program_that_is_not_ready_is_an_error() {
    run(async {
        let error = refused("", &script("binary-v2", "exit 0"), "").await;
        assert_eq!(error.message, "log program /bin/sh: did not call ready");
        let error = refused("", "binary:///nowhere/log", "").await;
        assert_eq!(error.message, "execute log program /nowhere/log: no such file or directory");
    });
}

#[test]
fn a_terminal_is_copied_both_ways_and_can_be_resized() {
    run(async {
        let dir = Dir::new("terminal");
        let (input, out) = (dir.fifo("in"), dir.fifo("out"));
        let streams = open_terminal(&input, &out).await;
        let (master, slave) = terminal();
        streams.start(Some(master)).unwrap();
        let mut process = reads(Some(slave));
        let (mut client, mut screen) = (writer(&input), reader(&out));
        put(&mut client, b"typed").await;
        assert_eq!(text(&mut process, 5).await, "typed");
        put(&mut process, b"shown").await;
        assert_eq!(text(&mut screen, 5).await, "shown");
        streams.resize(132, 43).unwrap();
        assert_eq!(tty::size(process.as_fd()).unwrap(), Size { rows: 43, columns: 132 });
        streams.close_stdin();
        drop(client);
        sleep(A_WHILE).await;
        put(&mut process, b"still").await;
        assert_eq!(text(&mut screen, 5).await, "still", "the end of input is not the end of the terminal");
        assert!(timeout(A_WHILE, streams.drained()).await.is_err());
        put(&mut process, b"tail").await;
        drop(process);
        assert_eq!(text(&mut screen, usize::MAX).await, "tail");
        drained(&streams).await;
        streams.close().await;
        streams.resize(80, 25).unwrap();
    });
}

#[test]
fn much_goes_through_a_terminal_whole() {
    run(async {
        let dir = Dir::new("much-terminal");
        let (input, out) = (dir.fifo("in"), dir.fifo("out"));
        let streams = open_terminal(&input, &out).await;
        let (master, slave) = terminal();
        streams.start(Some(master)).unwrap();
        let (mut client, mut screen) = (writer(&input), reader(&out));
        let slave_copy = slave.try_clone().unwrap();
        let mut process = Waited::new(unblock(slave_copy).unwrap(), Interest::READABLE);
        tokio::task::spawn_local(async move { put(&mut client, &pattern(MEBIBYTE / 4)).await });
        sleep(A_WHILE).await;
        assert!(get(&mut process, MEBIBYTE / 4).await == pattern(MEBIBYTE / 4));
        drop(process);
        let mut process = Waited::new(slave, Interest::WRITABLE);
        tokio::task::spawn_local(async move { put(&mut process, &pattern(MEBIBYTE / 4)).await });
        sleep(A_WHILE).await;
        assert!(get(&mut screen, usize::MAX).await == pattern(MEBIBYTE / 4));
        drained(&streams).await;
    });
}

#[test]
fn a_terminal_that_nobody_watches_does_not_stop_the_process() {
    run(async {
        let streams = open_terminal("", "").await;
        let (master, slave) = terminal();
        streams.start(Some(master)).unwrap();
        put(&mut writes(Some(slave)), &pattern(MEBIBYTE / 4)).await;
        drained(&streams).await;
    });
}

#[test]
fn input_for_a_terminal_that_has_gone_costs_nothing() {
    run(async {
        let dir = Dir::new("gone-terminal");
        let input = dir.fifo("in");
        let streams = open_terminal(&input, "").await;
        let (master, slave) = terminal();
        streams.start(Some(master)).unwrap();
        let mut client = writer(&input);
        tokio::task::spawn_local(async move {
            loop {
                match write(&client, &[b'x'; 4096]) {
                    Err(Errno::EAGAIN) => client.changed().await.unwrap(),
                    Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        sleep(A_WHILE).await;
        drop(slave);
        drained(&streams).await;
        sleep(A_WHILE).await;
        let before = busy();
        sleep(4 * A_WHILE).await;
        assert!(busy() - before < A_WHILE / 3, "it spins");
    });
}

#[test]
fn a_terminal_may_have_a_log_program() {
    run(async {
        let dir = Dir::new("terminal-program");
        let text = format!("exec 5>&-; cat <&4 > {0}/err; cat <&3 > {0}/out", dir.0.display());
        let streams = open_terminal("", &script("binary", &text)).await;
        let (master, slave) = terminal();
        streams.start(Some(master)).unwrap();
        put(&mut writes(Some(slave)), b"shown").await;
        drained(&streams).await;
        streams.close().await;
        assert_eq!(read_to_string(dir.path("out")).unwrap(), "shown");
        assert_eq!(read_to_string(dir.path("err")).unwrap(), "");
    });
}

#[test]
fn all_who_wait_for_the_end_are_told_also_after_close() {
    run(async {
        let dir = Dir::new("waiters");
        let out = dir.fifo("out");
        for started in [true, false] {
            let (ends, streams) = open("", &out, &out).await;
            let streams = std::rc::Rc::new(streams);
            if started {
                streams.start(None).unwrap();
            }
            let waiters: Vec<_> = (0..5)
                .map(|_| {
                    let streams = std::rc::Rc::clone(&streams);
                    tokio::task::spawn_local(async move { streams.drained().await })
                })
                .collect();
            sleep(A_WHILE).await;
            assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
            streams.close().await;
            for waiter in waiters {
                timeout(SOON, waiter).await.unwrap().unwrap();
            }
            drained(&streams).await;
            streams.close().await;
            streams.start(None).unwrap();
            assert!(broken(&ends.stdout.unwrap()).await, "close has closed everything");
        }
    });
}

/// Tests that look at the whole process run in one of their own: answers whether this is it.
fn alone(name: &str) -> bool {
    if std::env::var_os("HULL_TEST_ALONE").is_some() {
        return true;
    }
    let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let status = command.args(["--exact", &name]).env("HULL_TEST_ALONE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn no_descriptor_stays_open() {
    if !alone("no_descriptor_stays_open") {
        return;
    }
    run(async {
        let dir = Dir::new("leak");
        let (input, out, missing) = (dir.fifo("in"), dir.fifo("out"), dir.name("missing"));
        let before = descriptors();
        for round in 0..1000 {
            let (ends, streams) = open(&input, &out, &out).await;
            if round % 3 > 0 {
                streams.start(None).unwrap();
            }
            if round % 2 == 0 {
                put(&mut writes(ends.stdout), b"x").await;
            }
            if round % 5 > 0 {
                streams.close().await;
            }
            refused(&input, &out, &missing).await;
            let streams = open_terminal(&input, &out).await;
            let (master, _slave) = terminal();
            streams.start(Some(master)).unwrap();
        }
        for _ in 0..10 {
            refused(&input, &script("binary-v2", "exit 0"), "").await;
            let (_ends, streams) = open("", &script("binary", "exec 5>&-; cat <&3"), "").await;
            streams.start(None).unwrap();
            streams.close().await;
            drop(ConsoleSocket::bind().unwrap());
        }
        // What was dropped without close ends in its own turn.
        let start = Instant::now();
        while descriptors() > before && start.elapsed() < SOON {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_terminal_arrives_and_the_socket_goes() {
    run(async {
        let socket = ConsoleSocket::bind().unwrap();
        let path = socket.path().to_owned();
        let dir = path.parent().unwrap().to_owned();
        assert_eq!(path.file_name().unwrap(), "pty.sock");
        assert!(dir.file_name().unwrap().to_str().unwrap().starts_with("pty"));
        assert_eq!(metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let (master, slave) = terminal();
        let runtime = socket::connect(path.to_str().unwrap().as_bytes(), socket::Kind::Stream).unwrap();
        let waiting = tokio::task::spawn_local(socket.receive());
        sleep(A_WHILE).await;
        socket::send(runtime.as_fd(), b"/dev/ptmx", Some(master.as_fd())).unwrap();
        drop(master);
        let master = waiting.await.unwrap().unwrap();
        assert!(!dir.exists());
        tty::set_size(master.as_fd(), Size { rows: 1, columns: 2 }).unwrap();
        assert_eq!(tty::size(slave.as_fd()).unwrap(), Size { rows: 1, columns: 2 });
    });
}

#[test]
fn what_is_no_terminal_is_refused() {
    run(async {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        for sent in [Some(null.as_fd()), None] {
            let socket = ConsoleSocket::bind().unwrap();
            let path = socket.path().to_owned();
            let runtime = socket::connect(path.to_str().unwrap().as_bytes(), socket::Kind::Stream).unwrap();
            if let Some(fd) = sent {
                socket::send(runtime.as_fd(), b"null", Some(fd)).unwrap();
            }
            drop(runtime);
            let error = socket.receive().await.unwrap_err();
            assert!(error.message.starts_with("receive the terminal: "), "{error}");
            assert!(!path.exists());
        }
    });
}
