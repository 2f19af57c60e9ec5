//! The standard streams of a process: FIFOs, files, log programs, terminals, and readers that come late, go and come
//! back.

use hull_integration::task::{Daemon, Exec, Fifo, Stdio, Task, WAITS, refused_saying};
use hull_integration::{Lab, Stop, TestResult, tests};
use hull_proto::process::Status;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const GO_1: &str = "containerd-shim-runc-v2 1.";
const FIFO_URI: &[(&str, &str)] = &[(GO_1, "docs/shim.md: fifo URIs (needs 1.7)")];
const ALONE: &[(&str, &str)] = &[(GO_1, "docs/shim.md: each stream can be left out")];
const TAIL: &[(&str, &str)] = &[(GO_1, "docs/shim.md: Delete waits for the output also of files")];
const READ_FIRST: &[(&str, &str)] =
    &[("containerd-shim-runc-v2", "docs/shim.md: an exit is told once the output has been read")];
const KEPT: &[(&str, &str)] =
    &[("containerd-shim-runc-v2", "docs/shim.md: what was not read waits for the daemon until Delete")];
const BINARY_2: &[(&str, &str)] = &[(GO_1, "docs/shim.md: binary-v2 (needs 2.2)")];

tests! {
    without_streams_a_process_has_the_null_device,
    output_and_errors_come_through_their_fifos,
    one_fifo_for_both,
    a_fifo_can_be_named_by_a_uri.breaks_on(FIFO_URI),
    one_stream_alone.breaks_on(ALONE),
    input_comes_through_a_fifo,
    the_end_of_input_reaches_the_process,
    input_ends_only_when_both_ends_are_closed,
    a_fifo_of_input_that_nobody_opens_blocks_nothing,
    ten_mebibytes_come_unchanged,
    the_tail_of_the_output_is_not_lost,
    an_exit_is_told_once_the_output_is_read.breaks_on(READ_FIRST),
    a_background_writer_does_not_hold_an_exit,
    the_last_words_wait_for_the_daemon.breaks_on(KEPT),
    a_reader_goes_and_comes_back_without_a_lost_byte,
    a_reader_that_never_reads_costs_no_memory,
    delete_does_not_wait_for_ever_for_a_reader.limit_s(90),
    a_child_that_keeps_the_output_open_does_not_hold_the_exit,
    output_goes_to_files.breaks_on(TAIL),
    output_goes_to_a_file_by_uri.breaks_on(TAIL),
    an_exec_writes_to_a_file,
    a_program_takes_the_output,
    a_program_that_is_not_ready_holds_the_start,
    a_program_that_ends_before_it_is_ready_is_an_error.breaks_on(BINARY_2),
    a_program_takes_the_output_of_a_terminal,
    a_uri_nobody_knows_is_refused,
    a_fifo_that_is_missing_is_refused_and_nothing_is_left,
    a_terminal_takes_input_and_gives_output,
    a_terminal_is_resized,
    an_exec_with_a_terminal,
    the_end_of_a_terminal_is_seen,
    the_user_of_the_options_owns_the_pipes,
    an_exec_closes_its_input,
    a_restarted_daemon_goes_on_with_the_streams,
}

fn fifo(daemon: &Daemon<'_>, stem: &str) -> Result<Fifo, Stop> {
    Fifo::output(&daemon.lab.next_path(stem))
}

fn without_streams_a_process_has_the_null_device(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exec sleep 1000"))?;
    let pid = task.up(&Stdio::default())?;
    for number in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{number}"))?, PathBuf::from("/dev/null"));
    }
    daemon.end()
}

fn output_and_errors_come_through_their_fifos(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (mut out, mut err) = (fifo(&daemon, "out")?, fifo(&daemon, "err")?);
    let task = daemon.task(daemon.bundle().sh("echo to-out; echo to-err >&2"))?;
    task.up(&Stdio { stdout: out.name(), stderr: err.name(), ..Stdio::default() })?;
    task.wait("").get()?;
    task.delete("")?;
    // Delete has closed the shim's ends.
    assert_eq!((out.to_end().as_str(), err.to_end().as_str()), ("to-out\n", "to-err\n"));
    task.retire()?;
    daemon.end()
}

fn one_fifo_for_both(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh("echo one; sleep 0.1; echo two >&2"))?;
    task.up(&Stdio { stdout: out.name(), stderr: out.name(), ..Stdio::default() })?;
    task.wait("").get()?;
    task.delete("")?;
    assert_eq!(out.to_end(), "one\ntwo\n");
    daemon.end()
}

fn a_fifo_can_be_named_by_a_uri(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh("echo here"))?;
    task.up(&Stdio::to(format!("fifo://{}", out.name())))?;
    task.wait("").get()?;
    task.delete("")?;
    assert_eq!(out.to_end(), "here\n");
    daemon.end()
}

fn one_stream_alone(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    for number in 1..3 {
        let mut out = fifo(&daemon, "out")?;
        let task = daemon.task(daemon.bundle().sh("echo 1; echo 2 >&2; readlink /proc/$$/fd/2"))?;
        let mut stdio = Stdio::default();
        *(if number == 1 { &mut stdio.stdout } else { &mut stdio.stderr }) = out.name();
        task.up(&stdio)?;
        task.wait("").get()?;
        task.delete("")?;
        assert_eq!(out.to_end(), if number == 1 { "1\n/dev/null\n" } else { "2\n" });
    }
    daemon.end()
}

fn with_input<'d>(daemon: &'d Daemon<'d>, script: &str) -> Result<(Task<'d>, Fifo, Fifo), Stop> {
    let (out, input) = (fifo(daemon, "out")?, Fifo::closed(&daemon.lab.next_path("in"))?);
    let task = daemon.task(daemon.bundle().sh(script))?;
    task.create(&Stdio { stdin: input.name(), ..Stdio::to(out.name()) })?;
    Ok((task, input, out))
}

fn input_comes_through_a_fifo(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (task, mut input, mut out) = with_input(&daemon, "read x; echo got-$x; read y; echo got-$y; exit 4")?;
    input.open_for_writing()?;
    input.send("early\n")?;
    task.start("")?;
    out.until("got-early");
    input.send("late\n")?;
    out.until("got-late");
    assert_eq!(task.wait("").get()?.exit_status, 4);
    daemon.end()
}

fn the_end_of_input_reaches_the_process(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (task, mut input, mut out) = with_input(&daemon, "cat; echo and-on; exit 4")?;
    task.start("")?;
    input.open_for_writing()?;
    input.send("some text\n")?;
    input.close();
    task.close_stdin("")?;
    assert!(out.until("and-on").contains("some text"));
    assert_eq!(task.wait("").get()?.exit_status, 4);
    task.close_stdin("")?;
    daemon.end()
}

fn input_ends_only_when_both_ends_are_closed(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (task, mut input, mut out) = with_input(&daemon, "cat; echo over")?;
    task.start("")?;
    // A client goes and another comes: the shim's own end keeps the input open.
    for word in ["first\n", "second\n"] {
        input.open_for_writing()?;
        input.send(word)?;
        out.until(word);
        input.close();
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(task.status(""), Status::RUNNING);
    // The other way round: the shim's end is closed first.
    input.open_for_writing()?;
    task.close_stdin("")?;
    task.close_stdin("")?;
    input.send("third\n")?;
    out.until("third\n");
    assert_eq!(task.status(""), Status::RUNNING);
    input.close();
    out.until("over");
    assert_eq!(task.wait("").get()?.exit_status, 0);
    daemon.end()
}

fn a_fifo_of_input_that_nobody_opens_blocks_nothing(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (task, _input, mut out) = with_input(&daemon, "echo up; exit 4")?;
    task.start("")?;
    out.until("up");
    assert_eq!(task.wait("").get()?.exit_status, 4);
    let since = Instant::now();
    task.delete("")?;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    daemon.end()
}

fn ten_mebibytes_come_unchanged(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let script = "i=0; while [ $i -lt 20 ]; do seq -w 1000000 1065535; i=$((i+1)); done";
    let task = daemon.task(daemon.bundle().sh(script))?;
    task.up(&Stdio::to(out.name()))?;
    out.until_count(20 * 65536 * 8);
    task.wait("").get()?;
    task.delete("")?;
    out.to_end();
    assert_eq!(out.count(), 20 * 65536 * 8);
    for (number, line) in out.bytes().chunks(8).enumerate() {
        let wanted = format!("{}\n", 1_000_000 + number % 65536);
        assert!(line == wanted.as_bytes(), "line {number}: {:?}", String::from_utf8_lossy(line));
    }
    daemon.end()
}

/// 100000 bytes, more than one pipe holds, and less than two: the process ends before anybody reads.
fn the_tail_of_the_output_is_not_lost(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh("seq -w 10001 22500 | head -c 75000; echo; echo tail"))?;
    task.up(&Stdio::to(out.name()))?;
    task.wait("").get()?;
    let (client, id) = (task.client.clone(), task.id.clone());
    let request = hull_proto::task::DeleteRequest { id, ..Default::default() };
    let deleted = client.ask::<hull_proto::task::DeleteResponse>("Delete", &request);
    let text = out.to_end();
    assert!(text.ends_with("\ntail\n") && text.len() == 75006, "{} bytes", text.len());
    deleted.get()?;
    daemon.end()
}

/// containerd 1.6 closes its ends of the FIFOs soon after it has heard of an exit.
fn an_exit_is_told_once_the_output_is_read(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (mut out, mut err) = (fifo(&daemon, "out")?, fifo(&daemon, "err")?);
    let task = daemon.task(daemon.bundle().sh("seq -w 10001 12000; echo bad >&2; exit 4"))?;
    let stdio = Stdio { stderr: err.name(), ..Stdio::to(out.name()) };
    task.up(&stdio)?;
    let waits = task.wait("");
    assert!(waits.within(Duration::from_millis(300)).is_none(), "told before anything was read");
    assert_eq!(out.to_end().len(), 12000);
    assert!(waits.within(Duration::from_millis(300)).is_none(), "told before the errors were read");
    assert_eq!(err.to_end(), "bad\n");
    assert_eq!(waits.get()?.exit_status, 4);
    task.event("exit 4");
    // An exec's, too.
    let (mut out, waiting) = (fifo(&daemon, "out")?, daemon.task(daemon.bundle().sh(WAITS))?);
    waiting.up_waiting()?;
    waiting.run(&Exec::sh("e", "echo text; exit 5").on(Stdio::to(out.name())))?;
    let waits = waiting.wait("e");
    assert!(waits.within(Duration::from_millis(300)).is_none(), "told before it was read");
    assert_eq!(out.to_end(), "text\n");
    assert_eq!(waits.get()?.exit_status, 5);
    daemon.end()
}

/// What comes after the exit is not waited for.
fn a_background_writer_does_not_hold_an_exit(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.run(&Exec::sh("e", "trap '' HUP; yes & exit 3").on(Stdio::to(out.name())))?;
    let waits = task.wait("e");
    let since = Instant::now();
    let exit = loop {
        out.now();
        if let Some(exit) = waits.within(Duration::from_millis(1)) {
            break exit?;
        }
        assert!(since.elapsed() < Duration::from_secs(8), "the exit is held");
    };
    assert_eq!(exit.exit_status, 3);
    daemon.end()
}

/// The daemon is away while a process ends.
fn the_last_words_wait_for_the_daemon(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let mut task =
        daemon.task(daemon.bundle().sh("until [ -e /gate ]; do sleep 0.02; done; echo farewell; exit 4"))?;
    task.up(&Stdio::to(out.name()))?;
    task.client.close();
    out.close();
    fs::write(task.bundle.path("/gate"), "")?;
    std::thread::sleep(Duration::from_millis(1500));
    task.client = daemon.connect(&task.started)?;
    assert_eq!(task.wait("").get()?.exit_status, 4);
    out.open()?;
    assert_eq!(out.to_end(), "farewell\n");
    daemon.end()
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn a_reader_goes_and_comes_back_without_a_lost_byte(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; [ $((i % 50)) != 0 ] || sleep 0.01; done; echo end";
    let task = daemon.task(daemon.bundle().sh(script))?;
    task.up(&Stdio::to(out.name()))?;
    for round in 1..6 {
        out.until_count(round * 3000);
        out.close();
        // It goes on writing, until the FIFO is full.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(task.status(""), Status::RUNNING);
        out.open()?;
    }
    fs::write(task.bundle.path("/stop"), "")?;
    let text = out.until("end\n");
    let found = numbers(&text);
    assert!(
        found.iter().enumerate().all(|(at, number)| *number == at as u64 + 1),
        "a gap in {} numbers",
        found.len()
    );
    task.wait("").get()?;
    daemon.end()
}

fn kib(pid: i32, field: &str) -> Result<u64, Stop> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    Ok(line.trim_start_matches(':').split_whitespace().next().unwrap_or_default().parse()?)
}

fn a_reader_that_never_reads_costs_no_memory(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh("exec yes a-line-of-output-that-nobody-reads"))?;
    let pid = task.up(&Stdio::to(out.name()))? as i32;
    let shim = task.shim_pid();
    let before = kib(shim, "VmRSS")?;
    // Blocked: it does not use the processor any more.
    let used = || -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').skip(11).take(2).collect::<Vec<_>>().join(" "))
    };
    let mut last = None;
    lab.eventually("the writer to be blocked", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = used();
        std::mem::replace(&mut last, now.clone()) == now
    });
    let after = kib(shim, "VmRSS")?;
    assert!(after < before + 2048, "{before} KiB before, {after} KiB after");
    // Everything else goes on.
    assert_eq!(task.status(""), Status::RUNNING);
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    task.kill("", 9)?;
    assert_eq!(task.wait("").get()?.exit_status, 137);
    out.now();
    out.close();
    daemon.end()
}

fn delete_does_not_wait_for_ever_for_a_reader(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh("exec yes a-line-of-output-that-nobody-reads"))?;
    task.up(&Stdio::to(out.name()))?;
    task.kill("", 9)?;
    assert_eq!(task.wait("").get()?.exit_status, 137);
    let since = Instant::now();
    assert_eq!(task.delete("")?.exit_status, 137);
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    task.retire()?;
    daemon.end()
}

/// The output belongs to a process that outlives the exec: its exit must not wait for that.
fn a_child_that_keeps_the_output_open_does_not_hold_the_exit(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let stdio = Stdio::to(out.name());
    task.run(
        &Exec::sh(
            "e",
            "(trap '' HUP; until [ -e /gate ]; do sleep 0.02; done; echo late) & echo early; exit 3",
        )
        .on(stdio),
    )?;
    assert_eq!(task.wait("e").get()?.exit_status, 3);
    task.event("exit e 3");
    out.until("early");
    fs::write(task.bundle.path("/gate"), "")?;
    out.until("late");
    task.delete("e")?;
    daemon.end()
}

fn output_goes_to_files(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let file = lab.next_path("file");
    fs::write(&file, "before\n")?;
    let name = file.display().to_string();
    let task = daemon.task(daemon.bundle().sh("echo out; sleep 0.1; echo err >&2"))?;
    task.up(&Stdio { stdout: name.clone(), stderr: name, ..Stdio::default() })?;
    task.wait("").get()?;
    task.delete("")?;
    assert_eq!(fs::read_to_string(file)?, "before\nout\nerr\n");
    daemon.end()
}

fn output_goes_to_a_file_by_uri(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let file = lab.next_path("logs").join("deeper/container.log");
    let uri = format!("file://{}", file.display());
    for round in 1..3 {
        let task = daemon.task(daemon.bundle().sh("echo out; sleep 0.1; echo err >&2"))?;
        task.up(&Stdio { stdout: uri.clone(), stderr: uri.clone(), ..Stdio::default() })?;
        task.wait("").get()?;
        task.delete("")?;
        assert_eq!(fs::read_to_string(&file)?, "out\nerr\n".repeat(round));
        assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o644);
    }
    daemon.end()
}

fn an_exec_writes_to_a_file(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let file = lab.next_path("exec.log");
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let stdio = Stdio::to(format!("file://{}", file.display()));
    assert_eq!(task.run_to_end(&Exec::sh("e", "echo here").on(stdio))?, 0);
    assert_eq!(fs::read_to_string(&file)?, "here\n");
    daemon.end()
}

/// A log program: a shell script that has its outputs as descriptors 3 and 4, and says on 5 that it is ready.
fn log_program(lab: &Lab, script: &str) -> Result<PathBuf, Stop> {
    let path = lab.next_path("logger");
    fs::write(&path, format!("#!{} sh\n{script}\n", lab.busybox().display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn a_program_takes_the_output(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let dir = lab.new_dir("logs");
    let (at, busybox) = (dir.display(), lab.busybox());
    let cat = format!("{} cat", busybox.display());
    let script = format!(
        "trap '' TERM; echo \"$@\" >{at}/words; {} env >{at}/env; exec 5>&-; {cat} <&3 >{at}/out & {cat} <&4 >{at}/err & \
         exec 3<&- 4<&-; wait; echo end >{at}/end",
        busybox.display()
    );
    let program = log_program(lab, &script)?;
    let uri = format!("binary://{}?key=value&other=thing", program.display());
    let task = daemon.task(daemon.bundle().sh("echo to-out; echo to-err >&2"))?;
    task.up(&Stdio { stdout: uri.clone(), stderr: uri, ..Stdio::default() })?;
    task.wait("").get()?;
    task.delete("")?;
    lab.eventually("the end of the log program", || dir.join("end").exists());
    let read = |name: &str| fs::read_to_string(dir.join(name));
    assert_eq!((read("out")?.as_str(), read("err")?.as_str()), ("to-out\n", "to-err\n"));
    let words = read("words")?;
    let words: Vec<&str> = words.split_whitespace().collect();
    assert!(
        words == ["key", "value", "other", "thing"] || words == ["other", "thing", "key", "value"],
        "{words:?}"
    );
    let env = read("env")?;
    assert!(
        env.contains(&format!("CONTAINER_ID={}\n", task.id)) && env.contains("CONTAINER_NAMESPACE=test\n"),
        "{env}"
    );
    task.retire()?;
    daemon.end()
}

fn a_program_that_is_not_ready_holds_the_start(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let gate = lab.next_path("gate");
    let busybox = lab.busybox();
    let script = format!(
        "until [ -e {} ]; do {b} sleep 0.01; done; echo ready >&5; exec 5>&-; {b} cat <&3 >/dev/null",
        gate.display(),
        b = busybox.display()
    );
    let program = log_program(lab, &script)?;
    let uri = format!("binary://{}", program.display());
    let task = daemon.task(daemon.bundle().sh("exit 4"))?;
    let created = task.ask_create(&Stdio { stdout: uri.clone(), stderr: uri, ..Stdio::default() }, |_| {});
    assert!(created.within(Duration::from_millis(300)).is_none());
    assert_eq!(task.events(), Vec::<String>::new());
    fs::write(gate, "")?;
    created.get()?;
    task.start("")?;
    assert_eq!(task.wait("").get()?.exit_status, 4);
    task.delete("")?;
    daemon.end()
}

fn a_program_that_ends_before_it_is_ready_is_an_error(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let program = log_program(lab, "exit 1")?;
    let task = daemon.task(daemon.bundle().sh("exit 4"))?;
    let uri = format!("binary-v2://{}", program.display());
    refused_saying(task.create(&Stdio { stdout: uri.clone(), stderr: uri, ..Stdio::default() }), "ready");
    daemon.end()
}

fn a_program_takes_the_output_of_a_terminal(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let dir = lab.new_dir("logs");
    let busybox = lab.busybox();
    let script = format!("exec 5>&-; {} cat <&3 >{}/out", busybox.display(), dir.display());
    let program = log_program(lab, &script)?;
    let task = daemon.task(daemon.bundle().sh("tty").set("/process/terminal", json!(true)))?;
    task.up(&Stdio {
        stdout: format!("binary://{}", program.display()),
        terminal: true,
        ..Stdio::default()
    })?;
    task.wait("").get()?;
    task.delete("")?;
    lab.eventually("the output", || {
        fs::read_to_string(dir.join("out")).is_ok_and(|text| text.contains("/dev/pts/0"))
    });
    daemon.end()
}

fn a_uri_nobody_knows_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 4"))?;
    for uri in ["streaming+ttrpc:///run/x?streaming_id=1", "gopher://there"] {
        refused_saying(
            task.create(&Stdio { stdout: uri.into(), stderr: uri.into(), ..Stdio::default() }),
            "",
        );
    }
    assert_eq!(task.events(), Vec::<String>::new());
    task.up(&Stdio::default())?;
    assert_eq!(task.wait("").get()?.exit_status, 4);
    daemon.end()
}

fn a_fifo_that_is_missing_is_refused_and_nothing_is_left(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let count = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let shim = task.shim_pid();
    let before = count(shim);
    for round in 0..5 {
        let out = fifo(&daemon, "out")?;
        let stdio = Stdio { stdin: "/no/such/fifo".into(), stdout: out.name(), ..Stdio::default() };
        let exec = Exec::sh(format!("e{round}"), "cat").on(stdio);
        let refused = task.run(&exec);
        assert!(refused.is_err(), "{refused:?}");
        task.delete(&exec.id).ok();
    }
    lab.eventually("the descriptors to be closed", || count(shim) <= before);
    daemon.end()
}

fn a_terminal_takes_input_and_gives_output(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (mut out, mut input) = (fifo(&daemon, "out")?, Fifo::closed(&lab.next_path("in"))?);
    let bundle = daemon.bundle().sh("tty; read x; echo got-$x; exit 4").set("/process/terminal", json!(true));
    let task = daemon.task(bundle)?;
    let stdio = Stdio { stdin: input.name(), stdout: out.name(), terminal: true, ..Stdio::default() };
    task.up(&stdio)?;
    assert!(task.state("")?.terminal);
    out.until("/dev/pts/0");
    input.open_for_writing()?;
    input.send("word\n")?;
    out.until("got-word");
    assert_eq!(task.wait("").get()?.exit_status, 4);
    task.delete("")?;
    task.retire()?;
    daemon.end()
}

const SIZE: &str = "last=; while :; do now=$(stty size 2>/dev/null); [ \"$now\" = \"$last\" ] || echo \"size $now.\"; last=$now; [ \"$now\" != '20 70' ] || exit 4; sleep 0.02; done";

fn a_terminal_is_resized(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon.task(daemon.bundle().sh(SIZE).set("/process/terminal", json!(true)))?;
    task.create(&Stdio { stdout: out.name(), terminal: true, ..Stdio::default() })?;
    task.resize("", 99, 33)?;
    task.start("")?;
    out.until("size 33 99.");
    task.resize("", 70, 20)?;
    out.until("size 20 70.");
    assert_eq!(task.wait("").get()?.exit_status, 4);
    daemon.end()
}

fn an_exec_with_a_terminal(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (mut out, mut input) = (fifo(&daemon, "out")?, Fifo::closed(&lab.next_path("in"))?);
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let stdio = Stdio { stdin: input.name(), stdout: out.name(), terminal: true, ..Stdio::default() };
    task.run(&Exec::sh("e", &format!("tty; read x; echo got-$x; {SIZE}")).on(stdio))?;
    out.until("/dev/pts/");
    input.open_for_writing()?;
    input.send("word\n")?;
    out.until("got-word");
    task.resize("e", 99, 33)?;
    out.until("size 33 99.");
    task.resize("e", 70, 20)?;
    assert_eq!(task.wait("e").get()?.exit_status, 4);
    refused_saying(task.resize("e", 80, 24), "");
    task.delete("e")?;
    daemon.end()
}

fn the_end_of_a_terminal_is_seen(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let task = daemon
        .task(daemon.bundle().sh("seq -w 1000001 1020000; exit 4").set("/process/terminal", json!(true)))?;
    task.up(&Stdio { stdout: out.name(), terminal: true, ..Stdio::default() })?;
    out.until("1020000");
    assert_eq!(task.wait("").get()?.exit_status, 4);
    task.delete("")?;
    let text = out.to_end().replace('\r', "");
    assert_eq!((numbers(&text).len(), text.len()), (20000, 160_000));
    daemon.end()
}

fn the_user_of_the_options_owns_the_pipes(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut out = fifo(&daemon, "out")?;
    let bundle = daemon.bundle().sh("echo here >/proc/self/fd/1 && stat -L -c %u:%g /proc/self/fd/1");
    let task = daemon.task(bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})))?;
    task.create_with(&Stdio::to(out.name()), |request| {
        let options = daemon.options(|options| (options.io_uid, options.io_gid) = (1000, 1000));
        request.options = Some(options).into();
    })?;
    task.start("")?;
    assert_eq!(task.wait("").get()?.exit_status, 0);
    task.delete("")?;
    assert_eq!(out.to_end(), "here\n1000:1000\n");
    daemon.end()
}

fn an_exec_closes_its_input(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    for round in 0..5 {
        let (mut out, mut input) = (fifo(&daemon, "out")?, Fifo::closed(&lab.next_path("in"))?);
        let id = format!("e{round}");
        let stdio = Stdio { stdin: input.name(), ..Stdio::to(out.name()) };
        task.run(&Exec::sh(&*id, "cat; exit 4").on(stdio))?;
        input.open_for_writing()?;
        input.send("text\n")?;
        input.close();
        task.close_stdin(&id)?;
        assert_eq!(task.wait(&id).get()?.exit_status, 4);
        task.delete(&id)?;
        assert_eq!(out.to_end(), "text\n");
    }
    daemon.end()
}

fn a_restarted_daemon_goes_on_with_the_streams(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (mut task, mut input, mut out) = with_input(&daemon, "while read x; do echo got-$x; done; exit 4")?;
    task.start("")?;
    input.open_for_writing()?;
    input.send("one\n")?;
    out.until("got-one");
    // The daemon dies: its connection and its ends of the FIFOs are gone.
    task.client.close();
    input.close();
    out.close();
    std::thread::sleep(Duration::from_millis(50));
    task.client = daemon.connect(&task.started)?;
    out.open()?;
    input.open_for_writing()?;
    input.send("two\n")?;
    out.until("got-two");
    input.close();
    task.close_stdin("")?;
    assert_eq!(task.wait("").get()?.exit_status, 4);
    daemon.end()
}
