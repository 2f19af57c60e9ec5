//! Planning a container and making it: namespaces, file systems, hooks. What no config brings about comes of a host
//! where a system call is denied.

use super::{Act, Case, Create, Logged, Plan, Told, bundle};
use hull_integration::{Bundle, Lab, Stop, skip};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    ("lsm-not-enabled", Plan(label)),
    (
        "capability-not-grantable",
        Act(|lab| plan_without_resource(lab, |b| b.capabilities(&["CAP_SYS_RESOURCE"]))),
    ),
    ("rlimit-above-hard", Act(|lab| plan_without_resource(lab, high_limit))),
    ("oom-score-not-allowed", Act(oom_score)),
    ("clone-failed", Act(|lab| denied(lab, bundle(lab), libc::SYS_clone3, libc::EPERM))),
    ("out-of-memory", Act(out_of_memory)),
    ("init-gone", Act(init_gone)),
    ("interrupted", Act(interrupted)),
    ("set-up", Act(|lab| denied(lab, bundle(lab), libc::SYS_setsid, libc::EPERM))),
    ("namespace-own", Create(|b| b.namespace("mount", Some("/proc/self/ns/mnt")))),
    ("namespace-path", Create(|b| b.namespace("ipc", Some("/no/such/namespace")))),
    ("namespace-join", Create(|b| b.namespace("ipc", Some("/proc/self/ns/uts")))),
    ("id-map", Act(id_map)),
    ("rootfs", Create(|b| b.set("/root/path", json!("no-such")))),
    ("mount", Act(mount_on_link)),
    ("mount-source-missing", Create(|b| b.mount("bind", "/no/such", "/mnt", &["bind"]))),
    ("mount-source", Create(|b| b.mount("bind", "/proc/version/none", "/mnt", &["bind"]))),
    ("mount-kind", Create(|b| b.mount("bind", "/proc/version", "/mnt", &["bind"]))),
    ("mount-type", Create(|b| b.mount("sausage", "none", "/mnt", &[]))),
    ("mount-option", Create(|b| b.mount("tmpfs", "tmpfs", "/mnt", &["sausage"]))),
    ("mount-idmap", Create(|b| b.mount("bind", "/etc", "/mnt", &["bind", "idmap=uids=0-1-1"]))),
    ("mount-locked", Act(mount_locked)),
    ("read-only", Act(|lab| created(lab, at_loop(lab.bundle(), "readonlyPaths")))),
    ("mask", Act(|lab| created(lab, at_loop(lab.bundle(), "maskedPaths")))),
    ("device", Act(|lab| created(lab, file_for_a_device(lab.bundle())))),
    ("link", Create(|b| b.mount("tmpfs", "tmpfs", "/dev/ptmx", &[]))),
    ("directory", Create(|b| b.set("/process/cwd", json!("/etc/passwd/none")))),
    ("hostname", Act(|lab| denied(lab, bundle(lab), libc::SYS_sethostname, libc::EPERM))),
    ("sysctl", Create(|b| b.edit(|spec| spec["linux"]["sysctl"] = json!({"kernel.msgmax": "sausage"})))),
    ("hook", Create(|b| b.push("/hooks/createRuntime", json!({"path": "/no/such/hook"})))),
];

fn created(lab: &Lab, b: Bundle) -> Result<Told, Stop> {
    Logged::launch(lab, "create", &b).told()
}

fn denied(lab: &Lab, b: Bundle, call: i64, errno: i32) -> Result<Told, Stop> {
    Logged::launch(lab, "create", &b).denied(lab, call, errno)
}

/// A label of a security module that is off here.
fn label(b: Bundle) -> Bundle {
    let has_selinux = Path::new("/sys/fs/selinux/enforce").exists();
    b.set(if has_selinux { "/process/apparmorProfile" } else { "/process/selinuxLabel" }, json!("sausage"))
}

/// `plan --strict` by a root without CAP_SYS_RESOURCE.
fn plan_without_resource(lab: &Lab, change: fn(Bundle) -> Bundle) -> Result<Told, Stop> {
    let b = change(bundle(lab));
    b.write();
    Logged::with(lab, &["--strict"], &["plan", &b.dir.to_string_lossy()]).behind(lab, &["without", "24"])
}

/// Above what any process here has.
fn high_limit(b: Bundle) -> Bundle {
    b.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1_u64 << 40}]))
}

/// Lower than this process is, where nobody has given it leave to be.
fn oom_score(lab: &Lab) -> Result<Told, Stop> {
    if fs::read_to_string("/proc/self/oom_score_adj")?.trim() == "-1000" {
        return skip("this process has the lowest OOM score there is");
    }
    plan_without_resource(lab, |b| b.set("/process/oomScoreAdj", json!(-1000)))
}

/// Its init copies a file into a tmpfs, which is larger than the limit.
fn out_of_memory(lab: &Lab) -> Result<Told, Stop> {
    lab.needs_controller("memory")?;
    let limit = 20 << 20;
    let b = lab.bundle().set("/linux/resources/memory", json!({"limit": limit, "swap": limit}));
    let b = if swaps(lab) { b } else { b.remove("/linux/resources/memory/swap") };
    fs::create_dir(b.path("/data"))?;
    fs::write(b.path("/data/large"), vec![1; 40 << 20])?;
    Logged::launch(lab, "create", &b.mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"])).told()
}

/// Whether the kernel counts swap.
fn swaps(lab: &Lab) -> bool {
    let v1 = lab.host.v1.iter().find(|(controller, _)| controller == "memory");
    v1.is_none_or(|(_, mount)| mount.join("memory.memsw.limit_in_bytes").exists())
}

/// A hook on the host's side kills it.
fn init_gone(lab: &Lab) -> Result<Told, Stop> {
    let busybox = lab.busybox();
    let script = format!("{0} kill -9 $({0} sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')", busybox.display());
    let hook = json!({"path": busybox, "args": ["sh", "-c", script]});
    Logged::launch(lab, "create", &bundle(lab).push("/hooks/createRuntime", hook)).told()
}

/// TERM comes to `run` while a hook inside keeps the program from its start.
fn interrupted(lab: &Lab) -> Result<Told, Stop> {
    let busybox = lab.busybox();
    let script = format!("p=$PPID; ({0} sleep 0.3; {0} kill -TERM $p) >/dev/null 2>&1 &", busybox.display());
    let hook = json!({"path": busybox, "args": ["sh", "-c", script]});
    let inside = json!({"path": "/bin/busybox", "args": ["sleep", "20"]});
    let b = bundle(lab).push("/hooks/createRuntime", hook).push("/hooks/startContainer", inside);
    Logged::launch(lab, "run", &b).told()
}

/// An ordinary user maps another id, without the tools that may.
fn id_map(lab: &Lab) -> Result<Told, Stop> {
    lab.needs_userns()?;
    const USER: u32 = 1000;
    let maps = json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 9}]);
    let b = lab.bundle().namespace("user", None).remove("/linux/resources").remove("/linux/cgroupsPath");
    let b = b.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    let root = lab.new_dir("root");
    for dir in [&lab.dir, &root, &b.dir] {
        chown(dir, Some(USER), Some(USER))?;
    }
    let globals = ["--root", &*root.to_string_lossy()];
    let call = Logged::launch_with(lab, &globals, "create", &b, &[]).but(|call| call.env("PATH", "/no/such"));
    call.behind(lab, &["as", "1000", "1000"])
}

fn mount_on_link(lab: &Lab) -> Result<Told, Stop> {
    let b = lab.bundle();
    symlink("mnt", b.path("/link"))?;
    Logged::launch(lab, "create", &b.mount("bind", "/etc", "/link", &["bind", "dest-nofollow"])).told()
}

/// A read-only mount of the host, writable in a user namespace.
fn mount_locked(lab: &Lab) -> Result<Told, Stop> {
    lab.needs_userns()?;
    let dir = lab.new_dir("locked");
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["bind", "rw"]).userns(200_000);
    let script = format!("mount -t tmpfs -o ro tmpfs {}", dir.display());
    Logged::launch(lab, "create", &b).where_mounts_are(lab, &script)
}

/// A link to itself, which is neither there nor missing.
fn at_loop(b: Bundle, list: &str) -> Bundle {
    symlink("loop", b.path("/loop")).expect("make a link");
    b.edit(|spec| spec["linux"][list] = json!(["/loop"]))
}

fn file_for_a_device(b: Bundle) -> Bundle {
    let device = json!({"path": "/mnt/null", "type": "c", "major": 1, "minor": 3});
    b.file("/mnt/null", "", 0o644).push("/linux/devices", device)
}
