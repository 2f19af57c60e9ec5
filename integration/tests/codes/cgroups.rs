//! cgroups: as they are here, then what only v1 and only v2 have.

use super::{Act, Case, Create, Logged, Plan, Told, bundle, up};
use hull_integration::{Bundle, Lab, Mode, Stop, skip, write_file};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

pub(super) const CASES: &[Case] = &[
    ("cgroup", Act(cgroup)),
    ("update-devices", Act(update_devices)),
    ("cgroup-absent", Act(|lab| plan_without_cgroups(lab, &["--rootless", "true", "--strict"]))),
    ("cgroup-devices-missing", Act(|lab| plan_without_cgroups(lab, &["--rootless", "false"]))),
    ("cgroup-disabled", Act(cgroup_disabled)),
    ("cgroup-driver", Act(cgroup_driver)),
    ("cgroup-facts", Act(cgroup_facts)),
    ("cgroup-not-empty", Act(cgroup_not_empty)),
    ("cgroup-frozen", Act(cgroup_frozen)),
    ("cgroup-missing", Act(cgroup_missing)),
    ("cgroup-controller-missing", Act(|lab| on_disabled(lab, &["update", "--pids-limit", "9"]))),
    ("cgroup-no-freezer", Act(|lab| on_disabled(lab, &["pause"]))),
    ("cgroup-write", Act(cgroup_write)),
    ("memory-limit", Act(|lab| memory(lab, json!({"limit": -2})))),
    ("memory-swap", Act(|lab| memory(lab, json!({"limit": 64 << 20, "swap": 32 << 20})))),
    ("memory-in-use", Act(memory_in_use)),
    (
        "sub-cgroup",
        Act(|lab| Logged::new(lab, &["exec", "--cgroup", "../x", &up(lab).id, "/bin/true"]).told()),
    ),
    ("cgroup-freeze", Act(cgroup_freeze)),
    ("cgroup-signal", Act(cgroup_signal)),
    ("cgroup-busy", Act(cgroup_busy)),
];

pub(super) const V1: &[Case] = &[
    (
        "unified-on-v1",
        Plan(|b| b.edit(|spec| spec["linux"]["resources"]["unified"] = json!({"pids.max": "9"}))),
    ),
    ("cpu-shares", Act(|lab| on_v1(lab, "cpu", json!({"shares": 1})))),
    ("memory-swappiness", Act(|lab| on_v1(lab, "memory", json!({"swappiness": 101})))),
];

pub(super) const V2: &[Case] = &[
    ("cgroup-threaded", Act(cgroup_threaded)),
    ("cgroup-attach", Act(cgroup_attach)),
    ("cgroup-file-missing", Create(|b| unified(b, "cgroup.sausage", "1"))),
    ("cgroup-limit-ignored", Plan(|b| b.set("/linux/resources/network", json!({"classID": 1})))),
    (
        "cgroup-devices",
        Act(|lab| Logged::launch(lab, "create", &bundle(lab)).denied(lab, libc::SYS_bpf, libc::EPERM)),
    ),
    ("unified-file", Act(unified_file)),
];

fn unified(b: Bundle, file: &str, value: &str) -> Bundle {
    b.edit(|spec| spec["linux"]["resources"]["unified"] = json!({file: value}))
}

fn strict_plan(lab: &Lab, globals: &[&str], b: &Bundle) -> Logged {
    b.write();
    Logged::with(lab, globals, &["plan", &b.dir.to_string_lossy()])
}

/// A script that makes every hierarchy read-only.
fn read_only(lab: &Lab) -> String {
    let mounts = lab.host.v1.iter().map(|(_, at)| at).chain(&lab.host.v2);
    let mut mounts: Vec<_> = mounts.map(|at| format!("mount -o remount,bind,ro {}", at.display())).collect();
    mounts.dedup();
    mounts.join(";")
}

fn cgroup(lab: &Lab) -> Result<Told, Stop> {
    Logged::launch(lab, "create", &bundle(lab)).where_mounts_are(lab, &read_only(lab))
}

fn update_devices(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    let resources = json!({"devices": [{"allow": true, "access": "rwm"}]}).to_string();
    Logged::new(lab, &["update", "--resources", "-", &b.id]).but(|call| call.stdin(resources)).told()
}

fn plan_without_cgroups(lab: &Lab, globals: &[&str]) -> Result<Told, Stop> {
    strict_plan(lab, globals, &bundle(lab)).where_mounts_are(lab, "mount -t tmpfs tmpfs /sys/fs/cgroup")
}

fn cgroup_disabled(lab: &Lab) -> Result<Told, Stop> {
    let b = bundle(lab).set("/linux/resources/pids", json!({"limit": 9}));
    strict_plan(lab, &["--strict", "--cgroup-manager", "disabled"], &b).told()
}

fn cgroup_driver(lab: &Lab) -> Result<Told, Stop> {
    let b = bundle(lab).set("/linux/cgroupsPath", json!("system.slice:hull:box"));
    strict_plan(lab, &["--systemd-cgroup"], &b).told()
}

/// Without a procfs.
fn cgroup_facts(lab: &Lab) -> Result<Told, Stop> {
    let dir = lab.new_dir("spec");
    let words = ["spec", "--bundle", &*dir.to_string_lossy()];
    Logged::new(lab, &words).where_mounts_are(lab, "mount -t tmpfs tmpfs /proc")
}

/// `create` in the cgroup of another container.
fn cgroup_not_empty(lab: &Lab) -> Result<Told, Stop> {
    let path = lab.cgroups_path(&up(lab).id);
    Logged::launch(lab, "create", &bundle(lab).set("/linux/cgroupsPath", json!(path))).told()
}

/// `create` in a cgroup that is there, empty and frozen.
fn cgroup_frozen(lab: &Lab) -> Result<Told, Stop> {
    let v1 = lab.host.v1.iter().find(|(controller, _)| controller == "freezer");
    let (mount, file, frozen, thawed) = match (v1, &lab.host.v2) {
        (Some((_, mount)), _) => (mount, "freezer.state", "FROZEN", "THAWED"),
        (None, Some(mount)) => (mount, "cgroup.freeze", "1", "0"),
        (None, None) => return skip("nothing can be frozen here"),
    };
    let b = bundle(lab);
    let dir = mount.join(lab.cgroups_path(&b.id).trim_start_matches('/'));
    fs::create_dir_all(&dir)?;
    write_file(&dir.join(file), frozen)?;
    let told = Logged::launch(lab, "create", &b).told();
    write_file(&dir.join(file), thawed)?;
    fs::remove_dir(&dir)?;
    told
}

/// The directory of a container in the hierarchy of a controller.
fn dir_of(lab: &Lab, b: &Bundle, controller: &str) -> Result<PathBuf, Stop> {
    lab.needs_controller(controller)?;
    lab.cgroup_of(lab.pid(&b.id), controller)
}

/// The cgroup is taken away from a container, which stays in the one above.
fn cgroup_missing(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    let dir = dir_of(lab, &b, "pids")?;
    let above = above(lab, &dir)?;
    let gone = lab.settles(|| {
        let inside = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            // A process that has ended meanwhile is not moved.
            fs::write(above.join("cgroup.procs"), pid).ok();
        }
        fs::remove_dir(&dir).is_ok()
    });
    assert!(gone, "{} cannot be removed", dir.display());
    let told = Logged::new(lab, &["update", "--pids-limit", "9", &b.id]).told();
    lab.delete(&b.id);
    if above.ends_with("elsewhere") {
        fs::remove_dir(above)?;
    }
    told
}

/// Where its processes may go: on v2 not into one that has given its controllers on.
fn above(lab: &Lab, dir: &Path) -> Result<PathBuf, Stop> {
    let above = dir.parent().ok_or("the cgroup is the root")?;
    if lab.host.mode != Mode::V2 {
        return Ok(above.to_owned());
    }
    let elsewhere = above.join("elsewhere");
    fs::create_dir(&elsewhere)?;
    Ok(elsewhere)
}

/// A command on a running container without cgroups of its own.
fn on_disabled(lab: &Lab, words: &[&str]) -> Result<Told, Stop> {
    let b = bundle(lab).waits();
    b.write();
    lab.remember(&b.id);
    let dir = b.dir.to_string_lossy().into_owned();
    let globals = ["--cgroup-manager", "disabled"];
    lab.call_globals(&globals, &["run", "--detach", "--bundle", &dir, &b.id]).go().ok();
    Logged::new(lab, &[words, &[&*b.id]].concat()).told()
}

fn cgroup_write(lab: &Lab) -> Result<Told, Stop> {
    lab.needs_controller("cpuset")?;
    Logged::launch(lab, "create", &bundle(lab).set("/linux/resources/cpu", json!({"cpus": "4095"}))).told()
}

fn memory(lab: &Lab, limits: Value) -> Result<Told, Stop> {
    lab.needs_controller("memory")?;
    strict_plan(lab, &[], &bundle(lab).set("/linux/resources/memory", limits)).told()
}

/// Of memory that cannot be freed.
fn memory_in_use(lab: &Lab) -> Result<Told, Stop> {
    lab.needs_controller("memory")?;
    let b = up(lab);
    Logged::new(lab, &["update", "--memory", "4096", &b.id]).told()
}

fn cgroup_freeze(lab: &Lab) -> Result<Told, Stop> {
    Logged::new(lab, &["pause", &up(lab).id]).where_mounts_are(lab, &read_only(lab))
}

fn cgroup_signal(lab: &Lab) -> Result<Told, Stop> {
    let b = up(lab);
    Logged::new(lab, &["kill", "--all", &b.id, "URG"]).denied(lab, libc::SYS_pidfd_send_signal, libc::EPERM)
}

/// A directory on which something is mounted.
fn cgroup_busy(lab: &Lab) -> Result<Told, Stop> {
    let b = bundle(lab);
    lab.create(&b).ok();
    let own = lab.host.v1.iter().map(|(_, at)| at).chain(&lab.host.v2).next();
    let dir = own.ok_or("no cgroup is mounted")?.join(lab.cgroups_path(&b.id).trim_start_matches('/'));
    let script = format!("mount -o bind {0} {0}", dir.display());
    Logged::new(lab, &["delete", "--force", &b.id]).where_mounts_are(lab, &script)
}

fn on_v1(lab: &Lab, controller: &str, limits: Value) -> Result<Told, Stop> {
    lab.needs_controller(controller)?;
    strict_plan(lab, &[], &bundle(lab).set(&format!("/linux/resources/{controller}"), limits)).told()
}

/// A limit of a controller that has no threads.
fn cgroup_threaded(lab: &Lab) -> Result<Told, Stop> {
    let limits = [("memory", "memory.max", "max"), ("hugetlb", "hugetlb.2MB.max", "max")];
    let Some((_, file, value)) = limits.iter().find(|(name, ..)| lab.host.has_controller(name)) else {
        return skip("neither memory nor hugetlb can be limited here");
    };
    let b = bundle(lab);
    let mount = lab.host.v2.as_ref().ok_or("no cgroup2 is mounted")?;
    let dir = mount.join(lab.cgroups_path(&b.id).trim_start_matches('/'));
    fs::create_dir_all(&dir)?;
    let kind = dir.join("cgroup.type");
    let told = match write_file(&kind, "threaded") {
        Ok(()) => Logged::launch(lab, "create", &unified(b, file, value)).told(),
        Err(_) => skip("the cgroup above has controllers: none below it can be threaded"),
    };
    if dir.exists() {
        fs::remove_dir(&dir)?;
    }
    told
}

/// `exec` by one who may not move a process into the cgroup.
fn cgroup_attach(lab: &Lab) -> Result<Told, Stop> {
    const DAC_OVERRIDE: &str = "1";
    let b = up(lab);
    chown(lab.cgroup_of(lab.pid(&b.id), "")?.join("cgroup.procs"), Some(1000), Some(1000))?;
    Logged::new(lab, &["exec", &b.id, "/bin/true"]).behind(lab, &["without", DAC_OVERRIDE])
}

/// One of a controller that this host does not have.
fn unified_file(lab: &Lab) -> Result<Told, Stop> {
    let known = ["memory", "pids", "cpu", "cpuset", "io", "hugetlb", "misc", "rdma", "dmem"];
    let Some(absent) = known.iter().find(|name| !lab.host.has_controller(name)) else {
        return skip("all controllers are available");
    };
    strict_plan(lab, &[], &unified(bundle(lab), &format!("{absent}.max"), "9")).told()
}
