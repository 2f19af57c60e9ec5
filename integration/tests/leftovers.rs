//! Nothing is left: after a create that failed at some stage, after a runtime killed at any point, after a race
//! of verbs, with a damaged state. The supervisor adds processes and mounts to what the tests look for.

use hull_integration::{Bundle, Lab, TestResult, tests};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ORPHANS: &str = "kill -9 of create leaves an orphan cgroup that delete -f does not see";
const RACES: &str = "races of verbs leave a frozen cgroup or block for more than 15 s";
const HANGING: &str = "delete --force leaves a command that waits for a hook, and the hook, alone";
const CORRUPT: &str = "an unreadable state file is no reason to hide or keep containers";

tests! {
    create_with_a_bad_mount_source_leaves_nothing,
    create_with_a_bad_mount_option_leaves_nothing,
    create_with_a_bad_sysctl_leaves_nothing,
    create_with_a_bad_seccomp_action_leaves_nothing,
    create_with_a_failing_hook_leaves_nothing,
    create_with_a_missing_program_leaves_nothing,
    create_with_a_bad_cgroup_value_leaves_nothing.breaks_on(&[("crun 1.8", "a failed create leaves its cgroups")]),
    create_with_a_bad_namespace_path_leaves_nothing,
    create_with_a_bad_device_leaves_nothing,
    create_with_a_missing_console_socket_leaves_nothing,
    create_with_an_unwritable_pid_file_leaves_nothing,
    create_with_a_failing_cwd_leaves_nothing,
    run_that_fails_can_be_repaired_and_repeated,
    create_killed_at_any_point_is_undone_by_delete_force.breaks_on(&[("runc", ORPHANS), ("crun", ORPHANS)]).limit_s(900),
    start_killed_at_any_point_is_undone_by_delete_force.limit_s(900),
    run_killed_at_any_point_is_undone_by_delete_force.breaks_on(&[("runc", ORPHANS), ("crun", ORPHANS)]).limit_s(900),
    exec_killed_at_any_point_leaves_the_container_deletable.limit_s(900),
    verbs_killed_in_their_hooks_are_undone_by_delete_force.breaks_on(&[("runc", ORPHANS), ("crun", ORPHANS)]).limit_s(900),
    a_hanging_hook_does_not_stop_delete_force.breaks_on(&[("runc", HANGING), ("crun", HANGING)]).limit_s(120),
    delete_killed_at_any_point_is_finished_by_delete_force.breaks_on(&[("runc", ORPHANS), ("crun", ORPHANS)]).limit_s(900),
    racing_verbs_leave_nothing.breaks_on(&[("runc", RACES), ("crun", RACES)]).limit_s(300),
    a_damaged_state_does_not_hide_the_others.breaks_on(&[("crun", CORRUPT)]),
    a_damaged_state_is_deleted_by_force.breaks_on(&[("runc", CORRUPT), ("crun", CORRUPT)]),
    a_half_made_state_directory_is_deleted_by_force,
    a_killed_init_is_stopped_and_deleted,
    a_container_of_a_killed_foreground_run_goes_on,
    delete_of_a_container_whose_bundle_is_gone,
}

#[track_caller]
fn leaves_nothing(lab: &Lab, b: &Bundle) -> TestResult {
    let output = lab.create(b);
    assert!(output.rc > 0, "it should have failed: {output}");
    nothing_left(lab, &b.id);
    Ok(())
}

#[track_caller]
fn nothing_left(lab: &Lab, id: &str) {
    assert!(lab.ids_on_disk().is_empty(), "state: {:?}", lab.ids_on_disk());
    let cgroups: Vec<PathBuf> =
        lab.cgroups_left().into_iter().filter(|d| d.components().any(|c| c.as_os_str() == id)).collect();
    assert!(cgroups.is_empty(), "cgroups: {cgroups:?}");
}

fn create_with_a_bad_mount_source_leaves_nothing(lab: &Lab) -> TestResult {
    leaves_nothing(lab, &lab.bundle().mount("bind", "/no/such", "/mnt", &["rbind"]))
}

fn create_with_a_bad_mount_option_leaves_nothing(lab: &Lab) -> TestResult {
    leaves_nothing(lab, &lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &["size=sausage"]))
}

fn create_with_a_bad_sysctl_leaves_nothing(lab: &Lab) -> TestResult {
    leaves_nothing(
        lab,
        &lab.bundle().edit(|s| s["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "sausage"})),
    )
}

fn create_with_a_bad_seccomp_action_leaves_nothing(lab: &Lab) -> TestResult {
    let seccomp =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SAUSAGE"}]});
    leaves_nothing(lab, &lab.bundle().set("/linux/seccomp", seccomp))
}

fn create_with_a_failing_hook_leaves_nothing(lab: &Lab) -> TestResult {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let hook = json!({"path": lab.busybox(), "args": ["false"]});
        leaves_nothing(lab, &lab.bundle().push(&format!("/hooks/{kind}"), hook))?;
    }
    Ok(())
}

fn create_with_a_missing_program_leaves_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/no/such/program"]);
    let output = lab.run(&b);
    assert!(output.rc > 0, "{output}");
    nothing_left(lab, &b.id);
    Ok(())
}

fn create_with_a_bad_cgroup_value_leaves_nothing(lab: &Lab) -> TestResult {
    lab.needs_controller("cpuset")?;
    leaves_nothing(lab, &lab.bundle().set("/linux/resources/cpu", json!({"cpus": "4095"})))
}

fn create_with_a_bad_namespace_path_leaves_nothing(lab: &Lab) -> TestResult {
    leaves_nothing(lab, &lab.bundle().namespace("ipc", Some("/etc/passwd")))
}

fn create_with_a_bad_device_leaves_nothing(lab: &Lab) -> TestResult {
    let device = json!({"path": "/proc/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666});
    leaves_nothing(lab, &lab.bundle().push("/linux/devices", device))
}

fn create_with_a_missing_console_socket_leaves_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/terminal", json!(true));
    let path = lab.dir.join("nobody");
    let output = lab.launch("create", &b, &["--console-socket", &path.to_string_lossy()]).go();
    assert!(output.rc > 0, "{output}");
    nothing_left(lab, &b.id);
    Ok(())
}

fn create_with_an_unwritable_pid_file_leaves_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let output = lab.launch("create", &b, &["--pid-file", "/no/such/dir/pid"]).go();
    assert!(output.rc > 0, "{output}");
    nothing_left(lab, &b.id);
    Ok(())
}

fn create_with_a_failing_cwd_leaves_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/cwd", json!("/etc/passwd/below"));
    let output = lab.run(&b);
    assert!(output.rc > 0, "{output}");
    nothing_left(lab, &b.id);
    Ok(())
}

fn run_that_fails_can_be_repaired_and_repeated(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", "/no/such", "/mnt", &["rbind"]);
    assert!(lab.run(&b).rc > 0);
    let good = b.edit(|spec| drop(spec["mounts"].as_array_mut().expect("mounts").pop()));
    lab.run(&good).ok();
    Ok(())
}

/// 30 points, or 1000 with FULL=1.
fn points() -> u32 {
    if full() { 1000 } else { 30 }
}

fn full() -> bool {
    std::env::var_os("FULL").is_some_and(|v| v != "0")
}

/// Kills the runtime at evenly spaced points of a call, and finds nothing after `delete --force`.
fn killed_at_every_point(
    lab: &Lab,
    prepare: impl Fn(&Bundle),
    call: impl Fn(&Bundle) -> hull_integration::Call,
) -> TestResult {
    let base = lab.bundle().waits();
    killed_at_every_point_of(lab, &base, prepare, call)
}

/// The same with a bundle to start from.
fn killed_at_every_point_of(
    lab: &Lab,
    base: &Bundle,
    prepare: impl Fn(&Bundle),
    call: impl Fn(&Bundle) -> hull_integration::Call,
) -> TestResult {
    // How long it takes undisturbed: the longest of three, and a little more.
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let b = base.sibling(lab);
        b.write();
        prepare(&b);
        longest = longest.max(call(&b).go().ok().took);
        lab.delete(&b.id);
    }
    let mut bad = Vec::new();
    for point in 0..points() {
        let b = base.sibling(lab);
        b.write();
        prepare(&b);
        let running = call(&b).spawn();
        let after = longest.mul_f64(1.2 * f64::from(point) / f64::from(points()));
        std::thread::sleep(after);
        running.kill();
        let delete = lab.rt(&["delete", "--force", &b.id]);
        let left: Vec<PathBuf> = lab
            .cgroups_left()
            .into_iter()
            .filter(|d| d.components().any(|c| c.as_os_str() == b.id.as_str()))
            .collect();
        if delete.rc != 0
            || !left.is_empty()
            || lab.ids_on_disk().contains(&b.id)
            || delete.took > Duration::from_secs(2)
        {
            bad.push(format!("after {after:?}: {delete}\n  cgroups {left:?}, state {:?}", lab.ids_on_disk()));
        }
        fs::remove_dir_all(&b.dir)?;
    }
    lab.say(&format!("{} points over {longest:?}", points()));
    assert!(bad.is_empty(), "{} of {} points:\n{}", bad.len(), points(), bad.join("\n"));
    Ok(())
}

fn create_killed_at_any_point_is_undone_by_delete_force(lab: &Lab) -> TestResult {
    killed_at_every_point(lab, |_| {}, |b| lab.call(&["create", "--bundle", &b.dir.to_string_lossy(), &b.id]))
}

fn start_killed_at_any_point_is_undone_by_delete_force(lab: &Lab) -> TestResult {
    let create = |b: &Bundle| drop(lab.rt(&["create", "--bundle", &b.dir.to_string_lossy(), &b.id]).ok());
    killed_at_every_point(lab, create, |b| lab.call(&["start", &b.id]))
}

/// In the foreground it lasts as long as its container: only its beginning is looked at.
fn run_killed_at_any_point_is_undone_by_delete_force(lab: &Lab) -> TestResult {
    let base = lab.bundle().args(&["/bin/sleep", "0.02"]);
    killed_at_every_point_of(
        lab,
        &base,
        |_| {},
        |b| lab.call(&["run", "--bundle", &b.dir.to_string_lossy(), &b.id]),
    )
}

fn exec_killed_at_any_point_leaves_the_container_deletable(lab: &Lab) -> TestResult {
    let run =
        |b: &Bundle| drop(lab.rt(&["run", "--detach", "--bundle", &b.dir.to_string_lossy(), &b.id]).ok());
    killed_at_every_point(lab, run, |b| lab.call(&["exec", &b.id, "/bin/true"]))
}

/// Hooks of all kinds, each of which takes a moment.
fn with_hooks(lab: &Lab, b: Bundle, seconds: &str) -> Bundle {
    let mut b = b;
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let path = if kind == "startContainer" { json!("/bin/busybox") } else { json!(lab.busybox()) };
        b = b.push(&format!("/hooks/{kind}"), json!({"path": path, "args": ["sleep", seconds]}));
    }
    b
}

fn verbs_killed_in_their_hooks_are_undone_by_delete_force(lab: &Lab) -> TestResult {
    let base = with_hooks(lab, lab.bundle().waits(), "0.01");
    let dir = |b: &Bundle| b.dir.to_string_lossy().into_owned();
    let create = |b: &Bundle| drop(lab.rt(&["create", "--bundle", &dir(b), &b.id]).ok());
    let run = |b: &Bundle| drop(lab.rt(&["run", "--detach", "--bundle", &dir(b), &b.id]).ok());
    killed_at_every_point_of(lab, &base, |_| {}, |b| lab.call(&["create", "--bundle", &dir(b), &b.id]))?;
    killed_at_every_point_of(
        lab,
        &base,
        |_| {},
        |b| lab.call(&["run", "--detach", "--bundle", &dir(b), &b.id]),
    )?;
    killed_at_every_point_of(lab, &base, create, |b| lab.call(&["start", &b.id]))?;
    killed_at_every_point_of(lab, &base, run, |b| lab.call(&["exec", &b.id, "/bin/true"]))?;
    killed_at_every_point_of(lab, &base, run, |b| lab.call(&["delete", "--force", &b.id]))
}

/// The command that waits for it is killed, or still there.
fn a_hanging_hook_does_not_stop_delete_force(lab: &Lab) -> TestResult {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        for killed in [true, false] {
            let mut b = lab.bundle().waits();
            let path = if kind == "startContainer" { json!("/bin/busybox") } else { json!(lab.busybox()) };
            b = b.push(&format!("/hooks/{kind}"), json!({"path": path, "args": ["sleep", "600"]}));
            let running = lab.launch("run", &b, &["--detach"]).spawn();
            std::thread::sleep(Duration::from_millis(300));
            if killed {
                running.kill();
                lab.rt(&["delete", "--force", &b.id]).ok();
            } else {
                let delete = lab.rt(&["delete", "--force", &b.id]).ok();
                assert!(delete.took < Duration::from_secs(2), "{kind}: {delete}");
                let output = running.wait_for(Duration::from_secs(5))?;
                assert!(output.rc != 0, "{kind}: {output}");
            }
            nothing_left(lab, &b.id);
        }
    }
    Ok(())
}

fn delete_killed_at_any_point_is_finished_by_delete_force(lab: &Lab) -> TestResult {
    let run =
        |b: &Bundle| drop(lab.rt(&["run", "--detach", "--bundle", &b.dir.to_string_lossy(), &b.id]).ok());
    killed_at_every_point(lab, run, |b| lab.call(&["delete", "--force", &b.id]))
}

/// Eight threads, random verbs, one id; 5 s, or 60 s with FULL=1.
fn racing_verbs_leave_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    b.write();
    let (id, dir) = (b.id.as_str(), b.dir.to_string_lossy().into_owned());
    let verbs: [&[&str]; 9] = [
        &["create", "--bundle", &dir, id],
        &["start", id],
        &["state", id],
        &["kill", id, "KILL"],
        &["pause", id],
        &["resume", id],
        &["delete", id],
        &["delete", "--force", id],
        &["exec", id, "/bin/true"],
    ];
    let until = Instant::now() + Duration::from_secs(if full() { 60 } else { 5 });
    let (calls, blocked) = (AtomicU64::new(0), AtomicBool::new(false));
    let (runtime, root) = (&lab.runtime.path, &lab.root);
    std::thread::scope(|scope| {
        for seed in 1..=8u64 {
            let (calls, blocked) = (&calls, &blocked);
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                while Instant::now() < until {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let verb = verbs[(random >> 33) as usize % verbs.len()];
                    if !ends_within(runtime, root, verb, Duration::from_secs(5)) {
                        Lab::note(&format!("blocked for 5 s: {}", verb[0]));
                        blocked.store(true, Ordering::Relaxed);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    lab.delete(id);
    nothing_left(lab, id);
    assert!(!blocked.load(Ordering::Relaxed), "a call took more than 5 s");
    lab.say(&format!("{} calls", calls.load(Ordering::Relaxed)));
    Ok(())
}

fn ends_within(runtime: &Path, root: &Path, words: &[&str], limit: Duration) -> bool {
    let mut command = Command::new(runtime);
    command
        .arg("--root")
        .arg(root)
        .args(words)
        .stdin(hull_integration::call::no_input())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("spawn the runtime");
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if child.try_wait().expect("wait").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().ok();
    child.wait().ok();
    false
}

/// Every regular file of a container's state is replaced by rubbish.
fn damage(lab: &Lab, id: &str) -> TestResult {
    for entry in fs::read_dir(lab.root.join(id))? {
        let path = entry?.path();
        // What create wrote down first is hull's second copy: both at once is another machine's failure.
        if fs::symlink_metadata(&path)?.is_file() && !path.ends_with("intent.json") {
            fs::write(&path, "\u{0}{ rubbish")?;
        }
    }
    Ok(())
}

fn a_damaged_state_does_not_hide_the_others(lab: &Lab) -> TestResult {
    let (bad, good) = (lab.bundle().args(&["/bin/sleep", "100"]), lab.bundle().args(&["/bin/sleep", "100"]));
    lab.up(&bad);
    lab.up(&good);
    let kept = keep(lab, &bad.id)?;
    damage(lab, &bad.id)?;
    let text = lab.rt(&["list", "--format", "json"]).out();
    let list: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    let listed = list.as_array().is_some_and(|l| l.iter().any(|e| e["id"] == json!(good.id)));
    assert!(listed, "{text}");
    restore(&kept)?;
    Ok(())
}

type Kept = Vec<(PathBuf, Vec<u8>)>;

fn keep(lab: &Lab, id: &str) -> Result<Kept, hull_integration::Stop> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(lab.root.join(id))? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_file() {
            kept.push((path.clone(), fs::read(&path)?));
        }
    }
    Ok(kept)
}

fn restore(kept: &Kept) -> TestResult {
    for (path, bytes) in kept {
        fs::write(path, bytes)?;
    }
    Ok(())
}

fn a_damaged_state_is_deleted_by_force(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let pid = lab.pid(&b.id);
    damage(lab, &b.id)?;
    lab.rt(&["delete", "--force", &b.id]).ok();
    nothing_left(lab, &b.id);
    lab.eventually("the end of init", || {
        !fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
    });
    Ok(())
}

fn a_half_made_state_directory_is_deleted_by_force(lab: &Lab) -> TestResult {
    let id = lab.new_id();
    fs::create_dir(lab.root.join(&id))?;
    lab.rt(&["delete", "--force", &id]).ok();
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_killed_init_is_stopped_and_deleted(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(lab.pid(&b.id)), nix::sys::signal::Signal::SIGKILL)?;
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    nothing_left(lab, &b.id);
    Ok(())
}

fn a_container_of_a_killed_foreground_run_goes_on(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo up; exec sleep 100");
    let running = lab.launch("run", &b, &[]).spawn();
    // The record can come after the first output.
    lab.eventually("the container", || running.printed().contains("up") && lab.ids_on_disk().len() == 1);
    std::thread::sleep(Duration::from_millis(100));
    running.kill();
    assert_eq!(lab.status(&b.id), "running");
    lab.delete(&b.id);
    Ok(())
}

fn delete_of_a_container_whose_bundle_is_gone(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    fs::remove_dir_all(&b.dir)?;
    lab.rt(&["kill", &b.id, "KILL"]).ok();
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}
