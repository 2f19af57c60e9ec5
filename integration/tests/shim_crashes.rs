//! Daemons that are killed or stand still while the shim serves: under docker, and under containerd alone.

use hull_integration::console::Terminal;
use hull_integration::{Caller, Ctr, Engine, Lab, TestResult, tests};
use std::time::Duration;

/// Its `delete` wants a file that only Create writes.
const FORGETS: &[(&str, &str)] =
    &[("containerd-shim-runc-v2", "docs/shim.md#forms: delete removes what is left when the server is gone")];

tests! {
    each.engine(Engine::DockerShimKilled);
    containers_outlive_dockerd_and_containerd.limit_s(150),
    output_arrives_while_containerd_stands_still.limit_s(150),
    output_waits_while_nobody_reads.limit_s(150),
    containerd_killed_at_any_point_leaves_a_task_or_nothing.engine(Engine::ContainerdKilled).limit_s(1500).breaks_on(FORGETS),
}

/// Repeats every line it reads.
const ANSWERS: &str = "echo up; while read x; do echo got-$x; done";

fn containers_outlive_dockerd_and_containerd(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let _alone = docker.alone()?;
    let counter = docker
        .up(&[], &["sh", "-c", "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]);
    let ends = docker.up(&[], &["sh", "-c", "trap 'exit 33' TERM; echo up; while :; do sleep 0.05; done"]);
    let reads = docker.up(&["-i"], &["sh", "-c", ANSWERS]);
    let at_terminal = docker.up(&["-it"], &["sh", "-c", ANSWERS]);
    let all = [&counter, &ends, &reads, &at_terminal];
    let pids = all.map(|name| docker.inspect(name, "{{.State.Pid}}"));
    let shims = pids.clone().map(|pid| docker.parent(&pid));
    lab.eventually("the first lines", || all.iter().all(|name| !docker.go(&["logs", name]).out().is_empty()));

    docker.kill_daemons()?;
    let name_of = |pid: &String| docker.proc(pid, "comm");
    assert!(
        pids.iter().chain(&shims).all(|pid| !name_of(pid).is_empty()),
        "not all alive: {pids:?} {shims:?}"
    );
    docker.near(&["kill", "-TERM", &pids[1]]).go().ok();
    lab.eventually("the end of the one with the trap", || docker.proc(&pids[1], "cmdline").is_empty());
    std::thread::sleep(Duration::from_secs(2));
    docker.daemons_come_back()?;

    lab.eventually("the code of the one with the trap", || {
        docker.inspect(&ends, "{{.State.Status}} {{.State.ExitCode}}") == "exited 33"
    });
    for (name, pid) in [(&counter, &pids[0]), (&reads, &pids[2]), (&at_terminal, &pids[3])] {
        assert_eq!(docker.inspect(name, "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
        assert_eq!(docker.go(&["exec", name, "sh", "-c", "echo in; exit 4"]).rc(4).text(), "in");
    }
    counts_without_a_gap(lab, &docker, &counter);
    answers(lab, &docker, &reads)?;
    answers(lab, &docker, &at_terminal)?;
    let output = docker.go(&["stop", &counter]).ok();
    assert!(output.took < Duration::from_secs(9), "it was killed, not stopped: {output}");
    assert_eq!(docker.inspect(&counter, "{{.State.ExitCode}}"), "9");
    for name in [&counter, &ends] {
        docker.go(&["start", name]).ok();
        assert_eq!(docker.inspect(name, "{{.State.Status}}"), "running");
    }
    all.iter().for_each(|name| docker.remove(name));
    let ended = |pid: &String| docker.proc(pid, "cmdline").is_empty();
    lab.eventually("the end of the processes", || pids.iter().chain(&shims).all(ended));
    Ok(())
}

/// The log goes on, and no number is missing.
fn counts_without_a_gap(lab: &Lab, docker: &Caller<'_>, name: &str) {
    let numbers = || -> Vec<usize> {
        docker.go(&["logs", name]).out().lines().map(|line| line.parse().unwrap_or(0)).collect()
    };
    let before = numbers().len();
    lab.eventually("more lines", || numbers().len() > before);
    let found = numbers();
    assert!(found.iter().enumerate().all(|(at, n)| *n == at + 1), "a gap: {found:?}");
}

/// What is typed reaches the container, and its answer comes back.
fn answers(lab: &Lab, docker: &Caller<'_>, name: &str) -> TestResult {
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let attached = docker.call(&["attach", name]).tty(lab, slave).spawn();
    let mut seen = String::new();
    lab.eventually("an answer", || {
        terminal.send("word\n").expect("type");
        seen.push_str(&terminal.read_until("got-word"));
        seen.contains("got-word")
    });
    attached.kill();
    Ok(())
}

fn output_arrives_while_containerd_stands_still(lab: &Lab) -> TestResult {
    flood(lab, &["containerd"])
}

/// dockerd is the one who reads.
fn output_waits_while_nobody_reads(lab: &Lab) -> TestResult {
    flood(lab, &["dockerd", "containerd"])
}

/// 20 MiB in numbered lines of 1 KiB.
const FLOOD: &str = "awk 'BEGIN { for (i = 0; i < 20480; i++) printf \"%08d%1015s\\n\", i, \"\" }'";

fn flood(lab: &Lab, stopped: &[&str]) -> TestResult {
    let docker = lab.engine()?;
    let _alone = docker.alone()?;
    let script = format!("trap go=1 USR1; until [ \"$go\" ]; do sleep 0.05; done; {FLOOD}; sleep 1000");
    let name = docker.up(&[], &["sh", "-c", &script]);
    let pid = docker.inspect(&name, "{{.State.Pid}}");
    let shim = docker.parent(&pid);
    let kib = |key: &str| -> i64 {
        let status = docker.proc(&shim, "status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a size of the shim");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    };
    let (size, peak) = (kib("VmRSS"), kib("VmHWM"));
    docker.signal_daemons(stopped, "STOP");
    docker.near(&["kill", "-USR1", &pid]).go().ok();
    std::thread::sleep(Duration::from_secs(4));
    let meanwhile = kib("VmRSS");
    docker.signal_daemons(stopped, "CONT");
    let log = || docker.go(&["logs", &name]).ok().out();
    let is_all = || log().len() >= 20 << 20;
    assert!(lab.settles(is_all) || lab.settles(is_all), "{} bytes of {}", log().len(), 20 << 20);
    let log = log();
    let bad =
        log.lines().enumerate().find(|(n, line)| line.len() != 1023 || !line.starts_with(&format!("{n:08}")));
    assert_eq!((log.len(), bad), (20 << 20, None));
    let (after, highest) = (kib("VmRSS"), kib("VmHWM"));
    lab.say(&format!(
        "the shim: {size} KiB before, {meanwhile} in between, {after} after, {highest} at most"
    ));
    assert!(meanwhile.max(after) < size + 1024 && highest < peak.max(size + 1024), "the shim grows");
    docker.remove(&name);
    Ok(())
}

/// Of `ctr run` and of `ctr task rm` in turns; 12 points, or 200 with FULL=1.
fn containerd_killed_at_any_point_leaves_a_task_or_nothing(lab: &Lab) -> TestResult {
    let ctr = lab.ctr()?;
    let points: u32 = if std::env::var_os("FULL").is_some_and(|v| v != "0") { 200 } else { 12 };
    let create = |id: &str| ctr.run(id, &["-d", "--null-io"], &["sh", "-c", hull_integration::engine::WAITS]);
    let delete = |id: &str| ctr.call(&["task", "rm", "-f", id]);
    // How long they take undisturbed.
    let (mut creates, mut deletes) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..3 {
        let id = lab.new_id();
        creates = creates.max(create(&id).go().ok().took);
        deletes = deletes.max(delete(&id).go().ok().took);
        ctr.go(&["container", "rm", &id]).ok();
    }
    let (mut bad, mut tasks, mut forgotten, mut random) = (Vec::new(), 0, 0, u64::from(std::process::id()));
    for point in 0..points {
        let id = lab.new_id();
        let (verb, call, span) = if point % 2 == 0 {
            ("run", create(&id), creates)
        } else {
            create(&id).go().ok();
            ("task rm", delete(&id), deletes)
        };
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let jitter = f64::from((random >> 40) as u32) / f64::from(1 << 24);
        let after = span.mul_f64(1.1 * (f64::from(point / 2) + jitter) / f64::from(points / 2));
        let running = call.spawn();
        std::thread::sleep(after);
        ctr.kill_containerd()?;
        let said = running.wait_for(Duration::from_secs(20))?;
        match settle(&ctr, &id) {
            Ok(Found::Nothing) => {}
            Ok(Found::Task) => tasks += 1,
            Ok(Found::Forgotten) => forgotten += 1,
            Err(what) => {
                bad.push(format!("{verb}, killed after {after:?}: {what}\n  {said}{}", ctr.said(&id)))
            }
        }
    }
    lab.say(&format!(
        "{points} points over {creates:?} and {deletes:?}: {tasks} tasks, {forgotten} forgotten shims"
    ));
    assert!(bad.is_empty(), "{} of {points} points:\n{}", bad.len(), bad.join("\n"));
    Ok(())
}

/// What a new containerd knows of a container.
enum Found {
    Nothing,
    Task,
    /// A shim that never had a container: containerd before 1.7 holds its connection, and no record of it.
    Forgotten,
}

/// A task that can be removed, or nothing at all.
fn settle(ctr: &Ctr<'_>, id: &str) -> Result<Found, String> {
    let status = ctr.status(id);
    let mut shims = ctr.shims(id);
    // Without a task: a `start` or `delete` on its way may be among them, and ends by itself.
    for _ in 0..40 {
        if status.is_some() || shims.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        shims = ctr.shims(id);
    }
    let mut found = Found::Nothing;
    if let Some(status) = &status {
        found = Found::Task;
        let removal = ctr.go(&["task", "rm", "-f", id]);
        if shims.len() != 1 || removal.rc != 0 {
            return Err(format!("a task {status} with the shims {shims:?}: {removal}"));
        }
    } else if !shims.is_empty() && is_old(ctr) {
        let with_it = ctr.left_of(id);
        if shims.len() > 1
            || with_it.iter().any(|what| what.starts_with("mount") || what.starts_with("cgroup"))
        {
            return Err(format!("no task, but {with_it:?}"));
        }
        found = Found::Forgotten;
        // It keeps no container, so this ends it, and containerd removes the bundle.
        ctr.signal(shims[0], "TERM");
    }
    let left = ctr.left(id);
    if !left.is_empty() {
        return Err(format!("left, the task was {status:?}, the shims {shims:?}: {left:?}"));
    }
    if ctr.is_known(id) {
        ctr.go(&["container", "rm", id]).ok();
    }
    Ok(found)
}

fn is_old(ctr: &Ctr<'_>) -> bool {
    ctr.go(&["version"]).ok().out().contains("Version:  1.6.")
}
