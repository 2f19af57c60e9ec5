//! Whole plans as text, compared with `golden/*.plan`: what `create` would do for the configs that engines
//! really write, on hosts that are data. `UPDATE_GOLDEN=1 cargo test -p hull --test golden` writes them anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use hull::host::Facts;
use hull::plan::{self, Request, text};
use hull_cgroup::{Hierarchies, Mode, V1Hierarchy, V2Hierarchy};

const NAMES: [&str; 4] = ["docker-20.10-default", "podman-4.3-default", "podman-4.3-idmap", "crio-sandbox"];

/// Root with every capability, on cgroup v2.
fn unified() -> Facts {
    let controllers =
        ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"].map(str::to_owned).to_vec();
    let v2 = V2Hierarchy { mount: "/sys/fs/cgroup".into(), own: PathBuf::new(), controllers };
    facts(Hierarchies { mode: Mode::Unified, v1: Vec::new(), v2: Some(v2) })
}

/// Root without `CAP_SYS_RESOURCE`, on cgroup v1 with one controller on the v2 side.
fn hybrid() -> Facts {
    let hierarchy = |name: &str| V1Hierarchy {
        mount: Path::new("/sys/fs/cgroup").join(name),
        controllers: vec![name.to_owned()],
        name: None,
        own: PathBuf::new(),
    };
    let v1 = ["blkio", "cpu", "cpuset", "devices", "freezer", "memory", "pids"].map(hierarchy).to_vec();
    let controllers = vec!["hugetlb".to_owned()];
    let v2 = V2Hierarchy { mount: "/sys/fs/cgroup/unified".into(), own: PathBuf::new(), controllers };
    let all = facts(Hierarchies { mode: Mode::Hybrid, v1, v2: Some(v2) });
    let lacking = !(1 << plan::caps::SYS_RESOURCE);
    let (bounding, permitted, effective) =
        (all.bounding & lacking, all.permitted & lacking, all.effective & lacking);
    Facts { bounding, permitted, effective, hard_limits: vec![(7, 4096), (6, 1024)], ..all }
}

fn facts(cgroup: Hierarchies) -> Facts {
    let every = (1 << 41) - 1;
    Facts {
        cgroup,
        bounding: every,
        permitted: every,
        effective: every,
        last_cap: 40,
        euid: 0,
        egid: 0,
        in_user_namespace: false,
        apparmor: false,
        selinux: false,
        kcore: true,
        oom_floor: 0,
        hard_limits: Vec::new(),
    }
}

fn compare(host: &str, facts: &Facts) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for name in NAMES {
        let config = std::fs::read(dir.join(format!("data/configs/{name}.json"))).unwrap();
        let loaded = hull::spec::parse(config, name).unwrap();
        let request = Request { id: "golden".into(), bundle: "/bundle".into(), ..Request::default() };
        let plan = plan::create(&loaded.spec, facts, &request).unwrap();
        let found = text::table(&text::lines(&plan, &plan.warnings));
        let file = dir.join(format!("golden/{name}.{host}.plan"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(dir.join("golden")).unwrap();
            std::fs::write(&file, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == expected, "{}: the plan is now\n{found}", file.display());
    }
}

#[test]
fn plans_for_a_v2_host_are_the_golden_ones() {
    compare("v2", &unified());
}

#[test]
fn plans_for_a_hybrid_host_without_cap_sys_resource_are_the_golden_ones() {
    compare("hybrid", &hybrid());
}

/// Whom the cgroup is given to when podman's view of it is writable and in a namespace of its own.
fn owner(facts: &Facts, uid: u32) -> Option<u32> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/configs/podman-4.3-idmap.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    config["process"]["user"]["uid"] = uid.into();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "cgroup"}));
    for mount in config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = serde_json::json!(["rw"]);
        }
    }
    let loaded = hull::spec::parse(serde_json::to_vec(&config).unwrap(), "config.json").unwrap();
    let plan = plan::create(&loaded.spec, facts, &Request::default()).unwrap();
    plan.cgroup.owner.map(|owner| owner.uid)
}

#[test]
fn a_writable_cgroup_is_given_to_the_user_on_the_host() {
    assert_eq!(owner(&unified(), 0), Some(100_000));
    assert_eq!(owner(&unified(), 999), Some(100_999));
    assert_eq!(owner(&unified(), 1000), None, "not mapped");
    assert_eq!(owner(&Facts { euid: 1000, ..unified() }, 0), None, "not ours to give");
    assert_eq!(owner(&hybrid(), 0), None, "v1 cannot be given safely");
}
