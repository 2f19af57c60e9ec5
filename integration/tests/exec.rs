//! exec: another process in a container.

use hull_integration::{Lab, TestResult, tests};
use serde_json::json;
use std::fs;
use std::time::Duration;

tests! {
    exec_runs_in_the_namespaces_of_the_container,
    exec_runs_in_the_cgroup_of_the_container,
    exec_returns_the_exit_code,
    exec_returns_128_plus_the_signal,
    exec_of_a_missing_program_is_an_error.breaks_on(&[("crun", "docs/errors.md: exec that could not run the program is 255")]),
    exec_in_a_missing_container_is_255.breaks_on(&[("crun", "docs/errors.md: exec that could not run the program is 255")]),
    exec_in_a_created_container_works,
    exec_in_a_stopped_container_is_refused,
    exec_takes_the_environment_of_the_container,
    exec_env_adds_and_overrides,
    exec_cwd_is_used,
    exec_user_is_used,
    exec_user_of_the_passwd_sets_home,
    exec_additional_gids_are_set.breaks_on(&[("crun", "runc-exec(8): --additional-gids")]),
    exec_cap_is_added,
    exec_no_new_privs_is_set,
    exec_process_file_is_used,
    exec_process_file_with_missing_args_is_refused,
    exec_stdin_is_passed,
    exec_detach_writes_the_pid_file,
    exec_pid_file_appears_while_it_runs,
    exec_pid_file_is_not_made_on_failure,
    exec_forwards_signals,
    exec_with_a_relative_cwd_is_refused.breaks_on(&[("crun 1.8", "config.md#process: cwd must be absolute")]),
    exec_without_a_command_is_refused,
}

fn exec_runs_in_the_namespaces_of_the_container(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let ls = "cd /proc/self/ns; for n in pid net ipc uts mnt; do readlink $n; done";
    let seen = lab.inside(&b.id, ls);
    let pid = lab.pid(&b.id);
    let link = |n| fs::read_link(format!("/proc/{pid}/ns/{n}")).map(|p| p.display().to_string());
    let wanted: Result<Vec<String>, _> = ["pid", "net", "ipc", "uts", "mnt"].into_iter().map(link).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), wanted?);
    Ok(())
}

fn exec_runs_in_the_cgroup_of_the_container(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let seen = lab.inside(&b.id, "cat /proc/self/cgroup");
    let init = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid(&b.id)))?;
    assert_eq!(seen, init.trim());
    Ok(())
}

fn exec_returns_the_exit_code(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    for code in [0, 1, 7, 77, 255] {
        lab.exec(&b.id, &["/bin/sh", "-c", &format!("exit {code}")]).rc(code);
    }
    Ok(())
}

fn exec_returns_128_plus_the_signal(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    for signal in [1, 9, 15] {
        lab.exec(&b.id, &["/bin/sh", "-c", &format!("kill -{signal} $$")]).rc(128 + signal);
    }
    Ok(())
}

fn exec_of_a_missing_program_is_an_error(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.exec(&b.id, &["nosuchprogram"]).rc(255).fails("executable file not found in $PATH");
    lab.exec(&b.id, &["/no/such"]).rc(255).fails("no such file or directory");
    Ok(())
}

fn exec_in_a_missing_container_is_255(lab: &Lab) -> TestResult {
    lab.exec("nobody", &["/bin/true"]).rc(255).fails("container does not exist");
    Ok(())
}

fn exec_in_a_created_container_works(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    assert_eq!(lab.inside(&b.id, "hostname"), "box");
    assert_eq!(lab.status(&b.id), "created");
    Ok(())
}

fn exec_in_a_stopped_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    assert!(lab.exec(&b.id, &["/bin/true"]).rc > 0);
    Ok(())
}

fn exec_takes_the_environment_of_the_container(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits().set("/process/env", json!(["PATH=/bin", "ONE=1", "TWO=a b=c"]));
    lab.up(&b);
    let seen = lab.exec(&b.id, &["/bin/env"]).ok().text();
    for line in ["PATH=/bin", "ONE=1", "TWO=a b=c"] {
        assert!(seen.lines().any(|l| l == line), "{line}: {seen}");
    }
    Ok(())
}

fn exec_env_adds_and_overrides(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits().set("/process/env", json!(["PATH=/bin", "ONE=1"]));
    lab.up(&b);
    let call =
        lab.call(&["exec", "--env", "ONE=uno", "--env", "NEW=x y", &b.id, "/bin/sh", "-c", "echo $ONE,$NEW"]);
    assert_eq!(call.go().ok().text(), "uno,x y");
    Ok(())
}

fn exec_cwd_is_used(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    assert_eq!(lab.rt(&["exec", "--cwd", "/tmp", &b.id, "/bin/pwd"]).ok().text(), "/tmp");
    Ok(())
}

fn exec_user_is_used(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let id =
        |user: &str| lab.rt(&["exec", "--user", user, &b.id, "/bin/sh", "-c", "id -u; id -g"]).ok().text();
    assert_eq!(id("1000:1001"), "1000\n1001");
    assert_eq!(id("7").lines().next(), Some("7"));
    assert_eq!(id("0:0"), "0\n0");
    Ok(())
}

fn exec_user_of_the_passwd_sets_home(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let home = |user: &str| lab.rt(&["exec", "-u", user, &b.id, "/bin/sh", "-c", "echo $HOME"]).ok().text();
    assert_eq!(home("1000"), "/home");
    assert_eq!(home("0"), "/root");
    Ok(())
}

fn exec_additional_gids_are_set(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits().capabilities(&["CAP_SETGID", "CAP_SETUID"]);
    lab.up(&b);
    let output = lab.rt(&["exec", "-g", "44", "-g", "45", &b.id, "/bin/id", "-G"]).ok();
    let mut groups: Vec<&str> = output.out().leak().split_whitespace().collect();
    groups.sort_unstable();
    assert_eq!(groups, ["0", "44", "45"]);
    Ok(())
}

fn exec_cap_is_added(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits().capabilities(&["CAP_KILL"]);
    lab.up(&b);
    let call = lab.rt(&["exec", "--cap", "CAP_NET_RAW", &b.id, "/bin/grep", "Cap", "/proc/self/status"]);
    let text = call.ok().text();
    let set = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap_or(0)
    };
    for name in ["CapBnd", "CapEff", "CapPrm"] {
        assert!(set(name) & (1 << 13) != 0, "CAP_NET_RAW is not in {name}: {text}");
    }
    Ok(())
}

fn exec_no_new_privs_is_set(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits().set("/process/noNewPrivileges", json!(false));
    lab.up(&b);
    let grep = ["/bin/grep", "NoNewPrivs", "/proc/self/status"];
    let with = lab.call(&["exec", "--no-new-privs", &b.id]).args(&grep).go().ok().text();
    assert!(with.ends_with('1'), "{with}");
    let without = lab.exec(&b.id, &grep).ok().text();
    assert!(without.ends_with('0'), "{without}");
    Ok(())
}

fn exec_process_file_is_used(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let mut process = b.spec["process"].clone();
    process["args"] =
        json!(["/bin/sh", "-c", "id -u; id -g; pwd; echo $FROM; grep CapEff /proc/self/status"]);
    process["user"] = json!({"uid": 12, "gid": 34});
    process["cwd"] = json!("/home");
    process["env"] = json!(["PATH=/bin", "FROM=file"]);
    process["capabilities"] = json!({});
    let file = lab.next_path("process");
    fs::write(&file, process.to_string())?;
    let output = lab.rt(&["exec", "--process", &file.to_string_lossy(), &b.id]).ok();
    assert_eq!(output.text(), "12\n34\n/home\nfile\nCapEff:\t0000000000000000");
    Ok(())
}

fn exec_process_file_with_missing_args_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let file = lab.next_path("process");
    for text in ["", "{}", "{\"args\":[],\"cwd\":\"/\"}"] {
        fs::write(&file, text)?;
        let output = lab.rt(&["exec", "--process", &file.to_string_lossy(), &b.id]);
        assert!(output.rc > 0, "accepted {text:?}");
    }
    assert_eq!(lab.status(&b.id), "running");
    Ok(())
}

fn exec_stdin_is_passed(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let output = lab.call(&["exec", &b.id, "/bin/cat"]).stdin("one\ntwo\n").go().ok();
    assert_eq!(output.out(), "one\ntwo\n");
    Ok(())
}

fn exec_detach_writes_the_pid_file(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let file = lab.next_path("pid");
    let path = file.to_string_lossy();
    lab.rt(&["exec", "--detach", "--pid-file", &path, &b.id, "/bin/sleep", "100"]).ok();
    let pid = fs::read_to_string(&file)?;
    assert!(!pid.is_empty() && pid.bytes().all(|c| c.is_ascii_digit()), "{pid:?}");
    // A detached exec may return a moment before execve.
    let cmdline = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    lab.eventually("the program", || cmdline() == "/bin/sleep\u{0}100\u{0}");
    Ok(())
}

/// buildkit polls for it and kills by that pid.
fn exec_pid_file_appears_while_it_runs(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let file = lab.next_path("pid");
    let running =
        lab.call(&["exec", "--pid-file", &file.to_string_lossy(), &b.id, "/bin/sleep", "100"]).spawn();
    lab.eventually("the pid file", || file.exists());
    let pid: i32 = fs::read_to_string(&file)?.parse()?;
    // The file comes a moment before the program.
    let words = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    lab.eventually("the program", || words().starts_with("/bin/sleep"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    running.wait_for(Duration::from_secs(10))?.rc(137);
    Ok(())
}

fn exec_pid_file_is_not_made_on_failure(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let file = lab.next_path("pid");
    let output = lab.rt(&["exec", "--pid-file", &file.to_string_lossy(), &b.id, "/no/such/program"]);
    assert!(output.rc > 0);
    assert!(!file.exists());
    Ok(())
}

fn exec_forwards_signals(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done";
    let running = lab.call(&["exec", &b.id, "/bin/sh", "-c", script]).spawn();
    lab.eventually("the trap", || running.printed().trim() == "up");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.pid()), nix::sys::signal::Signal::SIGTERM)?;
    running.wait_for(Duration::from_secs(10))?.rc(5);
    Ok(())
}

fn exec_with_a_relative_cwd_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    assert!(lab.rt(&["exec", "--cwd", "tmp", &b.id, "/bin/true"]).rc > 0);
    Ok(())
}

fn exec_without_a_command_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    assert!(lab.rt(&["exec", &b.id]).rc > 0);
    Ok(())
}
