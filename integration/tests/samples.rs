//! What real callers hand over: every sample config is planned as it is, and run with a busybox root.
//! The adjustments are those that take the config from its host to this one; each is printed on failure.

use hull_integration::{Bundle, Lab, Stop, TestResult, skip, tests};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

tests! {
    sample_docker_default_runs,
    sample_docker_cgroup_v2_runs,
    sample_docker_privileged_runs,
    sample_docker_userns_runs,
    sample_podman_default_runs,
    sample_podman_hardened_runs,
    sample_containerd_sandbox_runs,
    sample_crio_container_runs,
    samples_can_be_planned_as_they_are.only("hull"),
    samples_of_a_folder_can_be_planned.only("hull"),
    samples_of_a_folder_run.limit_s(600),
}

const EMBEDDED: [(&str, &str); 8] = [
    ("docker-default", include_str!("../data/docker-default.json")),
    ("docker-cgroup-v2", include_str!("../data/docker-cgroup-v2.json")),
    ("docker-privileged", include_str!("../data/docker-privileged.json")),
    ("docker-userns", include_str!("../data/docker-userns.json")),
    ("podman-default", include_str!("../data/podman-default.json")),
    ("podman-hardened", include_str!("../data/podman-hardened.json")),
    ("containerd-sandbox", include_str!("../data/containerd-sandbox.json")),
    ("crio-container", include_str!("../data/crio-container.json")),
];

fn run_embedded(lab: &Lab, name: &str) -> TestResult {
    let text = EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| *text).ok_or("no such sample")?;
    match run_sample(lab, name, text)? {
        Verdict::Ran => Ok(()),
        Verdict::Beyond(why) => skip(why),
    }
}

fn sample_docker_default_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "docker-default")
}

fn sample_docker_cgroup_v2_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "docker-cgroup-v2")
}

fn sample_docker_privileged_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "docker-privileged")
}

fn sample_docker_userns_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "docker-userns")
}

fn sample_podman_default_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "podman-default")
}

fn sample_podman_hardened_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "podman-hardened")
}

fn sample_containerd_sandbox_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "containerd-sandbox")
}

fn sample_crio_container_runs(lab: &Lab) -> TestResult {
    run_embedded(lab, "crio-container")
}

fn samples_can_be_planned_as_they_are(lab: &Lab) -> TestResult {
    for (name, text) in EMBEDDED {
        plan(lab, name, text)?;
    }
    Ok(())
}

fn plan(lab: &Lab, name: &str, text: &str) -> TestResult {
    for controller in ["memory", "cpu", "pids"] {
        lab.needs_controller(controller)?;
    }
    let dir = lab.new_dir("plan");
    fs::write(dir.join("config.json"), text)?;
    let output = lab.rt(&["plan", &dir.to_string_lossy()]);
    assert!(output.rc == 0, "{name}: {output}");
    Ok(())
}

/// The folder HULL_CONFIGS names, seen from where the tests were started.
fn folder() -> Result<Vec<(String, String)>, Stop> {
    let Some(named) = std::env::var_os("HULL_CONFIGS") else {
        return skip("no folder of sample configs (HULL_CONFIGS)");
    };
    let dir = PathBuf::from(std::env::var_os("HULL_START_DIR").unwrap_or_default()).join(named);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.ends_with("process.json") {
            found.push((name, fs::read_to_string(entry.path())?));
        }
    }
    found.sort();
    Ok(found)
}

fn samples_of_a_folder_can_be_planned(lab: &Lab) -> TestResult {
    for (name, text) in folder()? {
        plan(lab, &name, &text)?;
    }
    Ok(())
}

fn samples_of_a_folder_run(lab: &Lab) -> TestResult {
    let mut beyond = Vec::new();
    let all = folder()?;
    let mut bad = Vec::new();
    for (name, text) in &all {
        match run_sample(lab, name, text) {
            Ok(Verdict::Ran) => {}
            Ok(Verdict::Beyond(why)) => beyond.push(format!("{name}: {why}")),
            Err(Stop::Skip(why) | Stop::Fail(why)) => bad.push(format!("{name}: {why}")),
        }
    }
    if !bad.is_empty() {
        return Err(Stop::Fail(format!("{} of {} samples:\n{}", bad.len(), all.len(), bad.join("\n"))));
    }
    if lab.is("hull") && !beyond.is_empty() {
        return Err(Stop::Fail(format!("not run:\n{}", beyond.join("\n"))));
    }
    lab.say(&format!("{} of {} ran", all.len() - beyond.len(), all.len()));
    beyond.iter().for_each(|why| lab.say(&format!("not {why}")));
    Ok(())
}

enum Verdict {
    Ran,
    /// This host or this runtime cannot do what the sample asks.
    Beyond(String),
}

fn run_sample(lab: &Lab, name: &str, text: &str) -> Result<Verdict, Stop> {
    let spec: Value = serde_json::from_str(text)?;
    let mut notes = Vec::new();
    let b = adjust(lab, spec, &mut notes)?;
    if let Some(why) = beyond(lab, &b) {
        return Ok(Verdict::Beyond(why));
    }
    let output = lab.run(&b);
    if output.rc != 0 {
        return Err(Stop::Fail(format!("{output}\n  adjusted: {}", notes.join("; "))));
    }
    lab.say(&format!("{name} adjusted: {}", notes.join("; ")));
    Ok(Verdict::Ran)
}

/// What the other runtimes cannot do on a host like this (callers.md section 0); hull must.
fn beyond(lab: &Lab, b: &Bundle) -> Option<String> {
    if lab.is("hull") {
        return None;
    }
    if lab.is("crun") && !b.spec["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.0")) {
        return Some("crun refuses an ociVersion newer than 1.0".into());
    }
    let process = &b.spec["process"];
    let lacks = |name: &Value| {
        let index = hull_integration::bundle::CAPABILITIES.iter().position(|c| name == *c);
        index.is_none_or(|i| lab.host.capabilities & (1 << i) == 0)
    };
    if process["capabilities"]["effective"].as_array().is_some_and(|set| set.iter().any(lacks)) {
        return Some(format!("{} fails on a capability the caller lacks", lab.runtime.kind));
    }
    if !lab.host.has_sys_resource() {
        if process["oomScoreAdj"].as_i64().is_some_and(|score| score < 0) {
            return Some(format!("{} fails on an oomScoreAdj it may not lower to", lab.runtime.kind));
        }
        let above =
            |limit: &Value| limit["hard"].as_u64().is_some_and(|hard| hard > hard_limit(&limit["type"]));
        if process["rlimits"].as_array().is_some_and(|all| all.iter().any(above)) {
            return Some(format!("{} fails on a rlimit above the caller's", lab.runtime.kind));
        }
    }
    if has_idmap(&b.spec) && (lab.is("crun") || lab.runtime.version.starts_with("1.1")) {
        return Some(format!("{} does not take the option idmap without mappings", lab.runtime.kind));
    }
    None
}

fn has_idmap(spec: &Value) -> bool {
    let has = |m: &Value| m["options"].as_array().is_some_and(|o| o.iter().any(|o| o == "idmap"));
    spec["mounts"].as_array().is_some_and(|mounts| mounts.iter().any(has))
}

fn hard_limit(kind: &Value) -> u64 {
    let name = match kind.as_str() {
        Some("RLIMIT_NOFILE") => "Max open files",
        Some("RLIMIT_NPROC") => "Max processes",
        _ => return u64::MAX,
    };
    let table = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = table.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|w| w.parse().ok()).unwrap_or(u64::MAX)
}

/// Takes the config from its host to this one.
fn adjust(lab: &Lab, spec: Value, notes: &mut Vec<String>) -> Result<Bundle, Stop> {
    let mut b = lab.bundle();
    b.spec = spec;
    let path = lab.cgroups_path(&b.id);
    let rootfs = b.rootfs();
    let spec = &mut b.spec;
    spec["root"]["path"] = json!(rootfs);
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["process"]["terminal"] = json!(false);
    spec["linux"]["cgroupsPath"] = json!(path);
    notes.push("root.path, process.args, process.terminal, linux.cgroupsPath".into());
    if spec.as_object_mut().and_then(|s| s.remove("hooks")).is_some() {
        notes.push("hooks dropped".into());
    }
    for label in ["apparmorProfile", "selinuxLabel"] {
        if spec["process"].as_object_mut().and_then(|p| p.remove(label)).is_some() {
            notes.push(format!("{label} dropped"));
        }
    }
    namespaces(spec, notes);
    sources(lab, spec, notes)?;
    devices(spec, notes);
    resources(lab, spec, notes);
    if let Some(base) = spec["linux"]["uidMappings"][0]["hostID"].as_u64().filter(|base| *base > 0) {
        for entry in fs::read_dir(&rootfs)?.flatten().filter(|e| e.path().is_dir()) {
            std::os::unix::fs::chown(entry.path(), Some(base as u32), Some(base as u32))?;
        }
        std::os::unix::fs::chown(&rootfs, Some(base as u32), Some(base as u32))?;
    }
    Ok(b)
}

fn namespaces(spec: &mut Value, notes: &mut Vec<String>) {
    let list = spec["linux"]["namespaces"].as_array_mut();
    for entry in list.into_iter().flatten() {
        let missing = entry["path"].as_str().is_some_and(|p| !Path::new(p).exists());
        if let Some(path) = entry.as_object_mut().filter(|_| missing).and_then(|e| e.remove("path")) {
            notes.push(format!("a new namespace instead of {path}"));
        }
    }
}

/// A file for a bind source that is a file by its name, a directory for the others.
fn sources(lab: &Lab, spec: &mut Value, notes: &mut Vec<String>) -> TestResult {
    for entry in spec["mounts"].as_array_mut().into_iter().flatten() {
        let options = entry["options"].as_array().cloned().unwrap_or_default();
        let is_bind = entry["type"] == "bind" || options.iter().any(|o| o == "bind" || o == "rbind");
        let source = entry["source"].as_str().unwrap_or_default().to_owned();
        if !is_bind || Path::new(&source).exists() {
            continue;
        }
        let name = entry["destination"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let files = [
            "hosts",
            "hostname",
            "resolv.conf",
            ".containerenv",
            "docker-init",
            "catatonit",
            "init",
            "localtime",
            "podman-init",
            "mtab",
            "tini",
        ];
        let made = lab.next_path("source");
        if files.contains(&name) || source.contains("docker-init") || source.contains("catatonit") {
            fs::write(&made, "")?;
        } else {
            fs::create_dir(&made)?;
        }
        notes.push(format!("bind source {source}"));
        entry["source"] = json!(made);
    }
    Ok(())
}

/// Nodes this host does not have: a privileged config lists every device of its own host.
fn devices(spec: &mut Value, notes: &mut Vec<String>) {
    let Some(list) = spec["linux"]["devices"].as_array_mut() else { return };
    let before = list.len();
    list.retain(|d| d["path"].as_str().is_some_and(|p| Path::new(p).exists()));
    if list.len() < before {
        notes.push(format!("{} devices dropped", before - list.len()));
    }
}

/// Limits whose controller is not there, or whose device or cpu is not.
fn resources(lab: &Lab, spec: &mut Value, notes: &mut Vec<String>) {
    let Some(all) = spec["linux"]["resources"].as_object_mut() else { return };
    for (key, controller) in
        [("memory", "memory"), ("cpu", "cpu"), ("pids", "pids"), ("hugepageLimits", "hugetlb")]
    {
        if all.contains_key(key) && !lab.host.has_controller(controller) {
            all.remove(key);
            notes.push(format!("resources.{key} dropped: no controller"));
        }
    }
    if let Some(block) = all.get_mut("blockIO").and_then(Value::as_object_mut) {
        block.retain(|key, value| key == "weight" && value == &json!(0));
        notes.push("resources.blockIO devices dropped".into());
    }
    if let Some(cpu) = all.get_mut("cpu").and_then(Value::as_object_mut) {
        for key in ["cpus", "realtimeRuntime", "realtimePeriod"] {
            if cpu.remove(key).is_some() {
                notes.push(format!("resources.cpu.{key} dropped"));
            }
        }
    }
    if let Some(memory) = all.get_mut("memory").and_then(Value::as_object_mut) {
        for key in ["kernel", "kernelTCP", "swap"] {
            if memory.remove(key).is_some() {
                notes.push(format!("resources.memory.{key} dropped"));
            }
        }
    }
}
