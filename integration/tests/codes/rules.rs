//! The rules of the specification: each broken once, in a config.json that is otherwise good.

use super::{Case, Plan};
use hull_integration::Bundle;
use serde_json::{Value, json};

pub(super) const CASES: &[Case] = &[
    ("oci-version", Plan(|b| b.set("/ociVersion", json!("2.0.0")))),
    ("oci-version-newer", Plan(|b| b.set("/ociVersion", json!("1.99.0")))),
    ("args-empty", Plan(|b| b.args(&[]))),
    ("cwd-empty", Plan(|b| b.set("/process/cwd", json!("")))),
    ("cwd-relative", Plan(|b| b.set("/process/cwd", json!("tmp")))),
    ("env-invalid", Plan(|b| b.set("/process/env", json!(["SAUSAGE"])))),
    ("id-invalid", Plan(|b| b.set("/process/user/uid", json!(u32::MAX)))),
    ("umask", Plan(|b| b.set("/process/user/umask", json!(0o1022)))),
    ("rlimit-duplicate", Plan(|b| b.push("/process/rlimits", rlimit(1, 1)))),
    ("rlimit-order", Plan(|b| b.set("/process/rlimits", json!([rlimit(2, 1)])))),
    ("capability-not-permitted", Plan(|b| b.set("/process/capabilities/permitted", json!([])))),
    ("capability-ambient", Plan(|b| b.set("/process/capabilities/ambient", json!(["CAP_KILL"])))),
    ("scheduler", Plan(|b| b.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 5})))),
    ("scheduler-flag", Plan(|b| b.set("/process/scheduler", clamped()))),
    ("oom-score-adj", Plan(|b| b.set("/process/oomScoreAdj", json!(1001)))),
    (
        "io-priority",
        Plan(|b| b.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}))),
    ),
    ("console-size", Plan(|b| b.set("/process/consoleSize", json!({"height": 65536, "width": 80})))),
    ("root-missing", Plan(|b| b.remove("/root"))),
    ("root-path-empty", Plan(|b| b.set("/root/path", json!("")))),
    ("hostname-control", Plan(|b| b.set("/hostname", json!("a\tb")))),
    ("hostname-too-long", Plan(|b| b.set("/hostname", json!("a".repeat(65))))),
    ("uts-namespace-missing", Plan(|b| b.without_namespace("uts"))),
    ("user-namespace-missing", Plan(|b| b.set("/linux/uidMappings", json!([map(0, 0, 1)])))),
    ("net-namespace-missing", Plan(|b| net_device(b, "eth0").without_namespace("network"))),
    ("net-device-name", Plan(|b| net_device(b, "a/b"))),
    ("not-yet-supported", Plan(|b| net_device(b, "eth0"))),
    ("time-namespace-missing", Plan(|b| clock(b, "monotonic", 0))),
    ("time-clock-unknown", Plan(|b| clock(b, "sundial", 0).namespace("time", None))),
    ("time-nanosecs", Plan(|b| clock(b, "monotonic", 1_000_000_000).namespace("time", None))),
    ("time-offsets", Plan(|b| clock(b, "monotonic", 0).namespace("time", Some("/proc/self/ns/time")))),
    ("mount-namespace-missing", Plan(|b| b.without_namespace("mount"))),
    ("namespace-duplicate", Plan(|b| b.push("/linux/namespaces", json!({"type": "pid"})))),
    ("namespace-path-relative", Plan(|b| b.namespace("pid", Some("ns/pid")))),
    ("id-mappings-missing", Plan(|b| b.namespace("user", None))),
    ("id-mappings-many", Plan(|b| maps(b, (0..341).map(|id| map(id, id, 1)).collect()))),
    ("id-mapping-empty", Plan(|b| maps(b, json!([map(0, 0, 0)])))),
    ("id-mapping-range", Plan(|b| maps(b, json!([map(0, u32::MAX - 1, 2)])))),
    ("id-mapping-overlap", Plan(|b| maps(b, json!([map(0, 0, 2), map(1, 9, 1)])))),
    ("id-mapping-root", Plan(|b| maps(b, json!([map(1, 1, 1)])))),
    ("mount-destination-empty", Plan(|b| b.mount("tmpfs", "tmpfs", "", &[]))),
    ("mount-destination-relative", Plan(|b| b.mount("tmpfs", "tmpfs", "mnt", &[]))),
    ("mount-proc", Plan(|b| b.mount("tmpfs", "tmpfs", "/proc/sys", &[]))),
    ("mount-type-missing", Plan(|b| b.mount("", "tmpfs", "/mnt", &[]))),
    ("mount-source-empty", Plan(|b| b.mount("bind", "", "/mnt", &["bind"]))),
    ("mount-mappings", Plan(|b| b.mount("bind", "/etc", "/mnt", &["bind", "idmap"]))),
    ("mount-on-root", Plan(|b| b.mount("tmpfs", "tmpfs", "/", &[]))),
    ("mount-option-unused", Plan(|b| b.mount("bind", "/etc", "/mnt", &["bind", "sync"]))),
    ("mount-remount", Plan(|b| b.mount("bind", "/etc", "/mnt", &["bind", "remount"]))),
    ("mask-root", Plan(|b| b.set("/linux/maskedPaths", json!(["/"])))),
    ("path-relative", Plan(|b| b.set("/linux/maskedPaths", json!(["etc"])))),
    ("propagation-unknown", Plan(|b| b.set("/linux/rootfsPropagation", json!("sausage")))),
    ("cgroups-path", Plan(|b| b.set("/linux/cgroupsPath", json!("../other")))),
    ("cgroups-path-systemd", Plan(|b| b.set("/linux/cgroupsPath", json!("system.slice:hull:box")))),
    ("intel-rdt-clos-id", Plan(|b| b.set("/linux/intelRdt", json!({"closID": ".."})))),
    ("sysctl-key", Plan(|b| sysctl(b, "net/core", "1"))),
    ("sysctl-value", Plan(|b| sysctl(b, "net.core.somaxconn", "1\n2"))),
    ("sysctl-not-namespaced", Plan(|b| sysctl(b, "vm.swappiness", "60"))),
    ("personality-flags", Plan(|b| b.set("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]})))),
    ("device-path", Plan(|b| device(b, json!({"path": "null", "type": "c", "major": 1, "minor": 3})))),
    ("device-type", Plan(|b| device(b, json!({"path": "/dev/x", "type": "a", "major": 1, "minor": 3})))),
    ("device-number", Plan(|b| device(b, json!({"path": "/dev/x", "type": "c", "major": 4096, "minor": 3})))),
    ("device-mode", Plan(|b| device(b, json!({"path": "/dev/x", "type": "p", "fileMode": 0o200_000})))),
    ("device-access", Plan(|b| b.set("/linux/resources/devices", json!([{"allow": true, "access": "x"}])))),
    ("device-rule", Plan(hole)),
    ("hook-path", Plan(|b| hook(b, json!({"path": "true"})))),
    ("hook-timeout", Plan(|b| hook(b, json!({"path": "/bin/true", "timeout": 0})))),
    ("hugepage-limit", Plan(|b| resource(b, "hugepageLimits", json!([{"pageSize": "2MB", "limit": -1}])))),
    ("hugepage-size", Plan(|b| resource(b, "hugepageLimits", json!([{"pageSize": "2", "limit": 1}])))),
    ("limit-negative", Plan(|b| resource(b, "pids", json!({"limit": -2})))),
    ("unified-key", Plan(|b| resource(b, "unified", json!({"memory": "1"})))),
    ("rdma-device", Plan(|b| resource(b, "rdma", json!({"a b": {"hcaHandles": 1}})))),
    ("seccomp-arg", Plan(|b| on_mkdir(b, json!({"args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]})))),
    ("seccomp-conflict", Plan(conflict)),
    ("seccomp-errno", Plan(|b| on_mkdir(b, json!({"errnoRet": 70_000})))),
    ("seccomp-errno-unused", Plan(|b| on_mkdir(b, json!({"action": "SCMP_ACT_KILL", "errnoRet": 1})))),
    ("seccomp-flag", Plan(|b| seccomp(b, json!({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]})))),
    ("seccomp-listener", Plan(|b| seccomp(b, json!({"listenerMetadata": "x"})))),
    ("seccomp-names", Plan(|b| on_mkdir(b, json!({"names": []})))),
    ("seccomp-notify", Plan(|b| seccomp(b, json!({"defaultAction": "SCMP_ACT_NOTIFY"})))),
    ("seccomp-notify-unsupported", Plan(|b| on_mkdir(b, json!({"action": "SCMP_ACT_NOTIFY"})))),
    ("seccomp-start", Plan(|b| seccomp(b, json!({"defaultAction": "SCMP_ACT_ERRNO"})))),
    (
        "seccomp-too-large",
        Plan(|b| seccomp(b, json!({"syscalls": (1..3000).map(on_value).collect::<Vec<_>>()}))),
    ),
    ("seccomp-unknown-names", Plan(|b| on_mkdir(b, json!({"names": ["sausage"]})))),
];

fn rlimit(soft: u32, hard: u32) -> Value {
    json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard})
}

fn clamped() -> Value {
    json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"]})
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!({"containerID": inside, "hostID": outside, "size": size})
}

fn maps(b: Bundle, maps: Value) -> Bundle {
    b.namespace("user", None).set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps)
}

fn net_device(b: Bundle, name: &str) -> Bundle {
    b.edit(|spec| spec["linux"]["netDevices"] = json!({name: {}}))
}

fn clock(b: Bundle, name: &str, nanosecs: u32) -> Bundle {
    b.edit(|spec| spec["linux"]["timeOffsets"] = json!({name: {"secs": 1, "nanosecs": nanosecs}}))
}

fn sysctl(b: Bundle, key: &str, value: &str) -> Bundle {
    b.edit(|spec| spec["linux"]["sysctl"] = json!({key: value}))
}

fn device(b: Bundle, device: Value) -> Bundle {
    b.push("/linux/devices", device)
}

/// One device taken out of many that are allowed.
fn hole(b: Bundle) -> Bundle {
    let rule = |allow: bool, major: i32| json!({"allow": allow, "type": "c", "major": major, "access": "r"});
    b.push("/linux/resources/devices", rule(true, -1)).push("/linux/resources/devices", rule(false, 7))
}

fn hook(b: Bundle, hook: Value) -> Bundle {
    b.push("/hooks/poststop", hook)
}

fn resource(b: Bundle, name: &str, value: Value) -> Bundle {
    b.edit(|spec| spec["linux"]["resources"][name] = value)
}

/// A filter that allows everything, with other values.
fn seccomp(b: Bundle, other: Value) -> Bundle {
    b.set("/linux/seccomp", merged(json!({"defaultAction": "SCMP_ACT_ALLOW"}), other))
}

/// A rule that denies mkdir(2), with other values.
fn on_mkdir(b: Bundle, other: Value) -> Bundle {
    let rule = merged(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}), other);
    seccomp(b, json!({"syscalls": [rule]}))
}

fn on_value(value: u64) -> Value {
    let argument = json!({"index": 0, "value": value << 32 | value, "op": "SCMP_CMP_EQ"});
    json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [argument]})
}

/// Two rules with the same condition and different actions.
fn conflict(b: Bundle) -> Bundle {
    seccomp(b, json!({"syscalls": [on_value(1), merged(on_value(1), json!({"action": "SCMP_ACT_KILL"}))]}))
}

fn merged(mut value: Value, other: Value) -> Value {
    if let (Value::Object(value), Value::Object(mut other)) = (&mut value, other) {
        value.append(&mut other);
    }
    value
}
