//! Terminals: in the foreground, and handed over by `--console-socket`.

use hull_integration::console::{ConsoleSocket, Terminal};
use hull_integration::{Bundle, Lab, TestResult, tests};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;

tests! {
    console_socket_gets_the_terminal_before_create_returns.breaks_on(&[("crun 1.8", "runc sends a name beside the pty, which callers read")]),
    console_size_is_applied,
    create_with_a_terminal_needs_a_console_socket,
    a_console_socket_without_a_terminal_is_refused.breaks_on(&[("crun", "runc-create(8): --console-socket needs a terminal, and a terminal needs it")]),
    a_console_socket_nobody_listens_on_fails,
    run_in_the_foreground_uses_the_callers_terminal,
    run_in_the_foreground_takes_the_size_of_the_terminal.breaks_on(&[("crun 1.8", "the pty of the container is not its controlling terminal for stty")]),
    run_in_the_foreground_follows_a_resize.breaks_on(&[("crun 1.8", "resize is not passed on")]),
    newlines_are_printed_as_they_were_written.breaks_on(&[("runc", "sets the pty up when the program may have printed"), ("crun", "crun leaves the pty as the kernel made it")]),
    run_passes_keys_to_the_process,
    run_passes_the_interrupt_key,
    run_with_a_terminal_and_no_tty_fails,
    dev_console_is_the_terminal,
    exec_tty_in_the_foreground,
    exec_tty_by_console_socket,
    terminal_belongs_to_the_user_of_the_process,
}

fn with_terminal(lab: &Lab, script: &str) -> Bundle {
    lab.bundle().sh(script).set("/process/terminal", json!(true))
}

fn console_socket_gets_the_terminal_before_create_returns(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "tty; test -t 0 && test -t 1 && test -t 2 && echo is-a-tty");
    let path = lab.dir.join("console");
    let socket = ConsoleSocket::bind(&path)?;
    lab.launch("create", &b, &["--console-socket", &path.to_string_lossy()]).go().ok();
    let (mut terminal, name) = socket.receive()?;
    assert!(name.contains("/dev/"), "the name of the terminal: {name:?}");
    lab.start(&b.id).ok();
    let seen = terminal.read_all();
    assert_eq!(seen, "/dev/pts/0\nis-a-tty\n");
    Ok(())
}

fn console_size_is_applied(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "stty size").set("/process/consoleSize", json!({"height": 33, "width": 101}));
    let path = lab.dir.join("console");
    let socket = ConsoleSocket::bind(&path)?;
    lab.launch("create", &b, &["--console-socket", &path.to_string_lossy()]).go().ok();
    let (mut terminal, _) = socket.receive()?;
    lab.start(&b.id).ok();
    assert_eq!(terminal.read_all(), "33 101\n");
    Ok(())
}

fn create_with_a_terminal_needs_a_console_socket(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "true");
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    let output = lab.launch("run", &b, &["--detach"]).go();
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_console_socket_without_a_terminal_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let path = lab.dir.join("console");
    let _socket = ConsoleSocket::bind(&path)?;
    let output = lab.launch("create", &b, &["--console-socket", &path.to_string_lossy()]).go();
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_console_socket_nobody_listens_on_fails(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "true");
    let path = lab.dir.join("console");
    let output = lab.launch("create", &b, &["--console-socket", &path.to_string_lossy()]).go();
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn run_in_the_foreground_uses_the_callers_terminal(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "tty; test -t 0 && test -t 1 && test -t 2 && echo is-a-tty; exit 4");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    let seen = terminal.read_until("is-a-tty");
    assert!(seen.contains("/dev/pts/0\nis-a-tty"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.rc(4);
    Ok(())
}

fn run_in_the_foreground_takes_the_size_of_the_terminal(lab: &Lab) -> TestResult {
    // The size is copied while the process starts: it may see it a moment later.
    let b = with_terminal(lab, "for i in 1 2 3 4 5 6 7 8 9; do stty size; sleep 0.1; done");
    let (mut terminal, slave) = Terminal::open(37, 91)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    let seen = terminal.read_until("37 91");
    assert!(seen.contains("37 91"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.ok();
    Ok(())
}

fn run_in_the_foreground_follows_a_resize(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "trap 'stty size' WINCH; echo up; for i in $(seq 100); do sleep 0.05; done");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let other = slave.try_clone()?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    terminal.read_until("up");
    // The kernel sends SIGWINCH to the foreground process group: to the runtime.
    let mut stty = Command::new(lab.busybox());
    stty.args(["stty", "rows", "50", "cols", "120"]).stdin(Stdio::from(other)).stdout(Stdio::null());
    assert!(stty.status()?.success());
    let seen = terminal.read_until("50 120");
    assert!(seen.contains("50 120"), "{seen}");
    lab.delete(&b.id);
    running.wait();
    Ok(())
}

/// runc does the same: tools read what `run -t` prints. The caller's own terminal adds what it needs.
fn newlines_are_printed_as_they_were_written(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "echo one; echo two");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    let seen = terminal.read_raw_until("two\r\n");
    assert!(seen.contains("one\r\ntwo\r\n") && !seen.contains("\r\r"), "{seen:?}");
    running.wait_for(Duration::from_secs(10))?.ok();

    let printed = lab.next_path("printed");
    let redirect = format!(">{}", printed.display());
    let b = with_terminal(lab, "echo one; echo two; sleep 100");
    let (_terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).redirect(lab, &redirect).tty(lab, slave).spawn();
    let has = |text: &str| std::fs::read_to_string(&printed).unwrap_or_default().ends_with(text);
    lab.eventually("the lines", || has("two\n"));
    assert_eq!(std::fs::read(&printed)?, b"one\ntwo\n");
    let words = ["exec", "--tty", &b.id, "/bin/sh", "-c", "echo three"];
    let (_terminal, slave) = Terminal::open(24, 80)?;
    let exec = lab.call(&words).redirect(lab, &redirect).tty(lab, slave).spawn();
    exec.wait_for(Duration::from_secs(10))?.ok();
    assert_eq!(std::fs::read(&printed)?, b"three\n");
    lab.delete(&b.id);
    running.wait();
    Ok(())
}

fn run_passes_keys_to_the_process(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "read line; echo \"got <$line>\"");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    terminal.send("hello there\n")?;
    let seen = terminal.read_until("got <hello there>");
    assert!(seen.contains("got <hello there>"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.ok();
    Ok(())
}

fn run_passes_the_interrupt_key(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "trap 'echo interrupted; exit 6' INT; echo up; while :; do sleep 0.02; done");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    terminal.read_until("up");
    terminal.send("\u{3}")?;
    let seen = terminal.read_until("interrupted");
    assert!(seen.contains("interrupted"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.rc(6);
    Ok(())
}

fn run_with_a_terminal_and_no_tty_fails(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "true");
    let busybox = lab.busybox();
    let output = lab.launch("run", &b, &[]).through(&[&busybox.to_string_lossy(), "setsid"]).go();
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn dev_console_is_the_terminal(lab: &Lab) -> TestResult {
    let b = with_terminal(lab, "stat -c '%F' /dev/console; echo direct > /dev/console");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    let seen = terminal.read_until("direct");
    assert!(seen.contains("character special file\ndirect"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.ok();
    Ok(())
}

fn exec_tty_in_the_foreground(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let call = lab.call(&[
        "exec",
        "--tty",
        &b.id,
        "/bin/sh",
        "-c",
        "test -t 0 && test -t 2 && echo is-a-tty; exit 8",
    ]);
    let running = call.tty(lab, slave).spawn();
    let seen = terminal.read_until("is-a-tty");
    assert!(seen.contains("is-a-tty"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.rc(8);
    Ok(())
}

fn exec_tty_by_console_socket(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let path = lab.dir.join("console");
    let socket = ConsoleSocket::bind(&path)?;
    let words =
        ["exec", "--tty", "--detach", "--console-socket", &path.to_string_lossy(), &b.id, "/bin/sh", "-c"];
    lab.call(&words).args(&["read a; echo got $a"]).go().ok();
    let (mut terminal, _) = socket.receive()?;
    terminal.send("keys\n")?;
    let seen = terminal.read_until("got keys");
    assert!(seen.contains("got keys"), "{seen}");
    Ok(())
}

fn terminal_belongs_to_the_user_of_the_process(lab: &Lab) -> TestResult {
    let b =
        with_terminal(lab, "stat -c '%u' /dev/pts/0").set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = lab.launch("run", &b, &[]).tty(lab, slave).spawn();
    let seen = terminal.read_until("1000");
    assert!(seen.contains("1000"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.ok();
    Ok(())
}
