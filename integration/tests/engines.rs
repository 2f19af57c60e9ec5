//! What every engine asks of the runtime below it. The bodies only: `docker` and `podman` list them.

use hull_integration::console::Terminal;
use hull_integration::host::status_bits;
use hull_integration::{Call, Caller, Lab, Mode, Stop, TestResult, skip};
use std::fs;
use std::time::Duration;

/// With one limit given podman adds its default for another.
pub(super) const RLIMITS: &[(&str, &str)] = &[
    ("runc", "wanted: a hard limit that cannot be raised does not stop the container"),
    ("crun", "wanted: a hard limit that cannot be raised does not stop the container"),
];
/// `setrlimit(RLIMIT_MEMLOCK)` before the device program.
pub(super) const MEMLOCK: &[(&str, &str)] =
    &[("crun 1.8", "wanted: a limit that cannot be raised is no failure")];

// ---------------------------------------------------------------- a command and its end

pub(super) fn run_passes_output_and_exit_code(lab: &Lab) -> TestResult {
    let output = lab.engine()?.sh(&[], "echo out; echo err >&2; exit 23").rc(23);
    assert_eq!((output.text(), output.err().trim()), ("out".into(), "err"));
    Ok(())
}

pub(super) fn run_passes_stdin(lab: &Lab) -> TestResult {
    let output =
        lab.engine()?.run(&["--rm", "-i"], &["sh", "-c", "cat; exit 3"]).stdin("one\ntwo\n").go().rc(3);
    assert_eq!(output.out(), "one\ntwo\n");
    Ok(())
}

/// The engine reads the code from the words of the runtime's error.
pub(super) fn run_of_a_missing_command_is_127(lab: &Lab) -> TestResult {
    lab.engine()?.run(&["--rm"], &["nosuchcommand"]).go().rc(127).fails("not found");
    lab.engine()?.run(&["--rm"], &["/no/such/command"]).go().rc(127);
    Ok(())
}

pub(super) fn run_of_a_file_that_is_no_program_is_126(lab: &Lab) -> TestResult {
    lab.engine()?.run(&["--rm"], &["/etc/passwd"]).go().rc(126);
    Ok(())
}

pub(super) fn run_of_a_directory_is_126(lab: &Lab) -> TestResult {
    lab.engine()?.run(&["--rm"], &["/etc"]).go().rc(126);
    Ok(())
}

pub(super) fn a_failed_run_leaves_a_name_that_can_be_used_again(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = lab.new_id();
    engine
        .run_of(hull_integration::engine::IMAGE, &name, &["--rm"], &["nosuchcommand"])
        .go()
        .fails("nosuchcommand");
    let output =
        engine.run_of(hull_integration::engine::IMAGE, &name, &["--rm"], &["echo", "again"]).go().ok();
    assert_eq!(output.text(), "again");
    Ok(())
}

// ---------------------------------------------------------------- the life of a container

pub(super) fn a_detached_container_runs_until_stop(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    assert_eq!(engine.inspect(&name, "{{.State.Status}}"), "running");
    let output = engine.go(&["stop", &name]).ok();
    assert!(output.took < Duration::from_secs(8), "it was killed, not stopped: {output}");
    assert_eq!(engine.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    assert_eq!(engine.go(&["logs", &name]).ok().out(), "up\nbye\n");
    engine.go(&["rm", &name]).ok();
    Ok(())
}

pub(super) fn stop_kills_what_ignores_the_signal(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up(&[], &["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]);
    engine.go(&["stop", "-t", "1", &name]).ok();
    assert_eq!(engine.inspect(&name, "{{.State.ExitCode}}"), "137");
    Ok(())
}

pub(super) fn kill_sends_the_signal(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    engine.go(&["kill", "--signal", "TERM", &name]).ok();
    assert_eq!(engine.go(&["wait", &name]).ok().text(), "7");
    let name = engine.up_waiting(&[]);
    engine.go(&["kill", &name]).ok();
    assert_eq!(engine.go(&["wait", &name]).ok().text(), "137");
    Ok(())
}

pub(super) fn a_paused_container_stands_still(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up(&[], &["sh", "-c", "while :; do echo tick; sleep 0.02; done"]);
    let ticks = || engine.go(&["logs", &name]).out().lines().count();
    lab.eventually("ticks", || ticks() > 2);
    engine.go(&["pause", &name]).ok();
    assert_eq!(engine.inspect(&name, "{{.State.Status}}"), "paused");
    std::thread::sleep(Duration::from_millis(100)); // what was written before arrives
    let before = ticks();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ticks(), before);
    engine.go(&["unpause", &name]).ok();
    lab.eventually("more ticks", || ticks() > before);
    Ok(())
}

pub(super) fn a_paused_container_can_be_removed(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    engine.go(&["pause", &name]).ok();
    engine.remove(&name);
    Ok(())
}

pub(super) fn restart_runs_the_same_container_again(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    let first = engine.inspect(&name, "{{.State.Pid}}");
    engine.go(&["exec", &name, "touch", "/kept"]).ok();
    engine.go(&["restart", &name]).ok();
    assert_ne!(engine.inspect(&name, "{{.State.Pid}}"), first);
    engine.go(&["exec", &name, "test", "-e", "/kept"]).ok();
    engine.remove(&name);
    Ok(())
}

pub(super) fn a_container_killed_from_outside_is_137(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    let pid = engine.inspect(&name, "{{.State.Pid}}");
    engine.near(&["kill", "-KILL", &pid]).go().ok();
    assert_eq!(engine.go(&["wait", &name]).ok().text(), "137");
    Ok(())
}

pub(super) fn top_shows_the_processes(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    engine.go(&["exec", "-d", &name, "sleep", "1234"]).ok();
    lab.eventually("sleep 1234 in top", || engine.go(&["top", &name]).out().contains("sleep 1234"));
    Ok(())
}

pub(super) fn stats_counts_the_processes(lab: &Lab) -> TestResult {
    lab.needs_controller("pids")?;
    let engine = lab.engine()?;
    let name = engine.up(&[], &["sleep", "1000"]);
    let output = engine.go(&["stats", "--no-stream", "--format", "{{.PIDs}}", &name]).ok();
    assert_eq!(output.text(), "1");
    Ok(())
}

pub(super) fn ten_at_once(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let calls: Vec<_> = (0..10)
        .map(|n| engine.run(&["--rm"], &["sh", "-c", &format!("echo {n}; exit {n}")]).spawn())
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().rc(n as i32).text(), n.to_string());
    }
    Ok(())
}

// ---------------------------------------------------------------- exec

pub(super) fn exec_passes_output_and_exit_code(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    let output = engine.go(&["exec", &name, "sh", "-c", "echo inside; exit 9"]).rc(9);
    assert_eq!(output.text(), "inside");
    let output = engine.call(&["exec", "-i", &name, "cat"]).stdin("typed\n").go().ok();
    assert_eq!(output.out(), "typed\n");
    assert_eq!(engine.inspect(&name, "{{.State.Running}}"), "true");
    Ok(())
}

pub(super) fn exec_takes_user_directory_and_environment(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&["-e", "KEPT=a b"]);
    let flags = ["exec", "-u", "user", "-w", "/tmp", "-e", "NEW=c d", &name];
    let output = engine.call(&flags).args(&["sh", "-c", "id -un; pwd; echo $KEPT $NEW $HOME"]).go().ok();
    assert_eq!(output.out(), "user\n/tmp\na b c d /home\n");
    Ok(())
}

/// podman answers 127, as docker has since version 23; before that, 126.
pub(super) fn exec_of_a_missing_command_fails(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    // docker prints the runtime's words on stdout.
    let output = engine.go(&["exec", &name, "nosuchcommand"]);
    assert!(output.rc == 127 || output.rc == 126 && !engine.is_podman(), "{output}");
    let said = output.out() + &output.err();
    assert!(said.contains("not found"), "{output}");
    engine.go(&["exec", &name, "true"]).ok();
    Ok(())
}

pub(super) fn exec_in_a_stopped_container_is_refused(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    engine.go(&["stop", &name]).ok();
    let output = engine.go(&["exec", &name, "true"]);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

// ---------------------------------------------------------------- terminals

pub(super) fn run_with_a_terminal(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let (mut terminal, slave) = Terminal::open(37, 91)?;
    let running = engine.run(&["--rm", "-it"], &["sh"]).tty(lab, slave).spawn();
    terminal.read_until("# ");
    terminal.send("test -c /dev/console && tty && echo is''-one\n")?;
    let seen = terminal.read_until("is-one");
    assert!(seen.contains("/dev/pts/0\nis-one"), "{seen}");
    // The engine copies the size a moment after the start.
    lab.eventually("the size of the terminal", || {
        terminal.send("stty size\n").is_ok() && terminal.read_until("# ").contains("37 91")
    });
    terminal.send("exit 5\n")?;
    running.wait_for(Duration::from_secs(10))?.rc(5);
    Ok(())
}

pub(super) fn exec_with_a_terminal(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = engine.up_waiting(&[]);
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let call = engine.call(&["exec", "-it", &name, "sh", "-c", "tty; read line; echo \"<$line>\"; exit 8"]);
    let running = call.tty(lab, slave).spawn();
    terminal.read_until("/dev/pts/");
    terminal.send("typed\n")?;
    let seen = terminal.read_until("<typed>");
    assert!(seen.contains("<typed>"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.rc(8);
    Ok(())
}

pub(super) fn detach_keys_leave_the_container_running(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let name = lab.new_id();
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let call = engine.run_of(hull_integration::engine::IMAGE, &name, &["-it"], &["sh"]);
    let running = call.tty(lab, slave).spawn();
    terminal.read_until("# ");
    terminal.send("\u{10}")?;
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("\u{11}")?;
    running.wait_for(Duration::from_secs(10))?.ok();
    assert_eq!(engine.inspect(&name, "{{.State.Running}}"), "true");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = engine.call(&["attach", &name]).tty(lab, slave).spawn();
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("exit 6\n")?;
    // podman's attach does not pass the code.
    running.wait_for(Duration::from_secs(10))?;
    assert_eq!(engine.go(&["wait", &name]).ok().text(), "6");
    Ok(())
}

// ---------------------------------------------------------------- who the process is

fn capabilities(engine: &Caller<'_>, flags: &[&str], set: &str) -> u64 {
    let output = engine.sh(flags, &format!("grep ^{set}: /proc/self/status")).ok();
    u64::from_str_radix(output.text().rsplit('\t').next().unwrap_or_default(), 16).expect("hexadecimal")
}

pub(super) fn privileged_gets_what_the_host_can_give(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let ours = status_bits("CapBnd");
    let got = capabilities(&engine, &["--privileged"], "CapEff");
    // An engine asks for the capabilities it knows by name.
    let known = if engine.is_podman() { u64::MAX } else { (1 << 38) - 1 };
    assert_eq!(format!("{got:x}"), format!("{:x}", ours & known));
    let output = engine
        .sh(
            &["--privileged"],
            "ls /dev/kmsg /dev/full; grep -c ^Seccomp:.0 /proc/self/status; touch /proc/sys/kernel/x 2>&1",
        )
        .rc(1);
    assert!(output.out().starts_with("/dev/full\n/dev/kmsg\n1\n"), "{output}");
    Ok(())
}

pub(super) fn all_capabilities_are_those_the_host_has(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let got = capabilities(&engine, &["--cap-add", "ALL"], "CapEff");
    let known = if engine.is_podman() { u64::MAX } else { (1 << 38) - 1 };
    assert_eq!(format!("{got:x}"), format!("{:x}", status_bits("CapBnd") & known));
    Ok(())
}

pub(super) fn dropped_capabilities_are_gone(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let flags = ["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"];
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(capabilities(&engine, &flags, set), 1 << 10, "{set}");
    }
    let flags = ["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE", "-u", "1000"];
    assert_eq!(capabilities(&engine, &flags, "CapBnd"), 1 << 10);
    Ok(())
}

pub(super) fn user_and_groups_are_set(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let output = engine.sh(&["-u", "1234:4321", "--group-add", "99"], "id -u; id -G").ok();
    assert_eq!(output.out(), "1234\n4321 99\n");
    let output = engine.sh(&["-u", "user", "-w", "/tmp"], "id -un; pwd; echo $HOME").ok();
    assert_eq!(output.out(), "user\n/tmp\n/home\n");
    Ok(())
}

pub(super) fn seccomp_filter_and_no_new_privileges(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let status = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t\\n'";
    assert_eq!(engine.sh(&[], status).ok().text(), "NoNewPrivs:0Seccomp:2");
    let flags = ["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"];
    assert_eq!(engine.sh(&flags, status).ok().text(), "NoNewPrivs:1Seccomp:0");
    Ok(())
}

pub(super) fn a_custom_seccomp_profile_is_obeyed(lab: &Lab) -> TestResult {
    let profile = lab.dir.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, text)?;
    let flag = format!("seccomp={}", profile.display());
    let output = lab.engine()?.sh(&["--security-opt", &flag], "mkdir /x && echo made").rc(1);
    assert!(output.err().contains("not permitted"), "{output}");
    Ok(())
}

pub(super) fn rlimits_are_set(lab: &Lab) -> TestResult {
    let output = lab.engine()?.sh(&["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn").ok();
    assert_eq!(output.out(), "100\n200\n");
    Ok(())
}

/// Root without `CAP_SYS_RESOURCE` cannot raise a hard limit: the container runs with what there is.
pub(super) fn rlimits_above_the_hard_limit_still_run(lab: &Lab) -> TestResult {
    if lab.host.has_sys_resource() {
        return skip("this root may raise hard limits");
    }
    lab.engine()?.sh(&["--ulimit", "nofile=1048576:1048576"], "ulimit -n").ok();
    Ok(())
}

pub(super) fn init_is_the_first_process(lab: &Lab) -> TestResult {
    let output = lab.engine()?.sh(&["--init"], "cat /proc/1/comm").ok();
    assert!(output.out().contains("init"), "{output}");
    Ok(())
}

// ---------------------------------------------------------------- files

pub(super) fn a_read_only_root_with_writable_places(lab: &Lab) -> TestResult {
    let flags = ["--read-only", "--tmpfs", "/scratch:size=1024k,mode=1777", "-v", "/data"];
    let output =
        lab.engine()?.sh(&flags, "touch /x; touch /scratch/x /data/x && grep ' /scratch ' /proc/mounts");
    assert!(output.err().contains("Read-only file system"), "{output}");
    assert!(output.out().contains("size=1024k"), "{output}");
    Ok(())
}

pub(super) fn volumes_are_bound(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("volume");
    fs::write(dir.join("file"), "text\n")?;
    let at = dir.display();
    let volumes = [format!("{at}:/rw"), format!("{at}:/ro:ro"), format!("{at}/file:/etc/one:ro")];
    let flags = ["-v", &volumes[0], "-v", &volumes[1], "-v", &volumes[2]];
    let output =
        lab.engine()?.sh(&flags, "cat /ro/file /etc/one; touch /ro/x; touch /etc/one; touch /rw/made");
    assert_eq!(output.out(), "text\ntext\n");
    assert_eq!(output.err().matches("Read-only file system").count(), 2, "{output}");
    assert!(dir.join("made").exists());
    Ok(())
}

pub(super) fn devices_are_given_and_limited(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let flags = ["--device", "/dev/kmsg:/dev/mine:r", "--cap-add", "MKNOD", "--cap-add", "SYSLOG"];
    let script = "head -c 1 /dev/mine | wc -c; echo x > /dev/mine; mknod /tmp/mem c 1 1; head -c 1 /tmp/mem";
    let output = engine.sh(&flags, script).rc(1);
    assert_eq!(output.text(), "1");
    assert_eq!(output.err().matches("Operation not permitted").count(), 2, "{output}");
    Ok(())
}

pub(super) fn proc_and_sys_are_protected(lab: &Lab) -> TestResult {
    let script = "echo 1 > /proc/sys/vm/swappiness; head -c1 /proc/kcore | wc -c; \
                  echo 1 > /sys/kernel/x; mount -t tmpfs t /tmp";
    let output = lab.engine()?.sh(&[], script);
    assert_eq!(output.text(), "0");
    let said = output.err();
    for what in ["swappiness: Read-only", "/sys/kernel/x: Read-only", "mount: permission denied"] {
        assert!(said.contains(what), "{output}");
    }
    Ok(())
}

// ---------------------------------------------------------------- namespaces

pub(super) fn own_namespaces_by_default(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let links = "cd /proc/self/ns; for n in ipc mnt net pid uts; do readlink $n; done";
    let host = engine.near(&["sh", "-c", links]).go().ok().out();
    let inside = engine.sh(&[], links).ok().out();
    assert_eq!(inside.lines().count(), 5);
    assert!(inside.lines().all(|link| !host.contains(link)), "{inside} {host}");
    Ok(())
}

pub(super) fn namespaces_of_the_host_can_be_used(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let links = "cd /proc/self/ns; for n in ipc net pid uts; do readlink $n; done";
    let host = engine.near(&["sh", "-c", links]).go().ok().out();
    let flags = ["--ipc", "host", "--network", "host", "--pid", "host", "--uts", "host"];
    assert_eq!(engine.sh(&flags, links).ok().out(), host);
    Ok(())
}

/// Without a pid namespace of its own nothing but the runtime ends what init left behind.
pub(super) fn processes_in_the_pid_namespace_of_the_host_are_ended(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let mark = format!("4321.{}", std::process::id());
    let script = format!("sleep {mark} & trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done");
    let name = engine.up(&["--pid", "host"], &["sh", "-c", &script]);
    lab.eventually("its log", || engine.go(&["logs", &name]).out().contains("up"));
    engine.remove(&name);
    let processes = engine.near(&["ps", "-eo", "args"]).go().ok().out();
    assert!(!processes.contains(&format!("sleep {mark}")), "{processes}");
    Ok(())
}

pub(super) fn namespaces_of_a_container_can_be_joined(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let links = "cd /proc/self/ns; for n in ipc net pid; do readlink $n; done";
    let name = engine.up_waiting(&["--ipc", "shareable"]);
    let of = engine.go(&["exec", &name, "sh", "-c", links]).ok().out();
    let by = format!("container:{name}");
    assert_eq!(engine.sh(&["--ipc", &by, "--network", &by, "--pid", &by], links).ok().out(), of);
    Ok(())
}

pub(super) fn names_are_set(lab: &Lab) -> TestResult {
    let output = lab.engine()?.sh(
        &["--hostname", "box.example.org", "--add-host", "other:10.9.8.7"],
        "hostname; grep other /etc/hosts",
    );
    assert_eq!(
        output.text().split_whitespace().collect::<Vec<_>>(),
        ["box.example.org", "10.9.8.7", "other"]
    );
    Ok(())
}

pub(super) fn sysctls_of_the_own_network_are_set(lab: &Lab) -> TestResult {
    let flags = ["--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.msgmax=4096"];
    let output = lab.engine()?.sh(&flags, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax").ok();
    assert_eq!(output.out(), "0\n4096\n");
    Ok(())
}

pub(super) fn no_network_is_only_loopback(lab: &Lab) -> TestResult {
    let output = lab
        .engine()?
        .sh(
            &["--network", "none", "--cap-add", "NET_RAW"],
            "ls /sys/class/net; ping -c 1 127.0.0.1 | grep -c ttl=",
        )
        .ok();
    assert_eq!(output.out(), "lo\n1\n");
    Ok(())
}

fn address(engine: &Caller<'_>, name: &str) -> String {
    engine
        .go(&["exec", name, "sh", "-c", "ip -4 -o addr show eth0 | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'"])
        .ok()
        .text()
}

pub(super) fn containers_on_a_bridge_reach_each_other(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let network = if engine.is_podman() { "podman" } else { "bridge" };
    let name = engine.up(&["--network", network], &["httpd", "-f", "-p", "80", "-h", "/etc"]);
    let at = address(&engine, &name);
    let script = format!("ping -c 1 {at} | grep -c ttl=; wget -q -O - http://{at}/passwd | head -n 1");
    let output = engine.sh(&["--network", network, "--cap-add", "NET_RAW"], &script).ok();
    assert_eq!(output.out(), "1\nroot:x:0:0:root:/root:/bin/sh\n");
    Ok(())
}

pub(super) fn a_published_port_is_reached_from_the_host(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let port = if engine.is_podman() { "18081" } else { "18080" };
    let network = if engine.is_podman() { "podman" } else { "bridge" };
    let flags = ["--network", network, "-p", &format!("{port}:80")];
    let _name = engine.up(&flags, &["httpd", "-f", "-p", "80", "-h", "/etc"]);
    let busybox = lab.busybox();
    let url = format!("http://127.0.0.1:{port}/passwd");
    lab.eventually("an answer on the published port", || {
        engine
            .near(&[&busybox.to_string_lossy(), "wget", "-q", "-O", "-", &url])
            .go()
            .out()
            .starts_with("root:x:0")
    });
    Ok(())
}

// ---------------------------------------------------------------- limits

pub(super) fn out_of_memory_is_137_and_said(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let engine = lab.engine()?;
    let name = lab.new_id();
    let flags = ["-m", "16m", "--memory-swap", "16m"];
    engine
        .run_of(
            hull_integration::engine::IMAGE,
            &name,
            &flags,
            &["sh", "-c", "exec tail -c 200000000 /dev/zero"],
        )
        .go()
        .rc(137);
    assert_eq!(engine.inspect(&name, "{{.State.ExitCode}}"), "137");
    // conmon does not notice it on cgroup v1, whatever the runtime.
    if !engine.is_podman() || lab.host.mode == Mode::V2 {
        assert_eq!(engine.inspect(&name, "{{.State.OOMKilled}}"), "true");
    }
    engine.sh(&flags, "tail -c 200000000 /dev/zero").rc(137);
    Ok(())
}

pub(super) fn limits_arrive_in_the_cgroup(lab: &Lab) -> TestResult {
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        lab.needs_controller(controller)?;
    }
    let engine = lab.engine()?;
    let flags = [
        "-m",
        "64m",
        "--memory-swap",
        "96m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "256",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "50",
    ];
    let name = engine.up(&flags, &["sleep", "1000"]);
    let pid = engine.inspect(&name, "{{.State.Pid}}");
    let table = engine.near(&["cat", &format!("/proc/{pid}/cgroup")]).go().ok().out();
    let v2 = lab.host.mode == Mode::V2;
    let files: &[(&str, &str, &str)] = if v2 {
        &[
            ("", "memory.max", "67108864"),
            ("", "cpu.max", "50000 100000"),
            ("", "cpuset.cpus", "0"),
            ("", "pids.max", "50"),
        ]
    } else {
        &[
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.memsw.limit_in_bytes", "100663296"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpu", "cpu.shares", "256"),
            ("cpuset", "cpuset.cpus", "0"),
            ("pids", "pids.max", "50"),
        ]
    };
    for (controller, file, value) in files {
        let mut lines = table.lines().map(|l| l.splitn(3, ':').skip(1));
        let path =
            lines.find_map(|mut l| l.next().filter(|c| c.split(',').any(|c| c == *controller)).and(l.next()));
        let at = lab
            .host
            .v1
            .iter()
            .find(|(c, _)| c == controller)
            .map_or("/sys/fs/cgroup".into(), |(_, at)| at.clone());
        let text = fs::read_to_string(
            at.join(path.ok_or("no line of the controller")?.trim_start_matches('/')).join(file),
        )?;
        assert_eq!(text.trim(), *value, "{file}");
    }
    engine.go(&["exec", &name, "true"]).ok();
    Ok(())
}

/// podman before 5.4 writes 0 when it is asked for -1.
pub(super) fn no_limit_of_processes_means_none(lab: &Lab) -> TestResult {
    lab.engine()?.sh(&["--pids-limit", "-1"], "sleep 0.1 & sleep 0.1 & sleep 0.1 & wait; echo forked").ok();
    Ok(())
}

pub(super) fn update_changes_the_limits(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let engine = lab.engine()?;
    let name = engine.up_waiting(&["-m", "64m", "--memory-swap", "64m"]);
    let output = engine.go(&["update", "-m", "48m", "--memory-swap", "48m", &name]);
    if output.rc != 0 && output.err().contains("not yet supported") {
        return skip("the runtime has no update yet");
    }
    output.ok();
    let pid = engine.inspect(&name, "{{.State.Pid}}");
    let table = engine.near(&["cat", &format!("/proc/{pid}/cgroup")]).go().ok().out();
    let line = table.lines().find(|l| l.contains(":memory:") || l.starts_with("0::")).unwrap_or_default();
    let path = line.rsplit(':').next().unwrap_or_default().trim_start_matches('/');
    let v1 = lab.host.v1.iter().find(|(c, _)| c == "memory");
    let file = match v1 {
        Some((_, at)) => at.join(path).join("memory.limit_in_bytes"),
        None => std::path::Path::new("/sys/fs/cgroup").join(path).join("memory.max"),
    };
    assert_eq!(fs::read_to_string(file)?.trim(), "50331648");
    Ok(())
}

// ---------------------------------------------------------------- images

/// A build context: a RUN as root, one as a user, a default command.
fn context(lab: &Lab) -> Result<String, Stop> {
    let dir = lab.new_dir("context");
    let text = format!(
        "FROM {}\nRUN echo built > /made && test $(id -u) = 0\nUSER 1000\nRUN id -u > /tmp/who\nCMD [\"cat\", \"/made\", \"/tmp/who\"]\n",
        hull_integration::engine::IMAGE
    );
    fs::write(dir.join("Dockerfile"), text)?;
    Ok(dir.to_string_lossy().into_owned())
}

/// A build whose RUN fails with 3.
fn failing_context(lab: &Lab) -> Result<String, Stop> {
    let dir = lab.new_dir("context");
    fs::write(dir.join("Dockerfile"), format!("FROM {}\nRUN exit 3\n", hull_integration::engine::IMAGE))?;
    Ok(dir.to_string_lossy().into_owned())
}

/// Builds an image whose step fails, which is said, and one that runs.
pub(super) fn builds(
    lab: &Lab,
    tag: &str,
    failure: &str,
    build: impl Fn(&str) -> Result<Call, Stop>,
) -> TestResult {
    let engine = lab.engine()?;
    let output = build(&failing_context(lab)?)?.go();
    assert!(output.rc > 0 && format!("{}{}", output.out(), output.err()).contains(failure), "{output}");
    build(&context(lab)?)?.go().ok();
    let output = engine.run_of(tag, &lab.new_id(), &["--rm"], &[]).go().ok();
    assert_eq!(output.out(), "built\n1000\n");
    engine.go(&["rmi", tag]).ok();
    Ok(())
}

// ---------------------------------------------------------------- one version of cgroup

/// What touches the cgroup: run, exec, pause, top, stop.
pub(super) fn life(lab: &Lab) -> TestResult {
    run_passes_output_and_exit_code(lab)?;
    exec_passes_output_and_exit_code(lab)?;
    a_paused_container_stands_still(lab)?;
    a_paused_container_can_be_removed(lab)?;
    top_shows_the_processes(lab)?;
    a_detached_container_runs_until_stop(lab)
}

pub(super) fn life_on_cgroup_v1_alone(lab: &Lab) -> TestResult {
    life(lab)
}
