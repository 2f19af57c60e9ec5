//! Which file descriptors reach the container, and the sd_notify protocol.

use hull_integration::console::receive;
use hull_integration::{Lab, Stop, TestResult, tests};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

tests! {
    descriptors_of_the_caller_do_not_reach_the_container,
    descriptors_of_the_caller_do_not_reach_an_exec,
    preserve_fds_passes_that_many,
    exec_preserve_fds_passes_that_many,
    preserve_fds_may_have_gaps.breaks_on(&[("runc", "each of them must be open")]),
    a_descriptor_may_be_the_file_of_a_flag,
    listen_fds_are_passed_with_their_variables.breaks_on(&[("crun 1.8", "sd_listen_fds(3): LISTEN_PID goes with LISTEN_FDS")]),
    listen_fds_and_preserve_fds_add_up,
    init_of_a_created_container_holds_no_host_directory.breaks_on(&[("crun", "CVE-2024-21626 class: init holds what it inherits until exec")]),
    a_life_needs_few_descriptors.breaks_on(&[("runc", "it needs more"), ("crun", "its own limits")]),
    pidfd_socket_gets_a_pidfd.breaks_on(&[("runc 1.1", "--pidfd-socket came with 1.2"), ("crun", "--pidfd-socket is runc's")]),
    exec_pidfd_socket_gets_a_pidfd.breaks_on(&[("runc 1.1", "--pidfd-socket came with 1.2"), ("crun", "--pidfd-socket is runc's")]),
    notify_socket_gets_ready,
    notify_ready_may_be_any_line_of_the_datagram.breaks_on(&[("runc 1.1", "sd_notify(3): a datagram has several lines, READY=1 may be any")]),
    notify_socket_of_the_host_is_not_in_the_environment.breaks_on(&[("crun 1.8", "the variable names a socket the container can reach")]),
    variables_of_another_process_are_not_taken.breaks_on(&[("crun 1.8", "sd_listen_fds(3): LISTEN_PID says who is meant")]),
}

fn descriptors_of_the_caller_do_not_reach_the_container(lab: &Lab) -> TestResult {
    let b = lab.probe_bundle()?.args(&["/bin/probe", "fds"]);
    let output = lab.launch("run", &b, &[]).redirect(lab, "3</etc 7</ 10</etc/hostname").go().ok();
    assert_eq!(output.text(), "");
    Ok(())
}

fn descriptors_of_the_caller_do_not_reach_an_exec(lab: &Lab) -> TestResult {
    let b = lab.probe_bundle()?.waits();
    lab.up(&b);
    let output =
        lab.call(&["exec", &b.id, "/bin/probe", "fds"]).redirect(lab, "3</etc 7</ 10</etc").go().ok();
    assert_eq!(output.text(), "");
    Ok(())
}

/// One for each cgroup hierarchy, and twelve.
fn a_life_needs_few_descriptors(lab: &Lab) -> TestResult {
    let hierarchies = lab.host.v1.len() + lab.host.v2.iter().len();
    let limit = format!("ulimit -n {}; exec \"$@\"", 12 + hierarchies);
    let sh = lab.busybox();
    let sh = sh.to_string_lossy();
    let few = [&*sh, "sh", "-c", &limit, "sh"];
    let once = lab.bundle().remove("/process/rlimits").args(&["/bin/true"]);
    lab.launch("run", &once, &[]).through(&few).go().ok();
    let b = lab.bundle().remove("/process/rlimits").args(&["/bin/sleep", "100"]);
    let id = b.id.as_str();
    lab.launch("create", &b, &[]).through(&few).go().ok();
    let calls: [&[&str]; 6] = [
        &["start", id],
        &["exec", id, "/bin/true"],
        &["pause", id],
        &["resume", id],
        &["kill", id, "KILL"],
        &["delete", "--force", id],
    ];
    for words in calls {
        lab.call(words).through(&few).go().ok();
    }
    Ok(())
}

fn two_files(lab: &Lab) -> Result<String, hull_integration::Stop> {
    let (one, two) = (lab.dir.join("one"), lab.dir.join("two"));
    fs::write(&one, "first")?;
    fs::write(&two, "second")?;
    Ok(format!("3<{} 4<{} 5</etc", one.display(), two.display()))
}

fn preserve_fds_passes_that_many(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("cat <&3; echo; cat <&4; echo; if test -e /proc/$$/fd/5; then echo leak; fi");
    let words = two_files(lab)?;
    let output = lab.launch("run", &b, &["--preserve-fds", "2"]).redirect(lab, &words).go().ok();
    assert_eq!(output.text(), "first\nsecond");
    Ok(())
}

fn exec_preserve_fds_passes_that_many(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let words = two_files(lab)?;
    let script = "cat <&3; if test -e /proc/$$/fd/4; then echo leak; fi";
    let call = lab.call(&["exec", "--preserve-fds", "1", &b.id, "/bin/sh", "-c", script]);
    assert_eq!(call.redirect(lab, &words).go().ok().text(), "first");
    Ok(())
}

fn listen_fds_are_passed_with_their_variables(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("cat <&3; cat <&4; echo; echo $LISTEN_FDS $LISTEN_PID");
    let words = two_files(lab)?;
    let output = lab.launch("run", &b, &[]).redirect(lab, &words).env("LISTEN_FDS", "2").go().ok();
    assert_eq!(output.text(), "firstsecond\n2 1");
    Ok(())
}

fn listen_fds_and_preserve_fds_add_up(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("cat <&3; cat <&4; if test -e /proc/$$/fd/5; then echo leak; fi");
    let words = two_files(lab)?;
    let call = lab.launch("run", &b, &["--preserve-fds", "1"]).redirect(lab, &words).env("LISTEN_FDS", "1");
    assert_eq!(call.go().ok().text(), "firstsecond");
    Ok(())
}

/// While it waits for start, the container's init already is where a process of the container can look at it.
fn init_of_a_created_container_holds_no_host_directory(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.launch("create", &b, &[]).redirect(lab, "3</etc 9</").go().ok();
    let pid = lab.pid(&b.id);
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path())?;
        let is_host = target.is_dir() && !target.starts_with("/proc") && !target.starts_with(&lab.root);
        assert!(!is_host || target == std::path::Path::new("/"), "init holds {}", target.display());
        assert!(!target.starts_with("/etc"), "init holds {}", target.display());
    }
    Ok(())
}

/// The pid a pidfd stands for, from its fdinfo.
fn pid_of(socket: &UnixListener) -> Result<i32, Stop> {
    socket.set_nonblocking(true)?;
    let (stream, _) = socket.accept().map_err(|e| format!("nobody connected to the pidfd socket: {e}"))?;
    let (_, fds) = receive(stream.as_fd())?;
    let fd = fds.first().ok_or("no descriptor came with the message")?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:")).ok_or(format!("not a pidfd: {info}"))?;
    Ok(pid.trim().parse()?)
}

fn pidfd_socket_gets_a_pidfd(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let path = lab.dir.join("pidfd");
    let socket = UnixListener::bind(&path)?;
    lab.launch("create", &b, &["--pidfd-socket", &path.to_string_lossy()]).go().ok();
    assert_eq!(pid_of(&socket)?, lab.pid(&b.id));
    Ok(())
}

fn exec_pidfd_socket_gets_a_pidfd(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let (path, file) = (lab.dir.join("pidfd"), lab.dir.join("pid"));
    let socket = UnixListener::bind(&path)?;
    let words = [
        "exec",
        "--detach",
        "--pid-file",
        &file.to_string_lossy(),
        "--pidfd-socket",
        &path.to_string_lossy(),
    ];
    lab.call(&words).args(&[&b.id, "/bin/sleep", "100"]).go().ok();
    assert_eq!(pid_of(&socket)?.to_string(), fs::read_to_string(file)?);
    Ok(())
}

fn notify_socket_gets_ready(lab: &Lab) -> TestResult {
    ready_arrives(lab, "probe notify READY=1; sleep 0.3")
}

fn notify_ready_may_be_any_line_of_the_datagram(lab: &Lab) -> TestResult {
    ready_arrives(lab, "probe notify \"$(printf 'STATUS=up\\nREADY=1\\n')\"; sleep 0.3")
}

fn ready_arrives(lab: &Lab, script: &str) -> TestResult {
    let b = lab.probe_bundle()?.sh(script);
    let path = lab.dir.join("notify.sock");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let running = lab.launch("run", &b, &[]).env("NOTIFY_SOCKET", &path).spawn();
    let mut seen = Vec::new();
    // crun sends no MAINPID.
    let main_pid = |l: &String| l.starts_with("MAINPID=") || lab.is("crun");
    while !(seen.iter().any(|l: &String| l == "READY=1") && seen.iter().any(main_pid)) {
        // The descriptor of BARRIER=1 is closed here at once: that is the answer to it.
        let (text, _fds) = receive(socket.as_fd()).map_err(|e| format!("{e:?} after {seen:?}"))?;
        seen.extend(text.lines().map(String::from));
    }
    // Whatever comes after (the barrier) is answered by closing.
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    while receive(socket.as_fd()).is_ok() {}
    running.wait_for(Duration::from_secs(20))?.ok();
    Ok(())
}

fn notify_socket_of_the_host_is_not_in_the_environment(lab: &Lab) -> TestResult {
    let b = lab
        .probe_bundle()?
        .sh("echo $NOTIFY_SOCKET; test -S $NOTIFY_SOCKET && echo socket; probe notify READY=1");
    let path = lab.dir.join("notify.sock");
    let socket = UnixDatagram::bind(&path)?;
    let call = lab.launch("run", &b, &["--detach"]).env("NOTIFY_SOCKET", &path).spawn();
    lab.eventually("output", || call.printed().contains("socket"));
    assert!(call.printed().starts_with("/run/notify"), "{}", call.printed());
    drop(socket);
    call.wait_for(Duration::from_secs(20))?;
    Ok(())
}

/// A shell below a socket-activated service passes its variables on.
fn variables_of_another_process_are_not_taken(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo \"$LISTEN_FDS$LISTEN_PID$NOTIFY_SOCKET\"; ls /run");
    for pid in ["1", "", "x"] {
        let call = lab.launch("run", &b, &[]).env("LISTEN_FDS", "1").env("LISTEN_PID", pid);
        assert_eq!(call.go().ok().text(), "", "LISTEN_PID={pid:?}");
    }
    if lab.is("hull") {
        for socket in ["/no/such/socket", "/etc/passwd", "relative"] {
            let output = lab.launch("run", &b, &[]).env("NOTIFY_SOCKET", socket).go().ok();
            assert_eq!(output.text(), "", "NOTIFY_SOCKET={socket}");
        }
    }
    Ok(())
}

/// `podman run --preserve-fd 5`: 3 and 4 are free, and stay so.
fn preserve_fds_may_have_gaps(lab: &Lab) -> TestResult {
    let script =
        "cat <&5; for n in 3 4 6 7; do test -e /proc/$$/fd/$n && readlink /proc/$$/fd/$n; done; echo";
    let file = lab.dir.join("five");
    fs::write(&file, "fifth")?;
    let words = format!("5<{}", file.display());
    let b = lab.bundle().sh(script);
    let output = lab.launch("run", &b, &["--preserve-fds", "3"]).redirect(lab, &words).go().ok();
    // The shell keeps its own copy of what it reads from.
    assert_eq!(output.text(), "fifth");
    let b = lab.bundle().waits();
    lab.up(&b);
    let call = lab.call(&["exec", "--preserve-fds", "3", &b.id, "/bin/sh", "-c", script]);
    assert_eq!(call.redirect(lab, &words).go().ok().text(), "fifth");
    Ok(())
}

/// `exec --process <(...)`, `update -r <(...)`.
fn a_descriptor_may_be_the_file_of_a_flag(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let mut process = b.spec["process"].clone();
    process["args"] = serde_json::json!(["/bin/echo", "from a pipe"]);
    let piped = |words: &[&str], text: &str| {
        let front = [lab.busybox().display().to_string(), "sh".into(), "-c".into()];
        let script = format!("exec 63<<E\n{text}\nE\nexec \"$@\"");
        let front: Vec<&str> = front.iter().map(String::as_str).chain([script.as_str(), "sh"]).collect();
        lab.call(words).through(&front).go()
    };
    let output = piped(&["exec", "--process", "/dev/fd/63", &b.id], &process.to_string());
    assert_eq!(output.ok().text(), "from a pipe");
    piped(&["update", "--resources", "/dev/fd/63", &b.id], "{}").ok();
    Ok(())
}
