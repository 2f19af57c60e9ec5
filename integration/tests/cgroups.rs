//! cgroups: limits read back from the kernel's files, where the cgroup is, and that it goes away.

use hull_integration::{Bundle, Lab, Mode, Stop, TestResult, View, skip, tests, write_file};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CRUN_V2: (&str, &str) =
    ("crun 1.8", "fails when RLIMIT_MEMLOCK cannot be raised, which BPF no longer needs since Linux 5.11");

tests! {
    memory_limit,
    memory_reservation,
    memory_limit_of_minus_one_is_unlimited,
    swap_limit,
    swap_below_memory_is_refused.breaks_on(&[("crun 1.8", "a failed create leaves its cgroups")]),
    cpu_shares,
    cpu_quota_and_period,
    cpu_zero_means_unset,
    cpuset_cpus_and_mems,
    cpuset_of_a_missing_cpu_names_it.breaks_on(&[("crun 1.8", "a failed create leaves its cgroups")]),
    pids_limit.breaks_on(&[("crun 1.8", "config-linux.md#pids: a limit of -1 is none")]),
    pids_limit_one_still_starts,
    pids_limit_stops_forks,
    hugetlb_limit,
    blkio_weight_that_is_not_there_is_tolerated_when_zero,
    blkio_throttle,
    unified_on_v1_is_refused.breaks_on(&[("crun", "runc's words: invalid configuration")]),
    memory_hog_is_killed,
    processes_are_in_the_cgroup_of_the_config,
    cgroup_exists_when_create_returns,
    cgroup_is_removed_on_delete,
    cgroup_is_removed_after_run,
    sub_cgroups_are_removed_on_delete,
    processes_in_sub_cgroups_are_killed_by_delete,
    relative_cgroups_path_works,
    missing_cgroups_path_works,
    a_cgroup_in_use_is_refused.breaks_on(&[("runc 1.1", "docs/differences.md: a container must not share a cgroup by accident"), ("crun", "docs/differences.md: a container must not share a cgroup by accident")]),
    a_frozen_cgroup_is_refused.breaks_on(&[("crun", "runc's words: container's cgroup unexpectedly frozen")]),
    an_empty_cgroup_that_exists_is_used,
    the_tracking_hierarchies_of_a_pod_are_cleared.breaks_on(&[("runc", "docs/differences.md: parents that no engine knows are removed"), ("crun", "docs/differences.md: parents that no engine knows are removed")]),
    parents_in_use_stay,
    a_failed_create_leaves_what_others_made.breaks_on(&[("runc", "it removes the directories of others"), ("crun", "it removes the directories of others")]),
    cgroups_path_with_dots_stays_below.breaks_on(&[("runc", "docs/differences.md: `..` in cgroupsPath is refused")]),
    freezer_file_follows_pause,
    v2_container_runs_without_limits.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_kill_all_ends_everything.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_sub_cgroups_are_removed_on_delete.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_paused_container_is_deleted_by_force.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_hugetlb_limit.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_exec_joins_the_cgroup.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_cgroup_is_given_to_the_user_of_a_user_namespace.view(View::V2).breaks_on(&[CRUN_V2, ("runc", "config-linux.md#cgroup-ownership: with the systemd driver only")]),
    v2_cgroup_stays_ours_without_a_writable_view_of_its_own.view(View::V2).breaks_on(&[CRUN_V2]),
    v2_unified_is_written.view(View::V2).breaks_on(&[CRUN_V2]),
    v1_only_view_works.view(View::V1),
    update_pids_limit.breaks_on(&[("crun 1.8", "config-linux.md#pids: a limit of -1 is none")]),
    update_takes_a_pids_limit_of_zero_as_create_does.breaks_on(&[("runc", "0 is no limit, whatever the version"), ("crun", "0 is no limit, whatever the version")]),
    update_memory_by_flag_with_a_suffix.breaks_on(&[("crun 1.8", "runc-update(8): memory values take suffixes")]),
    update_reads_resources_from_stdin,
    update_keeps_what_is_not_named.breaks_on(&[("crun 1.8", "runc-update(8): memory values take suffixes")]),
    update_below_usage_is_refused.breaks_on(&[("runc 1.1", "runc's words: rejecting memory limit"), ("crun", "runc's words: rejecting memory limit")]),
    update_below_usage_kills_nobody.breaks_on(&[("runc", "docs/differences.md: update lets the kernel free page caches"), ("crun", "docs/differences.md: update lets the kernel free page caches")]),
    update_keeps_the_sum_of_memory_and_swap.breaks_on(&[("crun", "runc's rule: an update keeps what it does not name")]),
    update_that_is_refused_changes_nothing.breaks_on(&[("runc", "docs/differences.md: update changes all limits or none"), ("crun", "docs/differences.md: update changes all limits or none")]),
    update_of_a_stopped_container_is_refused.breaks_on(&[("runc 1.1", "docs/differences.md: update of a stopped container is an error"), ("crun", "docs/differences.md: update of a stopped container is an error")]),
    events_stats_prints_one_object.breaks_on(&[("crun", "runc-events(8)")]),
    exec_in_a_sub_cgroup.breaks_on(&[("crun 1.8", "runc-exec(8): --cgroup")]),
    oom_kill_is_in_the_exit_code_of_a_detached_container,
    hostile_cgroups_are_removed.limit_s(400).breaks_on(&[
        ("runc", "paths are too long to be removed"),
        ("crun", "paths are too long to be removed"),
    ]),
    a_path_that_is_too_long_is_refused_before_anything_is_made.breaks_on(&[("runc", "takes it where no controller is asked for"), ("crun 1.8", "it leaves cgroups")]),
}

const MIB: u64 = 1 << 20;

fn with(lab: &Lab, resource: &str, value: Value) -> Bundle {
    lab.bundle().set(&format!("/linux/resources/{resource}"), value).args(&["/bin/sleep", "100"])
}

/// The value of the kernel's file for a running container with this resource.
fn read_back(lab: &Lab, b: &Bundle, v1: (&str, &str), v2: &str) -> Result<String, Stop> {
    lab.needs_controller(if lab.host.mode == Mode::V2 { v2.split('.').next().unwrap_or(v2) } else { v1.0 })?;
    lab.up(b);
    lab.limit(&b.id, v1, v2)
}

fn memory_limit(lab: &Lab) -> TestResult {
    let b = with(lab, "memory/limit", json!(64 * MIB));
    let seen = read_back(lab, &b, ("memory", "memory.limit_in_bytes"), "memory.max")?;
    assert_eq!(seen, (64 * MIB).to_string());
    Ok(())
}

fn memory_reservation(lab: &Lab) -> TestResult {
    let b = with(lab, "memory/reservation", json!(32 * MIB));
    let seen = read_back(lab, &b, ("memory", "memory.soft_limit_in_bytes"), "memory.low")?;
    assert_eq!(seen, (32 * MIB).to_string());
    Ok(())
}

fn memory_limit_of_minus_one_is_unlimited(lab: &Lab) -> TestResult {
    let b = with(lab, "memory/limit", json!(-1));
    let seen = read_back(lab, &b, ("memory", "memory.limit_in_bytes"), "memory.max")?;
    assert!(seen == "max" || seen.parse::<u64>()? > 1 << 60, "{seen}");
    Ok(())
}

fn swap_limit(lab: &Lab) -> TestResult {
    let memsw =
        lab.host.v1.iter().find(|(c, _)| c == "memory").map(|(_, at)| at.join("memory.memsw.limit_in_bytes"));
    if lab.host.mode != Mode::V2 && !memsw.is_some_and(|f| f.exists()) {
        return skip("no swap accounting");
    }
    let b = with(lab, "memory", json!({"limit": 64 * MIB, "swap": 96 * MIB}));
    let seen = read_back(lab, &b, ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max")?;
    let wanted = if lab.host.mode == Mode::V2 { 32 * MIB } else { 96 * MIB };
    assert_eq!(seen, wanted.to_string());
    Ok(())
}

fn swap_below_memory_is_refused(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    let output = lab.create(&with(lab, "memory", json!({"limit": 64 * MIB, "swap": 32 * MIB})));
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn cpu_shares(lab: &Lab) -> TestResult {
    let b = with(lab, "cpu/shares", json!(1024));
    let seen = read_back(lab, &b, ("cpu", "cpu.shares"), "cpu.weight")?;
    let wanted: &[&str] = if lab.host.mode == Mode::V2 { &["100", "39"] } else { &["1024"] };
    assert!(wanted.contains(&seen.as_str()), "{seen}");
    if lab.host.mode == Mode::V2 && lab.is("hull") {
        assert_eq!(seen, "100", "the formula that crun 1.23 and runc 1.4 brought");
    }
    Ok(())
}

fn cpu_quota_and_period(lab: &Lab) -> TestResult {
    let b = with(lab, "cpu", json!({"quota": 25000, "period": 50000}));
    let seen = read_back(lab, &b, ("cpu", "cpu.cfs_quota_us"), "cpu.max")?;
    if lab.host.mode == Mode::V2 {
        assert_eq!(seen, "25000 50000");
    } else {
        assert_eq!(seen, "25000");
        assert_eq!(lab.limit(&b.id, ("cpu", "cpu.cfs_period_us"), "cpu.max")?, "50000");
    }
    Ok(())
}

/// dockerd sends zeros for what was not asked.
fn cpu_zero_means_unset(lab: &Lab) -> TestResult {
    let b = with(lab, "cpu", json!({"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}));
    let seen = read_back(lab, &b, ("cpu", "cpu.shares"), "cpu.weight")?;
    assert_eq!(seen, if lab.host.mode == Mode::V2 { "100" } else { "1024" });
    Ok(())
}

fn cpuset_cpus_and_mems(lab: &Lab) -> TestResult {
    let b = with(lab, "cpu", json!({"cpus": "0", "mems": "0"}));
    assert_eq!(read_back(lab, &b, ("cpuset", "cpuset.cpus"), "cpuset.cpus")?, "0");
    assert_eq!(lab.limit(&b.id, ("cpuset", "cpuset.mems"), "cpuset.mems")?, "0");
    let allowed = lab.inside(&b.id, "grep Cpus_allowed_list /proc/self/status");
    assert!(allowed.ends_with("\t0"), "{allowed}");
    Ok(())
}

fn cpuset_of_a_missing_cpu_names_it(lab: &Lab) -> TestResult {
    lab.needs_controller("cpuset")?;
    lab.create(&with(lab, "cpu/cpus", json!("4095"))).fails("cpu");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn pids_limit(lab: &Lab) -> TestResult {
    let b = with(lab, "pids/limit", json!(77));
    assert_eq!(read_back(lab, &b, ("pids", "pids.max"), "pids.max")?, "77");
    let b = with(lab, "pids/limit", json!(-1));
    assert_eq!(read_back(lab, &b, ("pids", "pids.max"), "pids.max")?, "max");
    Ok(())
}

fn pids_limit_one_still_starts(lab: &Lab) -> TestResult {
    let b = with(lab, "pids/limit", json!(1));
    assert_eq!(read_back(lab, &b, ("pids", "pids.max"), "pids.max")?, "1");
    Ok(())
}

fn pids_limit_stops_forks(lab: &Lab) -> TestResult {
    lab.needs_controller("pids")?;
    let b =
        lab.probe_bundle()?.set("/linux/resources/pids/limit", json!(20)).args(&["/bin/probe", "fork", "50"]);
    let made: u32 = lab.printed(&b).parse()?;
    assert!((10..20).contains(&made), "{made} children of 50");
    Ok(())
}

/// A page size this kernel has, as the spec writes it.
fn page_size() -> Option<String> {
    let entry = fs::read_dir("/sys/kernel/mm/hugepages").ok()?.flatten().next()?;
    let kb: u64 = entry
        .file_name()
        .to_string_lossy()
        .trim_start_matches("hugepages-")
        .trim_end_matches("kB")
        .parse()
        .ok()?;
    Some(if kb >= 1 << 20 { format!("{}GB", kb >> 20) } else { format!("{}MB", kb >> 10) })
}

fn hugetlb_limit(lab: &Lab) -> TestResult {
    let Some(size) = page_size() else { return skip("the kernel has no huge pages") };
    let b = with(lab, "hugepageLimits", json!([{"pageSize": size, "limit": 0}]));
    let (one, two) = (format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max"));
    assert_eq!(read_back(lab, &b, ("hugetlb", &one), &two)?, "0");
    Ok(())
}

fn blkio_weight_that_is_not_there_is_tolerated_when_zero(lab: &Lab) -> TestResult {
    lab.run(&lab.bundle().set("/linux/resources/blockIO", json!({"weight": 0}))).ok();
    Ok(())
}

fn blkio_throttle(lab: &Lab) -> TestResult {
    let disks = fs::read_dir("/sys/block")?.flatten();
    let number = disks
        .filter(|d| d.path().join("device").exists())
        .find_map(|d| fs::read_to_string(d.path().join("dev")).ok());
    let Some(number) = number else { return skip("no block device") };
    let (major, minor) = number.trim().split_once(':').ok_or("no device number")?;
    let (major, minor): (u64, u64) = (major.parse()?, minor.parse()?);
    let rate = json!([{"major": major, "minor": minor, "rate": 1_048_576}]);
    let b = with(lab, "blockIO", json!({"throttleReadBpsDevice": rate}));
    let v1 = ("blkio", "blkio.throttle.read_bps_device");
    let seen = read_back(lab, &b, v1, "io.max")?;
    let wanted = if lab.host.mode == Mode::V2 {
        "rbps=1048576".to_owned()
    } else {
        format!("{major}:{minor} 1048576")
    };
    assert!(seen.contains(&wanted), "{seen}");
    Ok(())
}

fn unified_on_v1_is_refused(lab: &Lab) -> TestResult {
    lab.needs_v1()?;
    lab.create(&with(lab, "unified", json!({"pids.max": "10"}))).fails("invalid configuration");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn hog(lab: &Lab) -> Result<Bundle, Stop> {
    lab.needs_controller("memory")?;
    let b = lab.probe_bundle()?.set("/linux/resources/memory", json!({"limit": 32 * MIB}));
    Ok(b.args(&["/bin/probe", "eat", "200"]))
}

fn memory_hog_is_killed(lab: &Lab) -> TestResult {
    lab.run(&hog(lab)?).rc(137);
    Ok(())
}

fn oom_kill_is_in_the_exit_code_of_a_detached_container(lab: &Lab) -> TestResult {
    let b = hog(lab)?;
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}

fn controllers(lab: &Lab) -> Vec<&'static str> {
    let all = ["pids", "memory", "cpu", "devices", "freezer", "cpuset", "blkio"];
    if lab.host.mode == Mode::V2 {
        vec!["pids"]
    } else {
        all.into_iter().filter(|c| lab.host.has_controller(c)).collect()
    }
}

fn dirs(lab: &Lab, b: &Bundle) -> Result<Vec<PathBuf>, Stop> {
    let pid = lab.pid(&b.id);
    controllers(lab).into_iter().map(|c| lab.cgroup_of(pid, c)).collect()
}

fn processes_are_in_the_cgroup_of_the_config(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let wanted = lab.cgroups_path(&b.id);
    for dir in dirs(lab, &b)? {
        assert!(dir.to_string_lossy().contains(&wanted), "{} is not below {wanted}", dir.display());
        let procs = fs::read_to_string(dir.join("cgroup.procs"))?;
        assert!(procs.lines().any(|l| l == lab.pid(&b.id).to_string()), "{}: {procs}", dir.display());
    }
    Ok(())
}

fn cgroup_exists_when_create_returns(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    for dir in dirs(lab, &b)? {
        assert!(dir.is_dir() && dir.to_string_lossy().contains(&lab.tag), "{}", dir.display());
    }
    Ok(())
}

fn cgroup_is_removed_on_delete(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let before = dirs(lab, &b)?;
    lab.delete(&b.id);
    assert!(before.iter().all(|dir| !dir.exists()), "{:?}", lab.cgroups_left());
    Ok(())
}

fn cgroup_is_removed_after_run(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.run(&b).ok();
    let left: Vec<PathBuf> = lab.cgroups_left().into_iter().filter(|d| d.ends_with(&b.id)).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Cgroups made inside, by the container or by someone else.
fn with_sub_cgroups(lab: &Lab) -> Result<(Bundle, Vec<PathBuf>), Stop> {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let mut made = Vec::new();
    for dir in dirs(lab, &b)? {
        fs::create_dir_all(dir.join("sub/deeper"))?;
        made.push(dir);
    }
    Ok((b, made))
}

fn sub_cgroups_are_removed_on_delete(lab: &Lab) -> TestResult {
    let (b, made) = with_sub_cgroups(lab)?;
    lab.delete(&b.id);
    assert!(made.iter().all(|dir| !dir.exists()), "{:?}", lab.cgroups_left());
    Ok(())
}

fn processes_in_sub_cgroups_are_killed_by_delete(lab: &Lab) -> TestResult {
    lab.breaks_on_v2("runc 1.1", "runtime.md#delete: sub-cgroups and what runs in them stay")?;
    let b = lab.bundle().without_namespace("pid").sh("sleep 300 & echo $!; wait");
    let output = lab.up(&b);
    lab.eventually("the child", || !output.text().is_empty());
    let child = output.text();
    let made = dirs(lab, &b)?;
    for dir in &made {
        fs::create_dir(dir.join("sub"))?;
        // A v1 cpuset takes no process before it has cpus and mems.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // (On v2 an empty one means the parent's.)
            if let Some(text) = fs::read_to_string(dir.join(file)).ok().filter(|text| !text.trim().is_empty())
            {
                write_file(&dir.join("sub").join(file), text.trim())?;
            }
        }
        write_file(&dir.join("sub/cgroup.procs"), &child)?;
    }
    lab.delete(&b.id);
    assert!(made.iter().all(|dir| !dir.exists()), "{:?}", lab.cgroups_left());
    Ok(())
}

fn relative_cgroups_path_works(lab: &Lab) -> TestResult {
    let name = format!("{}-relative", lab.tag);
    let b = lab.bundle().set("/linux/cgroupsPath", json!(name)).args(&["/bin/sleep", "100"]);
    lab.up(&b);
    for dir in dirs(lab, &b)? {
        assert!(dir.to_string_lossy().contains(&name), "{}", dir.display());
    }
    lab.delete(&b.id);
    assert!(lab.cgroups_left().is_empty(), "{:?}", lab.cgroups_left());
    Ok(())
}

fn missing_cgroups_path_works(lab: &Lab) -> TestResult {
    let b = lab.bundle().remove("/linux/cgroupsPath").args(&["/bin/sleep", "100"]);
    lab.up(&b);
    for dir in dirs(lab, &b)? {
        assert!(dir.to_string_lossy().contains(&b.id), "{}", dir.display());
    }
    lab.delete(&b.id);
    assert!(lab.cgroups_left().is_empty(), "{:?}", lab.cgroups_left());
    Ok(())
}

fn a_cgroup_in_use_is_refused(lab: &Lab) -> TestResult {
    let first = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&first);
    let second = lab.bundle().set("/linux/cgroupsPath", first.spec["linux"]["cgroupsPath"].clone());
    lab.create(&second).fails("container's cgroup is not empty");
    lab.delete(&second.id);
    assert_eq!(lab.status(&first.id), "running", "the first one is untouched");
    Ok(())
}

fn a_frozen_cgroup_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let path = lab.cgroups_path(&b.id);
    let path = path.trim_start_matches('/');
    let (dir, file, word) = match lab.host.mode {
        Mode::V2 => (lab.host.v2.clone(), "cgroup.freeze", "1"),
        _ => (
            lab.host.v1.iter().find(|(c, _)| c == "freezer").map(|(_, at)| at.clone()),
            "freezer.state",
            "FROZEN",
        ),
    };
    let Some(dir) = dir.map(|d| d.join(path)) else { return skip("no freezer") };
    fs::create_dir_all(&dir)?;
    write_file(&dir.join(file), word)?;
    let output = lab.launch("create", &b, &[]).spawn().wait_for(Duration::from_secs(10))?;
    write_file(&dir.join(file), if word == "1" { "0" } else { "THAWED" })?;
    // The cgroup was there before: who makes it removes it.
    fs::remove_dir(&dir).ok();
    output.fails("container's cgroup unexpectedly frozen");
    Ok(())
}

fn an_empty_cgroup_that_exists_is_used(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let path = lab.cgroups_path(&b.id);
    for (_, mount) in lab.host.v1.iter().filter(|(c, _)| c == "pids" || c == "memory") {
        fs::create_dir_all(mount.join(path.trim_start_matches('/')))?;
    }
    lab.run(&b).ok();
    Ok(())
}

/// The hierarchies without a controller: named ones, and v2's beside v1.
fn tracking(lab: &Lab) -> Vec<PathBuf> {
    let v2 = lab.host.v2.clone().filter(|_| lab.host.mode != Mode::V2);
    let named = lab.host.v1.iter().filter(|(name, _)| name.starts_with("name=")).map(|(_, at)| at.clone());
    named.chain(v2).collect()
}

/// As a kubelet does: the pod's cgroup is made where there are controllers, and nowhere else.
fn pod(lab: &Lab) -> Result<(PathBuf, Vec<PathBuf>), Stop> {
    let tracking = tracking(lab);
    if tracking.is_empty() {
        skip("no hierarchy that only tracks")?;
    }
    let pod = PathBuf::from(format!("{}/burstable/pod1", lab.tag));
    let engine = lab.host.v1.iter().filter(|(name, _)| name == "pids" || name == "memory");
    for (_, mount) in engine {
        fs::create_dir_all(mount.join(&pod))?;
    }
    Ok((pod, tracking))
}

/// The top directory of the pods in each of these hierarchies that is there.
fn tops(lab: &Lab, mounts: &[PathBuf]) -> Vec<PathBuf> {
    let top = &lab.tag;
    mounts.iter().map(|mount| mount.join(top)).filter(|path| path.exists()).collect()
}

/// The engine's part of the end of a pod, in every hierarchy.
fn remove_pod(lab: &Lab, pod: &Path) {
    let mounts = lab.host.v1.iter().map(|(_, at)| at).chain(&lab.host.v2);
    for mount in mounts {
        for level in pod.ancestors().take(2) {
            fs::remove_dir(mount.join(level)).ok();
        }
    }
}

fn the_tracking_hierarchies_of_a_pod_are_cleared(lab: &Lab) -> TestResult {
    let (pod, tracking) = pod(lab)?;
    let in_pod = |b: Bundle| {
        let path = format!("/{}/{}", pod.display(), b.id);
        b.set("/linux/cgroupsPath", json!(path)).args(&["/bin/sleep", "100"])
    };
    let (sandbox, one) = (in_pod(lab.bundle()), in_pod(lab.bundle()));
    lab.up(&sandbox);
    lab.up(&one);
    assert_eq!(tops(lab, &tracking).len(), tracking.len(), "they are in all of them");
    lab.delete(&one.id);
    assert_eq!(tops(lab, &tracking).len(), tracking.len(), "the sandbox is still there");
    lab.delete(&sandbox.id);
    assert_eq!(tops(lab, &tracking), Vec::<PathBuf>::new());
    // One that fails, and one whose create is killed in a hook.
    let failing = in_pod(lab.bundle()).set("/hooks/createRuntime", json!([{"path": "/bin/false"}]));
    assert!(lab.create(&failing).rc > 0);
    assert_eq!(tops(lab, &tracking), Vec::<PathBuf>::new());
    let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "100"]}]);
    let killed = in_pod(lab.bundle()).set("/hooks/createRuntime", hook);
    let create = lab.launch("create", &killed, &[]).spawn();
    lab.eventually("its cgroups", || tops(lab, &tracking).len() == tracking.len());
    create.kill();
    lab.delete(&killed.id);
    assert_eq!(tops(lab, &tracking), Vec::<PathBuf>::new());
    // What the engine has made is the engine's.
    let engine: Vec<PathBuf> =
        lab.host.v1.iter().filter(|(name, _)| name == "pids").map(|(_, at)| at.clone()).collect();
    assert!(engine.iter().all(|mount| mount.join(&pod).exists()));
    remove_pod(lab, &pod);
    Ok(())
}

fn a_failed_create_leaves_what_others_made(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/hooks/createRuntime", json!([{"path": "/bin/false"}]));
    let path = lab.cgroups_path(&b.id);
    let mounts: Vec<_> = lab.host.v1.iter().map(|(_, at)| at).chain(&lab.host.v2).collect();
    let others: Vec<_> =
        mounts.iter().map(|mount| mount.join(path.trim_start_matches('/')).join("other/deep")).collect();
    for other in &others {
        fs::create_dir_all(other)?;
    }
    assert!(lab.create(&b).rc > 0);
    assert!(lab.ids_on_disk().is_empty());
    for other in &others {
        assert!(other.exists(), "{}", other.display());
        for level in other.ancestors().take(3) {
            fs::remove_dir(level)?;
        }
    }
    Ok(())
}

fn parents_in_use_stay(lab: &Lab) -> TestResult {
    let (pod, tracking) = pod(lab)?;
    let b = lab.bundle();
    let path = format!("/{}/{}", pod.display(), b.id);
    let b = b.set("/linux/cgroupsPath", json!(path)).args(&["/bin/sleep", "100"]);
    lab.up(&b);
    for mount in &tracking {
        fs::create_dir(mount.join(&pod).join("others"))?;
    }
    lab.delete(&b.id);
    for mount in &tracking {
        assert!(mount.join(&pod).join("others").exists(), "{}", mount.display());
        fs::remove_dir(mount.join(&pod).join("others"))?;
    }
    remove_pod(lab, &pod);
    Ok(())
}

fn cgroups_path_with_dots_stays_below(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/linux/cgroupsPath", json!(format!("../../{}-dots", lab.tag)));
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    assert!(lab.cgroups_left().is_empty(), "{:?}", lab.cgroups_left());
    Ok(())
}

fn freezer_file_follows_pause(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let v1 = ("freezer", "freezer.state");
    let dir = lab.cgroup_of(lab.pid(&b.id), "freezer")?;
    let file = if lab.host.mode == Mode::V2 { dir.join("cgroup.freeze") } else { dir.join(v1.1) };
    let read = || fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
    lab.rt(&["pause", &b.id]).ok();
    assert!(["1", "FROZEN"].contains(&read().as_str()), "{}", read());
    lab.rt(&["resume", &b.id]).ok();
    assert!(["0", "THAWED"].contains(&read().as_str()), "{}", read());
    Ok(())
}

fn v2_container_runs_without_limits(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    assert_eq!(lab.printed(&lab.bundle().sh("echo fine")), "fine");
    Ok(())
}

fn v2_kill_all_ends_everything(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = lab.bundle().without_namespace("pid").sh("sleep 300 & sleep 300 & echo up; wait");
    let output = lab.up(&b);
    lab.eventually("the children", || output.text() == "up");
    lab.rt(&["kill", "--all", &b.id, "KILL"]).ok();
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}

fn v2_sub_cgroups_are_removed_on_delete(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    sub_cgroups_are_removed_on_delete(lab)
}

fn v2_paused_container_is_deleted_by_force(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["pause", &b.id]).ok();
    lab.delete(&b.id);
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn v2_hugetlb_limit(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    hugetlb_limit(lab)
}

fn v2_exec_joins_the_cgroup(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let init = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid(&b.id)))?;
    let own = init.lines().find(|l| l.starts_with("0::")).unwrap_or_default();
    let seen = lab.inside(&b.id, "grep ^0:: /proc/self/cgroup");
    assert_eq!(seen, own);
    Ok(())
}

/// A user namespace and a view of the cgroup with this option.
fn with_cgroup_view(lab: &Lab, option: &str) -> Result<Bundle, Stop> {
    lab.needs_v2()?;
    lab.needs_userns()?;
    let b = lab.bundle().userns(200_000).namespace("cgroup", None);
    let b = b.edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["type"] != "cgroup");
    });
    Ok(b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", option]))
}

/// Owners of the container's cgroup: the directory, a file that is given with it, and one that is not.
fn owners(lab: &Lab, b: &Bundle) -> Result<[u32; 3], Stop> {
    let path = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid(&b.id)))?;
    let path = path.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no cgroup2")?;
    let dir = Path::new("/sys/fs/cgroup").join(path);
    let uid = |file: &str| fs::metadata(dir.join(file)).map(|data| data.uid());
    Ok([uid("")?, uid("cgroup.procs")?, uid("cgroup.max.depth")?])
}

fn v2_cgroup_is_given_to_the_user_of_a_user_namespace(lab: &Lab) -> TestResult {
    let b = with_cgroup_view(lab, "rw")?.waits();
    lab.up(&b);
    assert_eq!(owners(lab, &b)?, [200_000, 200_000, 0]);
    let script = "cd /sys/fs/cgroup && mkdir sub && echo $$ > sub/cgroup.procs && grep ^0:: /proc/self/cgroup; \
                  echo 1 2>/dev/null > cgroup.max.depth || echo refused";
    assert_eq!(lab.inside(&b.id, script), "0::/sub\nrefused");
    lab.delete(&b.id);
    let b = with_cgroup_view(lab, "rw")?.set("/process/user", json!({"uid": 1000, "gid": 1000})).waits();
    lab.up(&b);
    assert_eq!(owners(lab, &b)?, [201_000, 201_000, 0]);
    Ok(())
}

fn v2_cgroup_stays_ours_without_a_writable_view_of_its_own(lab: &Lab) -> TestResult {
    for b in [with_cgroup_view(lab, "ro")?, with_cgroup_view(lab, "rw")?.without_namespace("cgroup")] {
        let b = b.waits();
        lab.up(&b);
        assert_eq!(owners(lab, &b)?, [0, 0, 0]);
    }
    Ok(())
}

fn v2_unified_is_written(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let Some(size) = page_size() else { return skip("the kernel has no huge pages") };
    let file = format!("hugetlb.{size}.max");
    lab.needs_controller("hugetlb")?;
    let b = lab.bundle().edit(|spec| spec["linux"]["resources"]["unified"] = json!({&file: "0"}));
    let b = b.args(&["/bin/sleep", "100"]);
    assert_eq!(read_back(lab, &b, ("hugetlb", ""), &file)?, "0");
    Ok(())
}

fn v1_only_view_works(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/linux/resources/pids/limit", json!(50)).args(&["/bin/sleep", "100"]);
    lab.up(&b);
    assert_eq!(lab.limit(&b.id, ("pids", "pids.max"), "pids.max")?, "50");
    lab.rt(&["pause", &b.id]).ok();
    lab.rt(&["resume", &b.id]).ok();
    Ok(())
}

fn update_pids_limit(lab: &Lab) -> TestResult {
    let b = with(lab, "pids/limit", json!(50));
    assert_eq!(read_back(lab, &b, ("pids", "pids.max"), "pids.max")?, "50");
    lab.rt(&["update", "--pids-limit", "60", &b.id]).ok();
    assert_eq!(lab.limit(&b.id, ("pids", "pids.max"), "pids.max")?, "60");
    lab.rt(&["update", "--pids-limit=-1", &b.id]).ok();
    assert_eq!(lab.limit(&b.id, ("pids", "pids.max"), "pids.max")?, "max");
    Ok(())
}

const MEMORY: ((&str, &str), &str) = (("memory", "memory.limit_in_bytes"), "memory.max");

fn update_takes_a_pids_limit_of_zero_as_create_does(lab: &Lab) -> TestResult {
    for (version, wanted) in [("1.0.2", "50"), ("1.3.0", "1")] {
        let b = lab.bundle().set("/ociVersion", json!(version)).set("/linux/resources/pids/limit", json!(50));
        let b = b.args(&["/bin/sleep", "100"]);
        lab.up(&b);
        let zero = r#"{"pids": {"limit": 0}}"#;
        lab.call(&["update", "--resources=-", &b.id]).stdin(zero).go().ok();
        assert_eq!(lab.limit(&b.id, ("pids", "pids.max"), "pids.max")?, wanted, "{version}");
    }
    Ok(())
}

fn update_memory_by_flag_with_a_suffix(lab: &Lab) -> TestResult {
    let b = with(lab, "memory/limit", json!(64 * MIB));
    read_back(lab, &b, MEMORY.0, MEMORY.1)?;
    lab.rt(&["update", "--memory", "48m", &b.id]).ok();
    assert_eq!(lab.limit(&b.id, MEMORY.0, MEMORY.1)?, (48 * MIB).to_string());
    Ok(())
}

fn update_reads_resources_from_stdin(lab: &Lab) -> TestResult {
    let b = with(lab, "memory/limit", json!(64 * MIB));
    read_back(lab, &b, MEMORY.0, MEMORY.1)?;
    let resources = json!({"memory": {"limit": 96 * MIB}, "pids": {"limit": 33}});
    lab.call(&["update", "--resources=-", &b.id]).stdin(resources.to_string()).go().ok();
    assert_eq!(lab.limit(&b.id, MEMORY.0, MEMORY.1)?, (96 * MIB).to_string());
    assert_eq!(lab.limit(&b.id, ("pids", "pids.max"), "pids.max")?, "33");
    Ok(())
}

fn update_keeps_what_is_not_named(lab: &Lab) -> TestResult {
    let b = with(lab, "cpu/shares", json!(512)).set("/linux/resources/memory/limit", json!(64 * MIB));
    let before = read_back(lab, &b, ("cpu", "cpu.shares"), "cpu.weight")?;
    lab.rt(&["update", "--memory", "96m", &b.id]).ok();
    assert_eq!(lab.limit(&b.id, ("cpu", "cpu.shares"), "cpu.weight")?, before);
    Ok(())
}

fn update_below_usage_is_refused(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = with(lab, "memory/limit", json!(64 * MIB));
    read_back(lab, &b, MEMORY.0, MEMORY.1)?;
    let resources = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
    let output = lab.call(&["update", "--resources=-", &b.id]).stdin(resources.to_string()).go();
    output.fails("rejecting memory limit");
    assert_eq!(lab.status(&b.id), "running");
    Ok(())
}

/// Whatever was in the cgroup's page caches is freed; what is in use is not killed.
fn update_below_usage_kills_nobody(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = with(lab, "memory/limit", json!(64 * MIB));
    read_back(lab, &b, MEMORY.0, MEMORY.1)?;
    lab.rt(&["update", "--memory", "4k", &b.id]).fails("rejecting memory limit");
    assert_eq!(lab.limit(&b.id, MEMORY.0, MEMORY.1)?, (64 * MIB).to_string());
    assert_eq!(lab.limit(&b.id, ("memory", ""), "memory.high")?, "max");
    assert_eq!(lab.status(&b.id), "running");
    Ok(())
}

fn update_keeps_the_sum_of_memory_and_swap(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = with(lab, "memory/limit", json!(64 * MIB)).set("/linux/resources/memory/swap", json!(128 * MIB));
    read_back(lab, &b, MEMORY.0, MEMORY.1)?;
    lab.rt(&["update", "--memory", "96m", &b.id]).ok();
    assert_eq!(lab.limit(&b.id, ("memory", ""), "memory.swap.max")?, (32 * MIB).to_string());
    Ok(())
}

fn update_that_is_refused_changes_nothing(lab: &Lab) -> TestResult {
    lab.needs_controller("cpu")?;
    let b = with(lab, "cpu/shares", json!(512));
    let file = (("cpu", "cpu.shares"), "cpu.weight");
    let before = read_back(lab, &b, file.0, file.1)?;
    // The share goes first; less than a millisecond is no quota for the kernel.
    lab.rt(&["update", "--cpu-share", "2048", "--cpu-quota", "1", &b.id]).fails("linux.resources.cpu.quota");
    assert_eq!(lab.limit(&b.id, file.0, file.1)?, before);
    lab.rt(&["update", "--pids-limit", "many", &b.id]).fails("pids-limit");
    lab.rt(&["update", "--memory", "1q", &b.id]).fails("memory");
    lab.call(&["update", "--resources=-", &b.id])
        .stdin(r#"{"cpu": {"shares": "x"}}"#)
        .go()
        .fails("cpu.shares");
    assert_eq!(lab.limit(&b.id, file.0, file.1)?, before);
    Ok(())
}

fn update_of_a_stopped_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    let output = lab.rt(&["update", "--pids-limit", "10", &b.id]);
    output.fails("not running");
    Ok(())
}

fn events_stats_prints_one_object(lab: &Lab) -> TestResult {
    let b = match lab.host.has_controller("pids") {
        true => with(lab, "pids/limit", json!(50)),
        false => lab.bundle().args(&["/bin/sleep", "100"]),
    };
    lab.up(&b);
    let event: Value = serde_json::from_str(&lab.rt(&["events", "--stats", &b.id]).ok().out())?;
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], json!(b.id));
    for key in ["cpu", "memory", "pids"] {
        assert!(event["data"].get(key).is_some(), "{key}: {event}");
    }
    if lab.host.has_controller("pids") {
        // Threads of the runtime that joined the cgroup before the exec may still be ending.
        let again =
            || serde_json::from_str(&lab.rt(&["events", "--stats", &b.id]).ok().out()).unwrap_or(Value::Null);
        lab.eventually("one process", || again()["data"]["pids"]["current"] == json!(1));
        assert_eq!(event["data"]["pids"]["limit"], json!(50));
    }
    Ok(())
}

fn exec_in_a_sub_cgroup(lab: &Lab) -> TestResult {
    lab.needs_controller("pids")?;
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    for dir in dirs(lab, &b)? {
        fs::create_dir(dir.join("sub"))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // (On v2 an empty one means the parent's.)
            if let Some(text) = fs::read_to_string(dir.join(file)).ok().filter(|text| !text.trim().is_empty())
            {
                write_file(&dir.join("sub").join(file), text.trim())?;
            }
        }
    }
    let word = if lab.host.mode == Mode::V2 { "sub".to_owned() } else { "pids:sub".to_owned() };
    let output = lab.rt(&["exec", "--cgroup", &word, &b.id, "/bin/cat", "/proc/self/cgroup"]).ok();
    assert!(output.text().contains("/sub"), "{output}");
    let output = lab.rt(&["exec", "--cgroup", "no-such", &b.id, "/bin/true"]);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

/// Directories that a container with a writable view makes: names and depths that no path can hold.
fn hostile_cgroups_are_removed(lab: &Lab) -> TestResult {
    let names = ["d".repeat(200), "d".to_owned()];
    for (name, levels) in [(&names[0], 40), (&names[1], 2500)] {
        let b = lab.bundle().waits();
        lab.up(&b);
        let dirs = lab.cgroups_left();
        let mut own = dirs.iter().filter(|dir| dir.file_name().is_some_and(|last| last == b.id.as_str()));
        let top = own.find(|dir| !dir.starts_with("/sys/fs/cgroup/cpuset")).ok_or("no cgroup of its own")?;
        std::env::set_current_dir(top)?;
        for _ in 0..levels {
            if let Err(error) = std::fs::create_dir(name) {
                // cgroup.max.depth, or a kernel's own limit.
                lab.say(&format!("no deeper: {error}"));
                break;
            }
            std::env::set_current_dir(name)?;
        }
        std::env::set_current_dir("/")?;
        lab.rt(&["ps", &b.id]).ok();
        lab.rt(&["delete", "--force", &b.id]).ok();
        assert!(!top.exists(), "{} is left", top.display());
    }
    Ok(())
}

fn a_path_that_is_too_long_is_refused_before_anything_is_made(lab: &Lab) -> TestResult {
    for path in [format!("/{}", "a/".repeat(2500)), format!("/{}", "a".repeat(300))] {
        let b = lab.bundle().set("/linux/cgroupsPath", json!(path));
        let output = lab.create(&b);
        assert!(output.rc > 0, "{output}");
        if lab.is("hull") {
            assert!(output.err().contains("linux.cgroupsPath"), "{output}");
        }
        assert!(lab.ids_on_disk().is_empty());
    }
    Ok(())
}
