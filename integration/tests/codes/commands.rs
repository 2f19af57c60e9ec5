//! The command line, the log, and the state of containers.

use super::{Act, Case, Logged, Told, bundle, codes_in, up};
use hull_integration::{Bundle, Call, Lab, Stop, skip, sys};
use serde_json::json;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

pub(super) const CASES: &[Case] = &[
    ("usage", Act(|lab| Logged::with(lab, &["--cgroup-manager", "sausage"], &["list"]).told())),
    ("not-yet-supported", Act(|lab| Logged::new(lab, &["events", "none"]).told())),
    ("container-id", Act(|lab| Logged::new(lab, &["state", "a/b"]).told())),
    ("signal-unknown", Act(|lab| Logged::new(lab, &["kill", "none", "SAUSAGE"]).told())),
    ("log", Act(log)),
    ("console-socket", Act(|lab| with_flags(lab, "create", &["--console-socket", "/no/such"]))),
    ("pidfd-socket", Act(|lab| with_flags(lab, "create", &["--pidfd-socket", "/no/such"]))),
    ("pid-file", Act(|lab| with_flags(lab, "create", &["--pid-file", "/no/such/file"]))),
    ("descriptors", Act(|lab| with_flags(lab, "create", &["--preserve-fds", "7"]))),
    ("terminal-missing", Act(terminal_missing)),
    ("ps", Act(|lab| of_running(lab, &["ps"], |call| call.but(|call| call.env("PATH", "/no/such"))))),
    ("output", Act(output)),
    ("container-missing", Act(|lab| Logged::new(lab, &["state", "none"]).told())),
    ("container-running", Act(|lab| of_running(lab, &["delete"], |call| call))),
    ("container-not-running", Act(|lab| of_stopped(lab, "kill"))),
    ("container-stopped", Act(|lab| of_stopped(lab, "start"))),
    ("container-paused", Act(container_paused)),
    ("container-not-paused", Act(|lab| of_running(lab, &["resume"], |call| call))),
    ("container-busy", Act(container_busy)),
    ("id-in-use", Act(|lab| Logged::launch(lab, "create", &up(lab)).told())),
    ("state-missing", Act(state_missing)),
    ("state-corrupt", Act(|lab| with_record(lab, |file| fs::write(file, "{")))),
    ("state-unreadable", Act(|lab| with_record(lab, fs::create_dir))),
    ("state-unwritable", Act(|lab| on_small_disk(lab, 2, |call| call))),
    ("notify", Act(notify)),
    ("state-unremovable", Act(state_unremovable)),
    ("root-missing", Act(|lab| Logged::with(lab, &["--root", "/no/such"], &["list"]).told())),
    ("root-unusable", Act(root_unusable)),
    ("lock", Act(|lab| denied(lab, &["pause"], libc::SYS_flock, libc::ENOLCK))),
    ("host-probe", Act(|lab| denied(lab, &["exec"], libc::SYS_capget, libc::EPERM))),
    ("internal", Act(|lab| denied(lab, &["exec"], libc::SYS_socketpair, libc::EMFILE))),
];

/// What takes some seconds.
pub(super) const UNENDING: &[Case] =
    &[("init-survives", Act(init_survives)), ("cgroup-kill", Act(cgroup_kill))];

/// Said on stderr, in the form of the log that cannot be opened.
fn log(lab: &Lab) -> Result<Told, Stop> {
    let output = lab.call_globals(&["--log", "/no/such/log", "--log-format", "json"], &["list"]).go();
    Ok(Told { codes: codes_in(&output.err()), text: output.to_string() })
}

fn output(lab: &Lab) -> Result<Told, Stop> {
    let busybox = lab.busybox().to_string_lossy().into_owned();
    let words = [&*busybox, "sh", "-c", "\"$@\" >/dev/full", "sh"];
    Logged::new(lab, &["features"]).but(|call| call.through(&words)).told()
}

fn with_flags(lab: &Lab, verb: &str, flags: &[&str]) -> Result<Told, Stop> {
    Logged::launch_with(lab, &[], verb, &bundle(lab), flags).told()
}

/// A verb on a running container; the words are the verb, to which its id and, for exec, a program are added.
fn of_running(lab: &Lab, words: &[&str], change: impl FnOnce(Logged) -> Logged) -> Result<Told, Stop> {
    change(on(lab, words, &up(lab))).told()
}

fn on(lab: &Lab, words: &[&str], b: &Bundle) -> Logged {
    let program: &[&str] = if words == ["exec"] { &["/bin/true"] } else { &[] };
    Logged::new(lab, &[words, &[&*b.id], program].concat())
}

fn denied(lab: &Lab, words: &[&str], call: i64, errno: i32) -> Result<Told, Stop> {
    on(lab, words, &up(lab)).denied(lab, call, errno)
}

/// In a session of its own nobody has a terminal.
fn terminal_missing(lab: &Lab) -> Result<Told, Stop> {
    let b = bundle(lab).set("/process/terminal", json!(true));
    let busybox = lab.busybox().to_string_lossy().into_owned();
    Logged::launch(lab, "run", &b).but(|call| call.through(&[&busybox, "setsid"])).told()
}

fn of_stopped(lab: &Lab, verb: &str) -> Result<Told, Stop> {
    let b = bundle(lab);
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    on(lab, &[verb], &b).told()
}

fn container_paused(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    lab.rt(&["pause", &b.id]).ok();
    let told = on(lab, &["exec"], &b).told();
    lab.rt(&["resume", &b.id]).ok();
    told
}

/// Held by nobody who could be ended: who took the lock is gone, and the file is still open here.
fn container_busy(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    let held = File::open(lab.root.join(&b.id))?;
    let taken = Command::new(lab.probe()?).arg("lock").stdin(held.try_clone()?).status()?;
    assert!(taken.success(), "the lock of {} cannot be taken", b.id);
    on(lab, &["delete", "--force"], &b).told()
}

fn state_missing(lab: &Lab) -> Result<Told, Stop> {
    let id = lab.new_id();
    fs::create_dir(lab.root.join(&id))?;
    let told = Logged::new(lab, &["state", &id]).told();
    fs::remove_dir(lab.root.join(&id))?;
    told
}

/// `state` of a container whose record is replaced for that long.
fn with_record(lab: &Lab, make: fn(PathBuf) -> std::io::Result<()>) -> Result<Told, Stop> {
    let b = up(lab);
    let file = lab.root.join(&b.id).join("state.json");
    let kept = file.with_extension("kept");
    fs::rename(&file, &kept)?;
    make(file.clone())?;
    let told = on(lab, &["state"], &b).told();
    if file.is_dir() {
        fs::remove_dir(&file)?;
    }
    fs::rename(&kept, &file)?;
    told
}

/// `run` with a state root that has room for few files, itself counted.
fn on_small_disk(lab: &Lab, files: u32, change: impl FnOnce(Call) -> Call) -> Result<Told, Stop> {
    let script = format!("mount -t tmpfs -o nr_inodes={files} tmpfs {}", lab.root.display());
    Logged::launch(lab, "run", &bundle(lab)).but(change).where_mounts_are(lab, &script)
}

fn notify(lab: &Lab) -> Result<Told, Stop> {
    let socket = lab.next_path("socket");
    let _manager = std::os::unix::net::UnixDatagram::bind(&socket)?;
    on_small_disk(lab, 3, |call| call.env("NOTIFY_SOCKET", &socket))
}

/// With a mount in its directory.
fn state_unremovable(lab: &Lab) -> Result<Told, Stop> {
    let b = bundle(lab);
    lab.create(&b).ok();
    let inside = lab.root.join(&b.id).join("mount");
    fs::create_dir(&inside)?;
    let script = format!("mount -t tmpfs tmpfs {}", inside.display());
    let told = on(lab, &["delete"], &b).where_mounts_are(lab, &script);
    fs::remove_dir_all(lab.root.join(&b.id))?;
    told
}

fn root_unusable(lab: &Lab) -> Result<Told, Stop> {
    let file = lab.next_path("file");
    fs::write(&file, "")?;
    let root = file.join("root").to_string_lossy().into_owned();
    Logged::launch_with(lab, &["--root", &root], "create", &bundle(lab), &[]).told()
}

/// `delete --force` of a container with a process that is kept at its end by who traces it, us. Init waits for it.
fn kept(lab: &Lab, globals: &[&str]) -> Result<Told, Stop> {
    let b = bundle(lab).sh("sleep 60 & wait");
    let dir = b.dir.to_string_lossy().into_owned();
    b.write();
    lab.remember(&b.id);
    lab.call_globals(globals, &["run", "--detach", "--bundle", &dir, &b.id]).go().ok();
    let init = lab.pid(&b.id);
    let children = format!("/proc/{init}/task/{init}/children");
    let child = || fs::read_to_string(&children).unwrap_or_default().trim().parse::<i32>().ok();
    if !PathBuf::from(&children).exists() {
        return skip("the kernel does not list the children of a process");
    }
    lab.eventually("a child of init", || child().is_some());
    let child = child().ok_or("the child of init is gone")?;
    sys::hold_at_end(child)?;
    let told = on(lab, &["delete", "--force"], &b).told();
    sys::let_end(child)?;
    told
}

fn init_survives(lab: &Lab) -> Result<Told, Stop> {
    kept(lab, &["--cgroup-manager", "disabled"])
}

fn cgroup_kill(lab: &Lab) -> Result<Told, Stop> {
    kept(lab, &[])
}
