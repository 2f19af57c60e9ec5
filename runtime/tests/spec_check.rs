//! One row per value that the spec or runc refuses in the process, the namespaces and the ids: the change to a good
//! config, the field named, words of the message. It runs no container and reads no host. `cargo test` calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/config.rs"]
mod config;

use config::{good, passes, refused, set, warned, with};
use hull::error::ErrorKind;
use hull::spec;
use serde_json::{Value, json};

#[test]
fn the_good_config_passes() {
    passes(&good());
}

#[test]
fn versions() {
    for version in ["", "abc", "99.0.0", "9.9.9"] {
        refused(&with("/ociVersion", json!(version)), "ociVersion", "ociVersion");
    }
    refused(&with("/ociVersion", Value::Null), "ociVersion", "missing");
    passes(&with("/ociVersion", json!("1.0.2-dev")));
}

#[test]
fn process_and_root() {
    refused(&with("/process", Value::Null), "process", "process property must not be empty");
    refused(&with("/process/args", json!([])), "process.args", "args must not be empty");
    refused(&with("/process/args", Value::Null), "process.args", "args must not be empty");
    refused(&with("/process/cwd", json!("tmp")), "process.cwd", "Cwd must be an absolute path");
    refused(&with("/process/cwd", json!("")), "process.cwd", "Cwd property must not be empty");
    refused(&with("/process/cwd", Value::Null), "process.cwd", "Cwd property must not be empty");
    refused(
        &with("/process/env", json!(["A=1", "B"])),
        "process.env[1]",
        "invalid environment variable: missing '='",
    );
    refused(&with("/process/env", json!(["=1"])), "process.env[0]", "name cannot be empty");
    refused(&with("/root", Value::Null), "root", "root must be specified");
    refused(&with("/root/path", json!("")), "root.path", "must not be empty");
    warned(&with("/process/user", Value::Null), "process.user", "is missing");
    warned(&with("/process/user", json!({"umask": 1777})), "process.user.umask", "above 0777");
}

#[test]
fn ids() {
    for (pointer, field) in
        [("/process/user/uid", "process.user.uid"), ("/process/user/gid", "process.user.gid")]
    {
        for bad in [
            json!(-1),
            json!(4_294_967_296_u64),
            json!(u64::MAX),
            json!("0"),
            json!(true),
            json!(1.0),
            json!([]),
        ] {
            refused(&with(pointer, bad), field, "must be a whole number from 0 to 4294967295");
        }
        refused(&with(pointer, json!(u32::MAX)), field, "is not a valid id");
        for fine in [0_u32, 1 << 31, u32::MAX - 1] {
            passes(&with(pointer, json!(fine)));
        }
    }
    refused(
        &with("/process/user/additionalGids", json!([1, u32::MAX])),
        "process.user.additionalGids[1]",
        "valid id",
    );
    refused(
        &with("/process/user/additionalGids", json!([-1])),
        "process.user.additionalGids[0]",
        "whole number",
    );
}

#[test]
fn limits_and_numbers_of_the_process() {
    let limit = |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    let at = "/process/rlimits";
    refused(
        &with(at, json!([limit("RLIMIT_CPU", 1, 1), limit("RLIMIT_CPU", 2, 2)])),
        "process.rlimits[1]",
        "twice",
    );
    refused(&with(at, json!([limit("RLIMIT_CPU", 2, 1)])), "process.rlimits[0]", "above the hard limit");
    refused(
        &with(at, json!([limit("RLIMIT_FOO", 1, 1)])),
        "process.rlimits[0].type",
        "invalid rlimit type \"RLIMIT_FOO\"",
    );
    passes(&with(at, json!([limit("RLIMIT_CPU", u64::MAX, u64::MAX)])));
    refused(&with("/process/oomScoreAdj", json!(1001)), "process.oomScoreAdj", "-1000 to 1000");
    refused(
        &with("/process/consoleSize", json!({"height": 65536, "width": 1})),
        "process.consoleSize.height",
        "65535",
    );
    let priority = |class: &str, priority: i64| json!({"class": class, "priority": priority});
    refused(
        &with("/process/ioPriority", priority("IOPRIO_CLASS_BE", 8)),
        "process.ioPriority.priority",
        "0 to 7",
    );
    refused(
        &with("/process/ioPriority", priority("IDLE", 0)),
        "process.ioPriority.class",
        "invalid I/O priority class",
    );
}

#[test]
fn schedulers() {
    let at = "/process/scheduler";
    let policy = |policy: &str, key: &str, value: i64| json!({"policy": policy, key: value});
    refused(
        &with(at, policy("SCHED_OTHER", "nice", 20)),
        "process.scheduler.nice",
        "invalid scheduler.nice: 20",
    );
    refused(
        &with(at, policy("SCHED_OTHER", "priority", 1)),
        "process.scheduler.priority",
        "only be specified for SchedFIFO",
    );
    refused(&with(at, policy("SCHED_FIFO", "priority", 100)), "process.scheduler.priority", "1 to 99");
    refused(
        &with(at, policy("SCHED_BATCH", "runtime", 1)),
        "process.scheduler.runtime",
        "SchedDeadline policy",
    );
    refused(
        &with(at, policy("SCHED_FOO", "nice", 1)),
        "process.scheduler.policy",
        "invalid scheduler policy",
    );
    refused(&with(at, json!({"nice": 1})), "process.scheduler.policy", "required");
    passes(&with(
        at,
        json!({"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_DL_OVERRUN"], "runtime": 1, "deadline": 2}),
    ));
    refused(
        &with(at, json!({"policy": "SCHED_RR", "flags": ["X"]})),
        "process.scheduler.flags[0]",
        "invalid scheduler flag",
    );
}

#[test]
fn capabilities() {
    let at = "/process/capabilities";
    refused(
        &with(at, json!({"effective": ["CAP_CHOWN"]})),
        "process.capabilities.effective",
        "CAP_CHOWN is not permitted",
    );
    let ambient = json!({"permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]});
    warned(&with(at, ambient), "process.capabilities.ambient", "can't raise ambient capability CAP_CHOWN: ");
    let unknown = json!({"bounding": ["CAP_CHOWN", "CAP_FOO", "CAP_KILL", "chown"]});
    warned(
        &with(at, unknown.clone()),
        "process.capabilities.bounding[1]",
        "unknown capability \"CAP_FOO\" is ignored",
    );
    warned(
        &with(at, unknown.clone()),
        "process.capabilities.bounding[3]",
        "unknown capability \"chown\" is ignored",
    );
    let bytes = serde_json::to_vec(&with(at, unknown)).unwrap();
    let loaded = spec::parse(bytes, "config.json").unwrap();
    let process = loaded.spec.process().as_ref().unwrap();
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 2);
}

#[test]
fn namespaces() {
    let at = "/linux/namespaces";
    refused(
        &with(at, json!([{"type": "mount"}, {"type": "mount"}])),
        "linux.namespaces[1]",
        "duplicated ns mount",
    );
    refused(&with(at, json!([{"type": "uts"}])), "linux.namespaces", "needs a mount namespace");
    refused(&with("/linux", Value::Null), "linux.namespaces", "needs a mount namespace");
    refused(
        &with(at, json!([{"type": "foo"}])),
        "linux.namespaces[0].type",
        "invalid namespace type \"foo\"",
    );
    refused(&with(at, json!([{"path": "/x"}])), "linux.namespaces[0].type", "required");
    refused(
        &with(at, json!([{"type": "mount", "path": "x"}])),
        "linux.namespaces[0].path",
        "must be absolute",
    );
    let mut config = with(at, json!([{"type": "mount"}]));
    refused(&config, "hostname", "unable to set hostname without a private UTS namespace");
    set(&mut config, "/hostname", Value::Null);
    passes(&config);
    set(&mut config, "/domainname", json!("d"));
    refused(&config, "domainname", "unable to set domainname without a private UTS namespace");
    refused(&with("/hostname", json!("h".repeat(65))), "hostname", "65 bytes");
}

#[test]
fn clocks_and_network_devices() {
    refused(
        &with("/linux/timeOffsets", json!({"monotonic": {"secs": 1}})),
        "linux.timeOffsets",
        "time namespace",
    );
    let mut config = with("/linux/namespaces/-", json!({"type": "time"}));
    set(&mut config, "/linux/timeOffsets", json!({"monotonic": {"secs": -1, "nanosecs": 5}}));
    passes(&config);
    set(&mut config, "/linux/timeOffsets", json!({"realtime": {"secs": 1}}));
    refused(&config, "linux.timeOffsets.realtime", "clock \"realtime\"");
    set(&mut config, "/linux/timeOffsets", json!({"boottime": {"nanosecs": 1_000_000_000}}));
    refused(&config, "linux.timeOffsets.boottime.nanosecs", "below 1000000000");

    let at = "/linux/netDevices";
    passes(&with(at, json!({"eth1": {"name": "eth0"}, "eth2": {}})));
    refused(&with(at, json!({"eth/1": {}})), "linux.netDevices[\"eth/1\"]", "invalid network device name");
    refused(
        &with(at, json!({"eth1": {"name": "a".repeat(16)}})),
        "linux.netDevices[\"eth1\"]",
        "invalid network device name",
    );
    refused(
        &with(at, json!({"eth1": {"name": "x"}, "eth2": {"name": "x"}})),
        "linux.netDevices[\"eth2\"]",
        "twice",
    );
    let mut config = with(at, json!({"eth1": {}}));
    set(&mut config, "/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}]));
    refused(&config, "linux.netDevices", "without a private NET namespace");
}

#[test]
fn mappings() {
    let line = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    refused(
        &with("/linux/uidMappings", json!([line(0, 1, 1)])),
        "linux.uidMappings",
        "USER namespace isn't enabled",
    );
    let user = |uids: Value, gids: Value| {
        let mut config = with("/linux/namespaces/-", json!({"type": "user"}));
        set(&mut config, "/linux/uidMappings", uids);
        set(&mut config, "/linux/gidMappings", gids);
        config
    };
    let one = json!([line(0, 100, 10)]);
    passes(&user(one.clone(), one.clone()));
    passes(&user(json!([line(0, 0, u32::MAX)]), one.clone()));
    refused(&user(Value::Null, Value::Null), "linux.uidMappings", "no uid mappings found");
    refused(&user(one.clone(), Value::Null), "linux.gidMappings", "no gid mappings found");
    refused(&user(json!([line(0, 1, 0)]), one.clone()), "linux.uidMappings[0].size", "maps nothing");
    refused(
        &user(json!([line(u32::MAX, 1, 1)]), one.clone()),
        "linux.uidMappings[0].containerID",
        "beyond the last ID",
    );
    refused(
        &user(json!([line(0, u32::MAX - 4, 6)]), one.clone()),
        "linux.uidMappings[0].hostID",
        "beyond the last ID",
    );
    refused(
        &user(json!([line(0, 1, 5), line(4, 100, 1)]), one.clone()),
        "linux.uidMappings[1]",
        "earlier mapping",
    );
    refused(
        &user(json!([line(0, 1, 5), line(10, 5, 1)]), one.clone()),
        "linux.uidMappings[1]",
        "earlier mapping",
    );
    let many: Vec<Value> = (0..341).map(|n| line(n, n, 1)).collect();
    refused(&user(one.clone(), json!(many)), "linux.gidMappings", "341 mappings");
    refused(&user(json!([{"hostID": "1"}]), one.clone()), "linux.uidMappings[0].hostID", "is a string");
    let mut joined = with("/linux/namespaces/-", json!({"type": "user", "path": "/proc/1/ns/user"}));
    passes(&joined);
    set(&mut joined, "/linux/uidMappings", one);
    passes(&joined);
}

#[test]
fn a_process_alone_is_checked_by_the_same_rules() {
    let process = oci_spec::runtime::ProcessBuilder::default().cwd("x").build().unwrap();
    assert_eq!(spec::check_process(&process).unwrap_err().kind, ErrorKind::CwdRelative);
}
