//! create, start, state, kill, delete: what each does and refuses.

use hull_integration::{Lab, TestResult, skip, tests};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const CRUN_TEXT: (&str, &str) = ("crun", "docs/errors.md: the words callers of runc look for");

tests! {
    create_makes_a_container_that_waits_for_start,
    start_runs_the_process_of_a_created_container,
    state_has_the_keys_of_runc_in_order.breaks_on(&[("crun", "runc-state(8): the keys and their order")]),
    state_of_a_stopped_container_has_pid_0,
    state_of_a_missing_container_fails.breaks_on(&[("crun", "docs/errors.md: `does not exist`")]),
    state_carries_the_annotations,
    state_has_no_annotations_key_when_there_are_none,
    delete_of_a_running_container_is_refused.breaks_on(&[CRUN_TEXT]),
    delete_force_ends_a_running_container,
    delete_force_of_a_missing_container_is_silent,
    delete_of_a_missing_container_fails.breaks_on(&[("crun", "docs/errors.md: `does not exist`")]),
    delete_of_a_created_container_ends_it,
    delete_removes_a_stopped_container,
    create_with_an_id_in_use_is_refused.breaks_on(&[CRUN_TEXT]),
    ids_outside_the_alphabet_are_refused.breaks_on(&[("crun 1.8", "runc's alphabet of ids; newline, space and semicolon are accepted")]),
    ids_of_every_allowed_character_work.breaks_on(&[("crun 1.8", "runc's alphabet of ids; .hid fails with the keyring")]),
    start_of_a_running_container_is_refused.breaks_on(&[CRUN_TEXT]),
    start_of_a_stopped_container_is_refused.breaks_on(&[CRUN_TEXT]),
    start_of_a_missing_container_fails.breaks_on(&[("crun", "docs/errors.md: `does not exist`")]),
    kill_of_a_stopped_container_says_not_running.breaks_on(&[CRUN_TEXT]),
    kill_of_a_missing_container_says_does_not_exist.breaks_on(&[("crun", "docs/errors.md: `does not exist`")]),
    kill_all_of_a_stopped_container_is_no_error,
    kill_all_reaches_every_process,
    kill_without_a_signal_sends_term,
    kill_takes_names_and_numbers,
    kill_of_an_unknown_signal_is_refused.breaks_on(&[("crun 1.8", "an unknown signal name is taken as some signal")]),
    kill_ends_a_created_container,
    pid_file_has_no_newline,
    pid_file_is_not_made_when_create_fails,
    create_with_detach_is_tolerated.breaks_on(&[("runc", "go-runc can put --detach on create"), ("crun", "go-runc can put --detach on create")]),
    init_is_a_child_of_the_caller,
    bundle_defaults_to_the_working_directory,
    flags_of_callers_are_accepted,
    no_pivot_works,
    config_names_another_file.breaks_on(&[("runc", "--config is crun's")]),
    delete_and_kill_by_pattern.breaks_on(&[("runc", "--regex is crun's")]),
    globals_may_stand_in_any_order,
    a_config_that_is_missing_fails,
    a_config_that_is_no_json_fails,
    a_missing_rootfs_fails,
    state_directory_is_private,
    run_deletes_the_container_at_its_end,
    run_keep_leaves_a_stopped_container.breaks_on(&[("crun 1.8", "runc-run(8): --keep")]),
    run_detach_returns_while_it_runs,
    run_forwards_a_signal_to_init,
    a_created_container_ends_by_term.breaks_on(&[("crun", "init of a namespace has no handler: the signal is lost")]),
    kill_ends_all_of_a_container_without_a_pid_namespace_of_its_own
        .breaks_on(&[("runc 1.1", "once init is gone it answers that nothing runs"), ("crun", "init alone is signalled")]),
}

fn create_makes_a_container_that_waits_for_start(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo started > /out");
    lab.create(&b).ok();
    assert_eq!(lab.status(&b.id), "created");
    assert!(lab.pid(&b.id) > 0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(b.read("/out"), "", "the process ran before start");
    Ok(())
}

fn start_runs_the_process_of_a_created_container(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo started > /out");
    lab.create(&b).ok();
    lab.start(&b.id).ok();
    lab.wait_status(&b.id, "stopped");
    assert_eq!(b.read("/out"), "started");
    lab.rt(&["delete", &b.id]).ok();
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn state_has_the_keys_of_runc_in_order(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/annotations", json!({"one": "1"}));
    lab.create(&b).ok();
    let text = lab.rt(&["state", &b.id]).ok().out();
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("  \"").and_then(|l| l.split_once('"')))
        .map(|(key, _)| key)
        .collect();
    let wanted = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"];
    assert_eq!(keys, wanted, "{text}");
    assert!(!text.ends_with('\n'), "no newline at the end: {text:?}");
    let state: Value = serde_json::from_str(&text)?;
    assert_eq!(state["id"], json!(b.id));
    assert_eq!(state["bundle"], json!(b.dir));
    assert_eq!(state["rootfs"], json!(b.rootfs()));
    assert_eq!(state["owner"], "");
    let created = state["created"].as_str().unwrap_or_default();
    assert!(created.contains('T') && created.contains('.') && created.ends_with('Z'), "RFC 3339: {created}");
    Ok(())
}

fn state_of_a_stopped_container_has_pid_0(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    assert_eq!(lab.pid(&b.id), 0);
    Ok(())
}

fn state_of_a_missing_container_fails(lab: &Lab) -> TestResult {
    lab.rt(&["state", "nobody"]).rc(1).fails("container does not exist");
    Ok(())
}

fn state_carries_the_annotations(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/annotations", json!({"org.example.key": "a value", "b": ""}));
    lab.create(&b).ok();
    let annotations = &lab.state(&b.id)["annotations"];
    assert_eq!(annotations["org.example.key"], "a value");
    assert_eq!(annotations["b"], "");
    Ok(())
}

fn state_has_no_annotations_key_when_there_are_none(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    assert!(lab.state(&b.id).get("annotations").is_none());
    Ok(())
}

fn delete_of_a_running_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let text = format!("cannot delete container {} that is not stopped: running", b.id);
    lab.rt(&["delete", &b.id]).rc(1).fails(&text);
    assert_eq!(lab.status(&b.id), "running");
    Ok(())
}

fn delete_force_ends_a_running_container(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let pid = lab.pid(&b.id);
    lab.rt(&["delete", "--force", &b.id]).ok();
    assert!(lab.ids_on_disk().is_empty());
    lab.eventually("the end of init", || !alive(pid));
    Ok(())
}

fn delete_force_of_a_missing_container_is_silent(lab: &Lab) -> TestResult {
    let output = lab.rt(&["delete", "--force", "nobody"]).ok();
    assert_eq!(output.out() + &output.err(), "");
    Ok(())
}

fn delete_of_a_missing_container_fails(lab: &Lab) -> TestResult {
    lab.rt(&["delete", "nobody"]).rc(1).fails("does not exist");
    Ok(())
}

fn delete_of_a_created_container_ends_it(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    let pid = lab.pid(&b.id);
    lab.rt(&["delete", &b.id]).ok();
    lab.eventually("the end of init", || !alive(pid));
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn delete_removes_a_stopped_container(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    assert_eq!(lab.rt(&["state", &b.id]).rc, 1);
    Ok(())
}

fn create_with_an_id_in_use_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    lab.create(&b).rc(1).fails("container with given ID already exists");
    assert_eq!(lab.status(&b.id), "created", "the first one is untouched");
    Ok(())
}

fn ids_outside_the_alphabet_are_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    b.write();
    let long = "a".repeat(257);
    let dir = b.dir.to_string_lossy();
    for id in
        ["", ".", "..", "../x", "a/b", "/abs", "a b", "a\nb", "a;b", "a%b", "a:b", "a\u{1b}b", "é", &long]
    {
        let output = lab.rt(&["create", "--bundle", &dir, id]);
        assert!(output.rc > 0, "the id {id:?} was accepted");
        assert!(lab.ids_on_disk().is_empty(), "the id {id:?} left something");
    }
    if !lab.is("crun") {
        lab.rt(&["create", "--bundle", &dir, "a b"]).fails("invalid container ID format");
    }
    Ok(())
}

fn ids_of_every_allowed_character_work(lab: &Lab) -> TestResult {
    let mut b = lab.bundle();
    for start in ["A_z.0+9-", "+a", ".hid", "a..b", "-dash"] {
        // An id that begins with a dash is an option to every parser: `--` ends the options.
        b.id = format!("{start}{}", lab.tag);
        b.write();
        lab.remember(&b.id);
        lab.call(&["run", "--bundle", &b.dir.to_string_lossy(), "--", &b.id]).go().ok();
    }
    Ok(())
}

fn start_of_a_running_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.start(&b.id).rc(1).fails("cannot start an already running container");
    Ok(())
}

fn start_of_a_stopped_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    lab.start(&b.id).rc(1).fails("cannot start a container that has stopped");
    Ok(())
}

fn start_of_a_missing_container_fails(lab: &Lab) -> TestResult {
    lab.start("nobody").rc(1).fails("container does not exist");
    Ok(())
}

fn kill_of_a_stopped_container_says_not_running(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["kill", &b.id, "KILL"]).rc(1).fails("container not running");
    Ok(())
}

fn kill_of_a_missing_container_says_does_not_exist(lab: &Lab) -> TestResult {
    lab.rt(&["kill", "nobody", "9"]).rc(1).fails("container does not exist");
    Ok(())
}

fn kill_all_of_a_stopped_container_is_no_error(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["kill", "--all", &b.id, "9"]).ok();
    Ok(())
}

/// Without a pid namespace of its own the other processes outlive init.
fn kill_all_reaches_every_process(lab: &Lab) -> TestResult {
    let b = lab.bundle().without_namespace("pid").sh("sleep 101 & sleep 101 & echo up; wait");
    let output = lab.up(&b);
    lab.eventually("three processes", || output.text() == "up");
    let procs = lab.cgroup_of(lab.pid(&b.id), "pids")?.join("cgroup.procs");
    let pids: Vec<i32> = fs::read_to_string(&procs)?.lines().filter_map(|l| l.parse().ok()).collect();
    assert!(pids.len() >= 3, "{pids:?}");
    lab.rt(&["kill", "--all", &b.id, "KILL"]).ok();
    lab.eventually("the end of all", || pids.iter().all(|pid| !alive(*pid)));
    Ok(())
}

fn kill_without_a_signal_sends_term(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    let output = lab.up(&b);
    lab.eventually("the trap", || output.text() == "up");
    lab.rt(&["kill", &b.id]).ok();
    lab.wait_status(&b.id, "stopped");
    assert_eq!(output.text(), "up\nterm");
    Ok(())
}

fn kill_takes_names_and_numbers(lab: &Lab) -> TestResult {
    let script =
        "for s in HUP USR1 USR2 WINCH; do trap \"echo $s\" $s; done; echo up; while :; do sleep 0.01; done";
    let b = lab.bundle().sh(script);
    let output = lab.up(&b);
    lab.eventually("the traps", || output.text() == "up");
    for (signal, name) in [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("12", "USR2"), ("WINCH", "WINCH")] {
        lab.rt(&["kill", &b.id, signal]).ok();
        lab.eventually(name, || output.text().ends_with(name));
    }
    lab.rt(&["kill", &b.id, "9"]).ok();
    lab.wait_status(&b.id, "stopped");
    Ok(())
}

fn kill_of_an_unknown_signal_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    for signal in ["NOSUCH", "SIG", "KILLX", "99"] {
        assert!(lab.rt(&["kill", &b.id, signal]).rc > 0, "the signal {signal:?} was accepted");
    }
    assert_eq!(lab.status(&b.id), "running");
    Ok(())
}

fn kill_ends_a_created_container(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    lab.rt(&["kill", &b.id, "KILL"]).ok();
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}

fn pid_file_has_no_newline(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let file = lab.next_path("pid");
    lab.launch("create", &b, &["--pid-file", &file.to_string_lossy()]).go().ok();
    assert_eq!(fs::read_to_string(file)?, lab.pid(&b.id).to_string());
    Ok(())
}

fn pid_file_is_not_made_when_create_fails(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/no/such/program"]);
    let file = lab.next_path("pid");
    let output = lab.launch("create", &b, &["--pid-file", &file.to_string_lossy()]).go();
    if output.rc == 0 {
        return skip("this runtime looks for the program at start");
    }
    assert!(!file.exists());
    Ok(())
}

fn create_with_detach_is_tolerated(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.launch("create", &b, &["--detach"]).go().ok();
    assert_eq!(lab.status(&b.id), "created");
    Ok(())
}

/// The caller (here: the test's supervisor) is a sub-reaper; the runtime leaves no process in between.
fn init_is_a_child_of_the_caller(lab: &Lab) -> TestResult {
    nix::sys::prctl::set_child_subreaper(true)?;
    let b = lab.bundle();
    lab.create(&b).ok();
    let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(&b.id)))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap_or_default();
    assert_eq!(parent.trim(), std::process::id().to_string());
    Ok(())
}

fn bundle_defaults_to_the_working_directory(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo here");
    b.write();
    let output = lab.call(&["run", &b.id]).cwd(&b.dir).go().ok();
    assert_eq!(output.text(), "here");
    Ok(())
}

fn flags_of_callers_are_accepted(lab: &Lab) -> TestResult {
    for flag in ["--no-new-keyring", "--no-subreaper"] {
        let b = lab.bundle();
        let verb = if flag == "--no-subreaper" { "run" } else { "create" };
        lab.launch(verb, &b, &[flag]).go().ok();
    }
    Ok(())
}

fn no_pivot_works(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("ls / | wc -l; ls /etc/passwd");
    assert!(lab.launch("run", &b, &["--no-pivot"]).go().ok().text().ends_with("/etc/passwd"));
    Ok(())
}

fn config_names_another_file(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo other");
    b.write();
    let other = lab.dir.join("other.json");
    fs::rename(b.dir.join("config.json"), &other)?;
    let words = ["run", "--config", &other.to_string_lossy(), "--bundle", &b.dir.to_string_lossy(), &b.id];
    assert_eq!(lab.rt(&words).ok().text(), "other");
    Ok(())
}

fn delete_and_kill_by_pattern(lab: &Lab) -> TestResult {
    let all = [lab.bundle().waits(), lab.bundle().waits(), lab.bundle().waits()];
    all.iter().for_each(|b| drop(lab.up(b)));
    let pattern = format!("^({}|{})$", all[0].id, all[1].id);
    lab.rt(&["kill", "--regex", &pattern, "KILL"]).ok();
    lab.wait_status(&all[0].id, "stopped");
    lab.wait_status(&all[1].id, "stopped");
    lab.rt(&["delete", "--regex", &pattern]).ok();
    assert_eq!(lab.ids_on_disk(), [all[2].id.clone()]);
    Ok(())
}

fn globals_may_stand_in_any_order(lab: &Lab) -> TestResult {
    let log = lab.next_path("log");
    let root = format!("--root={}", lab.root.display());
    let log = format!("--log={}", log.display());
    lab.bare(&["--log-format", "json", &log, &root, "--debug", "delete", "-f", "nobody"]).go().ok();
    lab.bare(&[&root, "--log-format=text", &log, "delete", "-f", "nobody"]).go().ok();
    Ok(())
}

fn a_config_that_is_missing_fails(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("empty");
    lab.rt(&["create", "--bundle", &dir.to_string_lossy(), "x"]).fails("config.json");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_config_that_is_no_json_fails(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let pretty = serde_json::to_string(&b.spec)?;
    for text in ["", "{", "[]", "7", "{\"ociVersion\":", &pretty[..pretty.len() - 1]] {
        fs::write(b.dir.join("config.json"), text)?;
        let output = lab.rt(&["create", "--bundle", &b.dir.to_string_lossy(), &b.id]);
        assert!(output.rc > 0, "the config {text:?} was accepted");
        assert!(lab.ids_on_disk().is_empty(), "the config {text:?} left something");
    }
    Ok(())
}

fn a_missing_rootfs_fails(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/root/path", json!("not-there"));
    lab.create(&b).fails("not-there");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

/// T18: nobody else may look into the state.
fn state_directory_is_private(lab: &Lab) -> TestResult {
    use std::os::unix::fs::PermissionsExt;
    let b = lab.bundle();
    lab.create(&b).ok();
    let mode = fs::metadata(lab.root.join(&b.id))?.permissions().mode() & 0o777;
    assert!(mode & 0o006 == 0, "others may read or write: {mode:o}");
    Ok(())
}

fn run_deletes_the_container_at_its_end(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.run(&b).ok();
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn run_keep_leaves_a_stopped_container(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.launch("run", &b, &["--keep"]).go().ok();
    assert_eq!(lab.status(&b.id), "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}

fn run_detach_returns_while_it_runs(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.launch("run", &b, &["-d"]).go().ok();
    assert_eq!(lab.status(&b.id), "running");
    lab.rt(&["kill", &b.id, "TERM"]).ok();
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}

fn run_forwards_a_signal_to_init(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done");
    let running = lab.launch("run", &b, &[]).spawn();
    lab.eventually("the trap", || running.printed().trim() == "up");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.pid()), nix::sys::signal::Signal::SIGTERM)?;
    running.wait_for(Duration::from_secs(10))?.rc(9);
    Ok(())
}

/// A zombie waits for the supervisor to reap it: it counts as ended.
fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn a_created_container_ends_by_term(lab: &Lab) -> TestResult {
    for signal in ["TERM", "INT", "HUP"] {
        let b = lab.bundle().waits();
        lab.create(&b).ok();
        lab.rt(&["kill", &b.id, signal]).ok();
        lab.wait_status(&b.id, "stopped");
        lab.rt(&["delete", &b.id]).ok();
    }
    // What was blocked for the wait is not blocked for the program.
    let b = lab.bundle().sh("grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\n'");
    let create = lab.create(&b).ok();
    lab.start(&b.id).ok();
    lab.wait_status(&b.id, "stopped");
    assert_eq!(create.out().matches("0000000000000000").count(), 2, "{}", create.out());
    Ok(())
}

fn kill_ends_all_of_a_container_without_a_pid_namespace_of_its_own(lab: &Lab) -> TestResult {
    for init_first in [false, true] {
        let b = lab.bundle().without_namespace("pid");
        let b = b.sh("sleep 1000 & echo $! > /child; sleep 1000");
        lab.up(&b);
        lab.eventually("the child runs", || !b.read("/child").is_empty());
        if init_first {
            hull_integration::sys::Pidfd::open(lab.pid(&b.id))?.signal(libc::SIGKILL)?;
            lab.wait_status(&b.id, "stopped");
        }
        lab.rt(&["kill", &b.id, "KILL"]).ok();
        let child = format!("/proc/{}", b.read("/child"));
        lab.eventually("the child is gone", || {
            let text = std::fs::read_to_string(format!("{child}/stat")).unwrap_or_default();
            text.is_empty() || text.contains(") Z ")
        });
        lab.wait_status(&b.id, "stopped");
        lab.rt(&["kill", &b.id, "KILL"]).fails("container not running");
    }
    Ok(())
}
