//! The shim under containerd, through its client `ctr`: every step a daemon makes with a task, and what is left.

use hull_integration::console::Terminal;
use hull_integration::engine::WAITS;
use hull_integration::{Call, Engine, Lab, Mode, Running, Stop, TestResult, View, tests};
use std::time::Duration;

/// The Go shim looks for its options by the name of the runtime.
const OWN_NAME: &str = "io.containerd.hull.v1";

tests! {
    each.engine(Engine::Containerd);
    run_passes_output_and_exit_code,
    run_passes_input,
    run_over_an_overlay,
    run_under_the_name_of_its_own,
    run_by_its_path,
    run_with_a_runtime_binary_by_name,
    run_detached,
    run_of_a_missing_command_leaves_nothing,
    run_with_a_terminal,
    a_terminal_is_resized,
    attach_passes_input_and_output,
    exec_passes_output_input_and_exit_code,
    exec_as_a_user_in_a_directory,
    exec_with_a_terminal,
    exec_of_a_missing_command_fails,
    an_exec_id_in_use_is_refused,
    kill_sends_signals,
    kill_of_an_exec,
    a_paused_container_stands_still,
    metrics_tell_memory_and_processes,
    lists_show_the_processes,
    delete_of_a_running_task_is_refused,
    a_task_that_ended_is_there_until_deleted,
    a_container_deleted_by_hand_is_not_found_and_can_be_made_again,
    events_come_in_order,
    checkpoint_is_refused_or_works,
    the_shim_is_more_likely_to_be_killed_than_its_daemon,
    ten_at_once,
    life_on_cgroup_v1_alone.view(View::V1),
    life_on_cgroup_v2_alone.view(View::V2),
}

fn run_passes_output_and_exit_code(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    for code in [0, 1, 42, 255] {
        let id = lab.new_id();
        let script = format!("echo out; echo err >&2; exit {code}");
        let output = ctr.run(&id, &["--rm"], &["sh", "-c", &script]).go().rc(code);
        assert_eq!((output.text().as_str(), output.err().trim()), ("out", "err"));
        ctr.gone(&id);
    }
    Ok(())
}

fn run_passes_input(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let text = "line\n".repeat(50_000);
    let output = ctr.run(&id, &["--rm"], &["cat"]).stdin(text.clone()).go().ok();
    assert!(output.out() == text, "{} of {} bytes", output.out().len(), text.len());
    ctr.gone(&id);
    Ok(())
}

fn run_over_an_overlay(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let output =
        ctr.run_image(&id, &["--rm"], &["sh", "-c", "echo x >/new && grep ' / ' /proc/mounts"]).go().ok();
    assert!(output.text().starts_with("overlay"), "{output}");
    ctr.gone(&id);
    Ok(())
}

fn hello(lab: &Lab, flags: &[&str]) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let flags: Vec<&str> = ["--rm"].iter().chain(flags).copied().collect();
    assert_eq!(ctr.run(&id, &flags, &["echo", "hello"]).go().ok().text(), "hello");
    ctr.gone(&id);
    Ok(())
}

fn run_under_the_name_of_its_own(lab: &Lab) -> TestResult {
    hello(lab, &["--runtime", OWN_NAME])
}

fn run_by_its_path(lab: &Lab) -> TestResult {
    let path = lab.ctr()?.rootfs().with_file_name("bin").join("containerd-shim-hull-v1");
    hello(lab, &["--runtime", &path.to_string_lossy()])
}

fn run_with_a_runtime_binary_by_name(lab: &Lab) -> TestResult {
    hello(lab, &["--runc-binary", &lab.runtime.path.to_string_lossy()])
}

fn run_detached(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    assert_eq!(ctr.status(&id).as_deref(), Some("RUNNING"));
    assert_eq!(ctr.shims(&id).len(), 1);
    assert!(ctr.socket(&id).exists());
    ctr.go(&["task", "kill", &id]).ok();
    lab.eventually("the end", || ctr.status(&id).as_deref() == Some("STOPPED"));
    ctr.remove_ended(&id, 7);
    ctr.gone(&id);
    Ok(())
}

fn run_of_a_missing_command_leaves_nothing(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    ctr.run(&id, &["--rm"], &["/bin/no-such-thing"]).go().fails("no such file or directory");
    ctr.gone(&id);
    hello(lab, &[])
}

/// A call of ctr at a terminal of this size.
fn at_terminal(lab: &Lab, call: Call, rows: u16, columns: u16) -> Result<(Running, Terminal), Stop> {
    let (terminal, slave) = Terminal::open(rows, columns)?;
    Ok((call.tty(lab, slave).spawn(), terminal))
}

fn run_with_a_terminal(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let call = ctr.run(
        &id,
        &["--rm", "-t"],
        &[
            "sh",
            "-c",
            "tty; until stty size 2>/dev/null | grep .; do sleep 0.02; done; read x; echo got-$x; exit 5",
        ],
    );
    let (running, mut terminal) = at_terminal(lab, call, 33, 99)?;
    let seen = terminal.read_until("33 99");
    assert!(seen.contains("/dev/pts/0") && seen.contains("33 99"), "{seen}");
    terminal.send("word\r")?;
    let seen = terminal.read_until("got-word");
    assert!(seen.contains("got-word"), "{seen}");
    running.wait().rc(5);
    ctr.gone(&id);
    Ok(())
}

fn a_terminal_is_resized(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let script = "until stty size 2>/dev/null | grep .; do sleep 0.02; done; until [ \"$(stty size)\" = '20 70' ]; do sleep 0.05; done; echo resized";
    let call = ctr.run(&id, &["--rm", "-t"], &["sh", "-c", script]);
    let (running, mut terminal) = at_terminal(lab, call, 30, 80)?;
    let seen = terminal.read_until("30 80");
    assert!(seen.contains("30 80"), "{seen}");
    terminal.resize(20, 70)?;
    let seen = terminal.read_until("resized");
    assert!(seen.contains("resized"), "{seen}");
    running.wait().ok();
    ctr.gone(&id);
    Ok(())
}

fn attach_passes_input_and_output(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    // ctr leaves with the exit, whatever it has not printed yet.
    ctr.run(&id, &["-d"], &["sh", "-c", "read x; echo got-$x; sleep 0.5; exit 6"]).go().ok();
    let output = ctr.call(&["task", "attach", &id]).stdin("word\n").go().rc(6);
    assert!(output.out().contains("got-word"), "{output}");
    ctr.go(&["container", "rm", &id]).ok();
    ctr.gone(&id);
    Ok(())
}

fn exec_passes_output_input_and_exit_code(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    for code in [0, 3, 255] {
        let script = format!("cat; echo err >&2; exit {code}");
        let call = ctr.exec(&id, &format!("e{code}"), &[], &["sh", "-c", &script]).stdin("in\n");
        let output = call.go().rc(code);
        assert_eq!((output.text().as_str(), output.err().trim()), ("in", "err"));
    }
    ctr.exec(&id, "killed", &[], &["sh", "-c", "kill -TERM $$"]).go().rc(143);
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn exec_as_a_user_in_a_directory(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let call =
        ctr.exec(&id, "e", &["--user", "1000:1000", "--cwd", "/tmp"], &["sh", "-c", "id -u; id -g; pwd"]);
    assert_eq!(call.go().ok().text().split_whitespace().collect::<Vec<_>>(), ["1000", "1000", "/tmp"]);
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn exec_with_a_terminal(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let call = ctr.exec(
        &id,
        "e",
        &["-t"],
        &[
            "sh",
            "-c",
            "tty; until stty size 2>/dev/null | grep .; do sleep 0.02; done; read x; echo got-$x; exit 4",
        ],
    );
    let (running, mut terminal) = at_terminal(lab, call, 31, 97)?;
    let seen = terminal.read_until("31 97");
    assert!(seen.contains("/dev/pts/") && seen.contains("31 97"), "{seen}");
    terminal.send("word\r")?;
    assert!(terminal.read_until("got-word").contains("got-word"));
    running.wait().rc(4);
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn exec_of_a_missing_command_fails(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    ctr.exec(&id, "e", &[], &["/bin/no-such-thing"]).go().fails("no such file or directory");
    ctr.exec(&id, "e", &[], &["true"]).go().ok();
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn an_exec_id_in_use_is_refused(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let first = ctr.exec(&id, "e", &[], &["sh", "-c", "echo here; sleep 100"]).spawn();
    lab.eventually("the first exec", || first.printed().contains("here"));
    ctr.exec(&id, "e", &[], &["true"]).go().fails("already exists");
    ctr.go(&["task", "kill", "--exec-id", "e", "-s", "KILL", &id]).ok();
    first.wait().rc(137);
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn kill_sends_signals(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let script = "trap 'echo hup' HUP; trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done";
    let running = ctr.run(&id, &["--rm"], &["sh", "-c", script]).spawn();
    lab.eventually("the first line", || running.printed().contains("up"));
    ctr.go(&["task", "kill", "-s", "HUP", &id]).ok();
    lab.eventually("the trap", || running.printed().contains("hup"));
    ctr.go(&["task", "kill", &id]).ok();
    running.wait().rc(9);
    ctr.gone(&id);
    Ok(())
}

fn kill_of_an_exec(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let exec = ctr
        .exec(&id, "e", &[], &["sh", "-c", "trap 'exit 8' USR1; echo up; while :; do sleep 0.05; done"])
        .spawn();
    lab.eventually("the first line", || exec.printed().contains("up"));
    ctr.go(&["task", "kill", "--exec-id", "e", "-s", "USR1", &id]).ok();
    exec.wait().rc(8);
    assert_eq!(ctr.status(&id).as_deref(), Some("RUNNING"));
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn a_paused_container_stands_still(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let running = ctr.run(&id, &[], &["sh", "-c", script]).spawn();
    lab.eventually("some lines", || running.printed().lines().count() > 3);
    ctr.go(&["task", "pause", &id]).ok();
    assert_eq!(ctr.status(&id).as_deref(), Some("PAUSED"));
    // What was written before the pause may still be on its way.
    let count = || running.printed().lines().count();
    let mut before = count();
    lab.eventually("no more lines", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, count()) == before
    });
    ctr.go(&["task", "resume", &id]).ok();
    assert_eq!(ctr.status(&id).as_deref(), Some("RUNNING"));
    lab.eventually("more lines", || count() > before);
    ctr.go(&["task", "pause", &id]).ok();
    ctr.go(&["task", "kill", "-s", "KILL", &id]).ok();
    ctr.go(&["task", "resume", &id]);
    running.wait().rc(137);
    ctr.go(&["container", "rm", &id]).ok();
    ctr.gone(&id);
    Ok(())
}

fn metrics_tell_memory_and_processes(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let table = ctr.go(&["task", "metrics", &id]).ok().out();
    // v1's names, v2's.
    let value = |v1: &str, v2: &str| {
        let name = if lab.host.mode == Mode::V2 { v2 } else { v1 };
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
    };
    let memory = value("memory.usage_in_bytes", "memory.usage").expect("memory");
    assert!((10_000..1_000_000_000).contains(&memory), "{table}");
    assert!(matches!(value("pids.current", "pids.current"), Some(1..=9)), "{table}");
    assert!(value("cpuacct.usage", "cpu.usage_usec").is_some(), "{table}");
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn lists_show_the_processes(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let exec = ctr.exec(&id, "second", &[], &["sh", "-c", "echo up; exec sleep 100"]).spawn();
    lab.eventually("the exec", || exec.printed().contains("up"));
    let list = ctr.go(&["task", "ps", &id]).ok().out();
    assert!(list.lines().any(|line| line.contains("second")), "{list}");
    let first = ctr.pid(&id).to_string();
    assert!(list.lines().any(|line| line.split_whitespace().next() == Some(first.as_str())), "{list}");
    ctr.go(&["task", "kill", "-s", "KILL", "--exec-id", "second", &id]).ok();
    exec.wait().rc(137);
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn delete_of_a_running_task_is_refused(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    ctr.go(&["task", "rm", &id]).fails("must be stopped before deletion");
    assert_eq!(ctr.status(&id).as_deref(), Some("RUNNING"));
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn a_task_that_ended_is_there_until_deleted(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = lab.new_id();
    ctr.run(&id, &["-d", "--null-io"], &["sh", "-c", "exit 11"]).go().ok();
    lab.eventually("the end", || ctr.status(&id).as_deref() == Some("STOPPED"));
    ctr.go(&["task", "kill", &id]).fails("not found");
    ctr.exec(&id, "e", &[], &["true"]).go().fails("");
    ctr.remove_ended(&id, 11);
    ctr.go(&["task", "kill", &id]).fails("not found");
    ctr.gone(&id);
    Ok(())
}

fn a_container_deleted_by_hand_is_not_found_and_can_be_made_again(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let runtime = lab.runtime.path.to_string_lossy();
    let delete_by_hand = |id: &str| {
        let words = [&*runtime, "--root", "/run/containerd/runc/default", "delete", "--force", id];
        ctr.near(&words).go().ok();
    };
    let id = ctr.up(&[]);
    for _ in 0..3 {
        delete_by_hand(&id);
        ctr.go(&["task", "kill", "-s", "KILL", &id]).fails("not found");
        lab.eventually("the end", || ctr.status(&id).as_deref() == Some("STOPPED"));
        ctr.go(&["task", "rm", &id]).ok();
        ctr.go(&["task", "start", "-d", "--null-io", &id]).ok();
        assert_eq!(ctr.exec(&id, "e", &[], &["echo", "in"]).go().ok().text(), "in");
    }
    delete_by_hand(&id);
    ctr.remove(&id);
    ctr.gone(&id);
    ctr.run(&id, &["--rm"], &["true"]).go().ok();
    ctr.gone(&id);
    Ok(())
}

fn events_come_in_order(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let events = ctr.call_from_here(&["events"]).spawn();
    // Subscribed, once an event of another container arrives.
    lab.eventually("a subscription", || {
        let id = lab.new_id();
        ctr.go(&["container", "create", "--rootfs", &ctr.rootfs().to_string_lossy(), &id, "true"]).ok();
        ctr.go(&["container", "rm", &id]).ok();
        events.printed().contains(&id)
    });
    let id = ctr.up(&[]);
    ctr.exec(&id, "e", &[], &["true"]).go().ok();
    ctr.go(&["task", "pause", &id]).ok();
    ctr.go(&["task", "resume", &id]).ok();
    ctr.go(&["task", "kill", &id]).ok();
    lab.eventually("the end", || ctr.status(&id).as_deref() == Some("STOPPED"));
    ctr.remove_ended(&id, 7);
    let topics = || -> Vec<String> {
        let text = events.printed();
        // hull tells the deletion of an exec, too.
        let of_exec = |line: &&str| line.contains("/tasks/delete") && line.contains("\"id\":\"e\"");
        let lines = text.lines().filter(|line| line.contains(&format!("\"{id}\"")) && !of_exec(line));
        lines
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")))
            .map(String::from)
            .collect()
    };
    lab.eventually("the last event", || topics().iter().any(|topic| topic == "/tasks/delete"));
    let found = topics();
    let wanted =
        ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"];
    let found: Vec<&str> = found.iter().map(|topic| topic.trim_start_matches("/tasks/")).collect();
    assert_eq!(found, wanted);
    events.kill();
    ctr.gone(&id);
    Ok(())
}

fn checkpoint_is_refused_or_works(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let image = lab.new_dir("checkpoint");
    // Without criu, or with a criu too old for the kernel, it fails: in an orderly way, and the task goes on.
    let output = ctr.go(&["task", "checkpoint", "--image-path", &image.to_string_lossy(), &id]);
    assert!(output.rc == 0 || !output.err().is_empty(), "{output}");
    assert_eq!(ctr.status(&id).as_deref(), Some("RUNNING"));
    ctr.exec(&id, "e", &[], &["true"]).go().ok();
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn the_shim_is_more_likely_to_be_killed_than_its_daemon(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let id = ctr.up(&[]);
    let shim = ctr.shims(&id)[0];
    let daemon: i32 = ctr.proc(1, "oom_score_adj").trim().parse()?;
    let score: i32 = ctr.proc(shim, "oom_score_adj").trim().parse()?;
    assert_eq!(score, (daemon + 1).min(1000));
    let mine: i32 = ctr.proc(ctr.pid(&id), "oom_score_adj").trim().parse()?;
    assert!(mine <= score, "the container {mine}, the shim {score}");
    ctr.remove(&id);
    ctr.gone(&id);
    Ok(())
}

fn ten_at_once(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let ids: Vec<String> = (0..10).map(|_| lab.new_id()).collect();
    let running: Vec<Running> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| ctr.run(id, &["--rm"], &["sh", "-c", &format!("echo {n}; exit {n}")]).spawn())
        .collect();
    for (n, one) in running.into_iter().enumerate() {
        assert_eq!(one.wait().rc(n as i32).text(), n.to_string());
    }
    ids.iter().for_each(|id| ctr.gone(id));
    Ok(())
}

fn life(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let bundle = lab.bundle().sh(WAITS);
    let id = bundle.id.clone();
    ctr.run_bundle(&bundle, &["-d", "--null-io"]).go().ok();
    assert_eq!(ctr.exec(&id, "e", &[], &["sh", "-c", "echo in; exit 3"]).go().rc(3).text(), "in");
    ctr.go(&["task", "pause", &id]).ok();
    assert_eq!(ctr.status(&id).as_deref(), Some("PAUSED"));
    ctr.go(&["task", "resume", &id]).ok();
    ctr.go(&["task", "metrics", &id]).ok();
    ctr.go(&["task", "kill", &id]).ok();
    lab.eventually("the end", || ctr.status(&id).as_deref() == Some("STOPPED"));
    ctr.remove_ended(&id, 7);
    ctr.gone(&id);
    Ok(())
}

fn life_on_cgroup_v1_alone(lab: &Lab) -> TestResult {
    life(lab)
}

fn life_on_cgroup_v2_alone(lab: &Lab) -> TestResult {
    life(lab)
}
