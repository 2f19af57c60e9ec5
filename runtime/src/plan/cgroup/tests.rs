//! Conversions as golden text: what a config becomes on v1, on v2, and on a hybrid host.

use super::*;

fn v1(name: &str) -> V1Hierarchy {
    let named = name == "systemd";
    V1Hierarchy {
        mount: Path::new("/sys/fs/cgroup").join(name),
        controllers: if named { vec![] } else { name.split(',').map(str::to_owned).collect() },
        name: named.then(|| name.to_owned()),
        own: PathBuf::from("own/cg"),
    }
}

fn legacy() -> Hierarchies {
    let names = ["blkio", "cpu,cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory"];
    let more = ["net_cls,net_prio", "pids", "rdma", "systemd"];
    let v1 = names.iter().chain(&more).map(|name| v1(name)).collect();
    Hierarchies { mode: Mode::Legacy, v1, v2: None }
}

fn unified() -> Hierarchies {
    let controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];
    let v2 = V2Hierarchy {
        mount: "/sys/fs/cgroup".into(),
        own: "user.slice/session".into(),
        controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
    };
    Hierarchies { mode: Mode::Unified, v1: vec![], v2: Some(v2) }
}

/// The test host: v1, and hugetlb on cgroup2.
fn hybrid() -> Hierarchies {
    let names = ["cpu", "cpuset", "devices", "freezer", "memory", "pids", "systemd"];
    let v2 = V2Hierarchy {
        mount: "/sys/fs/cgroup/unified".into(),
        own: "own".into(),
        controllers: vec!["hugetlb".to_owned()],
    };
    Hierarchies { mode: Mode::Hybrid, v1: names.iter().map(|name| v1(name)).collect(), v2: Some(v2) }
}

fn linux(json: &str) -> Linux {
    serde_json::from_str(json).unwrap()
}

const REQUEST: CgroupRequest<'_> = CgroupRequest {
    id: "c1",
    driver: Driver::Cgroupfs,
    rootless: false,
    in_userns: false,
    pids_zero_is_unset: false,
};

fn plan_of(json: &str, facts: &Hierarchies) -> Result<CgroupPlan> {
    plan(Some(&linux(json)), facts, &REQUEST)
}

/// The writes of these resources as text, device rules left out.
fn writes(resources: &str, facts: &Hierarchies) -> String {
    let plan = plan_of(&format!(r#"{{"cgroupsPath": "/c", "resources": {resources}}}"#), facts).unwrap();
    let writes = plan.writes.iter().filter(|write| write.controller != "devices");
    writes.map(|write| format!("{write}\n")).collect()
}

fn refusal(resources: &str, facts: &Hierarchies) -> String {
    let json = format!(r#"{{"cgroupsPath": "/c", "resources": {resources}}}"#);
    plan_of(&json, facts).unwrap_err().to_string()
}

fn warned(resources: &str, facts: &Hierarchies) -> Vec<String> {
    let json = format!(r#"{{"cgroupsPath": "/c", "resources": {resources}}}"#);
    plan_of(&json, facts).unwrap().warnings.iter().map(ToString::to_string).collect()
}

fn paths(json: &str, facts: &Hierarchies) -> Vec<String> {
    plan_of(json, facts).unwrap().dirs.iter().map(|dir| dir.path.display().to_string()).collect()
}

#[test]
fn shares_become_the_weights_everyone_agrees_on() {
    let known = [(0, None), (1, Some(1)), (2, Some(1)), (1024, Some(100)), (262_144, Some(10_000))];
    for (shares, weight) in known {
        assert_eq!(cpu::weight(shares), weight, "{shares}");
    }
    assert_eq!(cpu::weight(3), Some(2));
    assert_eq!(cpu::weight(u64::MAX), Some(10_000));
    let weights: Vec<_> = (1..=262_144).map(cpu::weight).collect();
    assert!(weights.is_sorted(), "more shares are never less weight");
}

#[test]
fn absolute_path_is_the_same_everywhere_and_never_leaves_the_root() {
    let all = paths(r#"{"cgroupsPath": "/a/../../b/./c"}"#, &hybrid());
    assert!(all.iter().all(|path| path == "b/c"), "{all:?}");
    assert_eq!(paths(r#"{"cgroupsPath": "/../.."}"#, &unified()), [""]);
}

#[test]
fn relative_path_is_below_our_own_on_v1_and_beside_it_on_v2() {
    assert_eq!(paths(r#"{"cgroupsPath": "x/../y"}"#, &legacy())[0], "own/cg/y");
    assert_eq!(paths(r#"{"cgroupsPath": "../y"}"#, &unified()), ["user.slice/y"]);
    assert_eq!(paths("{}", &legacy())[0], "own/cg/c1");
    assert_eq!(paths("{}", &unified()), ["user.slice/c1"]);
    assert_eq!(paths("{}", &hybrid()).last().unwrap(), "own/c1");
}

#[test]
fn systemd_driver_is_refused_and_its_form_is_noticed() {
    let request = CgroupRequest { driver: Driver::Systemd, ..REQUEST };
    let error = plan(None, &unified(), &request).unwrap_err();
    assert!(error.message.contains("not yet supported") && error.hint.is_some());
    let error = plan(Some(&linux(r#"{"cgroupsPath": "/kubepods/x"}"#)), &unified(), &request).unwrap_err();
    assert_eq!(
        error.message,
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/kubepods/x\" instead"
    );
    let plan = plan_of(r#"{"cgroupsPath": "system.slice:docker:1234"}"#, &legacy()).unwrap();
    assert!(plan.warnings[0].message.contains("form of the systemd driver"));
    assert_eq!(plan.dirs[0].path, Path::new("own/cg/system.slice:docker:1234"));
}

#[test]
fn disabled_driver_makes_nothing_and_warns_about_limits() {
    let request = CgroupRequest { driver: Driver::Disabled, ..REQUEST };
    let limited = linux(r#"{"resources": {"pids": {"limit": 5}}}"#);
    let plan = plan(Some(&limited), &unified(), &request).unwrap();
    assert!(plan.dirs.is_empty() && plan.writes.is_empty() && plan.warnings.len() == 1);
}

#[test]
fn memory_on_v1() {
    let both = r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432,
                   "swappiness": 60, "disableOOMKiller": true}}"#;
    assert_eq!(
        writes(both, &legacy()),
        "write memory.limit_in_bytes \"67108864\" invalid=again  # linux.resources.memory.limit\n\
         write memory.memsw.limit_in_bytes \"134217728\"  # linux.resources.memory.swap\n\
         write memory.soft_limit_in_bytes \"33554432\"  # linux.resources.memory.reservation\n\
         write memory.oom_control \"1\"  # linux.resources.memory.disableOOMKiller\n\
         write memory.swappiness \"60\"  # linux.resources.memory.swappiness\n"
    );
    assert_eq!(
        writes(r#"{"memory": {"limit": -1}}"#, &legacy()),
        "write memory.limit_in_bytes \"-1\" invalid=again  # linux.resources.memory.limit\n\
         write memory.memsw.limit_in_bytes \"-1\" missing=skip  # linux.resources.memory.limit\n"
    );
    assert_eq!(writes(r#"{"memory": {"limit": 0, "disableOOMKiller": false}}"#, &legacy()), "");
}

#[test]
fn tight_memory_waits_for_the_end_of_the_set_up() {
    assert_eq!(
        writes(r#"{"memory": {"limit": 262144}}"#, &legacy()),
        "write memory.limit_in_bytes \"262144\" after-setup  # linux.resources.memory.limit\n"
    );
    assert_eq!(
        writes(r#"{"memory": {"limit": 262144, "swap": 262144}}"#, &unified()),
        "write memory.swap.max \"0\" after-setup missing=skip  # linux.resources.memory.swap\n\
         write memory.max \"262144\" after-setup  # linux.resources.memory.limit\n"
    );
}

#[test]
fn memory_on_v2_writes_swap_first_and_without_the_memory_in_it() {
    let text = |json: &str| writes(&format!(r#"{{"memory": {json}}}"#), &unified());
    assert_eq!(
        text(r#"{"limit": 67108864, "swap": 100000000, "reservation": 33554432}"#),
        "write memory.swap.max \"32891136\"  # linux.resources.memory.swap\n\
         write memory.max \"67108864\"  # linux.resources.memory.limit\n\
         write memory.low \"33554432\"  # linux.resources.memory.reservation\n"
    );
    assert_eq!(
        text(r#"{"limit": -1}"#),
        "write memory.swap.max \"max\" missing=skip  # linux.resources.memory.swap\n\
         write memory.max \"max\"  # linux.resources.memory.limit\n"
    );
    assert_eq!(
        text(r#"{"limit": 67108864, "swap": -1}"#),
        "write memory.swap.max \"max\" missing=skip  # linux.resources.memory.swap\n\
         write memory.max \"67108864\"  # linux.resources.memory.limit\n"
    );
    assert_eq!(
        text(r#"{"limit": 67108864, "swap": 0}"#),
        "write memory.max \"67108864\"  # linux.resources.memory.limit\n"
    );
}

#[test]
fn contradicting_memory_is_refused_on_both() {
    for facts in [legacy(), unified()] {
        assert_eq!(
            refusal(r#"{"memory": {"swap": 100}}"#, &facts),
            "linux.resources.memory.swap: unable to set swap limit without memory limit"
        );
        assert_eq!(
            refusal(r#"{"memory": {"limit": 200, "swap": 100}}"#, &facts),
            "linux.resources.memory.swap: memory+swap limit should be >= memory limit"
        );
        assert_eq!(
            refusal(r#"{"memory": {"limit": -2}}"#, &facts),
            "linux.resources.memory.limit: invalid memory value: -2"
        );
    }
    assert_eq!(
        refusal(r#"{"memory": {"swappiness": 101}}"#, &legacy()),
        "linux.resources.memory.swappiness: invalid memory swappiness value: 101 (valid range is 0-100)"
    );
}

#[test]
fn memory_is_checked_before_an_update_only_when_asked() {
    let json = r#"{"cgroupsPath": "/c", "resources": {"memory":
                   {"limit": 67108864, "swap": -1, "checkBeforeUpdate": true}}}"#;
    let check = plan_of(json, &unified()).unwrap().check.unwrap();
    assert_eq!(check, UsageCheck { dir: 0, limit: Some(67_108_864), memory_swap: None });
    assert_eq!(plan_of(json, &legacy()).unwrap().check, None);
}

#[test]
fn kernel_memory_is_a_warning() {
    let warned = warned(r#"{"memory": {"kernel": 100, "kernelTCP": 100}}"#, &unified());
    assert_eq!(warned.len(), 2);
    assert!(warned[0].starts_with("linux.resources.memory.kernel: kernel memory settings are ignored"));
}

#[test]
fn cpu_on_v1() {
    let all = r#"{"cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "idle": 0,
                  "realtimeRuntime": 950000, "realtimePeriod": 1000000, "cpus": "0-1", "mems": "0"}}"#;
    assert_eq!(
        writes(all, &legacy()),
        "write cpuset.cpus \"0-1\"  # linux.resources.cpu.cpus\n\
         write cpuset.mems \"0\"  # linux.resources.cpu.mems\n\
         write cpu.rt_period_us \"1000000\" invalid=again  # linux.resources.cpu.realtimePeriod\n\
         write cpu.rt_runtime_us \"950000\"  # linux.resources.cpu.realtimeRuntime\n\
         write cpu.shares \"512\"  # linux.resources.cpu.shares\n\
         write cpu.cfs_period_us \"100000\" after-setup invalid=again  # linux.resources.cpu.period\n\
         write cpu.cfs_burst_us \"1000\" after-setup missing=skip invalid=again  # linux.resources.cpu.burst\n\
         write cpu.cfs_quota_us \"50000\" after-setup  # linux.resources.cpu.quota\n\
         write cpu.idle \"0\"  # linux.resources.cpu.idle\n"
    );
    assert_eq!(writes(r#"{"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}}"#, &legacy()), "");
    assert_eq!(
        refusal(r#"{"cpu": {"shares": 262145}}"#, &legacy()),
        "linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144"
    );
    assert_eq!(
        refusal(r#"{"cpu": {"shares": 1}}"#, &legacy()),
        "linux.resources.cpu.shares: the minimum allowed cpu-shares is 2"
    );
}

#[test]
fn cpu_on_v2() {
    let text = |json: &str| writes(&format!(r#"{{"cpu": {json}}}"#), &unified());
    assert_eq!(
        text(r#"{"shares": 1024, "quota": 50000, "burst": 1000, "cpus": "0"}"#),
        "write cpuset.cpus \"0\"  # linux.resources.cpu.cpus\n\
         write cpu.weight \"100\"  # linux.resources.cpu.shares\n\
         write cpu.max.burst \"1000\" after-setup missing=skip invalid=again  # linux.resources.cpu.burst\n\
         write cpu.max \"50000 100000\" after-setup  # linux.resources.cpu.quota\n"
    );
    let max = |json: &str| text(json).split('"').nth(1).map(str::to_owned);
    assert_eq!(max(r#"{"quota": -1, "period": 200000}"#).unwrap(), "max 200000");
    assert_eq!(max(r#"{"period": 200000}"#).unwrap(), "max 200000");
    assert_eq!(text(r#"{"shares": 1024, "idle": 1}"#), "write cpu.idle \"1\"  # linux.resources.cpu.idle\n");
    assert_eq!(warned(r#"{"cpu": {"realtimeRuntime": 5}}"#, &unified()).len(), 1);
}

#[test]
fn block_io() {
    let all = r#"{"blockIO": {"weight": 500, "leafWeight": 300,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 1000, "leafWeight": 10}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]}}"#;
    assert_eq!(
        writes(all, &legacy()),
        "write blkio.weight \"500\" missing=blkio.bfq.weight:\"500\"  # linux.resources.blockIO.weight\n\
         write blkio.leaf_weight \"300\" missing=skip  # linux.resources.blockIO.leafWeight\n\
         write blkio.weight_device \"8:0 1000\" missing=blkio.bfq.weight_device:\"8:0 1000\"  # linux.resources.blockIO.weightDevice[0]\n\
         write blkio.leaf_weight_device \"8:0 10\" missing=skip  # linux.resources.blockIO.weightDevice[0]\n\
         write blkio.throttle.read_bps_device \"8:0 1024\"  # linux.resources.blockIO.throttleReadBpsDevice[0]\n\
         write blkio.throttle.write_iops_device \"8:16 0\"  # linux.resources.blockIO.throttleWriteIOPSDevice[0]\n"
    );
    assert_eq!(
        writes(all, &unified()),
        "write io.bfq.weight \"500\" missing=io.weight:\"4950\"  # linux.resources.blockIO.weight\n\
         write io.bfq.weight \"8:0 1000\" missing=io.weight:\"8:0 10000\"  # linux.resources.blockIO.weightDevice[0]\n\
         write io.max \"8:0 rbps=1024\"  # linux.resources.blockIO.throttleReadBpsDevice[0]\n\
         write io.max \"8:16 wiops=max\"  # linux.resources.blockIO.throttleWriteIOPSDevice[0]\n"
    );
    assert_eq!(writes(r#"{"blockIO": {"weight": 0}}"#, &hybrid()), "");
    assert_eq!([10, 100, 1000].map(super::block_io::io_weight), [1, 910, 10_000]);
}

#[test]
fn pids_zero_is_one_and_negative_is_max() {
    let pids = |limit: i64| writes(&format!(r#"{{"pids": {{"limit": {limit}}}}}"#), &unified());
    let text =
        |value: &str| format!("write pids.max \"{value}\" after-setup  # linux.resources.pids.limit\n");
    assert_eq!([pids(0), pids(1), pids(-1), pids(512)], ["1", "1", "max", "512"].map(text));
}

#[test]
fn pids_zero_of_an_old_config_is_left_alone() {
    let linux = linux(r#"{"cgroupsPath": "/c", "resources": {"pids": {"limit": 0}}}"#);
    let request = CgroupRequest { pids_zero_is_unset: true, ..REQUEST };
    let old = plan(Some(&linux), &unified(), &request).unwrap();
    assert!(old.writes.iter().all(|write| write.controller != "pids"));
}

#[test]
fn limit_without_its_controller_is_refused_and_no_limit_is_silent() {
    let mut facts = unified();
    facts.v2.as_mut().unwrap().controllers.clear();
    let refused = refusal(r#"{"pids": {"limit": 5}}"#, &facts);
    assert!(refused.starts_with(
        "linux.resources.pids.limit: cannot set pids limit: container could not join or create cgroup"
    ));
    assert!(refusal(r#"{"cpu": {"shares": 5}}"#, &facts).contains("cannot set cpu limit"));
    assert_eq!(
        writes(r#"{"pids": {"limit": -1}, "memory": {"limit": -1}, "cpu": {"quota": -1}}"#, &facts),
        ""
    );
}

#[test]
fn huge_pages_go_where_their_controller_is() {
    let pages = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
    let field = "# linux.resources.hugepageLimits[0].limit";
    assert_eq!(
        writes(pages, &legacy()),
        format!(
            "write hugetlb.2MB.limit_in_bytes \"4194304\"  {field}\n\
             write hugetlb.2MB.rsvd.limit_in_bytes \"4194304\" missing=skip  {field}\n"
        )
    );
    let v2 = format!(
        "write hugetlb.2MB.max \"4194304\"  {field}\n\
         write hugetlb.2MB.rsvd.max \"4194304\" missing=skip  {field}\n"
    );
    assert_eq!(writes(pages, &unified()), v2);
    assert_eq!(writes(pages, &hybrid()), v2);
    let plan = plan_of(&format!(r#"{{"resources": {pages}}}"#), &hybrid()).unwrap();
    let dir = &plan.dirs[plan.writes[0].dir];
    assert!(dir.required && dir.controllers == ["hugetlb"], "{dir:?}");
    let bad = r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#;
    assert!(refusal(bad, &unified()).starts_with("linux.resources.hugepageLimits[0].pageSize: invalid"));
}

#[test]
fn rdma_and_network_are_sorted_and_v1_only_where_they_are() {
    let rdma = r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 5}}}"#;
    assert_eq!(
        writes(rdma, &unified()),
        "write rdma.max \"mlx4_0 hca_object=5\"  # linux.resources.rdma[\"mlx4_0\"]\n\
         write rdma.max \"mlx5_1 hca_handle=3 hca_object=10000\"  # linux.resources.rdma[\"mlx5_1\"]\n"
    );
    let network = r#"{"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}}"#;
    assert_eq!(
        writes(network, &legacy()),
        "write net_cls.classid \"1048577\"  # linux.resources.network.classID\n\
         write net_prio.ifpriomap \"eth0 500\"  # linux.resources.network.priorities[0]\n"
    );
    assert_eq!(warned(network, &unified()).len(), 2);
    assert!(refusal(network, &hybrid()).contains("cannot set net_cls limit"));
}

#[test]
fn unified_files() {
    let files =
        r#"{"unified": {"pids.max": "7", "io.max": "8:0 rbps=1\n8:16 wbps=2\n", "memory.high": "1G"}}"#;
    assert_eq!(
        writes(files, &unified()),
        "write io.max \"8:0 rbps=1\"  # linux.resources.unified[\"io.max\"]\n\
         write io.max \"8:16 wbps=2\"  # linux.resources.unified[\"io.max\"]\n\
         write memory.high \"1G\" after-setup  # linux.resources.unified[\"memory.high\"]\n\
         write pids.max \"7\" after-setup  # linux.resources.unified[\"pids.max\"]\n"
    );
    for facts in [legacy(), hybrid()] {
        assert!(refusal(files, &facts).contains("invalid configuration: cannot use unified on cgroup v1"));
    }
    let key = |key: &str| refusal(&format!(r#"{{"unified": {{"{key}": "1"}}}}"#), &unified());
    assert!(key("../pids.max").contains("must be a file name (no slashes)"));
    assert!(key("pids").contains("must be in the form CONTROLLER.PARAMETER"));
    assert!(key("dmem.max").contains("can't be set: controller \"dmem\" not available"));
    assert_eq!(writes(r#"{"unified": {}}"#, &legacy()), "");
}

#[test]
fn rootless_tolerance_follows_what_was_asked() {
    let tolerance = |json: &str| {
        let request = CgroupRequest { rootless: true, ..REQUEST };
        plan(Some(&linux(json)), &unified(), &request).unwrap().denied
    };
    assert_eq!(tolerance("{}"), Some(Tolerance::WithoutCgroup));
    assert_eq!(tolerance(r#"{"cgroupsPath": "/x"}"#), Some(Tolerance::Explain));
    assert_eq!(tolerance(r#"{"resources": {"pids": {"limit": 3}}}"#), Some(Tolerance::Explain));
    assert_eq!(plan(None, &unified(), &REQUEST).unwrap().denied, None);
}

#[test]
fn host_without_cgroups_takes_a_rootless_container_only() {
    let facts = Hierarchies { mode: Mode::Absent, v1: vec![], v2: None };
    let error = plan(None, &facts, &REQUEST).unwrap_err();
    assert!(error.message.contains("no devices cgroup is mounted"));
    let request = CgroupRequest { rootless: true, ..REQUEST };
    let plan = plan(None, &facts, &request).unwrap();
    assert!(plan.dirs.is_empty() && plan.warnings.len() == 1);
}

#[test]
fn tracking_hierarchies_come_last() {
    let plan = plan_of(r#"{"cgroupsPath": "/c"}"#, &hybrid()).unwrap();
    let text = plan.to_string();
    let dirs: Vec<_> = text.lines().filter(|line| line.starts_with("cgroup")).collect();
    assert_eq!(dirs[0], "cgroup /sys/fs/cgroup/cpu/c");
    assert_eq!(
        dirs[6..],
        [
            "cgroup /sys/fs/cgroup/systemd/c (tracking only)",
            "cgroup2 /sys/fs/cgroup/unified/c (tracking only)"
        ]
    );
    let plan = plan_of(r#"{"cgroupsPath": "/c"}"#, &unified()).unwrap();
    let first = plan.to_string();
    assert!(
        first.starts_with("cgroup2 /sys/fs/cgroup/c +cpuset +cpu +io +memory +hugetlb +pids +rdma +misc\n")
    );
}

#[test]
fn update_leaves_devices_alone() {
    let plan = plan_of(r#"{"cgroupsPath": "/c"}"#, &legacy()).unwrap();
    let json = r#"{"pids": {"limit": 9}, "devices": [{"allow": true, "access": "rwm"}]}"#;
    let resources = serde_json::from_str(json).unwrap();
    let update = plan_update(&resources, plan.dirs, &legacy(), InForce::default()).unwrap();
    assert_eq!(update.writes.len(), 1);
    assert_eq!(update.devices, None);
}

fn update_of(json: &str, facts: &Hierarchies, now: InForce) -> Result<String> {
    let plan = plan_of(r#"{"cgroupsPath": "/c"}"#, facts).unwrap();
    let update = plan_update(&serde_json::from_str(json).unwrap(), plan.dirs, facts, now)?;
    let text = update.to_string();
    Ok(text.lines().filter(|line| !line.starts_with("cgroup")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn update_keeps_the_other_half_of_cpu_max() {
    let now = InForce { cpu_quota: Some(20000), cpu_period: Some(50000), ..InForce::default() };
    let period = update_of(r#"{"cpu": {"period": 80000}}"#, &unified(), now).unwrap();
    assert!(period.starts_with("write cpu.max \"20000 80000\""), "{period}");
    let quota = update_of(r#"{"cpu": {"quota": 30000}}"#, &unified(), now).unwrap();
    assert!(quota.starts_with("write cpu.max \"30000 50000\""), "{quota}");
    let none = update_of(r#"{"cpu": {"quota": -1}}"#, &unified(), now).unwrap();
    assert!(none.starts_with("write cpu.max \"max 50000\""), "{none}");
    let none = update_of(r#"{"cpu": {"quota": -1}}"#, &legacy(), now).unwrap();
    assert!(none.starts_with("write cpu.cfs_quota_us \"-1\""), "{none}");
}

#[test]
fn update_keeps_the_sum_of_memory_and_swap() {
    let now = InForce { memory: Some(64 << 20), memory_swap: Some(128 << 20), ..InForce::default() };
    let more = update_of(r#"{"memory": {"limit": 100663296}}"#, &unified(), now).unwrap();
    assert!(more.contains("write memory.swap.max \"33554432\""), "{more}");
    assert!(more.contains("write memory.max \"100663296\""), "{more}");
    let swap = update_of(r#"{"memory": {"swap": 100663296}}"#, &unified(), now).unwrap();
    assert!(swap.contains("write memory.swap.max \"33554432\""), "{swap}");
    let error = update_of(r#"{"memory": {"limit": 134217729}}"#, &unified(), now).unwrap_err();
    assert!(error.message.contains("memory+swap limit should be >= memory limit"), "{}", error.message);
    // Without a limit there is nothing to keep.
    let now = InForce { memory: Some(-1), memory_swap: Some(-1), ..InForce::default() };
    let first = update_of(r#"{"memory": {"limit": 100663296}}"#, &unified(), now).unwrap();
    assert!(!first.contains("write memory.swap"), "{first}");
}

#[test]
fn update_looks_at_the_usage_before_it_lowers_the_limit() {
    let usage = |json, memory| {
        let now = InForce { memory, ..InForce::default() };
        update_of(json, &unified(), now).unwrap().contains("check usage")
    };
    let limit = r#"{"memory": {"limit": 4096}}"#;
    assert!(usage(limit, None) && usage(limit, Some(-1)) && usage(limit, Some(8192)));
    assert!(!usage(limit, Some(4096)), "as it was");
    assert!(!usage(r#"{"memory": {"limit": 4096, "checkBeforeUpdate": false}}"#, None));
    assert!(!usage(r#"{"memory": {"limit": -1}}"#, None));
}
