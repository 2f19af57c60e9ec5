//! One row per value that the spec or runc refuses: the change to a good config, the field named, words of the message.
//! It runs no container and reads no host. `cargo test` calls it.

use hull::error::{Error, Warning};
use hull::spec;
use serde_json::{Value, json};

fn good() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["A=1", "B="],
            "cwd": "/",
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}],
        },
        "root": {"path": "rootfs"},
        "hostname": "h",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}],
            "resources": {},
        },
    })
}

/// The good config with `value` at `pointer`, whose parent must exist; `Null` removes.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = good();
    set(&mut config, pointer, value);
    config
}

fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Object(object) if value.is_null() => {
            object.remove(key);
        }
        Value::Object(object) => {
            object.insert(key.to_owned(), value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{parent} is a scalar"),
    }
}

fn verdict(config: &Value) -> Result<Vec<Warning>, Error> {
    let loaded = spec::parse(serde_json::to_vec_pretty(config).unwrap(), "config.json")?;
    let checked = spec::check(&loaded.spec).map_err(|error| loaded.source.point(error))?;
    Ok([loaded.warnings, checked].concat())
}

#[track_caller]
fn refused(config: &Value, field: &str, words: &str) {
    let error = verdict(config).expect_err(words);
    assert!(error.message.contains(words), "{words:?} is not in {error}");
    assert_eq!(error.field.as_ref().map(|f| f.as_str()), Some(field), "{error}");
    let at = error.at.expect("a place in the file");
    assert_eq!(at.file, "config.json");
}

#[track_caller]
fn passes(config: &Value) {
    assert_eq!(verdict(config).unwrap(), []);
}

#[track_caller]
fn warned(config: &Value, field: &str, words: &str) {
    let warnings = verdict(config).unwrap();
    assert!(
        warnings
            .iter()
            .any(|w| w.message.contains(words) && w.field.as_ref().is_some_and(|f| f.as_str() == field)),
        "{warnings:?}"
    );
}

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
    warned(&with("/process/user", json!({"umask": 1777})), "process.user.umask", "more than 0777");
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
        "beyond the last id",
    );
    refused(
        &user(json!([line(0, u32::MAX - 4, 6)]), one.clone()),
        "linux.uidMappings[0].hostID",
        "beyond the last id",
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
fn mounts() {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!([{"destination": destination, "type": kind, "source": "/src", "options": options}]);
    let refused_at =
        |mounts: Value, field: &str, words: &str| refused(&with("/mounts", mounts), field, words);
    refused_at(mount("", "tmpfs", &[]), "mounts[0].destination", "must not be empty");
    refused_at(json!([{"type": "tmpfs"}]), "mounts[0].destination", "must not be empty");
    refused_at(
        mount("/proc", "tmpfs", &[]),
        "mounts[0].destination",
        "\"/proc\" cannot be mounted because it is not of type proc",
    );
    refused_at(mount("/x/../proc/", "tmpfs", &[]), "mounts[0].destination", "not of type proc");
    for inside in ["/proc/self/fd", "/proc/sys", "//proc/./1", "/proc/cpuinfo/x", "proc/1"] {
        refused_at(
            mount(inside, "tmpfs", &["bind"]),
            "mounts[0].destination",
            "cannot be mounted because it is inside /proc",
        );
    }
    for fine in [
        mount("/proc", "bind", &["rbind"]),
        mount("/proc/meminfo", "bind", &["bind"]),
        mount("/process", "tmpfs", &[]),
    ] {
        passes(&with("/mounts", fine));
    }
    refused_at(mount("/x", "", &["ro"]), "mounts[0].type", "neither a type nor the option bind");
    refused_at(
        json!([{"destination": "/x", "type": "none", "options": ["bind"]}]),
        "mounts[0].source",
        "has no source",
    );
    warned(
        &with("/mounts", mount("data", "tmpfs", &[])),
        "mounts[0].destination",
        "is not absolute: /data is used",
    );

    let line = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    let idmapped = |kind: &str, option: &str, uids: &Value, gids: &Value| {
        let mut mounts = json!([{"destination": "/x", "type": kind, "source": "/s", "options": [option]}]);
        set(&mut mounts, "/0/uidMappings", uids.clone());
        set(&mut mounts, "/0/gidMappings", gids.clone());
        mounts
    };
    passes(&with("/mounts", idmapped("none", "bind", &line, &line)));
    refused_at(idmapped("none", "bind", &line, &Value::Null), "mounts[0].uidMappings", "needs both or none");
    refused_at(
        idmapped("tmpfs", "ro", &line, &line),
        "mounts[0].uidMappings",
        "only for mounts with the option 'bind'",
    );
    refused_at(mount("/x", "bind", &["bind", "idmap"]), "mounts[0].options", "or a user namespace");
}

#[test]
fn sysctls() {
    let key = |key: &str| json!({key: "1"});
    let field = |key: &str| format!("linux.sysctl[{key:?}]");
    for fine in [
        "kernel.shmmax",
        "fs.mqueue.msg_max",
        "net.ipv4.ip_forward",
        "net.ipv4.conf.eth0.rp_filter",
        "kernel.domainname",
    ] {
        passes(&with("/linux/sysctl", key(fine)));
    }
    for host in ["kernel.core_pattern", "vm.swappiness", "fs.file-max", "kernel"] {
        let words = format!("sysctl {host:?} is not in a separate kernel namespace");
        refused(&with("/linux/sysctl", key(host)), &field(host), &words);
    }
    refused(
        &with("/linux/sysctl", key("kernel.hostname")),
        &field("kernel.hostname"),
        "conflicts with the OCI \"hostname\" field",
    );
    for odd in [
        "net/ipv4/ip_forward",
        "net.../../kernel.core_pattern",
        "net..x",
        "net.ipv4.x+y",
        "net.x\ny",
        "net.x y",
        "",
        "net.",
        "net/../kernel/core_pattern",
    ] {
        refused(&with("/linux/sysctl", key(odd)), &field(odd), "is not a dotted name");
    }
    let mut config = with("/linux/namespaces", json!([{"type": "mount"}]));
    set(&mut config, "/hostname", Value::Null);
    for (name, words) in [
        ("net.core.somaxconn", "not allowed in host network namespace"),
        ("kernel.sem", "is not allowed in the hosts ipc namespace"),
        ("kernel.domainname", "is not in a separate kernel namespace"),
    ] {
        set(&mut config, "/linux/sysctl", key(name));
        refused(&config, &field(name), words);
    }
    refused(&with("/linux/sysctl", json!({"net.x": "1\n2"})), &field("net.x"), "several lines");
}

#[test]
fn devices() {
    let device = |key: &str, value: Value| {
        let mut devices = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 8630}]);
        set(&mut devices, &format!("/0/{key}"), value);
        with("/linux/devices", devices)
    };
    passes(&device("type", json!("u")));
    refused(&device("type", json!("q")), "linux.devices[0].type", "invalid device type \"q\"");
    refused(&device("type", json!("a")), "linux.devices[0].type", "invalid device type \"a\"");
    refused(&device("type", Value::Null), "linux.devices[0].type", "required");
    for path in ["", "dev/x", "/"] {
        refused(&device("path", json!(path)), "linux.devices[0].path", "must be absolute");
    }
    refused(&device("major", json!(-1)), "linux.devices[0].major", "0 to 4095");
    refused(&device("minor", json!(1 << 20)), "linux.devices[0].minor", "0 to 1048575");
    refused(&device("fileMode", json!(0o200_000)), "linux.devices[0].fileMode", "has bits no file has");
    refused(&device("uid", json!(u32::MAX)), "linux.devices[0].uid", "valid id");

    let rule = |rule: Value| with("/linux/resources/devices", json!([rule]));
    passes(&rule(json!({"allow": true, "type": "", "major": -1, "access": "rwm"})));
    refused(&rule(json!({"allow": false})), "linux.resources.devices[0].access", "cannot be empty");
    refused(
        &rule(json!({"allow": false, "access": "x"})),
        "linux.resources.devices[0].access",
        "known are r, w and m",
    );
    refused(
        &rule(json!({"allow": false, "access": "r", "type": "p"})),
        "linux.resources.devices[0].type",
        "cgroup device type \"p\"",
    );
    refused(
        &rule(json!({"allow": false, "access": "r", "minor": -2})),
        "linux.resources.devices[0].minor",
        "no device number",
    );
}

#[test]
fn resources() {
    let at = "/linux/resources";
    for size in ["2M", "02MB", "MB", "2mb", "../2MB", ""] {
        let limits = json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]});
        refused(&with(at, limits), "linux.resources.hugepageLimits[0].pageSize", "is not like 64KB");
    }
    passes(&with(at, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": u64::MAX}]})));
    refused(
        &with(at, json!({"unified": {"a/b": "1"}})),
        "linux.resources.unified[\"a/b\"]",
        "must be a file name (no slashes)",
    );
    refused(
        &with(at, json!({"unified": {"x": "1"}})),
        "linux.resources.unified[\"x\"]",
        "CONTROLLER.PARAMETER",
    );
    refused(&with(at, json!({"rdma": {"a b": {}}})), "linux.resources.rdma[\"a b\"]", "no device name");
    let priorities = json!({"network": {"priorities": [{"name": "a b", "priority": 1}]}});
    refused(
        &with(at, priorities),
        "linux.resources.network.priorities[0].name",
        "invalid network device name",
    );
    refused(&with(at, json!({"memory": {"limit": "1G"}})), "linux.resources.memory.limit", "is a string");
}

#[test]
fn paths() {
    refused(&with("/linux/maskedPaths", json!(["/a", "b"])), "linux.maskedPaths[1]", "must be absolute");
    refused(&with("/linux/readonlyPaths", json!([""])), "linux.readonlyPaths[0]", "must be absolute");
    refused(
        &with("/linux/rootfsPropagation", json!("x")),
        "linux.rootfsPropagation",
        "rootfsPropagation=x is not supported",
    );
    passes(&with("/linux/rootfsPropagation", json!("rslave")));
    refused(&with("/linux/cgroupsPath", json!("../../x")), "linux.cgroupsPath", "`..`");
    passes(&with("/linux/cgroupsPath", json!("system.slice:docker:abc")));
    refused(
        &with("/linux/intelRdt", json!({"closID": "a/b"})),
        "linux.intelRdt.closID",
        "invalid intelRdt.ClosID",
    );
    warned(
        &with("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]})),
        "linux.personality.flags",
        "are ignored",
    );
    refused(
        &with("/linux/personality", json!({"domain": "BSD"})),
        "linux.personality.domain",
        "invalid personality domain",
    );
    for (policy, field) in [
        (json!({"mode": "X"}), "linux.memoryPolicy.mode"),
        (json!({"mode": "MPOL_BIND", "flags": ["X"]}), "linux.memoryPolicy.flags[0]"),
    ] {
        refused(&with("/linux/memoryPolicy", policy), field, "invalid memory policy");
    }
}

#[test]
fn seccomp() {
    let rule =
        |rule: Value| with("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    let first = "linux.seccomp.syscalls[0]";
    passes(&rule(
        json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": [{"index": 5, "value": 1, "op": "SCMP_CMP_EQ"}]}),
    ));
    refused(
        &rule(json!({"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"})),
        &format!("{first}.names[1]"),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    );
    refused(
        &rule(json!({"names": [""], "action": "SCMP_ACT_KILL"})),
        &format!("{first}.names[0]"),
        "empty string is not a valid syscall",
    );
    refused(
        &rule(json!({"names": ["read"], "action": "SCMP_ACT_FOO"})),
        &format!("{first}.action"),
        "invalid seccomp action \"SCMP_ACT_FOO\"",
    );
    refused(&rule(json!({"names": ["read"]})), &format!("{first}.action"), "required");
    refused(
        &rule(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1})),
        &format!("{first}.errnoRet"),
        "returns no errno",
    );
    refused(
        &rule(
            json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}),
        ),
        &format!("{first}.args[0].index"),
        "arguments 0 to 5",
    );
    refused(
        &rule(
            json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "EQ"}]}),
        ),
        &format!("{first}.args[0].op"),
        "invalid seccomp operator \"EQ\"",
    );
    warned(&rule(json!({"action": "SCMP_ACT_ERRNO"})), &format!("{first}.names"), "names no system call");

    let at = "/linux/seccomp";
    refused(
        &with(at, json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        "linux.seccomp.defaultAction",
        "cannot be used as default action",
    );
    refused(
        &with(at, json!({"defaultAction": "SCMP_ACT_KILL", "flags": ["X"]})),
        "linux.seccomp.flags[0]",
        "invalid seccomp flag",
    );
    warned(
        &with(
            at,
            json!({"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_Z80"]}),
        ),
        "linux.seccomp.architectures[1]",
        "SCMP_ARCH_Z80",
    );
    refused(
        &with(at, json!({"defaultAction": "SCMP_ACT_KILL", "listenerMetadata": "x"})),
        "linux.seccomp.listenerMetadata",
        "without listenerPath",
    );
    warned(&with(at, json!({})), "linux.seccomp", "no filter is loaded");
    refused(
        &with(at, json!({"syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL"}]})),
        "linux.seccomp.defaultAction",
        "required",
    );
}

#[test]
fn hooks() {
    for list in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let hook = |hook: Value| with("/hooks", json!({list: [{"path": "/ok", "timeout": 1}, hook]}));
        let field = |name: &str| format!("hooks.{list}[1].{name}");
        passes(&hook(json!({"path": "/bin/true"})));
        refused(&hook(json!({"path": ""})), &field("path"), "must not be empty");
        refused(&hook(json!({})), &field("path"), "must not be empty");
        refused(&hook(json!({"path": "true"})), &field("path"), "must be absolute");
        for timeout in [0, -1] {
            refused(&hook(json!({"path": "/x", "timeout": timeout})), &field("timeout"), "greater than zero");
        }
    }
}

#[test]
fn a_process_alone_is_checked_by_the_same_rules() {
    let process = oci_spec::runtime::ProcessBuilder::default().cwd("x").build().unwrap();
    assert_eq!(spec::check_process(&process).unwrap_err().code, "cwd-relative");
}

#[test]
fn every_word_of_the_spec_is_known_to_oci_spec() {
    use spec::words;
    let lists: [(&str, &[&str], fn(&str) -> Value); 11] = [
        ("/process/capabilities", words::CAPABILITIES, |w| json!({"bounding": [w]})),
        ("/process/rlimits", words::RLIMITS, |w| json!([{"type": w, "soft": 1, "hard": 1}])),
        ("/process/ioPriority", words::IO_CLASSES, |w| json!({"class": w, "priority": 1})),
        ("/process/scheduler", words::POLICIES, |w| json!({"policy": w})),
        ("/process/scheduler", words::SCHEDULER_FLAGS, |w| json!({"policy": "SCHED_OTHER", "flags": [w]})),
        ("/linux/memoryPolicy", words::MEMORY_MODES, |w| json!({"mode": w})),
        ("/linux/memoryPolicy", words::MEMORY_FLAGS, |w| json!({"mode": "MPOL_BIND", "flags": [w]})),
        ("/linux/seccomp", words::ACTIONS, |w| json!({"defaultAction": w})),
        ("/linux/seccomp", words::SECCOMP_FLAGS, |w| json!({"defaultAction": "SCMP_ACT_KILL", "flags": [w]})),
        (
            "/linux/seccomp",
            words::ARCHITECTURES,
            |w| json!({"defaultAction": "SCMP_ACT_KILL", "architectures": [w]}),
        ),
        ("/linux/seccomp", words::OPERATORS, |w| {
            let arg = json!({"index": 0, "value": 1, "op": w});
            json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [arg]}]})
        }),
    ];
    for (pointer, words, value) in lists {
        for word in words {
            let bytes = serde_json::to_vec(&with(pointer, value(word))).unwrap();
            let loaded = spec::parse(bytes, "config.json").unwrap_or_else(|e| panic!("{word}: {e}"));
            assert_eq!(loaded.warnings, [], "{word}");
        }
    }
    for kind in words::NAMESPACES {
        let bytes = serde_json::to_vec(&with("/linux/namespaces", json!([{"type": kind}]))).unwrap();
        assert!(spec::parse(bytes, "config.json").is_ok(), "{kind}");
    }
}
