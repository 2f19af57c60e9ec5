//! The shim under a kubelet: pods through containerd's CRI. A pod's containers and its sandbox share one shim.
//! Pods use the network of the place, so that no test but one needs a CNI plugin.

use hull_integration::cri::{Cri, EXITED, Pod, RUNNING, Shape};
use hull_integration::engine::WAITS;
use hull_integration::{Engine, Lab, TestResult, View, skip, tests};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

tests! {
    each.engine(Engine::Cri).limit_s(120);
    a_pod_lives_from_run_to_removal,
    the_shim_is_the_one_that_the_type_names,
    containers_of_a_pod_share_one_shim,
    many_containers_have_one_shim,
    a_pod_has_a_network_by_cni,
    a_pod_can_share_its_pid_namespace,
    exec_sync_passes_output_and_exit_code,
    exec_sync_that_takes_too_long_is_killed,
    exec_sync_in_a_container_that_ended_fails,
    the_log_has_both_streams_to_the_last_line,
    a_reopened_log_goes_on_in_a_new_file,
    stats_tell_cpu_and_memory,
    a_limit_of_memory_is_updated,
    too_much_memory_is_told_as_oom_killed,
    stop_waits_for_the_trap,
    stop_kills_the_deaf,
    stop_ends_every_process_of_a_shared_pid_namespace,
    a_container_is_removed_and_the_pod_goes_on,
    a_missing_command_fails_and_leaves_the_pod,
    a_stopped_pod_has_ended_its_containers,
    a_killed_shim_ends_its_pod,
    ends_are_told_to_a_daemon_that_was_away.engine(Engine::CriLive),
    the_last_words_are_logged_by_a_daemon_that_was_away.engine(Engine::CriLive).breaks_on(KEPT),
    a_pod_ends_while_the_daemon_is_away.engine(Engine::CriLive),
    a_pod_whose_shim_died_in_absence_is_removed.engine(Engine::CriLive),
    the_socket_of_a_dead_shim_is_removed.breaks_on(SOCKET),
    life_on_cgroup_v1_alone.view(View::V1),
    life_on_cgroup_v2_alone.view(View::V2),
}

const KEPT: &[(&str, &str)] =
    &[("containerd-shim-runc-v2", "docs/shim.md: outputs are held until they have been read or deleted")];
const SOCKET: &[(&str, &str)] = &[(
    "containerd-shim-runc-v2",
    "docs/shim.md: `delete` removes what is left; of the Go shim the socket of a killed server stays",
)];

fn a_pod_lives_from_run_to_removal(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    assert_eq!(pod.status().state, 0);
    let container = pod.create(WAITS, 0);
    assert_eq!(pod.list(), [(container.id.clone(), 0)]);
    container.start()?;
    assert_eq!(container.status().state, RUNNING);
    assert_eq!(container.inside("echo here"), "here");
    container.stop(10);
    let status = container.status();
    assert_eq!((status.state, status.exit_code, status.reason.as_str()), (EXITED, 7, "Error"));
    assert!(status.started_at > 0 && status.finished_at > status.started_at, "{status:?}");
    container.remove();
    assert_eq!(pod.list(), []);
    pod.end();
    Ok(())
}

/// As README configures it: by `runtime_type` alone. A `runtime_path` is not read before 1.6.21 and in 1.7.0.
fn the_shim_is_the_one_that_the_type_names(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    for shim in pod.shims() {
        let words = cri.ctr().proc(shim, "cmdline");
        let program = words.split('\0').next().unwrap_or_default();
        assert!(program.ends_with("/containerd-shim-hull-v1"), "{words:?}");
    }
    pod.end();
    Ok(())
}

fn life_on_cgroup_v1_alone(lab: &Lab) -> TestResult {
    a_pod_lives_from_run_to_removal(lab)
}

fn life_on_cgroup_v2_alone(lab: &Lab) -> TestResult {
    // Every pod has a weight.
    lab.needs_controller("cpu")?;
    a_pod_lives_from_run_to_removal(lab)
}

fn containers_of_a_pod_share_one_shim(lab: &Lab) -> TestResult {
    share(lab, 2)
}

/// 5, or 20 with FULL=1.
fn many_containers_have_one_shim(lab: &Lab) -> TestResult {
    let full = std::env::var_os("FULL").is_some_and(|value| value != "0");
    share(lab, if full { 20 } else { 5 })
}

fn share(lab: &Lab, count: usize) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let shims = pod.shims();
    assert_eq!(shims.len(), 1, "{shims:?}");
    let containers: Vec<_> =
        (0..count).map(|n| pod.up(&format!("trap 'exit {}' TERM; {LOOP}", n + 1))).collect();
    assert_eq!(pod.shims(), shims);
    assert_eq!(pod.sockets().len(), 1, "{:?}", pod.sockets());
    // Every init is its child.
    let shim = shims.first().expect("a shim").to_string();
    for (n, one) in containers.iter().enumerate() {
        let stat = cri.ctr().proc(one.pid(), "stat");
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        assert_eq!(parent, Some(shim.as_str()), "{stat}");
        assert_eq!(one.inside(&format!("echo {n}")), n.to_string());
    }
    for (n, one) in containers.iter().enumerate() {
        one.stop(10);
        assert_eq!(one.exit_code(), n as i32 + 1);
    }
    assert_eq!(pod.shims(), shims);
    pod.end();
    Ok(())
}

/// As long as nothing else ends it.
const LOOP: &str = "while :; do sleep 0.05; done";

fn a_pod_has_a_network_by_cni(lab: &Lab) -> TestResult {
    if !Path::new("/usr/lib/cni/bridge").exists() {
        return skip("no CNI plugins (Debian: containernetworking-plugins; hack/setup callers)");
    }
    let cri = lab.cri()?;
    let shape = Shape { own_network: true, ..Shape::default() };
    let pod = match cri.try_pod(shape) {
        // A kernel without the module.
        Err(refusal) if refusal.message.contains("operation not supported") => {
            return skip(format!("no bridge: {refusal}"));
        }
        pod => pod?,
    };
    let ip = pod.status().network.ip.clone();
    assert!(ip.starts_with("10.223.0."), "{ip:?}");
    let (one, two) = (pod.up(WAITS), pod.up(WAITS));
    for container in [&one, &two] {
        let addresses = container.inside("ip addr show eth0; hostname");
        assert!(addresses.contains(&format!("{ip}/24")) && addresses.ends_with("pod"), "{addresses}");
    }
    assert_eq!(one.inside("readlink /proc/self/ns/net"), two.inside("readlink /proc/self/ns/net"));
    pod.end();
    Ok(())
}

fn a_pod_can_share_its_pid_namespace(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let of = |one_pid_namespace| {
        let pod = cri.pod(Shape { one_pid_namespace, ..Shape::default() });
        let names = [pod.up(WAITS), pod.up(WAITS)].map(|c| c.inside("readlink /proc/self/ns/pid"));
        pod.end();
        names
    };
    let [one, two] = of(true);
    assert_eq!(one, two);
    let [one, two] = of(false);
    assert_ne!(one, two);
    Ok(())
}

fn exec_sync_passes_output_and_exit_code(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up(WAITS);
    for code in [0, 1, 42, 255] {
        let result = container.exec(&format!("echo out; echo err >&2; exit {code}"), 0)?;
        assert_eq!(result, (code, "out\n".to_owned(), "err\n".to_owned()));
    }
    assert_eq!(container.exec("kill -KILL $$", 0)?.0, 137);
    let (code, out, _) = container.exec("seq 100000", 0)?;
    assert_eq!((code, out.lines().count(), out.lines().last()), (0, 100_000, Some("100000")));
    pod.end();
    Ok(())
}

fn exec_sync_that_takes_too_long_is_killed(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up(WAITS);
    let since = Instant::now();
    // One process: containerd 1.6 answers when the streams have ended, which a child of it would keep open.
    let refusal = container.exec("trap '' TERM; exec sleep 98765", 1).expect_err("no end in time");
    assert!(refusal.is_late(), "{refusal}");
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
    assert!(!container.inside("ps -o args").lines().any(|line| line == "sleep 98765"));
    assert_eq!(container.status().state, RUNNING);
    assert_eq!(container.inside("echo again"), "again");
    pod.end();
    Ok(())
}

fn exec_sync_in_a_container_that_ended_fails(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up("exit 3");
    assert_eq!(container.exit_code(), 3);
    let refusal = container.exec("true", 5).expect_err("it has ended");
    assert!(refusal.message.contains("CONTAINER_EXITED"), "{refusal}");
    pod.end();
    Ok(())
}

/// Ten that end at once: what they wrote is in the log however late it is read.
fn the_log_has_both_streams_to_the_last_line(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    // containerd 1.6 stops to copy a log soon after it hears of the exit: an exit that is told late loses nothing.
    let script = "seq 5000; echo bad >&2; echo worse >&2; echo bye; printf 'no newline'; exit 4";
    let containers: Vec<_> = (0..10).map(|_| pod.up(script)).collect();
    let mut wanted: Vec<String> = (1..=5000).map(|n| n.to_string()).collect();
    wanted.extend(["bye", "no newline"].map(String::from));
    for (n, container) in containers.iter().enumerate() {
        assert_eq!(container.exit_code(), 4);
        let whole = lab.settles(|| container.logged("stdout") == wanted);
        let lines = container.logged("stdout");
        let tail = &lines[lines.len().saturating_sub(3)..];
        assert!(whole, "container {n}: {} of {} lines, at last {tail:?}", lines.len(), wanted.len());
        lab.eventually("the other stream", || container.logged("stderr") == ["bad", "worse"]);
    }
    pod.end();
    Ok(())
}

fn a_reopened_log_goes_on_in_a_new_file(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up("i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done");
    lab.eventually("a line", || !container.logged("stdout").is_empty());
    let old = container.log.with_extension("old");
    fs::rename(&container.log, &old)?;
    container.reopen_log();
    lab.eventually("a line in the new file", || !container.logged("stdout").is_empty());
    container.stop(0);
    // No line is lost between the files.
    let number = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
    let last = fs::read_to_string(old)?.lines().last().and_then(number);
    let first = container.logged("stdout").first().and_then(|line| number(line));
    assert_eq!(last.map(|last| last + 1), first);
    pod.end();
    Ok(())
}

fn stats_tell_cpu_and_memory(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up("while :; do :; done");
    let (mut cpu, mut memory) = (0, 0);
    lab.eventually("some work", || {
        (cpu, memory) = container.stats();
        cpu > 0 && memory > 0
    });
    lab.eventually("more work", || container.stats().0 > cpu);
    assert!((10_000..1_000_000_000).contains(&memory), "{memory} bytes");
    pod.end();
    Ok(())
}

fn a_limit_of_memory_is_updated(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.create(WAITS, 64 << 20);
    container.start()?;
    let limit = || -> Result<String, hull_integration::Stop> {
        let found = lab.cgroups_left().into_iter().filter(|dir| dir.ends_with(&container.id));
        let files = found.flat_map(|dir| ["memory.limit_in_bytes", "memory.max"].map(|name| dir.join(name)));
        let file = files.into_iter().find(|file| file.exists()).ok_or("no cgroup with a limit of memory")?;
        Ok(fs::read_to_string(file)?.trim().to_owned())
    };
    assert_eq!(limit()?, (64 << 20).to_string());
    container.set_memory(96 << 20)?;
    assert_eq!(limit()?, (96 << 20).to_string());
    pod.end();
    Ok(())
}

fn too_much_memory_is_told_as_oom_killed(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let other = pod.up(WAITS);
    let container = pod.create("a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", 16 << 20);
    container.start()?;
    assert_eq!(container.exit_code(), 137);
    lab.eventually("the reason", || container.status().reason == "OOMKilled");
    assert_eq!((other.status().state, other.status().reason.as_str()), (RUNNING, ""));
    pod.end();
    Ok(())
}

fn stop_waits_for_the_trap(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up("trap 'sleep 1; exit 9' TERM; echo up; while :; do sleep 0.05; done");
    lab.eventually("the trap", || container.logged("stdout") == ["up"]);
    container.stop(30);
    let status = container.status();
    assert_eq!((status.state, status.exit_code), (EXITED, 9));
    // A second time is no mistake.
    container.stop(30);
    pod.end();
    Ok(())
}

fn stop_kills_the_deaf(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up("trap 'echo no' TERM; echo up; while :; do sleep 0.05; done");
    lab.eventually("the trap", || container.logged("stdout") == ["up"]);
    let since = Instant::now();
    container.stop(2);
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(container.status().exit_code, 137);
    assert_eq!(container.logged("stdout"), ["up", "no"]);
    pod.end();
    Ok(())
}

fn stop_ends_every_process_of_a_shared_pid_namespace(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape { one_pid_namespace: true, ..Shape::default() });
    let other = pod.up(WAITS);
    let container = pod.up("sleep 87654 & echo up; trap '' TERM; while :; do sleep 0.05; done");
    lab.eventually("the child", || other.inside("ps -o args").lines().any(|line| line == "sleep 87654"));
    container.stop(1);
    assert_eq!(container.exit_code(), 137);
    lab.eventually("the child's end", || {
        !other.inside("ps -o args").lines().any(|line| line == "sleep 87654")
    });
    assert_eq!(other.status().state, RUNNING);
    pod.end();
    Ok(())
}

fn a_container_is_removed_and_the_pod_goes_on(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let shims = pod.shims();
    let stays = pod.up(WAITS);
    for code in 1..=3 {
        let container = pod.up(&format!("exit {code}"));
        assert_eq!(container.exit_code(), code);
        container.remove();
        assert!(pod.list().iter().all(|(id, _)| *id != container.id));
    }
    // Running: it is killed first.
    let container = pod.up(WAITS);
    container.remove();
    assert_eq!(pod.list(), [(stays.id.clone(), RUNNING)]);
    assert_eq!((pod.shims(), pod.status().state), (shims, 0));
    assert_eq!(stays.inside("echo here"), "here");
    pod.end();
    Ok(())
}

fn a_missing_command_fails_and_leaves_the_pod(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.create_of(&["/bin/no-such-thing"], 0);
    let refusal = container.start().expect_err("there is no such command");
    assert!(refusal.message.contains("no such file or directory"), "{refusal}");
    let status = container.status();
    assert_eq!((status.state, status.exit_code, status.reason.as_str()), (EXITED, 128, "StartError"));
    let next = pod.up(WAITS);
    assert_eq!(next.inside("echo here"), "here");
    assert_eq!(pod.shims().len(), 1);
    pod.end();
    Ok(())
}

fn a_stopped_pod_has_ended_its_containers(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let (running, ended) = (pod.up(WAITS), pod.up("exit 6"));
    assert_eq!(ended.exit_code(), 6);
    pod.stop();
    assert_eq!(pod.status().state, 1);
    assert_eq!((running.status().state, running.status().exit_code), (EXITED, 137));
    assert_eq!((ended.status().state, ended.status().exit_code), (EXITED, 6));
    pod.stop();
    lab.eventually("the shim's end", || pod.shims().is_empty());
    pod.end();
    Ok(())
}

fn ends_are_told_to_a_daemon_that_was_away(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let stays =
        pod.up(&format!("trap 'exit 8' TERM; i=0; {}", "while :; do i=$((i+1)); echo $i; sleep 0.05; done"));
    let ends = pod.up("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done");
    lab.eventually("the traps", || !stays.logged("stdout").is_empty() && !ends.logged("stdout").is_empty());
    let (shims, pid) = (pod.shims(), ends.pid());
    cri.while_away(|| {
        cri.ctr().signal(pid, "TERM");
        lab.eventually("its end", || cri.ctr().proc(pid, "cmdline").is_empty());
    });
    assert_eq!(ends.exit_code(), 5);
    assert_eq!(ends.logged("stdout").first().map(String::as_str), Some("up"));
    assert_eq!((stays.status().state, pod.status().state), (RUNNING, 0));
    assert_eq!(pod.shims(), shims);
    let before = stays.logged("stdout").len();
    lab.eventually("more lines", || stays.logged("stdout").len() > before + 3);
    assert_eq!(stays.inside("echo here"), "here");
    stays.stop(10);
    assert_eq!(stays.exit_code(), 8);
    // What it wrote meanwhile is there, too.
    let lines = stays.logged("stdout");
    assert!(lines.iter().enumerate().all(|(n, line)| *line == (n + 1).to_string()), "{lines:?}");
    pod.end();
    Ok(())
}

fn the_last_words_are_logged_by_a_daemon_that_was_away(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done");
    lab.eventually("the trap", || !container.logged("stdout").is_empty());
    let pid = container.pid();
    cri.while_away(|| {
        cri.ctr().signal(pid, "TERM");
        lab.eventually("its end", || cri.ctr().proc(pid, "cmdline").is_empty());
    });
    assert_eq!(container.exit_code(), 5);
    lab.eventually("its last words", || container.logged("stdout") == ["up", "bye"]);
    pod.end();
    Ok(())
}

fn a_pod_ends_while_the_daemon_is_away(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up(WAITS);
    // Its sandbox is the only child of the shim beside it.
    let sandbox = pod.sandbox_pid();
    let pid = container.pid();
    cri.while_away(|| {
        cri.ctr().signal(pid, "TERM");
        cri.ctr().signal(sandbox, "KILL");
        lab.eventually("the end", || {
            [pid, sandbox].iter().all(|pid| cri.ctr().proc(*pid, "cmdline").is_empty())
        });
    });
    assert_eq!(container.exit_code(), 7);
    assert_eq!(pod.status().state, 1);
    pod.end();
    Ok(())
}

/// A pod whose shim is dead: it is over, its processes are gone, and it can be removed.
fn ends_without_shim(lab: &Lab, cri: &Cri<'_>, pod: Pod<'_>, pids: &[i32]) {
    lab.eventually("the end of the pod", || pod.status().state == 1);
    lab.eventually("the end of its processes", || {
        pids.iter().all(|pid| cri.ctr().proc(*pid, "cmdline").is_empty())
    });
    pod.remove_dead_socket();
    pod.end();
}

fn a_killed_shim_ends_its_pod(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let (one, two) = (pod.up(WAITS), pod.up(WAITS));
    let pids = [one.pid(), two.pid(), pod.sandbox_pid()];
    pod.shims().iter().for_each(|shim| cri.ctr().signal(*shim, "KILL"));
    // As the broken connection or the shim's `delete` tells it: whichever comes first.
    let codes = [one.exit_code(), two.exit_code()];
    assert!(codes.iter().all(|code| [137, 255].contains(code)), "{codes:?}");
    ends_without_shim(lab, &cri, pod, &pids);
    Ok(())
}

fn a_pod_whose_shim_died_in_absence_is_removed(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    let container = pod.up(WAITS);
    let pids = [container.pid(), pod.sandbox_pid()];
    let shims = pod.shims();
    cri.while_away(|| shims.iter().for_each(|shim| cri.ctr().signal(*shim, "KILL")));
    assert_eq!(container.exit_code(), 255);
    ends_without_shim(lab, &cri, pod, &pids);
    Ok(())
}

fn the_socket_of_a_dead_shim_is_removed(lab: &Lab) -> TestResult {
    let cri = lab.cri()?;
    let pod = cri.pod(Shape::default());
    pod.shims().iter().for_each(|shim| cri.ctr().signal(*shim, "KILL"));
    lab.eventually("the end of the pod", || pod.status().state == 1);
    pod.end();
    Ok(())
}
