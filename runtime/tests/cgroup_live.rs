//! The cgroup handle on a real kernel: every test makes a cgroup of its own and removes it.
//! Without root, or where a hierarchy is missing, a test skips and prints why.
//! For the v2 side run it again in a mount namespace that shows cgroup2 only as in `docs/` (`umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it skips"
)]

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull::cgroup::{Cgroup, SavedCgroup, SubCgroup};
use hull::host::cgroup::{self as facts, CgroupFacts, Mode};
use hull::plan::cgroup::{self as plan, CgroupPlan, CgroupRequest, Driver, When};
use hull_sys::process::{Clone, Forked};
use oci_spec::runtime::Linux;

/// A container's cgroup that goes away with the test.
struct Bed {
    facts: CgroupFacts,
    plan: CgroupPlan,
    cgroup: Cgroup,
    children: Vec<Child>,
}

fn skip(why: &str) -> bool {
    println!("skipped: {why}");
    true
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}

fn not_root() -> bool {
    !is_root() && skip("needs root")
}

fn linux(name: &str, resources: &str) -> Linux {
    let path = path_of(name);
    serde_json::from_str(&format!(r#"{{"cgroupsPath": "{path}", "resources": {resources}}}"#)).unwrap()
}

fn path_of(name: &str) -> String {
    format!("/hull-test-{}/{name}", std::process::id())
}

fn planned(name: &str, resources: &str) -> (CgroupFacts, Result<CgroupPlan, hull::error::Error>) {
    let facts = facts::probe().unwrap();
    let request = CgroupRequest {
        id: name,
        driver: Driver::Cgroupfs,
        rootless: false,
        in_userns: false,
        pids_zero_is_unset: false,
    };
    let plan = plan::plan(Some(&linux(name, resources)), &facts, &request);
    (facts, plan)
}

impl Bed {
    /// A cgroup with these limits; `None`, and the reason printed, where this host cannot have one.
    fn new(name: &str, resources: &str) -> Option<Self> {
        if not_root() {
            return None;
        }
        let (facts, plan) = planned(name, resources);
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                assert!(error.message.contains("container could not join or create cgroup"), "{error}");
                skip(&error.to_string());
                return None;
            }
        };
        let cgroup = Cgroup::create(&plan).unwrap();
        Some(Self { facts, plan, cgroup, children: Vec::new() })
    }

    fn sleeper(&mut self) -> i32 {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        self.cgroup.attach(pid).unwrap();
        pid
    }

    fn file(&self, controller: &str, file: &str) -> PathBuf {
        self.cgroup.saved().path(controller).unwrap().join(file)
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.file(controller, file)).unwrap().trim().to_owned()
    }

    fn unified(&self) -> bool {
        self.facts.mode == Mode::Unified
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let killed = self.cgroup.kill();
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        let deleted = self.cgroup.delete();
        // The common parent of this run stays behind, and another test may still be in it.
        for dir in
            self.plan.dirs.iter().filter_map(|dir| dir.mount.join(&dir.path).parent().map(Path::to_owned))
        {
            fs::remove_dir(dir).ok();
        }
        if !std::thread::panicking() {
            killed.unwrap();
            deleted.unwrap();
        }
    }
}

#[test]
fn facts_agree_with_the_mounts() {
    let facts = facts::probe().unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        facts::probe().unwrap();
    }
    println!("probe takes {:?}; {:?}", start.elapsed() / 100, facts.mode);
    for hierarchy in &facts.v1 {
        assert!(hierarchy.mount.join("tasks").exists(), "{hierarchy:?}");
        assert!(hierarchy.mount.join(&hierarchy.own).exists(), "{hierarchy:?}");
    }
    if let Some(hierarchy) = &facts.v2 {
        assert!(hierarchy.mount.join("cgroup.controllers").exists(), "{hierarchy:?}");
    }
    assert!(facts.v1.is_empty() || facts.mode != Mode::Unified);
}

#[test]
fn limits_reach_the_files_and_everything_is_removed() {
    let Some(bed) = Bed::new(
        "limits",
        r#"{"memory": {"limit": 33554432, "swap": 67108864}, "pids": {"limit": 0},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000}}"#,
    ) else {
        return;
    };
    bed.cgroup.apply(&bed.plan, When::BeforeStart).unwrap();
    let (pids, memory) = if bed.unified() {
        (bed.read("pids", "pids.max"), bed.read("memory", "memory.max"))
    } else {
        assert_eq!(bed.read("cpu", "cpu.shares"), "512");
        assert_eq!(bed.read("cpu", "cpu.cfs_quota_us"), "-1");
        (bed.read("pids", "pids.max"), bed.read("memory", "memory.limit_in_bytes"))
    };
    assert_eq!((pids.as_str(), memory.as_str()), ("max", "33554432"));
    bed.cgroup.apply(&bed.plan, When::AfterSetup).unwrap();
    assert_eq!(bed.read("pids", "pids.max"), "1");
    if !bed.unified() {
        assert_eq!(bed.read("cpu", "cpu.cfs_quota_us"), "50000");
    }
    let saved = bed.cgroup.saved();
    drop(bed);
    for dir in &saved.dirs {
        assert!(!dir.mount.join(&dir.path).exists(), "{dir:?}");
    }
}

#[test]
fn raising_and_lowering_memory_finds_the_order() {
    if not_root() {
        return;
    }
    let small = r#"{"memory": {"limit": 33554432, "swap": 33554432}}"#;
    let (facts, plan) = planned("memory", small);
    let Ok(plan) = plan else {
        skip("no memory controller");
        return;
    };
    let cgroup = Cgroup::create(&plan).unwrap();
    let bed = Bed { facts, plan, cgroup, children: vec![] };
    bed.cgroup.apply(&bed.plan, When::BeforeStart).unwrap();
    let limits = [
        r#"{"memory": {"limit": 134217728, "swap": 268435456}}"#,
        small,
        r#"{"memory": {"limit": -1}}"#,
        r#"{"memory": {"limit": 67108864, "swap": -1}}"#,
    ];
    for limits in limits {
        let resources = serde_json::from_str(limits).unwrap();
        let update =
            plan::plan_update(&resources, bed.cgroup.saved().dirs, &bed.facts, bed.cgroup.in_force())
                .unwrap();
        bed.cgroup.apply_all(&update).unwrap();
    }
    let file = if bed.unified() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(bed.read("memory", file), "67108864");
}

#[test]
fn limit_below_usage_says_how_much_is_used() {
    let Some(mut bed) = Bed::new("usage", r#"{"memory": {"limit": 67108864}}"#) else { return };
    bed.sleeper();
    if !bed.unified() {
        fs::write(bed.file("memory", "memory.swappiness"), "0").unwrap();
    }
    let resources = serde_json::from_str(r#"{"memory": {"limit": 4096}}"#).unwrap();
    let update =
        plan::plan_update(&resources, bed.cgroup.saved().dirs, &bed.facts, bed.cgroup.in_force()).unwrap();
    match bed.cgroup.apply_all(&update) {
        Ok(()) => println!("the sleeper used less than a page"),
        Err(error) => {
            println!("{error}");
            let text = match bed.unified() {
                true => "rejecting memory limit 4096 <= usage ",
                false => "unable to set memory limit to 4096 (current usage: ",
            };
            assert!(error.message.starts_with(text));
        }
    }
}

#[test]
fn child_enters_by_clone_and_tasks() {
    let Some(bed) = Bed::new("enter", "{}") else { return };
    bed.cgroup.apply(&bed.plan, When::BeforeStart).unwrap();
    let start = Instant::now();
    let want = Clone { into_cgroup: bed.cgroup.clone_into(), ..Clone::default() };
    let (pid, pidfd) = match hull_sys::process::clone(want).unwrap() {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            bed.cgroup.enter().ok();
            loop {
                std::thread::sleep(Duration::from_secs(1000));
            }
        }
    };
    let paths: Vec<_> = bed.plan.dirs.iter().map(|dir| dir.mount.join(&dir.path)).collect();
    let entered = |path: &PathBuf| {
        fs::read_to_string(path.join("cgroup.procs")).unwrap().lines().any(|line| line == pid.to_string())
    };
    while !paths.iter().all(entered) {
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            paths.iter().map(entered).collect::<Vec<_>>()
        );
    }
    println!("in all {} hierarchies after {:?}", paths.len(), start.elapsed());
    assert_eq!(bed.cgroup.procs().unwrap(), [pid]);
    bed.cgroup.kill().unwrap();
    hull_sys::process::wait(pidfd.as_fd(), true).unwrap();
    assert!(bed.cgroup.is_empty().unwrap());
}

#[test]
fn cgroup_in_use_is_refused() {
    let Some(mut bed) = Bed::new("used", "{}") else { return };
    bed.sleeper();
    let error = Cgroup::create(&bed.plan).unwrap_err();
    assert!(error.message.contains("container's cgroup is not empty"), "{error}");
}

#[test]
fn frozen_cgroup_is_refused() {
    let Some(bed) = Bed::new("frozen", "{}") else { return };
    bed.cgroup.freeze().unwrap();
    let error = Cgroup::create(&bed.plan).unwrap_err();
    assert!(error.message.contains("container's cgroup unexpectedly frozen"), "{error}");
    bed.cgroup.thaw().unwrap();
}

#[test]
fn failed_create_leaves_nothing_it_made() {
    let Some(mut bed) = Bed::new("undo", "{}") else { return };
    bed.sleeper();
    let (_, plan) = planned("undo/below/it", "{}");
    let mut plan = plan.unwrap();
    // The last hierarchy refuses: its directory is the one in use.
    let last = plan.dirs.iter().rposition(|dir| dir.required).unwrap();
    plan.dirs[last].path = bed.plan.dirs[last].path.clone();
    Cgroup::create(&plan).unwrap_err();
    for (index, dir) in plan.dirs.iter().enumerate().filter(|(index, _)| *index != last) {
        assert!(!dir.mount.join(&bed.plan.dirs[index].path).join("below").exists(), "{dir:?}");
    }
}

#[test]
fn freeze_stops_and_thaw_lets_run() {
    let Some(mut bed) = Bed::new("freeze", "{}") else { return };
    let pid = bed.sleeper();
    let start = Instant::now();
    bed.cgroup.freeze().unwrap();
    println!("frozen after {:?}", start.elapsed());
    assert!(bed.cgroup.is_frozen().unwrap());
    assert_eq!(bed.cgroup.procs().unwrap(), [pid]);
    bed.cgroup.thaw().unwrap();
    assert!(!bed.cgroup.is_frozen().unwrap());
}

#[test]
fn kill_reaches_frozen_processes_and_sub_cgroups() {
    let Some(mut bed) = Bed::new("kill", "{}") else { return };
    for _ in 0..3 {
        bed.sleeper();
    }
    // What a container makes itself: a sub-cgroup with a process, and an empty one below.
    for dir in &bed.plan.dirs {
        let sub = dir.mount.join(&dir.path).join("sub");
        fs::create_dir_all(sub.join("deeper")).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !bed.unified() && dir.controllers.iter().any(|c| c == "cpuset") {
                let value = fs::read(dir.mount.join(&dir.path).join(file)).unwrap();
                fs::write(sub.join(file), value).unwrap();
            }
        }
    }
    let sub = bed.cgroup.sub(&[SubCgroup::parse("/sub")]).unwrap();
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    sub.attach(i32::try_from(child.id()).unwrap()).unwrap();
    bed.children.push(child);
    assert_eq!(bed.cgroup.procs().unwrap().len(), 4);
    bed.cgroup.freeze().unwrap();
    let start = Instant::now();
    bed.cgroup.kill().unwrap();
    println!("killed after {:?}", start.elapsed());
    assert!(bed.cgroup.is_empty().unwrap());
    let start = Instant::now();
    bed.cgroup.delete().unwrap();
    println!("deleted after {:?}", start.elapsed());
}

#[test]
fn delete_names_who_is_still_there() {
    let Some(mut bed) = Bed::new("busy", "{}") else { return };
    let pid = bed.sleeper();
    let start = Instant::now();
    let error = bed.cgroup.delete().unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    println!("{error}");
    assert!(error.message.contains(&format!("pid {pid} \"sleep\"")), "{error}");
}

#[test]
fn saved_cgroup_is_reopened() {
    let Some(mut bed) = Bed::new("saved", "{}") else { return };
    let pid = bed.sleeper();
    let text = serde_json::to_string(&bed.cgroup.saved()).unwrap();
    println!("{} bytes", text.len());
    let saved: SavedCgroup = serde_json::from_str(&text).unwrap();
    let again = Cgroup::open(&saved).unwrap();
    assert_eq!(again.procs().unwrap(), [pid]);
    again.kill().unwrap();
    again.delete().unwrap();
    let gone = Cgroup::open(&saved).unwrap();
    assert!(gone.procs().unwrap().is_empty());
    gone.delete().unwrap();
}

#[test]
fn init_that_moved_below_is_followed() {
    let Some(mut bed) = Bed::new("moved", "{}") else { return };
    if !bed.unified() {
        skip("only v2 keeps processes out of inner cgroups");
        return;
    }
    let pid = bed.sleeper();
    let init = bed.file("", "init.scope");
    fs::create_dir(&init).unwrap();
    fs::write(init.join("cgroup.procs"), pid.to_string()).unwrap();
    let joined = bed.cgroup.of_init(pid).unwrap();
    assert_eq!(joined.saved().path("").unwrap(), init);
}

#[test]
fn unknown_controller_and_bad_path_of_a_sub_cgroup_are_refused() {
    let Some(bed) = Bed::new("sub", "{}") else { return };
    let error = bed.cgroup.sub(&[SubCgroup::parse("pets:x")]).unwrap_err();
    assert!(error.message.starts_with("unknown controller pets"), "{error}");
    let error = bed.cgroup.sub(&[SubCgroup::parse("../x")]).unwrap_err();
    assert!(error.message.starts_with("bad sub cgroup path: ../x"), "{error}");
}

#[test]
fn rootless_without_permission_runs_without_a_cgroup_or_says_why() {
    let facts = facts::probe().unwrap();
    if facts.mode == Mode::Absent || is_root() {
        skip("needs a user who may not make cgroups");
        return;
    }
    let request = CgroupRequest {
        id: "r1",
        driver: Driver::Cgroupfs,
        rootless: true,
        in_userns: false,
        pids_zero_is_unset: false,
    };
    let nothing_asked = plan::plan(None, &facts, &request).unwrap();
    let cgroup = Cgroup::create(&nothing_asked).unwrap();
    cgroup.apply(&nothing_asked, When::BeforeStart).unwrap();
    assert!(cgroup.clone_into().is_none() && cgroup.v1_fds().next().is_none());
    let path_asked = plan::plan(Some(&linux("rootless", "{}")), &facts, &request).unwrap();
    let error = Cgroup::create(&path_asked).unwrap_err();
    println!("{error}");
    assert!(
        error
            .message
            .contains("unable to apply cgroup configuration: rootless needs no limits + no cgrouppath")
    );
    assert!(error.message.ends_with("permission denied"));
}

#[test]
fn fork_bomb_is_killed() {
    let Some(mut bed) = Bed::new("bomb", "{}") else { return };
    let join: String = bed
        .plan
        .dirs
        .iter()
        .map(|dir| dir.mount.join(&dir.path).join("cgroup.procs"))
        .map(|file| format!("echo 0 > {}; ", file.display()))
        .collect();
    // Two generations at a time, each gone at once: a list of pids is never true when it is read.
    let bomb = format!("{join} f() {{ sleep 0.01; f & f; }}; f");
    let child = Command::new("sh").args(["-c", &bomb]).stderr(Stdio::null()).spawn().unwrap();
    bed.children.push(child);
    std::thread::sleep(Duration::from_millis(60));
    println!("{} processes", bed.cgroup.procs().unwrap().len());
    let start = Instant::now();
    bed.cgroup.kill().unwrap();
    println!("killed after {:?}", start.elapsed());
    assert!(bed.cgroup.is_empty().unwrap());
}

#[test]
fn out_of_memory_is_counted() {
    let Some(bed) = Bed::new("oom", r#"{"memory": {"limit": 8388608, "swap": 8388608}}"#) else { return };
    bed.cgroup.apply(&bed.plan, When::BeforeStart).unwrap();
    bed.cgroup.apply(&bed.plan, When::AfterSetup).unwrap();
    assert_eq!(bed.cgroup.oom_kill_count(), Some(0));
    let dir = bed.plan.dirs.iter().find(|dir| dir.controllers.iter().any(|c| c == "memory")).unwrap();
    let procs = dir.mount.join(&dir.path).join("cgroup.procs");
    let eat = format!("echo 0 > {}; head -c 64m /dev/zero | tail -n 1 > /dev/null", procs.display());
    Command::new("sh").args(["-c", &eat]).output().unwrap();
    // The kernel may choose both ends of the pipe.
    assert!(bed.cgroup.oom_kill_count().is_some_and(|count| count > 0));
}

#[test]
fn huge_page_limit_works_where_the_controller_is() {
    let Some(bed) = Bed::new("huge", r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#) else {
        return;
    };
    bed.cgroup.apply(&bed.plan, When::BeforeStart).unwrap();
    let dir = &bed.plan.dirs[bed.plan.writes.iter().find(|w| w.controller == "hugetlb").unwrap().dir];
    let dir = dir.mount.join(&dir.path);
    let files =
        ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"].map(|file| fs::read_to_string(dir.join(file)));
    assert!(files.iter().flatten().any(|value| value.trim() == "4194304"), "{files:?}");
}

#[test]
fn threaded_parent_is_refused_for_domain_controllers() {
    if not_root() {
        return;
    }
    let (facts, plan) =
        planned("threads/c", r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#);
    let (Ok(plan), Mode::Unified) = (plan, facts.mode) else {
        skip("no hugetlb controller on a cgroup2-only view");
        return;
    };
    let parent = plan.dirs[0].mount.join(plan.dirs[0].path.parent().unwrap());
    fs::create_dir_all(parent.join("worker")).unwrap();
    fs::write(parent.join("worker/cgroup.type"), "threaded").unwrap();
    let error = Cgroup::create(&plan).unwrap_err();
    fs::remove_dir(parent.join("worker")).unwrap();
    fs::remove_dir(&parent).unwrap();
    fs::remove_dir(parent.parent().unwrap()).ok();
    println!("{error}");
    assert!(error.message.contains("with domain controllers -- it is in an invalid state"), "{error}");
}

#[test]
fn delegated_cgroup_belongs_to_its_user() {
    use std::os::unix::fs::MetadataExt;
    let Some(bed) = Bed::new("owner", "{}") else { return };
    if !bed.unified() {
        skip("only v2 is delegated");
        return;
    }
    bed.cgroup.delegate(4242).unwrap();
    let uid = |file: &str| fs::metadata(bed.file("", file)).unwrap().uid();
    assert_eq!([uid(""), uid("cgroup.procs"), uid("cgroup.kill")], [4242, 4242, 0]);
}

#[test]
fn foreign_processes_beside_v1_are_left_out() {
    if not_root() {
        return;
    }
    let (facts, plan) = planned("foreign", "{}");
    let plan = plan.unwrap();
    let Some(side) = plan.dirs.iter().find(|dir| !dir.required && dir.mount.ends_with("unified")) else {
        skip("not a hybrid host");
        return;
    };
    let dir = side.mount.join(&side.path);
    fs::create_dir_all(&dir).unwrap();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(dir.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let cgroup = Cgroup::create(&plan).unwrap();
    let bed = Bed { facts, plan: plan.clone(), cgroup, children: vec![] };
    assert!(bed.cgroup.clone_into().is_none());
    Cgroup::open(&bed.cgroup.saved()).unwrap().kill().unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "killed a stranger");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    fs::remove_dir(&dir).unwrap();
}

/// Opens a device from inside the cgroup; whether that was allowed.
fn can_open(bed: &Bed, device: &str) -> bool {
    let procs = bed.plan.dirs.iter().map(|dir| dir.mount.join(&dir.path).join("cgroup.procs"));
    let join: String = procs.map(|file| format!("echo 0 > {}; ", file.display())).collect();
    Command::new("sh").args(["-c", &format!("{join} : < {device}")]).output().unwrap().status.success()
}

#[test]
fn devices_follow_the_rules() {
    let Some(bed) = Bed::new(
        "devices",
        r#"{"devices": [{"allow": false, "access": "rwm"},
                        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]}"#,
    ) else {
        return;
    };
    bed.cgroup.apply(&bed.plan, When::BeforeStart).unwrap();
    print!("{}", bed.plan);
    assert!(can_open(&bed, "/dev/null") && can_open(&bed, "/dev/urandom"));
    if PathBuf::from("/dev/kmsg").exists() {
        assert!(!can_open(&bed, "/dev/kmsg"), "read is not among w");
    }
    // A second program takes the place of the first on an existing cgroup.
    let (_, plan) = planned("devices", r#"{"devices": [{"allow": true, "access": "rwm"}]}"#);
    let plan = plan.unwrap();
    let again = Cgroup::create(&plan).unwrap();
    again.apply(&plan, When::BeforeStart).unwrap();
    if PathBuf::from("/dev/kmsg").exists() {
        assert!(can_open(&bed, "/dev/kmsg"));
    }
}
