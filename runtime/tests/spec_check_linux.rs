//! One row per value that the spec or runc refuses in mounts, hooks, devices, resources, sysctl and seccomp: the change
//! to a good config, the field named, words of the message. It reads no host. `cargo test` calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/config.rs"]
mod config;

use config::{passes, refused, set, warned, with};
use hull::spec;
use serde_json::{Value, json};

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
    refused_at(
        idmapped("none", "bind", &line, &Value::Null),
        "mounts[0].uidMappings",
        "needs both or neither",
    );
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
    refused(&with("/linux/sysctl", json!({"net.x": "1\n2"})), &field("net.x"), "multi-line value");
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
    refused(
        &device("fileMode", json!(0o200_000)),
        "linux.devices[0].fileMode",
        "has bits that are not file mode bits",
    );
    refused(&device("uid", json!(u32::MAX)), "linux.devices[0].uid", "valid id");

    let rule = |rule: Value| with("/linux/resources/devices", json!([rule]));
    passes(&rule(json!({"allow": true, "type": "", "major": -1, "access": "rwm"})));
    refused(&rule(json!({"allow": false})), "linux.resources.devices[0].access", "cannot be empty");
    refused(
        &rule(json!({"allow": false, "access": "x"})),
        "linux.resources.devices[0].access",
        "only r, w and m are allowed",
    );
    refused(
        &rule(json!({"allow": false, "access": "r", "type": "p"})),
        "linux.resources.devices[0].type",
        "cgroup device type \"p\"",
    );
    refused(
        &rule(json!({"allow": false, "access": "r", "minor": -2})),
        "linux.resources.devices[0].minor",
        "-1 for all",
    );
}

#[test]
fn resources() {
    let at = "/linux/resources";
    for size in ["2M", "02MB", "MB", "2mb", "../2MB", ""] {
        let limits = json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]});
        refused(&with(at, limits), "linux.resources.hugepageLimits[0].pageSize", "must have the form 64KB");
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
    refused(&with(at, json!({"rdma": {"a b": {}}})), "linux.resources.rdma[\"a b\"]", "not a device name");
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
    refused(&rule(json!({"action": "SCMP_ACT_ERRNO"})), &format!("{first}.names"), "required");
    refused(
        &rule(json!({"names": [], "action": "SCMP_ACT_ERRNO"})),
        &format!("{first}.names"),
        "names no system call",
    );

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
    for empty in [json!({}), json!({"defaultAction": ""}), json!({"defaultAction": "", "syscalls": []})] {
        refused(&with(at, empty), "linux.seccomp.defaultAction", "required");
    }
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
fn every_word_of_the_spec_is_known_to_oci_spec() {
    use spec::words;
    type Row = (&'static str, &'static [&'static str], fn(&str) -> Value);
    let lists: [Row; 11] = [
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

#[test]
fn values_that_no_kernel_means() {
    let rules = |name: &str, number: i64| {
        let mut rule = json!({"allow": true, "type": "c", "access": "r"});
        rule[name] = json!(number);
        with("/linux/resources", json!({"devices": [rule]}))
    };
    for (name, max) in [("major", 4095), ("minor", 1_048_575)] {
        let field = format!("linux.resources.devices[0].{name}");
        for number in [max + 1, 2_147_483_648, 4_294_967_295, -2] {
            refused(&rules(name, number), &field, "-1 for all");
        }
        passes(&rules(name, max));
        passes(&rules(name, -1));
    }
    let device = |device: Value| with("/linux/devices", json!([device]));
    let node = json!({"path": "/dev/x", "type": "c"});
    refused(&device(node), "linux.devices[0].major", "required");
    refused(
        &device(json!({"path": "/dev/x", "type": "b", "major": 5})),
        "linux.devices[0].minor",
        "required",
    );
    passes(&device(json!({"path": "/dev/x", "type": "c", "major": 5, "minor": 0})));
    passes(&device(json!({"path": "/dev/x", "type": "p"})));
    let resources = |resources: Value| with("/linux/resources", resources);
    let limit = |limit: Value| resources(json!({"hugepageLimits": [limit]}));
    refused(&limit(json!({"pageSize": "2MB"})), "linux.resources.hugepageLimits[0].limit", "required");
    refused(&limit(json!({"pageSize": "2MB", "limit": -1})), "linux.resources.hugepageLimits[0].limit", "-1");
    refused(&resources(json!({"pids": {"limit": -2}})), "linux.resources.pids.limit", "less than -1");
    refused(&resources(json!({"cpu": {"quota": -2}})), "linux.resources.cpu.quota", "less than -1");
    refused(&with("/process/ioPriority", json!({"priority": 3})), "process.ioPriority.class", "required");
    for name in ["hostname", "domainname"] {
        refused(&with(&format!("/{name}"), json!("a\nb")), name, "control character");
    }
    for path in [format!("/{}", "a/".repeat(2500)), "a".repeat(256)] {
        refused(&with("/linux/cgroupsPath", json!(path)), "linux.cgroupsPath", "bytes");
    }
}
