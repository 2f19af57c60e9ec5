//! The runtime spec as a table: every field of runtime-spec 1.3.0, what its value looks like, and what holds when it
//! is absent. It holds no code that decides; `fit` reads it on the failure path, the field-table test reads it whole.

use Absent::{Default, Fine, Refuse};
use Shape::{Bool, CpuList, I32, I64, List, Map, Obj, Other, Saturating, Text, U16, U32, U64, Word};

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Any string.
    Text,
    /// `true` or `false`.
    Bool,
    /// Whole numbers of a size.
    U16,
    U32,
    U64,
    I32,
    I64,
    /// A u64 of the spec that oci-spec keeps in an i64: larger numbers mean the same as the largest.
    Saturating,
    /// CPU numbers and ranges; the spec allows spaces and nothing, oci-spec does not.
    CpuList,
    /// A word of a closed list.
    Word(&'static Words),
    /// A list of such values.
    List(&'static Self),
    /// An object whose keys the user chooses.
    Map(&'static Self),
    /// An object with the spec's keys.
    Obj(&'static [Member]),
    /// A section for another platform: dropped unread.
    Other,
}

/// A closed list of words.
#[derive(Debug)]
pub(super) struct Words {
    /// The words of the spec.
    pub(super) known: &'static [&'static str],
    /// What an error calls such a word.
    pub(super) what: &'static str,
    /// An unknown word is dropped with a warning instead of refused.
    pub(super) droppable: bool,
}

/// One key of an object.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) absent: Absent,
}

/// What it means that a key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Nothing; the field is optional.
    Fine,
    /// oci-spec needs a value: this JSON is what an absent one means. `check` refuses it where the spec asks for one.
    Default(&'static str),
    /// The spec asks for it and no value stands for its absence.
    Refuse,
}

/// The members of an object: `name: shape`, then `required` or `or JSON` where absence is not fine. A macro and no
/// function, because only literals are promoted to `'static`.
macro_rules! obj {
    (@absent) => { Fine };
    (@absent required) => { Refuse };
    (@absent or $json:literal) => { Default($json) };
    ($($name:literal: $shape:expr $(, [$($absent:tt)+])?;)+) => {
        Obj(&[$(Member { name: $name, shape: $shape, absent: obj!(@absent $($($absent)+)?) }),+])
    };
}

const TEXTS: Shape = List(&Text);

/// The whole of config.json.
pub(super) const CONFIG: Shape = obj! {
    "ociVersion": Text;
    "process": PROCESS;
    "root": obj! { "path": Text; "readonly": Bool; };
    "hostname": Text;
    "domainname": Text;
    "mounts": List(&MOUNT);
    "hooks": HOOKS;
    "annotations": Map(&Text);
    "linux": LINUX;
    "solaris": Other;
    "windows": Other;
    "vm": Other;
    "zos": Other;
    "freebsd": Other;
};

/// `process`, and the whole of a process.json.
pub(super) const PROCESS: Shape = obj! {
    "terminal": Bool;
    "consoleSize": obj! { "height": U64; "width": U64; };
    "user": USER, [or "{}"];
    "args": TEXTS;
    "commandLine": Other;
    "env": TEXTS;
    "cwd": Text, [or "\"\""];
    "capabilities": CAPABILITIES;
    "rlimits": List(&RLIMITS);
    "noNewPrivileges": Bool;
    "apparmorProfile": Text;
    "oomScoreAdj": I32;
    "selinuxLabel": Text;
    "ioPriority": obj! { "class": Word(&IO_CLASS), [required]; "priority": I64; };
    "scheduler": SCHEDULER;
    "execCPUAffinity": obj! { "initial": CpuList; "final": CpuList; };
};

const RLIMITS: Shape = obj! { "type": Word(&RLIMIT), [required]; "hard": U64; "soft": U64; };

const USER: Shape = obj! {
    "uid": U32;
    "gid": U32;
    "umask": U32;
    "additionalGids": List(&U32);
    "username": Other;
};

const CAPABILITIES: Shape = obj! {
    "bounding": List(&Word(&CAPABILITY));
    "effective": List(&Word(&CAPABILITY));
    "inheritable": List(&Word(&CAPABILITY));
    "permitted": List(&Word(&CAPABILITY));
    "ambient": List(&Word(&CAPABILITY));
};

const SCHEDULER: Shape = obj! {
    "policy": Word(&POLICY), [required];
    "nice": I32;
    "priority": I32;
    "flags": List(&Word(&SCHEDULER_FLAG));
    "runtime": U64;
    "deadline": U64;
    "period": U64;
};

const MOUNT: Shape = obj! {
    "destination": Text, [or "\"\""];
    "type": Text;
    "source": Text;
    "options": TEXTS;
    "uidMappings": ID_MAPPINGS;
    "gidMappings": ID_MAPPINGS;
};

const ID_MAPPINGS: Shape = List(&obj! {
    "containerID": U32;
    "hostID": U32;
    "size": U32;
});

const HOOKS: Shape = obj! {
    "prestart": HOOK_LIST;
    "createRuntime": HOOK_LIST;
    "createContainer": HOOK_LIST;
    "startContainer": HOOK_LIST;
    "poststart": HOOK_LIST;
    "poststop": HOOK_LIST;
};

const HOOK_LIST: Shape = List(&obj! {
    "path": Text, [or "\"\""];
    "args": TEXTS;
    "env": TEXTS;
    "timeout": I64;
});

const LINUX: Shape = obj! {
    "namespaces": List(&obj! { "type": Word(&NAMESPACE), [required]; "path": Text; });
    "uidMappings": ID_MAPPINGS;
    "gidMappings": ID_MAPPINGS;
    "timeOffsets": Map(&obj! { "secs": I64; "nanosecs": U32; });
    "devices": List(&DEVICE);
    "netDevices": Map(&obj! { "name": Text; });
    "cgroupsPath": Text;
    "resources": RESOURCES;
    "rootfsPropagation": Text;
    "seccomp": SECCOMP;
    "sysctl": Map(&Text);
    "maskedPaths": TEXTS;
    "readonlyPaths": TEXTS;
    "mountLabel": Text;
    "personality": obj! { "domain": Word(&DOMAIN), [required]; "flags": TEXTS; };
    "intelRdt": INTEL_RDT;
    "memoryPolicy": MEMORY_POLICY;
};

const DEVICE: Shape = obj! {
    "type": Word(&DEVICE_TYPE), [required];
    "path": Text;
    "major": I64;
    "minor": I64;
    "fileMode": U32;
    "uid": U32;
    "gid": U32;
};

const INTEL_RDT: Shape = obj! {
    "closID": Text;
    "schemata": TEXTS;
    "l3CacheSchema": Text;
    "memBwSchema": Text;
    "enableMonitoring": Bool;
};

const MEMORY_POLICY: Shape = obj! {
    "mode": Word(&MEMORY_MODE), [required];
    "nodes": Text;
    "flags": List(&Word(&MEMORY_FLAG));
};

/// `linux.resources`, and the whole of what `update --resources` reads.
pub(super) const RESOURCES: Shape = obj! {
    "devices": List(&DEVICE_RULE);
    "memory": MEMORY;
    "cpu": CPU;
    "pids": obj! { "limit": I64; };
    "blockIO": BLOCK_IO;
    "hugepageLimits": List(&obj! { "pageSize": Text; "limit": Saturating; });
    "network": obj! { "classID": U32; "priorities": List(&obj! { "name": Text; "priority": U32; }); };
    "rdma": Map(&obj! { "hcaHandles": U32; "hcaObjects": U32; });
    "unified": Map(&Text);
};

const DEVICE_RULE: Shape = obj! {
    "allow": Bool;
    "type": Word(&RULE_TYPE);
    "major": I64;
    "minor": I64;
    "access": Text;
};

const MEMORY: Shape = obj! {
    "limit": I64;
    "reservation": I64;
    "swap": I64;
    "kernel": I64;
    "kernelTCP": I64;
    "swappiness": U64;
    "disableOOMKiller": Bool;
    "useHierarchy": Bool;
    "checkBeforeUpdate": Bool;
};

const CPU: Shape = obj! {
    "shares": U64;
    "quota": I64;
    "burst": U64;
    "period": U64;
    "realtimeRuntime": I64;
    "realtimePeriod": U64;
    "cpus": Text;
    "mems": Text;
    "idle": I64;
};

const THROTTLE: Shape = List(&obj! { "major": I64; "minor": I64; "rate": U64; });

const WEIGHT: Shape = obj! { "major": I64; "minor": I64; "weight": U16; "leafWeight": U16; };

const BLOCK_IO: Shape = obj! {
    "weight": U16;
    "leafWeight": U16;
    "weightDevice": List(&WEIGHT);
    "throttleReadBpsDevice": THROTTLE;
    "throttleWriteBpsDevice": THROTTLE;
    "throttleReadIOPSDevice": THROTTLE;
    "throttleWriteIOPSDevice": THROTTLE;
};

const SECCOMP: Shape = obj! {
    "defaultAction": Word(&ACTION), [required];
    "defaultErrnoRet": U32;
    "architectures": List(&Word(&ARCHITECTURE));
    "flags": List(&Word(&SECCOMP_FLAG));
    "listenerPath": Text;
    "listenerMetadata": Text;
    "syscalls": List(&SYSCALL);
};

const SYSCALL: Shape = obj! {
    "names": TEXTS, [required];
    "action": Word(&ACTION), [required];
    "errnoRet": U32;
    "args": List(&ARGUMENT);
};

const ARGUMENT: Shape = obj! {
    "index": U64, [required];
    "value": U64, [required];
    "valueTwo": U64;
    "op": Word(&OPERATOR), [required];
};

const fn closed(what: &'static str, known: &'static [&'static str]) -> Words {
    Words { known, what, droppable: false }
}

const CAPABILITY: Words = Words {
    what: "capability",
    known: super::words::CAPABILITIES,
    // config.md#linux-process: "any value which cannot be mapped to a relevant kernel interface […] MUST be logged
    // as a warning", not an error.
    droppable: true,
};

const ARCHITECTURE: Words = Words {
    what: "seccomp architecture",
    known: super::words::ARCHITECTURES,
    // A profile names every machine it is used on, and newer ones know more machines than we do.
    droppable: true,
};

const RLIMIT: Words = closed("rlimit type", super::words::RLIMITS);
const IO_CLASS: Words = closed("I/O priority class", super::words::IO_CLASSES);
const POLICY: Words = closed("scheduler policy", super::words::POLICIES);
const SCHEDULER_FLAG: Words = closed("scheduler flag", super::words::SCHEDULER_FLAGS);
const NAMESPACE: Words = closed("namespace type", super::words::NAMESPACES);
const DEVICE_TYPE: Words = closed("device type", &["c", "b", "u", "p"]);
const RULE_TYPE: Words = closed("cgroup device type", &["a", "c", "b"]);
const DOMAIN: Words = closed("personality domain", &["LINUX", "LINUX32"]);
const MEMORY_MODE: Words = closed("memory policy mode", super::words::MEMORY_MODES);
const MEMORY_FLAG: Words = closed("memory policy flag", super::words::MEMORY_FLAGS);
const ACTION: Words = closed("seccomp action", super::words::ACTIONS);
const SECCOMP_FLAG: Words = closed("seccomp flag", super::words::SECCOMP_FLAGS);
const OPERATOR: Words = closed("seccomp operator", super::words::OPERATORS);

/// Every field of a config.json by its path, with `[]` for any element and `{}` for any key: `mounts[].type`.
pub fn field_paths() -> Vec<String> {
    let mut out = Vec::new();
    paths(&CONFIG, "", &mut out);
    out
}

fn paths(shape: &Shape, prefix: &str, out: &mut Vec<String>) {
    match shape {
        Obj(members) => {
            for member in *members {
                let path = if prefix.is_empty() {
                    member.name.to_owned()
                } else {
                    format!("{prefix}.{}", member.name)
                };
                out.push(path.clone());
                paths(&member.shape, &path, out);
            }
        }
        List(item) => paths(item, &format!("{prefix}[]"), out),
        Map(value) => paths(value, &format!("{prefix}{{}}"), out),
        Text | Bool | U16 | U32 | U64 | I32 | I64 | Saturating | CpuList | Word(_) | Other => {}
    }
}
