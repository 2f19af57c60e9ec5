//! The task service, method by method: what each answers in which state, and with which code it refuses.

use hull_integration::task::{
    Exec, Fifo, Stdio, Task, WAITS, is_gone, refused, refused_saying, signal_process,
};
use hull_integration::{Lab, Mode, TestResult, tests};
use hull_proto::process::Status;
use hull_proto::task::{ConnectRequest, ConnectResponse, StateRequest, StateResponse};
use hull_proto::types::Mount;
use protobuf::Message;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;
use ttrpc::Code;

const GO_1: &str = "containerd-shim-runc-v2 1.";
const EXEC_AFTER_INIT: &[(&str, &str)] =
    &[(GO_1, "docs/shim.md: Start of an exec after the end of init is a failed precondition")];
const BOTH_SERVICES: &[(&str, &str)] = &[(GO_1, "docs/shim.md: both versions of the task service")];
const EXEC_DELETED: &[(&str, &str)] = &[(GO_1, "docs/shim.md: the deletion of an exec is an event")];
const LEAKS: &[(&str, &str)] = &[(GO_1, "docs/shim.md: a failed Create leaves no descriptor")];
const NO_LOCK: &[(&str, &str)] = &[(GO_1, "docs/shim.md: State never waits for the runtime")];
const BY_HAND: &[(&str, &str)] = &[(
    "containerd-shim-runc-v2",
    "docs/shim.md: one that the runtime does not know any more is not found, and ends with Kill",
)];
const PIDS: &[(&str, &str)] =
    &[("containerd-shim-runc-v2", "docs/shim.md: Pids names init until it is deleted")];

tests! {
    a_container_from_create_to_delete,
    both_versions_of_the_service_answer.breaks_on(BOTH_SERVICES),
    a_method_nobody_knows_is_unimplemented,
    state_follows_the_container,
    state_tells_what_create_was_told,
    ids_nobody_knows_are_not_found,
    connect_answers_for_every_id,
    a_second_create_is_refused_and_harms_nobody,
    create_says_what_the_runtime_says,
    a_failed_create_leaves_nothing.breaks_on(LEAKS),
    create_makes_the_mounts_of_the_rootfs,
    create_makes_an_overlay_with_many_layers,
    a_failed_create_undoes_its_mounts,
    a_create_that_dies_at_once_is_answered,
    start_of_a_started_container_is_refused,
    delete_of_a_running_container_is_refused,
    delete_of_a_created_container,
    a_deleted_container_is_not_found,
    an_exec_from_exec_to_delete,
    the_deletion_of_an_exec_is_an_event.breaks_on(EXEC_DELETED),
    an_exec_id_in_use_is_refused,
    one_of_two_racing_execs_gets_the_id,
    an_exec_that_was_not_started_can_be_deleted,
    an_exec_that_fails_can_be_deleted_and_tried_again,
    exec_in_a_paused_or_stopped_container_is_refused,
    start_of_an_exec_after_the_end_of_init_is_refused.breaks_on(EXEC_AFTER_INIT),
    an_exec_is_taken_until_the_end_of_init_is_told.breaks_on(NO_LOCK),
    the_terminal_flag_of_exec_overrides_its_spec,
    state_of_an_exec_shows_the_pause,
    kill_of_a_finished_process_is_not_found,
    kill_of_a_created_container,
    kill_of_a_paused_container_ends_it_when_it_goes_on,
    kill_of_an_exec_that_was_not_started_is_refused,
    kill_of_all_reaches_every_process,
    wait_answers_every_waiter_and_after_the_end,
    wait_is_answered_when_state_says_stopped,
    waiters_of_a_closed_connection_are_freed,
    pids_name_the_execs,
    pids_name_init_until_it_is_deleted.breaks_on(PIDS),
    pause_and_resume_in_the_wrong_state_are_refused,
    update_reaches_the_cgroup,
    stats_are_those_of_the_cgroup,
    resize_without_a_terminal_is_no_error,
    shutdown_with_containers_does_nothing,
    state_does_not_wait_for_a_slow_create.breaks_on(NO_LOCK),
    state_does_not_wait_for_a_slow_exec.breaks_on(NO_LOCK),
    a_container_deleted_by_hand_is_not_found_and_can_be_made_again,
    a_created_container_deleted_by_hand_can_be_made_again,
    a_container_whose_record_is_gone_ends_with_kill.breaks_on(BY_HAND),
    a_created_container_whose_record_is_gone_ends_with_delete.breaks_on(BY_HAND),
    a_container_without_its_cgroup_can_be_deleted.breaks_on(PIDS),
    checkpoint_fails_in_an_orderly_way_or_works,
}

fn a_container_from_create_to_delete(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    let pid = task.create(&Stdio::default())?;
    assert_eq!(task.start("")?, pid);
    assert_eq!(task.wait("").get()?.exit_status, 3);
    let deleted = task.delete("")?;
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
    assert_eq!(task.event("delete"), ["create", "start", "exit 3", "delete 3"]);
    task.retire()?;
    daemon.end()
}

fn both_versions_of_the_service_answer(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut task = daemon.task(daemon.bundle().sh(WAITS))?;
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        task.client = task.client.under(service);
        refused(task.state(""), Code::NOT_FOUND, "");
    }
    let pid = task.up_waiting()?;
    task.client = task.client.under("containerd.task.v2.Task");
    assert_eq!(task.state("")?.pid, pid);
    daemon.end()
}

fn a_method_nobody_knows_is_unimplemented(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let question = StateRequest::new();
    refused(task.client.ask::<StateResponse>("NoSuchMethod", &question).get(), Code::UNIMPLEMENTED, "");
    task.up_waiting()?;
    daemon.end()
}

fn state_follows_the_container(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    refused(task.state(""), Code::NOT_FOUND, "");
    let pid = task.create(&Stdio::default())?;
    assert_eq!(task.status(""), Status::CREATED);
    task.start_waiting()?;
    assert_eq!(task.status(""), Status::RUNNING);
    task.pause()?;
    assert_eq!(task.status(""), Status::PAUSED);
    task.resume()?;
    assert_eq!(task.status(""), Status::RUNNING);
    assert!(task.state("")?.exited_at.seconds <= 0);
    task.kill("", libc::SIGTERM)?;
    let waited = task.wait("").get()?;
    let state = task.state("")?;
    assert_eq!(task.status(""), Status::STOPPED);
    assert_eq!((state.exit_status, state.pid), (7, pid));
    assert_eq!(state.exited_at, waited.exited_at);
    assert_eq!(task.delete("")?.exited_at, waited.exited_at);
    let lines = task.event("delete");
    assert_eq!(lines, ["create", "start", "paused", "resumed", "exit 7", "delete 7"]);
    daemon.end()
}

fn state_tells_what_create_was_told(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let (out, err) = (lab.next_path("out"), lab.next_path("err"));
    fs::write(&out, "")?;
    fs::write(&err, "")?;
    let stdio =
        Stdio { stdout: out.display().to_string(), stderr: err.display().to_string(), ..Stdio::default() };
    let pid = task.up(&stdio)?;
    let state = task.state("")?;
    assert_eq!((state.id.as_str(), state.pid, state.exec_id.as_str()), (task.id.as_str(), pid, ""));
    assert_eq!(state.bundle, task.bundle.dir.display().to_string());
    assert_eq!((&state.stdout, &state.stderr, state.terminal), (&stdio.stdout, &stdio.stderr, false));
    daemon.end()
}

fn ids_nobody_knows_are_not_found(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let known = std::mem::replace(&mut task.id, "nobody".into());
    for exec in ["", "nobody"] {
        refused(task.state(exec), Code::NOT_FOUND, "");
        refused(task.start(exec), Code::NOT_FOUND, "");
        refused(task.delete(exec), Code::NOT_FOUND, "");
        refused(task.kill(exec, 9), Code::NOT_FOUND, "");
        refused(task.wait(exec).get(), Code::NOT_FOUND, "");
        refused(task.resize(exec, 80, 20), Code::NOT_FOUND, "");
        refused(task.close_stdin(exec), Code::NOT_FOUND, "");
    }
    refused(task.pids(), Code::NOT_FOUND, "");
    refused(task.pause(), Code::NOT_FOUND, "");
    refused(task.resume(), Code::NOT_FOUND, "");
    refused(task.stats(), Code::NOT_FOUND, "");
    refused(task.update(&json!({})), Code::NOT_FOUND, "");
    refused(task.checkpoint("/x"), Code::NOT_FOUND, "");
    refused(task.exec(&Exec::sh("e", "true")), Code::NOT_FOUND, "");
    task.id = known;
    for result in [task.state("nobody").map(drop), task.start("nobody").map(drop), task.kill("nobody", 9)] {
        refused(result, Code::NOT_FOUND, "");
    }
    refused(task.wait("nobody").get(), Code::NOT_FOUND, "");
    refused(task.delete("nobody"), Code::NOT_FOUND, "");
    assert_eq!(task.status(""), Status::RUNNING);
    daemon.end()
}

fn connect_answers_for_every_id(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let early = task.connect(&task.id)?;
    assert!(early.shim_pid > 1);
    let pid = task.up_waiting()?;
    let answer = task.connect(&task.id)?;
    assert_eq!((answer.task_pid, answer.shim_pid), (pid, early.shim_pid));
    let answer = task.connect("nobody")?;
    assert_eq!((answer.task_pid, answer.shim_pid), (0, early.shim_pid));
    daemon.end()
}

fn a_second_create_is_refused_and_harms_nobody(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.up_waiting()?;
    refused_saying(task.create(&Stdio::default()), "exist");
    assert_eq!(task.state("")?.pid, pid);
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    assert_eq!(task.delete("")?.exit_status, 7);
    assert_eq!(task.event("delete"), ["create", "start", "exit 7", "delete 7"]);
    daemon.end()
}

fn create_says_what_the_runtime_says(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().args(&["/bin/no-such-thing"]))?;
    let error = task.create(&Stdio::default()).expect_err("no such program");
    assert!(error.message.contains("OCI runtime create failed"), "{error}");
    assert!(error.message.contains("no such file or directory"), "{error}");
    refused(task.state(""), Code::NOT_FOUND, "");
    daemon.end()
}

fn fds(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut targets: Vec<String> = targets.map(|target| target.display().to_string()).collect();
    targets.sort();
    targets
}

fn a_failed_create_leaves_nothing(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let group = daemon.bundle().sh(WAITS);
    let holder = daemon.task(group)?;
    holder.up_waiting()?;
    let shim = holder.shim_pid();
    let wrapper = daemon.wrapper("[ $verb != create ] || { echo broken >&2; exit 1; }")?;
    let mut after_first = None;
    for round in 0..10 {
        let task = daemon.task(daemon.member(&holder.bundle))?;
        assert_eq!(task.started.socket, holder.started.socket);
        let out = Fifo::output(&lab.next_path("out"))?;
        let stdio = Stdio { terminal: round % 2 == 1, stdout: out.name(), ..Stdio::default() };
        let failed = task.create_with(&stdio, |request| {
            request.options = Some(daemon.options(|o| o.binary_name = wrapper.display().to_string())).into();
        });
        assert!(failed.is_err());
        drop(out);
        daemon.delete(&task.bundle)?;
        daemon.remove_bundle(&task.bundle);
        // The connection of `daemon.task` stays open until the end of the test.
        let count = fds(shim).iter().filter(|target| !target.starts_with("socket:")).count();
        let first = *after_first.get_or_insert(count);
        lab.eventually("no more descriptors", || {
            fds(shim).iter().filter(|target| !target.starts_with("socket:")).count() <= first + 1
        });
    }
    daemon.end()
}

fn bind(source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|word| (*word).to_owned()).collect();
    Mount { type_: "bind".into(), source: source.into(), options, ..Mount::default() }
}

/// A bundle whose root file system is elsewhere, and where it is.
fn without_rootfs(
    daemon: &hull_integration::task::Daemon<'_>,
) -> Result<(hull_integration::Bundle, String), hull_integration::Stop> {
    let bundle = daemon.bundle();
    let elsewhere = daemon.lab.next_path("elsewhere");
    fs::rename(bundle.rootfs(), &elsewhere)?;
    fs::create_dir(bundle.rootfs())?;
    Ok((bundle, elsewhere.display().to_string()))
}

fn mounted(at: &std::path::Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&at.to_string_lossy()))
}

fn create_makes_the_mounts_of_the_rootfs(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (bundle, elsewhere) = without_rootfs(&daemon)?;
    let task = daemon.task(bundle.sh("touch /new 2>/dev/null && exit 1; test -x /bin/busybox"))?;
    let mounts = vec![bind(&elsewhere, &["rbind", "ro"])];
    task.create_with(&Stdio::default(), |request| request.rootfs = mounts)?;
    assert!(mounted(&task.bundle.rootfs()));
    task.start("")?;
    assert_eq!(task.wait("").get()?.exit_status, 0);
    task.delete("")?;
    assert!(!mounted(&task.bundle.rootfs()));
    task.retire()?;
    daemon.end()
}

fn succeeds(program: &str, words: &[&str]) -> TestResult {
    let status = std::process::Command::new(program).args(words).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(hull_integration::Stop::Fail(format!("{program} {words:?}: {status}")))
    }
}

/// So many lower directories that their names are longer than a page.
fn create_makes_an_overlay_with_many_layers(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (bundle, elsewhere) = without_rootfs(&daemon)?;
    // An overlay below the temporary directory can be refused there: this one is in memory.
    let dir = std::path::PathBuf::from("/run/layers");
    fs::create_dir(&dir)?;
    let mut lower = Vec::new();
    for number in 0..60 {
        let layer =
            dir.join(format!("a-layer-with-a-name-that-takes-some-of-a-page-of-options-{number:04}/fs"));
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("file{number}")), "")?;
        lower.push(layer.display().to_string());
    }
    succeeds("cp", &["-a", &elsewhere, "/run/layers/base"])?;
    lower.push("/run/layers/base".into());
    for name in ["upper", "work"] {
        fs::create_dir(dir.join(name))?;
    }
    let options = vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", dir.join("upper").display()),
        format!("workdir={}", dir.join("work").display()),
    ];
    let mount = Mount { type_: "overlay".into(), source: "overlay".into(), options, ..Mount::default() };
    let task = daemon.task(bundle.sh("test -e /file0 -a -e /file59 && touch /new"))?;
    task.create_with(&Stdio::default(), |request| request.rootfs = vec![mount])?;
    task.start("")?;
    assert_eq!(task.wait("").get()?.exit_status, 0);
    task.delete("")?;
    assert!(dir.join("upper/new").exists());
    task.retire()?;
    daemon.end()
}

fn a_failed_create_undoes_its_mounts(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let (bundle, elsewhere) = without_rootfs(&daemon)?;
    let task = daemon.task(bundle.args(&["/bin/no-such-thing"]))?;
    let good = bind(&elsewhere, &["rbind"]);
    let failed = task.create_with(&Stdio::default(), |request| request.rootfs = vec![good.clone()]);
    refused_saying(failed, "no such file or directory");
    assert!(!mounted(&task.bundle.rootfs()));
    let bad = bind("/no/such/directory", &["rbind"]);
    let failed = task.create_with(&Stdio::default(), |request| request.rootfs = vec![good, bad]);
    refused_saying(failed, "no such file or directory");
    assert!(!mounted(&task.bundle.rootfs()));
    daemon.end()
}

fn a_create_that_dies_at_once_is_answered(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let wrapper = daemon.wrapper("[ $verb != create ] || kill -9 $$")?;
    let options = daemon.options(|options| options.binary_name = wrapper.display().to_string());
    let error = task
        .create_with(&Stdio::default(), |request| request.options = Some(options).into())
        .expect_err("a runtime that was killed");
    assert!(!error.message.trim().is_empty() && !error.message.contains("%!"), "{error}");
    daemon.end()
}

fn start_of_a_started_container_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    refused_saying(task.start(""), "cannot start a running process");
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    refused_saying(task.start(""), "cannot start a stopped process");
    assert_eq!(task.delete("")?.exit_status, 7);
    daemon.end()
}

fn delete_of_a_running_container_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    refused_saying(task.delete(""), "cannot delete a running process");
    task.run(&Exec::sh("e", WAITS))?;
    refused_saying(task.delete("e"), "cannot delete a running process");
    assert_eq!((task.status(""), task.status("e")), (Status::RUNNING, Status::RUNNING));
    daemon.end()
}

fn delete_of_a_created_container(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.create(&Stdio::default())?;
    task.delete("")?;
    lab.eventually("the end of the process", || is_gone(pid as i32));
    task.retire()?;
    daemon.end()
}

fn a_deleted_container_is_not_found(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 2"))?;
    task.up(&Stdio::default())?;
    task.wait("").get()?;
    task.delete("")?;
    refused(task.delete(""), Code::NOT_FOUND, "");
    refused(task.state(""), Code::NOT_FOUND, "");
    refused(task.kill("", 9), Code::NOT_FOUND, "");
    refused(task.wait("").get(), Code::NOT_FOUND, "");
    task.retire()?;
    daemon.end()
}

fn an_exec_from_exec_to_delete(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let gate = task.bundle.path("/gate");
    task.exec(&Exec::sh("e", "until [ -e /gate ]; do sleep 0.02; done; exit 4"))?;
    assert_eq!(task.status("e"), Status::CREATED);
    let pid = task.start("e")?;
    let state = task.state("e")?;
    assert_eq!((state.pid, task.status("e")), (pid, Status::RUNNING));
    fs::write(gate, "")?;
    let waited = task.wait("e").get()?;
    assert_eq!(waited.exit_status, 4);
    assert_eq!((task.status("e"), task.state("e")?.exit_status), (Status::STOPPED, 4));
    let deleted = task.delete("e")?;
    assert_eq!((deleted.pid, deleted.exit_status, deleted.exited_at), (pid, 4, waited.exited_at));
    refused(task.state("e"), Code::NOT_FOUND, "");
    let lines = task.event("exit e 4");
    assert_eq!(lines[..5], ["create", "start", "exec-added e", "exec-started e", "exit e 4"]);
    // The id is free again.
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 5"))?, 5);
    daemon.end()
}

fn the_deletion_of_an_exec_is_an_event(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 4"))?, 4);
    let lines = task.event("delete e 4");
    assert_eq!(lines[2..], ["exec-added e", "exec-started e", "exit e 4", "delete e 4"]);
    daemon.end()
}

fn an_exec_id_in_use_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.exec(&Exec::sh("e", "exit 4"))?;
    refused(task.exec(&Exec::sh("e", "exit 5")), Code::ALREADY_EXISTS, "");
    task.start("e")?;
    refused(task.exec(&Exec::sh("e", "exit 5")), Code::ALREADY_EXISTS, "");
    assert_eq!(task.wait("e").get()?.exit_status, 4);
    refused(task.exec(&Exec::sh("e", "exit 5")), Code::ALREADY_EXISTS, "");
    assert_eq!(task.delete("e")?.exit_status, 4);
    daemon.end()
}

fn one_of_two_racing_execs_gets_the_id(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    for round in 0..20 {
        let id = format!("e{round}");
        let asked: Vec<_> =
            (0..4).map(|code| task.ask_exec(&Exec::sh(&*id, &format!("exit {code}")))).collect();
        let answers: Vec<_> = asked.into_iter().map(|reply| reply.get()).collect();
        let winner: Vec<usize> = (0..4).filter(|n| answers[*n].is_ok()).collect();
        assert_eq!(winner.len(), 1, "{answers:?}");
        for refusal in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert_eq!(refusal.code, Some(Code::ALREADY_EXISTS), "{refusal}");
        }
        task.start(&id)?;
        assert_eq!(task.wait(&id).get()?.exit_status as usize, winner[0]);
        task.delete(&id)?;
    }
    daemon.end()
}

fn an_exec_that_was_not_started_can_be_deleted(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.exec(&Exec::sh("e", "exit 4"))?;
    task.delete("e")?;
    refused(task.state("e"), Code::NOT_FOUND, "");
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 5"))?, 5);
    daemon.end()
}

fn an_exec_that_fails_can_be_deleted_and_tried_again(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let mut exec = Exec::sh("e", "true");
    exec.process["args"] = json!(["/bin/no-such-thing"]);
    task.exec(&exec)?;
    refused_saying(task.start("e"), "no such file or directory");
    task.delete("e")?;
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 5"))?, 5);
    let lines = task.event("exit e 5");
    assert_eq!(lines.iter().filter(|line| *line == "exec-started e").count(), 1, "{lines:?}");
    daemon.end()
}

fn exec_in_a_paused_or_stopped_container_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.pause()?;
    refused_saying(task.exec(&Exec::sh("e", "true")), "cannot exec in a paused");
    task.resume()?;
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    refused_saying(task.exec(&Exec::sh("e", "true")), "cannot exec in a stopped");
    daemon.end()
}

fn start_of_an_exec_after_the_end_of_init_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.exec(&Exec::sh("e", "true"))?;
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    refused(task.start("e"), Code::FAILED_PRECONDITION, "");
    daemon.end()
}

/// The end of init waits for an exec that the runtime is still asked for.
fn an_exec_is_taken_until_the_end_of_init_is_told(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let (binary, gate) = slow(&daemon, "exec")?;
    task.create_with(&Stdio::default(), |request| {
        request.options = Some(daemon.options(|options| options.binary_name = binary)).into();
    })?;
    let pid = task.start_waiting()?;
    task.exec(&Exec::sh("first", "true"))?;
    let started = task.ask_start("first");
    assert!(started.within(Duration::from_millis(200)).is_none());
    task.kill("", libc::SIGKILL)?;
    lab.eventually("init to be reaped", || !fs::exists(format!("/proc/{pid}")).unwrap_or(true));
    assert_eq!(task.status(""), Status::RUNNING);
    task.exec(&Exec::sh("second", "true"))?;
    refused(task.start("second"), Code::FAILED_PRECONDITION, "");
    let ended = task.wait("");
    fs::write(gate, "")?;
    refused_saying(started.get(), "exec failed");
    assert_eq!(ended.get()?.exit_status, 137);
    assert_eq!(task.status(""), Status::STOPPED);
    refused_saying(task.exec(&Exec::sh("third", "true")), "cannot exec in a stopped");
    assert_eq!(task.delete("")?.exit_status, 137);
    let lines = task.event("delete");
    assert_eq!(lines, ["create", "start", "exec-added first", "exec-added second", "exit 137", "delete 137"]);
    daemon.end()
}

fn the_terminal_flag_of_exec_overrides_its_spec(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let mut exec = Exec::sh("e", "[ -t 0 ] && exit 3; exit 4");
    exec.process["terminal"] = json!(true);
    assert_eq!(task.run_to_end(&exec)?, 4);
    exec.process["terminal"] = json!(false);
    let out = Fifo::output(&lab.next_path("out"))?;
    exec.stdio = Stdio { terminal: true, stdout: out.name(), ..Stdio::default() };
    assert_eq!(task.run_to_end(&exec)?, 3);
    daemon.end()
}

fn state_of_an_exec_shows_the_pause(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.run(&Exec::sh("e", WAITS))?;
    task.pause()?;
    assert_eq!(task.status("e"), Status::PAUSED);
    task.resume()?;
    assert_eq!(task.status("e"), Status::RUNNING);
    daemon.end()
}

fn kill_of_a_finished_process_is_not_found(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.run(&Exec::sh("e", "exit 1"))?;
    task.wait("e").get()?;
    refused(task.kill("e", 9), Code::NOT_FOUND, "process already finished");
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    refused(task.kill("", 9), Code::NOT_FOUND, "process already finished");
    daemon.end()
}

fn kill_of_a_created_container(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.create(&Stdio::default())?;
    let wait = task.wait("");
    task.kill("", 9)?;
    assert_eq!(wait.get()?.exit_status, 137);
    assert_eq!(task.status(""), Status::STOPPED);
    assert_eq!(task.delete("")?.exit_status, 137);
    let lines = task.event("delete");
    assert_eq!(lines, ["create", "exit 137", "delete 137"]);
    daemon.end()
}

fn kill_of_a_paused_container_ends_it_when_it_goes_on(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.pause()?;
    task.kill("", 9)?;
    // Dead already where the kernel or the runtime thaws it for that.
    task.resume().ok();
    assert_eq!(task.wait("").get()?.exit_status, 137);
    assert_eq!(task.delete("")?.exit_status, 137);
    daemon.end()
}

fn kill_of_an_exec_that_was_not_started_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.exec(&Exec::sh("e", "true"))?;
    refused(task.kill("e", 9), Code::FAILED_PRECONDITION, "");
    assert_eq!(task.status("e"), Status::CREATED);
    daemon.end()
}

fn kill_of_all_reaches_every_process(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let script = "(trap ': >/child' USR1; : >/ready; while :; do sleep 0.02; done) & \
        trap 'until [ -e /child ]; do sleep 0.02; done; exit 5' USR1; until [ -e /ready ]; do sleep 0.02; done; \
        : >/up; while :; do sleep 0.02; done";
    let task = daemon.task(daemon.bundle().sh(script))?;
    task.up_waiting()?;
    task.kill_all(libc::SIGUSR1)?;
    assert_eq!(task.wait("").get()?.exit_status, 5);
    daemon.end()
}

fn wait_answers_every_waiter_and_after_the_end(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.create(&Stdio::default())?;
    let mut waiters: Vec<_> = (0..20).map(|_| task.wait("")).collect();
    task.start_waiting()?;
    waiters.extend((0..20).map(|_| task.wait("")));
    assert!(waiters[0].within(Duration::from_millis(50)).is_none());
    task.kill("", libc::SIGTERM)?;
    for waiter in waiters {
        assert_eq!(waiter.get()?.exit_status, 7);
    }
    assert_eq!(task.wait("").get()?.exit_status, 7);
    daemon.end()
}

fn wait_is_answered_when_state_says_stopped(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    for round in 0..30 {
        let id = format!("e{round}");
        task.run(&Exec::sh(&*id, "exit 1"))?;
        task.wait(&id).get()?;
        assert_eq!(task.status(&id), Status::STOPPED);
        task.delete(&id)?;
    }
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    assert_eq!(task.status(""), Status::STOPPED);
    daemon.end()
}

fn waiters_of_a_closed_connection_are_freed(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let shim = task.shim_pid();
    let before = fds(shim).len();
    for _ in 0..10 {
        let client = daemon.connect(&task.started)?;
        let request = hull_proto::task::WaitRequest { id: task.id.clone(), ..Default::default() };
        let waiters: Vec<_> =
            (0..50).map(|_| client.ask::<hull_proto::task::WaitResponse>("Wait", &request)).collect();
        // The connection is alive, so the requests before are there.
        client.ask::<ConnectResponse>("Connect", &ConnectRequest::new()).get()?;
        client.close();
        drop(waiters);
    }
    lab.eventually("the connections to be gone", || fds(shim).len() <= before);
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    daemon.end()
}

fn pids_name_the_execs(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("while :; do read -t 1000 x </dev/zero; done"))?;
    let init = task.up(&Stdio::default())?;
    let exec = task.run(&Exec::sh("second", "exec sleep 1000"))?;
    let pids = task.pids()?;
    assert!(pids.contains(&(init, String::new())), "{pids:?}");
    assert!(pids.contains(&(exec, "second".into())), "{pids:?}");
    daemon.end()
}

fn pids_name_init_until_it_is_deleted(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    let init = task.up(&Stdio::default())?;
    assert_eq!(task.wait("").get()?.exit_status, 3);
    assert_eq!(task.pids()?, [(init, String::new())]);
    task.delete("")?;
    refused(task.pids(), Code::NOT_FOUND, "");
    daemon.end()
}

fn pause_and_resume_in_the_wrong_state_are_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.create(&Stdio::default())?;
    refused_saying(task.pause(), "");
    refused_saying(task.resume(), "");
    task.start_waiting()?;
    refused_saying(task.resume(), "");
    task.pause()?;
    refused_saying(task.pause(), "");
    task.resume()?;
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    refused_saying(task.pause(), "");
    refused_saying(task.resume(), "");
    daemon.end()
}

fn update_reaches_the_cgroup(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.up_waiting()? as i32;
    let limit = 77 << 20;
    task.update(&json!({"memory": {"limit": limit}}))?;
    let file = if lab.host.mode == Mode::V2 { "memory.max" } else { "memory.limit_in_bytes" };
    let text = fs::read_to_string(lab.cgroup_of(pid, "memory")?.join(file))?;
    assert_eq!(text.trim(), limit.to_string());
    refused_saying(task.update(&json!({"memory": {"limit": "much"}})), "");
    assert_eq!(task.status(""), Status::RUNNING);
    daemon.end()
}

fn stats_are_those_of_the_cgroup(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let daemon = lab.daemon()?;
    let task =
        daemon.task(daemon.bundle().sh(WAITS).set("/linux/resources/memory", json!({"limit": 50 << 20})))?;
    let pid = task.up_waiting()? as i32;
    let stats = task.stats()?;
    let kind = stats.type_url.rsplit('/').next().unwrap_or_default().to_owned();
    let memory = lab.cgroup_of(pid, "memory")?;
    if lab.host.mode == Mode::V2 {
        assert_eq!(kind, "io.containerd.cgroups.v2.Metrics");
        let metrics = hull_proto::cgroup2::Metrics::parse_from_bytes(&stats.value)?;
        assert_eq!(metrics.memory.usage_limit, 50 << 20);
        assert!(metrics.memory.usage > 0 && metrics.pids.current >= 1 && metrics.cpu.usage_usec > 0);
    } else {
        assert_eq!(kind, "io.containerd.cgroups.v1.Metrics");
        let metrics = hull_proto::cgroup1::Metrics::parse_from_bytes(&stats.value)?;
        assert_eq!(metrics.memory.usage.limit, 50 << 20);
        assert!(metrics.memory.usage.usage > 0 && metrics.memory.usage.max >= metrics.memory.usage.usage);
        assert!(metrics.cpu.usage.total > 0 && metrics.pids.current >= 1);
        let text = fs::read_to_string(memory.join("memory.stat"))?;
        let inactive = text.lines().find_map(|line| line.strip_prefix("total_inactive_file "));
        let inactive: u64 = inactive.unwrap_or("0").parse()?;
        assert!(metrics.memory.total_inactive_file.abs_diff(inactive) < 1 << 20);
    }
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    task.delete("")?;
    refused(task.stats(), Code::NOT_FOUND, "");
    daemon.end()
}

fn resize_without_a_terminal_is_no_error(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.resize("", 80, 20)?;
    task.close_stdin("")?;
    task.close_stdin("")?;
    daemon.end()
}

fn shutdown_with_containers_does_nothing(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.up_waiting()?;
    task.shutdown()?;
    assert_eq!((task.state("")?.pid, task.status("")), (pid, Status::RUNNING));
    task.kill("", libc::SIGTERM)?;
    task.wait("").get()?;
    task.shutdown()?;
    assert_eq!(task.delete("")?.exit_status, 7);
    let socket = task.started.socket.clone();
    task.retire()?;
    assert!(!socket.exists());
    daemon.end()
}

/// A runtime that waits at this verb for a file.
fn slow(
    daemon: &hull_integration::task::Daemon<'_>,
    verb: &str,
) -> Result<(String, std::path::PathBuf), hull_integration::Stop> {
    let gate = daemon.lab.next_path("gate");
    let at = daemon.lab.next_path("at");
    let script = format!(
        "[ $verb != {verb} ] || {{ : >{}; until [ -e {} ]; do {} sleep 0.01; done; }}",
        at.display(),
        gate.display(),
        daemon.lab.busybox().display()
    );
    Ok((daemon.wrapper(&script)?.display().to_string(), gate))
}

fn state_does_not_wait_for_a_slow_create(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let group = daemon.bundle().sh(WAITS);
    let first = daemon.task(group)?;
    let pid = first.up_waiting()?;
    let other = daemon.task(daemon.member(&first.bundle).sh("exit 3"))?;
    let (binary, gate) = slow(&daemon, "create")?;
    let created = other.ask_create(&Stdio::default(), |request| {
        request.options = Some(daemon.options(|options| options.binary_name = binary)).into();
    });
    assert!(created.within(Duration::from_millis(200)).is_none());
    assert_eq!(first.state("")?.pid, pid);
    assert_eq!(first.run_to_end(&Exec::sh("e", "exit 6"))?, 6);
    refused(other.state(""), Code::NOT_FOUND, "");
    fs::write(gate, "")?;
    created.get()?;
    other.start("")?;
    assert_eq!(other.wait("").get()?.exit_status, 3);
    other.delete("")?;
    daemon.end()
}

fn state_does_not_wait_for_a_slow_exec(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let (binary, gate) = slow(&daemon, "exec")?;
    task.create_with(&Stdio::default(), |request| {
        request.options = Some(daemon.options(|options| options.binary_name = binary)).into();
    })?;
    task.start_waiting()?;
    task.exec(&Exec::sh("slow", "exit 6"))?;
    let started = task.ask_start("slow");
    assert!(started.within(Duration::from_millis(200)).is_none());
    assert_eq!(task.status(""), Status::RUNNING);
    assert_eq!(task.status("slow"), Status::CREATED);
    task.pids()?;
    task.kill("", libc::SIGCONT)?;
    fs::write(gate, "")?;
    started.get()?;
    assert_eq!(task.wait("slow").get()?.exit_status, 6);
    daemon.end()
}

fn checkpoint_fails_in_an_orderly_way_or_works(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    if let Err(refusal) = task.checkpoint(&lab.new_dir("image").display().to_string()) {
        assert!(!refusal.message.is_empty());
    }
    assert_eq!(task.status(""), Status::RUNNING);
    daemon.end()
}

/// Where the runtime keeps the shim's containers.
fn root(task: &Task<'_>) -> String {
    format!("/run/containerd/runc/{}", task.daemon.namespace)
}

fn delete_by_hand(task: &Task<'_>) {
    let words = ["--root", &root(task), "delete", "--force", &task.id];
    task.daemon.lab.bare(&words).go().ok();
}

/// The record alone: processes and cgroup stay.
fn lose_record(task: &Task<'_>) -> TestResult {
    Ok(fs::remove_dir_all(Path::new(&root(task)).join(&task.id))?)
}

/// It is over, and its id is free once it has been deleted.
fn ends_and_can_be_made_again(task: &Task<'_>) -> TestResult {
    assert_eq!(task.wait("").get()?.exit_status, 137);
    assert_eq!(task.status(""), Status::STOPPED);
    refused(task.kill("", libc::SIGKILL), Code::NOT_FOUND, "");
    refused_saying(task.exec(&Exec::sh("late", "true")), "cannot exec in a stopped");
    assert_eq!(task.delete("")?.exit_status, 137);
    task.up_waiting()?;
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 5"))?, 5);
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    assert_eq!(task.delete("")?.exit_status, 7);
    Ok(())
}

fn a_container_deleted_by_hand_is_not_found_and_can_be_made_again(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    for round in 0..6 {
        task.up_waiting()?;
        if round % 2 == 1 {
            task.run(&Exec::sh("other", "exec sleep 1000"))?;
        }
        if round > 3 {
            task.pause()?;
        }
        delete_by_hand(&task);
        fs::remove_file(task.bundle.path("/up"))?;
        refused(task.kill("", [libc::SIGTERM, libc::SIGKILL][round % 2]), Code::NOT_FOUND, "");
        refused(task.kill_all(libc::SIGKILL), Code::NOT_FOUND, "");
        ends_and_can_be_made_again(&task)?;
        fs::remove_file(task.bundle.path("/up"))?;
    }
    daemon.end()
}

fn a_created_container_deleted_by_hand_can_be_made_again(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    for round in 0..3 {
        task.create(&Stdio::default())?;
        delete_by_hand(&task);
        match round {
            0 => refused(task.kill("", libc::SIGKILL), Code::NOT_FOUND, ""),
            1 => refused_saying(task.start(""), ""),
            _ => {}
        }
        ends_and_can_be_made_again(&task)?;
        fs::remove_file(task.bundle.path("/up"))?;
    }
    daemon.end()
}

fn a_container_whose_record_is_gone_ends_with_kill(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.exec(&Exec::sh("e", "true"))?;
    lose_record(&task)?;
    fs::remove_file(task.bundle.path("/up"))?;
    refused(task.pause(), Code::NOT_FOUND, "OCI runtime pause failed");
    refused(task.update(&json!({})), Code::NOT_FOUND, "OCI runtime update failed");
    refused(task.start("e"), Code::NOT_FOUND, "OCI runtime exec failed");
    task.delete("e")?;
    assert_eq!(task.status(""), Status::RUNNING);
    refused_saying(task.delete(""), "cannot delete a running process");
    refused(task.kill("", libc::SIGKILL), Code::NOT_FOUND, "no such container");
    ends_and_can_be_made_again(&task)?;
    daemon.end()
}

fn a_created_container_whose_record_is_gone_ends_with_delete(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.create(&Stdio::default())?;
    lose_record(&task)?;
    refused(task.start(""), Code::NOT_FOUND, "OCI runtime start failed");
    assert_eq!(task.status(""), Status::CREATED);
    task.delete("")?;
    assert!(is_gone(pid as i32));
    task.up_waiting()?;
    daemon.end()
}

/// Its processes have been killed and their cgroup removed; the record is there.
fn a_container_without_its_cgroup_can_be_deleted(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.up_waiting()? as i32;
    signal_process(pid, libc::SIGKILL);
    assert_eq!(task.wait("").get()?.exit_status, 137);
    fs::remove_file(task.bundle.path("/up"))?;
    let cgroups = lab.cgroups_left();
    // Those below first, and its other processes end after init.
    lab.eventually("the cgroups to be removed", || {
        cgroups.iter().rev().all(|dir| fs::remove_dir(dir).is_ok() || !dir.exists())
    });
    refused(task.stats(), Code::NOT_FOUND, "does not exist");
    assert_eq!(task.pids()?, [(pid as u32, String::new())]);
    ends_and_can_be_made_again(&task)?;
    daemon.end()
}
