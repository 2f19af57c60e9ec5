//! Events: their order, their fields, and daemons that are slow, unwilling or away.

use hull_integration::task::{Exec, Stdio, Task, WAITS};
use hull_integration::{Lab, Stop, TestResult, tests};
use hull_proto::events::{TaskCreate, TaskDelete, TaskExit};
use protobuf::Message;
use serde_json::json;
use std::time::Duration;

const GO_1: &str = "containerd-shim-runc-v2 1.";
const KEPT: &[(&str, &str)] =
    &[(GO_1, "docs/shim.md: while the daemon is away events wait; none is dropped, none overtakes")];
const OOM_FIRST: &[(&str, &str)] = &[(GO_1, "docs/shim.md: the kill by the kernel is told before the exit")];
const OOM_LOST: &[(&str, &str)] = &[(GO_1, "docs/shim.md: kills by the kernel are watched from create on")];

tests! {
    events_tell_what_create_was_told,
    a_process_that_ends_at_once_has_its_events_in_order,
    events_of_execs_come_in_order,
    a_slow_daemon_gets_every_event_in_order,
    a_daemon_that_refuses_gets_every_event_in_order.breaks_on(KEPT),
    a_daemon_that_was_away_gets_every_event_in_order.breaks_on(KEPT),
    a_daemon_that_was_away_for_the_whole_life_gets_every_event.breaks_on(KEPT),
    requests_are_answered_while_the_daemon_is_away,
    a_shim_that_is_told_to_go_sends_its_last_events,
    out_of_memory_is_an_event.breaks_on(OOM_LOST),
    out_of_memory_is_told_before_the_exit.breaks_on(OOM_FIRST),
    out_of_memory_of_a_child_is_told.breaks_on(OOM_LOST),
    no_out_of_memory_without_a_kill,
}

fn events_tell_what_create_was_told(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    let file = lab.next_path("file");
    std::fs::write(&file, "")?;
    let name = file.display().to_string();
    let pid = task.up(&Stdio::to(&*name))?;
    let waited = task.wait("").get()?;
    task.delete("")?;
    task.event("delete");
    let events = daemon.events.all();
    let topics: Vec<&str> = events.iter().map(|event| event.envelope.topic.as_str()).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    for (event, kind) in events.iter().zip(["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]) {
        assert_eq!(event.envelope.namespace, "test");
        assert_eq!(event.pid, pid);
        assert!(event.envelope.timestamp.seconds > 1_500_000_000);
        let url = &event.envelope.event.type_url;
        assert_eq!(url.rsplit('/').next(), Some(format!("containerd.events.{kind}").as_str()), "{url}");
    }
    let create = TaskCreate::parse_from_bytes(&events[0].envelope.event.value)?;
    assert_eq!((&create.bundle, create.pid), (&task.bundle.dir.display().to_string(), pid));
    assert_eq!((&create.io.stdout, &create.io.stderr, create.io.terminal), (&name, &name, false));
    let exit = TaskExit::parse_from_bytes(&events[2].envelope.event.value)?;
    assert_eq!((&exit.id, &exit.container_id), (&task.id, &task.id));
    assert_eq!(exit.exited_at, waited.exited_at);
    let delete = TaskDelete::parse_from_bytes(&events[3].envelope.event.value)?;
    assert_eq!((delete.exit_status, delete.exited_at), (3, waited.exited_at));
    daemon.end()
}

fn a_process_that_ends_at_once_has_its_events_in_order(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let group = daemon.bundle().args(&["/bin/true"]);
    let mut bundles: Vec<_> = (0..15).map(|_| daemon.member(&group)).collect();
    bundles.insert(0, group);
    let tasks = bundles.into_iter().map(|bundle| daemon.task(bundle)).collect::<Result<Vec<_>, _>>()?;
    for task in &tasks {
        task.create(&Stdio::default())?;
    }
    let started: Vec<_> = tasks.iter().map(|task| (task.ask_start(""), task.wait(""))).collect();
    for (start, wait) in started {
        start.get()?;
        assert_eq!(wait.get()?.exit_status, 0);
    }
    for task in &tasks {
        task.delete("")?;
        assert_eq!(task.event("delete"), ["create", "start", "exit 0", "delete 0"]);
    }
    daemon.end()
}

fn events_of_execs_come_in_order(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let ids: Vec<String> = (0..20).map(|n| format!("e{n}")).collect();
    for id in &ids {
        task.exec(&Exec::sh(&**id, "exit 3"))?;
    }
    let started: Vec<_> = ids.iter().map(|id| (task.ask_start(id), task.wait(id))).collect();
    for (start, wait) in started {
        start.get()?;
        assert_eq!(wait.get()?.exit_status, 3);
    }
    for id in &ids {
        let lines = task.event(&format!("exit {id} 3"));
        let of: Vec<&str> =
            lines.iter().filter(|l| l.split(' ').nth(1) == Some(id)).map(String::as_str).collect();
        assert_eq!(of, [format!("exec-added {id}"), format!("exec-started {id}"), format!("exit {id} 3")]);
    }
    daemon.end()
}

/// An exec that ends with this code; the events it must make, in their order.
fn exec(task: &Task<'_>, id: &str, code: u32) -> Result<[String; 3], Stop> {
    task.run(&Exec::sh(id, &format!("exit {code}")))?;
    assert_eq!(task.wait(id).get()?.exit_status, code);
    Ok([format!("exec-added {id}"), format!("exec-started {id}"), format!("exit {id} {code}")])
}

/// A life with three execs; the events it must make, in their order.
fn life(task: &Task<'_>) -> Result<Vec<String>, Stop> {
    task.up_waiting()?;
    let mut wanted = vec!["create".to_owned(), "start".to_owned()];
    for code in 1..4 {
        wanted.extend(exec(task, &format!("e{code}"), code)?);
    }
    task.pause()?;
    task.resume()?;
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    task.delete("")?;
    wanted.extend(["paused", "resumed", "exit 7", "delete 7"].map(String::from));
    Ok(wanted)
}

fn a_slow_daemon_gets_every_event_in_order(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    daemon.events.delay(Duration::from_millis(30));
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let wanted = life(&task)?;
    assert_eq!(task.event("delete 7"), wanted);
    daemon.end()
}

fn a_daemon_that_refuses_gets_every_event_in_order(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    daemon.events.refuse(3);
    let wanted = life(&task)?;
    assert_eq!(task.event("delete 7"), wanted);
    assert_eq!(daemon.events.refused(), 3);
    daemon.end()
}

fn a_daemon_that_was_away_gets_every_event_in_order(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    task.event("start");
    let mut wanted = vec!["create".to_owned(), "start".to_owned()];
    for round in 0..3 {
        daemon.events.go_away();
        for code in 0..4 {
            wanted.extend(exec(&task, &format!("e{round}-{code}"), code)?);
        }
        daemon.events.come_back();
        let last = format!("exit e{round}-3 3");
        assert_eq!(task.event(&last), wanted);
    }
    daemon.end()
}

fn a_daemon_that_was_away_for_the_whole_life_gets_every_event(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    daemon.events.go_away();
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let wanted = life(&task)?;
    std::thread::sleep(Duration::from_millis(300));
    daemon.events.come_back();
    assert_eq!(task.event("delete 7"), wanted);
    daemon.end()
}

fn requests_are_answered_while_the_daemon_is_away(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    daemon.events.go_away();
    let since = std::time::Instant::now();
    for round in 0..5 {
        assert_eq!(task.run_to_end(&Exec::sh(format!("e{round}"), "exit 2"))?, 2);
    }
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    daemon.events.come_back();
    daemon.end()
}

fn a_shim_that_is_told_to_go_sends_its_last_events(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    task.up(&Stdio::default())?;
    task.wait("").get()?;
    daemon.events.delay(Duration::from_millis(100));
    task.delete("")?;
    task.retire()?;
    assert_eq!(task.events(), ["create", "start", "exit 3", "delete 3"]);
    daemon.end()
}

/// A container that uses more than it may; in a child if wanted.
fn eater<'d>(
    daemon: &'d hull_integration::task::Daemon<'d>,
    script: &str,
) -> Result<hull_integration::task::Task<'d>, hull_integration::Stop> {
    daemon.lab.needs_controller("memory")?;
    let probe = daemon.lab.probe()?;
    let bundle = daemon
        .bundle()
        .sh(script)
        .set("/linux/resources/memory", json!({"limit": 20 << 20, "swap": 20 << 20}));
    std::fs::hard_link(probe, bundle.path("/bin/probe"))?;
    daemon.task(bundle)
}

fn out_of_memory_is_an_event(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = eater(&daemon, "exec probe eat 100")?;
    task.up(&Stdio::default())?;
    assert_eq!(task.wait("").get()?.exit_status, 137);
    task.event("exit 137");
    task.event("oom");
    task.delete("")?;
    daemon.end()
}

fn out_of_memory_is_told_before_the_exit(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = eater(&daemon, "exec probe eat 100")?;
    task.up(&Stdio::default())?;
    assert_eq!(task.wait("").get()?.exit_status, 137);
    assert_eq!(task.event("exit 137"), ["create", "start", "oom", "exit 137"]);
    task.delete("")?;
    assert_eq!(task.event("delete").len(), 5);
    daemon.end()
}

fn out_of_memory_of_a_child_is_told(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = eater(&daemon, "probe eat 100; echo $? >/code; exec sleep 1000")?;
    task.up(&Stdio::default())?;
    task.event("oom");
    lab.eventually("the child's end", || {
        std::fs::read_to_string(task.bundle.path("/code")).is_ok_and(|text| text.trim() == "137")
    });
    assert!(!task.events().iter().any(|line| line.starts_with("exit")));
    daemon.end()
}

fn no_out_of_memory_without_a_kill(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = eater(&daemon, "probe eat 5; exit 3")?;
    task.up(&Stdio::default())?;
    assert_eq!(task.wait("").get()?.exit_status, 3);
    task.delete("")?;
    assert_eq!(task.event("delete"), ["create", "start", "exit 3", "delete 3"]);
    daemon.end()
}
