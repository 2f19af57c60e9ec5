//! Output to files.

use super::*;

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
fn a_file_uri_of_a_fifo_is_a_fifo() {
    run(async {
        let dir = Dir::new("file-fifo");
        let out = dir.fifo("out");
        let (ends, streams) = open("", &format!("file://{out}"), "").await;
        streams.start(None).unwrap();
        put(&mut writes(ends.stdout), b"one").await;
        drop(ends.stderr);
        assert_eq!(text(&mut reader(&out), usize::MAX).await, "one");
        drained(&streams).await;
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
