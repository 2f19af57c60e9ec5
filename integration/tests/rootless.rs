//! Callers that are not root: a user namespace that maps the caller, no cgroup rights.

use hull_integration::console::Terminal;
use hull_integration::{Bundle, Call, Lab, Output, Stop, TestResult, View, tests};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{chown, lchown};
use std::time::Duration;

tests! {
    a_user_runs_a_container,
    a_user_creates_starts_and_deletes_a_container,
    a_user_execs_in_the_namespaces_of_the_container,
    exec_by_a_user_returns_the_exit_code,
    exec_by_a_user_sets_env_cwd_and_user,
    exec_by_a_user_has_the_oom_score.breaks_on(&[("crun 1.8", "config.md#linux-process: oomScoreAdj is of the process, and exec takes the container's")]),
    exec_by_a_user_has_a_terminal,
    exec_by_a_user_detached_writes_the_number_on_the_host,
    exec_by_a_user_of_a_missing_program_is_255.breaks_on(&[("crun", "docs/errors.md: exec that could not run the program is 255")]),
    exec_by_a_user_shows_the_container_nothing_of_the_host,
    exec_by_a_user_before_start_says_why_not.only("hull"),
    a_user_with_limits_is_told_why_not.breaks_on(&[("crun", "runc's words: rootless needs no limits + no cgrouppath")]),
    root_of_a_users_namespace_needs_no_flags,
    root_of_a_users_namespace_needs_no_flags_on_v2.view(View::V2),
    a_user_runs_with_a_view_of_cgroups,
    a_user_runs_with_a_view_of_cgroups_on_v2.view(View::V2).breaks_on(&[("runc 1.1", "the view is empty")]),
    a_user_sets_clocks.breaks_on(&[("runc 1.1", "time namespaces came with 1.2"), ("crun 1.8", "time offsets are wrong by the boot time in 1.8")]),
}

const USER: u32 = 1000;

/// The template of `spec --rootless`: the caller is root inside, the network is the host's, no resources.
fn bundle(lab: &Lab) -> Result<Bundle, Stop> {
    lab.needs_userns()?;
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let b = lab.bundle().without_namespace("network").namespace("user", None);
    let b = b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let b = b.remove("/linux/resources").remove("/linux/cgroupsPath").edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
        let pts = mounts.iter_mut().find(|m| m["type"] == "devpts").expect("devpts");
        // The group 5 is not mapped.
        pts["options"].as_array_mut().expect("options").retain(|o| o != "gid=5");
        mounts.push(json!({"destination": "/sys", "type": "none", "source": "/sys",
                           "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}));
    });
    for dir in [&lab.dir, &lab.root, &b.dir, &b.rootfs()] {
        chown(dir, Some(USER), Some(USER))?;
    }
    for entry in fs::read_dir(b.rootfs())?.flatten() {
        lchown(entry.path(), Some(USER), Some(USER))?;
    }
    Ok(b)
}

/// The call is an ordinary user's.
fn by_user(lab: &Lab, call: Call) -> Result<Call, Stop> {
    let probe = lab.probe()?;
    Ok(call.through(&[&probe.to_string_lossy(), "as", "1000", "1000"]))
}

fn as_user(lab: &Lab, words: &[&str]) -> Result<Output, Stop> {
    Ok(by_user(lab, lab.call(words))?.go())
}

/// A running container of the user.
fn up(lab: &Lab, bundle: &Bundle) -> TestResult {
    by_user(lab, lab.launch("run", bundle, &["--detach"]))?.go().ok();
    Ok(())
}

fn exec(lab: &Lab, bundle: &Bundle, words: &[&str]) -> Result<Output, Stop> {
    Ok(by_user(lab, lab.call(&["exec", &bundle.id]).args(words))?.go())
}

fn a_user_runs_a_container(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.sh("id -u; cat /proc/self/uid_map; exit 3");
    b.write();
    let output = as_user(lab, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id])?.rc(3);
    assert_eq!(output.text().split_whitespace().collect::<Vec<_>>(), ["0", "0", "1000", "1"]);
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_user_creates_starts_and_deletes_a_container(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.sh("echo ran > /out; sleep 100");
    b.write();
    as_user(lab, &["create", "--bundle", &b.dir.to_string_lossy(), &b.id])?.ok();
    as_user(lab, &["start", &b.id])?.ok();
    lab.eventually("the process", || b.read("/out") == "ran");
    assert_eq!(as_user(lab, &["exec", &b.id, "/bin/hostname"])?.ok().text(), "box");
    as_user(lab, &["delete", "--force", &b.id])?.ok();
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_user_execs_in_the_namespaces_of_the_container(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits();
    up(lab, &b)?;
    let script = "cd /proc/self/ns; for n in user pid ipc uts mnt cgroup; do readlink $n; done";
    let seen = exec(lab, &b, &["/bin/sh", "-c", script])?.ok().text();
    let pid = lab.pid(&b.id);
    let link = |n| fs::read_link(format!("/proc/{pid}/ns/{n}")).map(|p| p.display().to_string());
    let wanted: Result<Vec<String>, _> =
        ["user", "pid", "ipc", "uts", "mnt", "cgroup"].into_iter().map(link).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), wanted?);
    Ok(())
}

fn exec_by_a_user_returns_the_exit_code(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits();
    up(lab, &b)?;
    exec(lab, &b, &["/bin/true"])?.ok();
    exec(lab, &b, &["/bin/sh", "-c", "exit 7"])?.rc(7);
    exec(lab, &b, &["/bin/sh", "-c", "kill -9 $$"])?.rc(128 + 9);
    Ok(())
}

fn exec_by_a_user_sets_env_cwd_and_user(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits();
    up(lab, &b)?;
    let call = |flags: &[&str]| {
        let call = lab.call(&["exec"]).args(flags).args(&[&b.id, "/bin/sh", "-c"]);
        Ok::<_, Stop>(by_user(lab, call.args(&["echo $A; pwd; id -u; id -g"]))?.go())
    };
    let output = call(&["--env", "A=b", "--cwd", "/tmp", "--user", "0:0"])?.ok();
    assert_eq!(output.text().lines().collect::<Vec<_>>(), ["b", "/tmp", "0", "0"]);
    // Not mapped.
    let output = call(&["--user", "5"])?;
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn exec_by_a_user_has_the_oom_score(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits().set("/process/oomScoreAdj", json!(700));
    up(lab, &b)?;
    assert_eq!(exec(lab, &b, &["/bin/cat", "/proc/self/oom_score_adj"])?.ok().text(), "700");
    Ok(())
}

fn exec_by_a_user_has_a_terminal(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits();
    up(lab, &b)?;
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let words = ["exec", "--tty", &b.id, "/bin/sh", "-c", "test -t 0 && test -t 2 && echo is-a-tty; exit 8"];
    let running = by_user(lab, lab.call(&words))?.tty(lab, slave).spawn();
    let seen = terminal.read_until("is-a-tty");
    assert!(seen.contains("is-a-tty"), "{seen}");
    running.wait_for(Duration::from_secs(10))?.rc(8);
    Ok(())
}

fn exec_by_a_user_detached_writes_the_number_on_the_host(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits();
    up(lab, &b)?;
    let file = b.dir.join("exec.pid");
    let words = ["exec", "--detach", "--pid-file", &file.to_string_lossy(), &b.id, "/bin/sleep", "100"];
    as_user(lab, &words)?.ok();
    let command = format!("/proc/{}/cmdline", fs::read_to_string(&file)?);
    lab.eventually("the program", || {
        fs::read_to_string(&command).is_ok_and(|text| text == "/bin/sleep\x00100\x00")
    });
    Ok(())
}

fn exec_by_a_user_of_a_missing_program_is_255(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.waits();
    up(lab, &b)?;
    exec(lab, &b, &["nosuchprogram"])?.rc(255).fails("executable file not found in $PATH");
    Ok(())
}

/// What joins is in the container before it is the program.
fn exec_by_a_user_shows_the_container_nothing_of_the_host(lab: &Lab) -> TestResult {
    let script =
        "while :; do ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd 2>/dev/null | grep canary >> /found; done";
    let b = bundle(lab)?.powerful().sh(script);
    up(lab, &b)?;
    let secret = b.dir.join("canary");
    fs::create_dir(&secret)?;
    for _ in 0..30 {
        let call = by_user(lab, lab.call(&["exec", &b.id, "/bin/true"]))?.cwd(&secret);
        call.redirect(lab, &format!("7<{}", secret.display())).go().ok();
    }
    assert_eq!(b.read("/found"), "");
    Ok(())
}

/// Until it runs its program, init is hull's image of the host, which only root may look into.
fn exec_by_a_user_before_start_says_why_not(lab: &Lab) -> TestResult {
    let b = bundle(lab)?;
    by_user(lab, lab.launch("create", &b, &[]))?.go().ok();
    exec(lab, &b, &["/bin/true"])?.rc(255).fails("join the container's user namespace");
    as_user(lab, &["start", &b.id])?.ok();
    Ok(())
}

fn a_user_with_limits_is_told_why_not(lab: &Lab) -> TestResult {
    lab.needs_controller("pids")?;
    let path = format!("/{}/limited", lab.tag);
    let b = bundle(lab)?
        .set("/linux/resources", json!({"pids": {"limit": 10}}))
        .set("/linux/cgroupsPath", json!(path));
    b.write();
    let output = as_user(lab, &["create", "--bundle", &b.dir.to_string_lossy(), &b.id])?;
    assert!(output.rc > 0, "{output}");
    // Which one depends on the layout: runc says the first on v2 only.
    let texts = [
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        "unable to apply cgroup configuration",
        "cannot set pids limit: container could not join or create cgroup",
    ];
    assert!(texts.iter().any(|text| output.err().contains(text)), "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

/// As Podman calls a runtime for an ordinary user: uid 0 in a user namespace that it has made, with a config as
/// root's, and no word of where the state is to be.
fn root_of_a_users_namespace_needs_no_flags(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().remove("/linux/cgroupsPath").remove("/linux/resources").edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        let pts = mounts.iter_mut().find(|m| m["type"] == "devpts").expect("devpts");
        pts["options"].as_array_mut().expect("options").retain(|o| o != "gid=5");
    });
    let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let b = b.sh("id -u; ls /sys/fs/cgroup | wc -l");
    b.write();
    let runtime_dir = lab.new_dir("xdg");
    for dir in [&lab.dir, &b.dir, &b.rootfs(), &runtime_dir] {
        chown(dir, Some(USER), Some(USER))?;
    }
    for entry in fs::read_dir(b.rootfs())?.flatten() {
        lchown(entry.path(), Some(USER), Some(USER))?;
    }
    let bundle = b.dir.to_string_lossy().into_owned();
    let call = lab.bare(&["run", "--bundle", &bundle, &b.id]);
    let call = call.through(&["unshare", "-U", "-r", "-m", "--propagation", "private"]);
    let call = call.env("XDG_RUNTIME_DIR", &runtime_dir).env("USER", "somebody");
    let output = by_user(lab, call)?.go().ok();
    let seen: Vec<String> = output.text().lines().map(str::to_owned).collect();
    assert_eq!(seen.first().map(String::as_str), Some("0"), "{output}");
    assert_ne!(seen.get(1).map(String::as_str), Some("0"), "no view of cgroups: {output}");
    let name = if lab.is("hull") { "hull" } else { &lab.runtime.kind };
    assert!(runtime_dir.join(name).is_dir(), "the state was elsewhere");
    Ok(())
}

fn root_of_a_users_namespace_needs_no_flags_on_v2(lab: &Lab) -> TestResult {
    root_of_a_users_namespace_needs_no_flags(lab)
}

/// The template of `spec --rootless` has a mount of type cgroup.
fn a_user_runs_with_a_view_of_cgroups(lab: &Lab) -> TestResult {
    for own in [false, true] {
        let b = bundle(lab)?.edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| m["destination"] != "/sys");
        });
        let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        let b = b.mount("bind", "/sys", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &options).sh("ls /sys/fs/cgroup | wc -l");
        let b = if own { b.namespace("cgroup", None) } else { b };
        b.write();
        let output = as_user(lab, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id])?.ok();
        assert_ne!(output.text(), "0", "own cgroup namespace {own}: {output}");
    }
    Ok(())
}

fn a_user_runs_with_a_view_of_cgroups_on_v2(lab: &Lab) -> TestResult {
    a_user_runs_with_a_view_of_cgroups(lab)
}

fn a_user_sets_clocks(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.namespace("time", None);
    let b = b.set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000}}));
    let b = b.args(&["/bin/cat", "/proc/uptime"]);
    b.write();
    let output = as_user(lab, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id])?.ok();
    let uptime: f64 = output.text().split(' ').next().unwrap_or_default().parse()?;
    assert!(uptime > 1_000_000.0, "{output}");
    Ok(())
}
