//! Terminals, and the socket they come over.

use super::*;

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
