//! What makes a process the one of the config, and its program.

use super::{Act, Case, Create, Logged, Told, bundle, up};
use hull_integration::{Bundle, Lab, Stop};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    ("user", Act(|lab| denied(lab, bundle(lab), libc::SYS_setresuid, libc::EINVAL))),
    ("groups", Act(|lab| denied(lab, bundle(lab), libc::SYS_setgroups, libc::EINVAL))),
    ("capabilities", Act(|lab| denied(lab, bundle(lab), libc::SYS_capset, libc::EPERM))),
    ("cwd", Act(cwd)),
    ("rlimit", Act(rlimit)),
    ("oom-score", Act(oom_score)),
    ("scheduling", Create(|b| b.set("/process/scheduler", deadline()))),
    ("apparmor", Act(apparmor)),
    ("selinux", Act(selinux)),
    ("seccomp", Act(seccomp)),
    ("terminal", Act(terminal)),
    ("program-not-found", Create(|b| b.args(&["no-such-program"]))),
    ("program-is-directory", Create(|b| b.args(&["/etc"]))),
    ("program-not-executable", Create(|b| b.args(&["/etc/passwd"]))),
    ("program", Act(|lab| denied(lab, bundle(lab), libc::SYS_faccessat2, libc::EIO))),
    ("exec", Act(exec)),
    ("exec-gone", Act(exec_gone)),
    ("cpu-affinity", Act(cpu_affinity)),
    ("seccomp-bytes", Act(seccomp_bytes)),
];

fn denied(lab: &Lab, b: Bundle, call: i64, errno: i32) -> Result<Told, Stop> {
    Logged::launch(lab, "create", &b).denied(lab, call, errno)
}

fn cwd(lab: &Lab) -> Result<Told, Stop> {
    Logged::new(lab, &["exec", "--cwd", "/no/such", &up(lab).id, "/bin/true"]).told()
}

/// To set a limit is denied, not to read one.
fn rlimit(lab: &Lab) -> Result<Told, Stop> {
    let rule = format!("{}:{}:2", libc::SYS_prlimit64, libc::EPERM);
    Logged::launch(lab, "run", &bundle(lab)).behind(lab, &["deny", &rule])
}

/// Where /proc cannot be written.
fn oom_score(lab: &Lab) -> Result<Told, Stop> {
    let b = bundle(lab).set("/process/oomScoreAdj", json!(500));
    Logged::launch(lab, "create", &b).where_mounts_are(lab, "mount -o remount,bind,ro /proc")
}

/// More time than there is.
fn deadline() -> Value {
    json!({"policy": "SCHED_DEADLINE", "runtime": 2_000_000_000, "deadline": 1_000_000_000, "period": 1_000_000_000})
}

/// A profile that is not loaded; where AppArmor is off, on a host that says it is on.
fn apparmor(lab: &Lab) -> Result<Told, Stop> {
    let call = Logged::launch(lab, "create", &bundle(lab).set("/process/apparmorProfile", json!("sausage")));
    if lab.host.apparmor {
        return call.told();
    }
    let dir = "/sys/module/apparmor/parameters";
    call.where_mounts_are(
        lab,
        &format!("mount -t tmpfs tmpfs /sys/module; mkdir -p {dir}; echo Y >{dir}/enabled"),
    )
}

fn selinux(lab: &Lab) -> Result<Told, Stop> {
    let b = without_mounts(bundle(lab), "cgroup").set("/process/selinuxLabel", json!("sausage"));
    let call = Logged::launch_with(lab, &["--cgroup-manager", "disabled"], "create", &b, &[]);
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return call.told();
    }
    call.where_mounts_are(
        lab,
        "mount -t tmpfs tmpfs /sys/fs; mkdir /sys/fs/selinux; echo 1 >/sys/fs/selinux/enforce",
    )
}

fn without_mounts(b: Bundle, kind: &str) -> Bundle {
    b.edit(|spec| spec["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != kind))
}

fn with_filter(b: Bundle) -> Bundle {
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}))
}

fn seccomp(lab: &Lab) -> Result<Told, Stop> {
    let b = with_filter(bundle(lab));
    Logged::launch(lab, "run", &b).denied(lab, libc::SYS_seccomp, libc::EINVAL)
}

/// Without a devpts.
fn terminal(lab: &Lab) -> Result<Told, Stop> {
    let socket = lab.next_path("socket");
    let _receiver = std::os::unix::net::UnixListener::bind(&socket)?;
    let b = bundle(lab).set("/process/terminal", json!(true));
    let b = without_mounts(b, "devpts");
    Logged::launch_with(lab, &[], "create", &b, &["--console-socket", &socket.to_string_lossy()]).told()
}

fn exec(lab: &Lab) -> Result<Told, Stop> {
    let b = lab.bundle().file("/data", "no program", 0o755).args(&["/data"]);
    Logged::launch(lab, "run", &b).told()
}

/// Killed when it sets its groups.
fn exec_gone(lab: &Lab) -> Result<Told, Stop> {
    Logged::new(lab, &["exec", &up(lab).id, "/bin/true"]).denied(lab, libc::SYS_setgroups, 0)
}

/// A range that ends before it begins.
fn cpu_affinity(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    let mut process = b.spec["process"].clone();
    process["execCPUAffinity"] = json!({"initial": "3-1"});
    let file = lab.next_path("process");
    fs::write(&file, process.to_string())?;
    Logged::new(lab, &["exec", "--process", &file.to_string_lossy(), &b.id]).told()
}

/// The filter that was kept for exec is cut short.
fn seccomp_bytes(lab: &Lab) -> Result<Told, Stop> {
    let b = with_filter(bundle(lab).waits());
    lab.up(&b);
    let file = lab.root.join(&b.id).join("seccomp.bpf");
    let mut bytes = fs::read(&file)?;
    bytes.pop();
    fs::write(&file, bytes)?;
    Logged::new(lab, &["exec", &b.id, "/bin/true"]).told()
}
