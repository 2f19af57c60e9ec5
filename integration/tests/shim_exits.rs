//! Exits: each process's own code, once, in order, and under load; and what a shim holds on to meanwhile.

use hull_integration::task::{Exec, Fifo, Stdio, Task, WAITS, is_gone};
use hull_integration::{Lab, Stop, TestResult, tests};
use hull_proto::process::Status;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::{Duration, Instant};

const GO_1: &str = "containerd-shim-runc-v2 1.";
const INIT_LAST: &[(&str, &str)] =
    &[(GO_1, "docs/shim.md: the exit of init is the last exit of its container")];
const LOST: &[(&str, &str)] = &[(GO_1, "docs/shim.md: no exit is lost, however many come at once")];
const LEAKS: &[(&str, &str)] = &[(GO_1, "docs/shim.md: a terminal's descriptors are closed with it")];

tests! {
    the_exit_of_init_is_the_last.breaks_on(INIT_LAST),
    the_exit_of_init_is_the_last_without_a_pid_namespace.breaks_on(INIT_LAST),
    the_end_does_not_wait_for_one_unread_output_after_the_other.breaks_on(&[("containerd-shim-runc-v2", "Create waits for readers of every stream")]),
    a_killed_exec_has_its_signal,
    an_exit_before_start_is_answered_is_told_once,
    orphans_are_reaped,
    hundreds_of_execs_at_once.breaks_on(LOST),
    thousands_of_execs_with_random_codes.limit_s(3600),
    containers_of_a_group_end_each_with_its_own_code,
    execs_with_streams_leave_no_descriptor,
    terminals_leave_no_descriptor.breaks_on(LEAKS),
    a_container_of_a_group_can_be_made_again,
}

/// Execs that init takes with it: their exits come first, each once.
fn exits_in_order(task: &Task<'_>, execs: usize, code: u32) -> TestResult {
    for n in 0..execs {
        task.run(&Exec::sh(format!("e{n}"), "exec sleep 1000"))?;
    }
    let waiting: Vec<_> = (0..execs).map(|n| task.wait(&format!("e{n}"))).collect();
    task.kill("", libc::SIGKILL)?;
    assert_eq!(task.wait("").get()?.exit_status, code);
    for wait in waiting {
        assert_eq!(wait.get()?.exit_status, 137);
    }
    let lines = task.event(&format!("exit {code}"));
    let exits: Vec<&String> = lines.iter().filter(|line| line.starts_with("exit ")).collect();
    assert_eq!(exits.len(), execs + 1, "{lines:?}");
    assert_eq!(exits.last().map(|line| line.as_str()), Some(format!("exit {code}").as_str()));
    Ok(())
}

fn the_exit_of_init_is_the_last(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    for _ in 0..5 {
        let task = daemon.task(daemon.bundle().sh(WAITS))?;
        task.up_waiting()?;
        exits_in_order(&task, 5, 137)?;
    }
    daemon.end()
}

fn the_exit_of_init_is_the_last_without_a_pid_namespace(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS).without_namespace("pid"))?;
    task.up_waiting()?;
    exits_in_order(&task, 5, 137)?;
    task.delete("")?;
    daemon.end()
}

/// An output that nobody reads holds an exit up for a second: six of them for no longer.
fn the_end_does_not_wait_for_one_unread_output_after_the_other(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let unread = || -> Result<Stdio, Stop> {
        let (out, err) = (Fifo::closed(&lab.next_path("out"))?, Fifo::closed(&lab.next_path("err"))?);
        Ok(Stdio { stdout: out.name(), stderr: err.name(), ..Stdio::default() })
    };
    let prints = "echo out; echo err >&2";
    let task = daemon.task(daemon.bundle().sh(&format!("{prints}; {WAITS}")))?;
    task.create(&unread()?)?;
    task.start_waiting()?;
    for id in ["e", "f"] {
        task.run(&Exec::sh(id, &format!("{prints}; : >/up-{id}; exec sleep 1000")).on(unread()?))?;
        lab.eventually("the exec's output", || task.bundle.path(&format!("/up-{id}")).exists());
    }
    let begin = Instant::now();
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let lines = task.event("exit 7");
    assert_eq!(lines.last().map(String::as_str), Some("exit 7"), "{lines:?}");
    daemon.end()
}

fn a_killed_exec_has_its_signal(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    for signal in [1, 2, 3, 6, 9, 11, 13, 14, 15] {
        let id = format!("e{signal}");
        task.run(&Exec::sh(&*id, "exec sleep 1000"))?;
        task.kill(&id, signal)?;
        assert_eq!(task.wait(&id).get()?.exit_status as i32, 128 + signal);
        assert_eq!(task.delete(&id)?.exit_status as i32, 128 + signal);
        task.event(&format!("exit {id} {}", 128 + signal));
    }
    assert_eq!(task.status(""), Status::RUNNING);
    daemon.end()
}

fn an_exit_before_start_is_answered_is_told_once(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    // The runtime comes back late from `exec`: the process has long ended.
    let wrapper = daemon.wrapper(&format!(
        "[ $verb != exec ] || {{ \"$runtime\" \"$@\"; code=$?; {} sleep 0.1; exit $code; }}",
        lab.busybox().display()
    ))?;
    task.create_with(&Stdio::default(), |request| {
        let options = daemon.options(|options| options.binary_name = wrapper.display().to_string());
        request.options = Some(options).into();
    })?;
    task.start_waiting()?;
    for round in 0..10 {
        let id = format!("e{round}");
        task.exec(&Exec::sh(&*id, "exit 6"))?;
        assert!(task.start(&id)? > 0);
        assert_eq!(task.wait(&id).get()?.exit_status, 6);
        let lines = task.event(&format!("exit {id} 6"));
        let of: Vec<&String> = lines.iter().filter(|line| line.split(' ').nth(1) == Some(&id)).collect();
        assert_eq!(of, [&format!("exec-added {id}"), &format!("exec-started {id}"), &format!("exit {id} 6")]);
        task.delete(&id)?;
    }
    daemon.end()
}

/// Zombies below a process.
fn zombies(parent: i32) -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let prefix = format!("Z {parent} ");
    stats.filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(&prefix))).count()
}

fn orphans_are_reaped(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let script = format!("for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.05 & sleep 0.01 &) ; done; {WAITS}");
    let task = daemon.task(daemon.bundle().sh(&script).without_namespace("pid"))?;
    task.up_waiting()?;
    let shim = task.shim_pid();
    task.run_to_end(&Exec::sh("e", "(sleep 0.05 & sleep 0.01 &); exit 2"))?;
    lab.eventually("no zombies", || zombies(shim) == 0);
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    lab.eventually("no zombies", || zombies(shim) == 0);
    daemon.end()
}

fn hundreds_of_execs_at_once(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let count = 100;
    let id = |n: usize| format!("e{n}");
    let added: Vec<_> =
        (0..count).map(|n| task.ask_exec(&Exec::sh(id(n), &format!("exit {}", n % 200)))).collect();
    for reply in added {
        reply.get()?;
    }
    let started: Vec<_> = (0..count).map(|n| (task.ask_start(&id(n)), task.wait(&id(n)))).collect();
    for (n, (start, wait)) in started.into_iter().enumerate() {
        start.get()?;
        assert_eq!(wait.get()?.exit_status as usize, n % 200);
    }
    for n in 0..count {
        assert_eq!(task.delete(&id(n))?.exit_status as usize, n % 200);
        task.event(&format!("exit {} {}", id(n), n % 200));
    }
    daemon.end()
}

/// What a shim holds: descriptors, resident KiB, threads.
fn held(shim: i32) -> Result<(usize, u64, u64), Stop> {
    let status = fs::read_to_string(format!("/proc/{shim}/status"))?;
    let number = |name: &str| -> Result<u64, Stop> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    Ok((fs::read_dir(format!("/proc/{shim}/fd"))?.count(), number("VmRSS:")?, number("Threads:")?))
}

/// A small generator, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// 2000, or 100000 with FULL=1. Six under way at a time.
fn thousands_of_execs_with_random_codes(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let full = std::env::var_os("FULL").is_some_and(|value| value != "0");
    let quick = if lab.is("hull") { 2000 } else { 300 };
    let count = if full { 100_000 } else { quick };
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let shim = task.shim_pid();
    let mut random = Random(20_261_121);
    let (mut first, mut under_way, mut told) = (None, VecDeque::new(), BTreeMap::new());
    let mut wrong = Vec::new();
    for n in 0..count + 6 {
        if n < count {
            let (id, code) = (format!("e{n}"), random.below(256) as u32);
            let mut exec = Exec::sh(&*id, "");
            exec.process["args"] = json!(["/bin/sh", "-c", format!("exit {code}")]);
            task.exec(&exec)?;
            under_way.push_back((id.clone(), code, task.ask_start(&id), task.wait(&id)));
            told.insert(id, code);
        }
        if under_way.len() > 6 || n >= count {
            let Some((id, code, start, wait)) = under_way.pop_front() else { continue };
            start.get()?;
            let (waited, deleted) = (wait.get()?.exit_status, task.delete(&id)?.exit_status);
            if (waited, deleted) != (code, code) {
                wrong.push(format!("{id}: {code}, Wait {waited}, Delete {deleted}"));
            }
        }
        if n == count / 5 {
            first = Some(held(shim)?);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let last = format!("exit e{} {}", count - 1, told[&format!("e{}", count - 1)]);
    task.event(&last);
    let mut exits = 0;
    for line in task.events() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["exit", id, code] = words[..] {
            exits += 1;
            assert_eq!(told.get(id).map(ToString::to_string).as_deref(), Some(code), "{line}");
        }
    }
    lab.eventually("every exit", || {
        exits == count || task.events().iter().filter(|line| line.starts_with("exit ")).count() == count
    });
    let ((fds, rss, threads), (fds_before, rss_before, threads_before)) = (held(shim)?, first.ok_or("held")?);
    lab.say(&format!("{count} execs; descriptors {fds_before} to {fds}, {rss_before} to {rss} KiB resident, threads {threads_before} to {threads}"));
    assert!(fds <= fds_before + 5, "descriptors: {fds_before} to {fds}");
    assert!(rss <= rss_before + rss_before / 4 + 1024, "KiB: {rss_before} to {rss}");
    daemon.end()
}

fn containers_of_a_group_end_each_with_its_own_code(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let holder = daemon.task(daemon.bundle().sh(WAITS))?;
    holder.up_waiting()?;
    let bundle = |code: usize| {
        let script = format!("until [ -e /gate ]; do sleep 0.02; done; exit {code}");
        daemon.member(&holder.bundle).sh(&script)
    };
    let tasks = (0..12).map(|code| daemon.task(bundle(code))).collect::<Result<Vec<_>, _>>()?;
    let created: Vec<_> = tasks.iter().map(|task| task.ask_create(&Stdio::default(), |_| {})).collect();
    created.into_iter().try_for_each(|reply| reply.get().map(drop))?;
    let started: Vec<_> = tasks.iter().map(|task| (task.ask_start(""), task.wait(""))).collect();
    fs::write(holder.bundle.path("/gate"), "")?;
    for (code, (start, wait)) in started.into_iter().enumerate() {
        start.get()?;
        assert_eq!(wait.get()?.exit_status as usize, code);
    }
    for (code, task) in tasks.iter().enumerate() {
        assert_eq!(task.delete("")?.exit_status as usize, code);
        assert_eq!(task.event("delete").last(), Some(&format!("delete {code}")));
    }
    assert_eq!(holder.status(""), Status::RUNNING);
    daemon.end()
}

fn leaves_no_descriptor(lab: &Lab, terminal: bool) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let shim = task.shim_pid();
    let mut before = 0;
    for round in 0..30 {
        let (mut out, input) = (Fifo::output(&lab.next_path("out"))?, Fifo::closed(&lab.next_path("in"))?);
        let id = format!("e{round}");
        let stdio = match terminal {
            true => Stdio { stdin: input.name(), stdout: out.name(), terminal, ..Stdio::default() },
            false => Stdio { stdin: input.name(), ..Stdio::to(out.name()) },
        };
        task.run(&Exec::sh(&*id, "echo here; exit 4").on(stdio))?;
        out.until("here");
        assert_eq!(task.wait(&id).get()?.exit_status, 4);
        assert_eq!(task.delete(&id)?.exit_status, 4);
        if round == 4 {
            before = held(shim)?.0;
        }
    }
    lab.eventually("no more descriptors than before", || held(shim).is_ok_and(|(fds, ..)| fds <= before + 1));
    daemon.end()
}

fn execs_with_streams_leave_no_descriptor(lab: &Lab) -> TestResult {
    leaves_no_descriptor(lab, false)
}

fn terminals_leave_no_descriptor(lab: &Lab) -> TestResult {
    leaves_no_descriptor(lab, true)
}

fn a_container_of_a_group_can_be_made_again(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    for _ in 0..10 {
        let pid = task.up(&Stdio::default())? as i32;
        assert_eq!(task.wait("").get()?.exit_status, 3);
        assert_eq!(task.delete("")?.exit_status, 3);
        assert!(is_gone(pid));
    }
    daemon.end()
}
