//! FIFOs: what a process writes and reads, whoever is at the other end.

use super::*;

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
        let mut first = reader(&out);
        let (ends, streams) = open("", &out, "").await;
        streams.start(None).unwrap();
        let mut to = writes(ends.stdout);
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
fn output_that_just_fits_ends_without_a_reader() {
    run(async {
        let dir = Dir::new("fits");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        streams.start(None).unwrap();
        let mut to = writes(ends.stdout);
        put(&mut to, &pattern(64 * 1024)).await;
        sleep(A_WHILE).await;
        drop(to);
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
fn what_was_written_is_taken_when_the_client_has_read_it() {
    run(async {
        let dir = Dir::new("taken");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        let streams = std::rc::Rc::new(streams);
        streams.start(None).unwrap();
        let mut client = reader(&out);
        let mut process = writes(ends.stdout);
        put(&mut process, b"first").await;
        let asked = std::rc::Rc::clone(&streams);
        let taken = tokio::task::spawn_local(async move { asked.taken().await });
        sleep(A_WHILE).await;
        assert!(!taken.is_finished(), "nobody has read it");
        // What comes later does not count.
        put(&mut process, b"second").await;
        assert_eq!(text(&mut client, 5).await, "first");
        timeout(A_WHILE, taken).await.expect("it has been read").unwrap();
        // Nobody reads any more: not waited for long.
        let since = Instant::now();
        streams.taken().await;
        assert!(since.elapsed() < SOON / 2, "{:?}", since.elapsed());
    });
}

#[test]
fn the_rest_waits_for_a_client_that_comes_late() {
    run(async {
        let dir = Dir::new("late");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &out, "").await;
        streams.start(None).unwrap();
        put(&mut writes(ends.stdout), b"farewell").await;
        drained(&streams).await;
        assert_eq!(text(&mut reader(&out), usize::MAX).await, "farewell");
    });
}

/// A blocking open of a FIFO waits for a writer; `true`, or nothing at all, is written long before.
#[test]
fn a_reader_that_comes_late_finds_the_end() {
    run(async {
        for (late_ms, said) in [(0, ""), (1, ""), (20, ""), (300, ""), (300, "said")] {
            let dir = Dir::new("late");
            let (out, err) = (dir.fifo("out"), dir.fifo("err"));
            let (ends, streams) = open("", &out, &err).await;
            streams.start(None).unwrap();
            put(&mut writes(ends.stdout), said.as_bytes()).await;
            drop(ends.stderr);
            drained(&streams).await;
            sleep(Duration::from_millis(late_ms)).await;
            for (path, wanted) in [(out, said), (err, "")] {
                let name = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(name).unwrap());
                let read = timeout(10 * A_WHILE, read).await;
                // What waits for a writer still is let go, or the test would never end.
                let _writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                assert_eq!(
                    read.expect("the reader waits for a writer").unwrap(),
                    wanted,
                    "{late_ms} ms late"
                );
            }
        }
    });
}

/// `echo o; echo e >&2`: a client that takes what comes, as it comes, gets it in this order.
#[test]
fn streams_are_moved_in_the_order_they_became_ready() {
    run(async {
        for round in 0..20 {
            let dir = Dir::new("order");
            let (out, err) = (dir.fifo("out"), dir.fifo("err"));
            let (ends, streams) = open("", &out, &err).await;
            streams.start(None).unwrap();
            let open_now =
                |path: &str| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
            let (from_out, from_err) = (open_now(&out).unwrap(), open_now(&err).unwrap());
            let client = tokio::task::spawn_blocking(move || {
                let mut order = String::new();
                while order.len() < 2 {
                    let fds = [&from_err, &from_out]
                        .map(|from| hull_sys::signal::Interest { fd: from.as_fd(), events: libc::POLLIN });
                    // As an event loop does that takes the last of a list first.
                    let [err, out] = hull_sys::signal::poll(fds, -1).unwrap();
                    for (ready, from) in [(err, &from_err), (out, &from_out)] {
                        let mut room = [0; 8];
                        let read = if ready & libc::POLLIN != 0 { read(from, &mut room) } else { Ok(0) };
                        order.push_str(std::str::from_utf8(&room[..read.unwrap_or(0)]).unwrap());
                    }
                }
                order
            });
            sleep(Duration::from_millis(5)).await;
            let (first, second) =
                if round % 2 == 0 { (&ends.stdout, &ends.stderr) } else { (&ends.stderr, &ends.stdout) };
            write(first.as_ref().unwrap(), b"1").unwrap();
            write(second.as_ref().unwrap(), b"2").unwrap();
            assert_eq!(timeout(SOON, client).await.unwrap().unwrap(), "12", "round {round}");
        }
    });
}
