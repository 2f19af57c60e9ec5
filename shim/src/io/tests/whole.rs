//! What holds for the streams of a process as a whole.

use super::*;

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
        let before = (sleeps(), busy());
        sleep(4 * A_WHILE).await;
        // The sleep of this test is one or two.
        assert!(sleeps() - before.0 <= 4, "{} times", sleeps() - before.0);
        assert!(busy() - before.1 < A_WHILE / 3, "it spins");
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
        assert!(
            refused(&format!("file://{missing}"), "", "")
                .await
                .message
                .contains("standard input must be a FIFO")
        );
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

#[test]
fn no_descriptor_stays_open() {
    if !alone(concat!(module_path!(), "::no_descriptor_stays_open")) {
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
