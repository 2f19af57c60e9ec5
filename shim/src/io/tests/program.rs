//! Log programs.

use super::*;

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
fn what_a_log_program_has_not_read_yet_is_not_handed_over() {
    run(async {
        let dir = Dir::new("late");
        let text = format!("exec 5>&-; sleep 0.3; cat <&3 > {}/out", dir.0.display());
        let (ends, streams) = open("", &script("binary", &text), "").await;
        streams.start(None).unwrap();
        let start = Instant::now();
        put(&mut writes(ends.stdout), &pattern(60 * 1024)).await;
        drop(ends.stderr);
        drained(&streams).await;
        assert!(start.elapsed() > Duration::from_millis(200));
        streams.close().await;
        assert!(std::fs::read(dir.path("out")).unwrap() == pattern(60 * 1024));
    });
}

#[test]
fn bytes_for_a_log_program_wake_nobody_here() {
    run(async {
        let (ends, streams) = open("", &script("binary", "exec 5>&-; cat <&3"), "").await;
        streams.start(None).unwrap();
        let to = ends.stdout.unwrap();
        sleep(A_WHILE).await;
        let process = std::thread::spawn(move || {
            for _ in 0..20 {
                write(&to, b"line").unwrap();
                std::thread::sleep(Duration::from_millis(4));
            }
            to
        });
        let before = sleeps();
        sleep(A_WHILE).await;
        assert!(sleeps() - before <= 6, "{} times", sleeps() - before);
        drop(process.join().unwrap());
        streams.close().await;
    });
}
