//! The `features` document of the runtime spec: what engines ask before they rely on something.
//! It may not probe, and it may claim only what works: each entry here has a test that uses it. `cli` calls it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::words;

/// `features.md`: the keys in the order runc prints them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// The oldest config accepted.
    pub oci_version_min: &'static str,
    /// The newest version whose every field docs/spec.md answers for.
    pub oci_version_max: &'static str,
    /// The hook lists that are run.
    pub hooks: &'static [&'static str],
    /// The mount options understood, sorted; all others go to the file system as data.
    pub mount_options: &'static [&'static str],
    /// What is particular to Linux.
    pub linux: Linux,
    /// Facts in runc's names, which engines read.
    pub annotations: BTreeMap<&'static str, &'static str>,
    /// Annotations of a config that can do harm: engines that take configs from others drop them.
    pub potentially_unsafe_config_annotations: &'static [&'static str],
}

/// `features-linux.md`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// Namespace types.
    pub namespaces: &'static [&'static str],
    /// Capabilities by number.
    pub capabilities: &'static [&'static str],
    /// Kinds of cgroup driven.
    pub cgroup: Cgroup,
    /// The filter compiler.
    pub seccomp: Seccomp,
    /// AppArmor profiles.
    pub apparmor: Switch,
    /// SELinux labels.
    pub selinux: Switch,
    /// Intel RDT.
    pub intel_rdt: IntelRdt,
    /// NUMA memory policy.
    pub memory_policy: MemoryPolicy,
    /// What mounts can do beyond mount(2).
    pub mount_extensions: MountExtensions,
    /// Moving network devices.
    pub net_devices: Switch,
}

/// `linux.cgroup`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the spec's own shape")]
pub struct Cgroup {
    /// Version 1 hierarchies.
    pub v1: bool,
    /// The unified hierarchy.
    pub v2: bool,
    /// The system's systemd as driver.
    pub systemd: bool,
    /// The user's systemd as driver.
    pub systemd_user: bool,
    /// The rdma controller.
    pub rdma: bool,
}

/// `linux.seccomp`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// Filters are loaded.
    pub enabled: bool,
    /// Actions of a rule, sorted.
    pub actions: Vec<&'static str>,
    /// Comparisons, sorted.
    pub operators: &'static [&'static str],
    /// Machines a filter is compiled for, sorted.
    pub archs: &'static [&'static str],
    /// Flags that are read, sorted.
    pub known_flags: &'static [&'static str],
    /// Flags that are handed to the kernel, sorted.
    pub supported_flags: &'static [&'static str],
}

/// A feature that is there or not.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Switch {
    /// It works.
    pub enabled: bool,
}

/// `linux.intelRdt`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdt {
    /// closID, l3CacheSchema and memBwSchema work.
    pub enabled: bool,
    /// schemata works.
    pub schemata: bool,
    /// enableMonitoring works.
    pub monitoring: bool,
}

/// `linux.memoryPolicy`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryPolicy {
    /// Modes that are set.
    pub modes: &'static [&'static str],
    /// Flags that are set.
    pub flags: &'static [&'static str],
}

/// `linux.mountExtensions`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MountExtensions {
    /// Idmapped mounts.
    pub idmap: Switch,
}

/// Options of `mounts[].options` that hull acts on itself, sorted.
pub const MOUNT_OPTIONS: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// Machines our filter compiler has system call tables for.
const ARCHS: &[&str] =
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

impl Features {
    /// What this build does. A capability that arrives changes its line here, and the caller may change a field.
    pub fn of_this_build() -> Self {
        Self {
            oci_version_min: "1.0.0",
            oci_version_max: "1.3.0",
            hooks: &[
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop",
            ],
            mount_options: MOUNT_OPTIONS,
            linux: Linux {
                namespaces: words::NAMESPACES,
                capabilities: words::CAPABILITIES,
                cgroup: Cgroup { v1: true, v2: true, systemd: false, systemd_user: false, rdma: false },
                seccomp: Seccomp {
                    enabled: true,
                    actions: words::ACTIONS
                        .iter()
                        .copied()
                        .filter(|action| *action != "SCMP_ACT_NOTIFY")
                        .collect(),
                    operators: words::OPERATORS,
                    archs: ARCHS,
                    known_flags: words::SECCOMP_FLAGS,
                    supported_flags: words::SECCOMP_FLAGS,
                },
                apparmor: Switch { enabled: true },
                selinux: Switch { enabled: false },
                intel_rdt: IntelRdt { enabled: false, schemata: false, monitoring: false },
                memory_policy: MemoryPolicy { modes: &[], flags: &[] },
                mount_extensions: MountExtensions { idmap: Switch { enabled: true } },
                net_devices: Switch { enabled: false },
            },
            annotations: BTreeMap::from([("org.opencontainers.runc.checkpoint.enabled", "false")]),
            potentially_unsafe_config_annotations: &["bundle", "org.systemd.property.", "org.criu.config"],
        }
    }

    /// The document with four spaces of indent and a newline at the end, as runc prints it.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
        match self.serialize(&mut serializer) {
            // Plain data into a Vec cannot fail; an empty document would be a bug that the tests see.
            Err(_) => String::new(),
            Ok(()) => {
                out.push(b'\n');
                String::from_utf8(out).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_json_with_what_cri_o_and_containerd_look_for() {
        let text = Features::of_this_build().to_json();
        assert!(
            text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": \"1.3.0\",\n"),
            "{text}"
        );
        assert!(text.ends_with("}\n"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["mountOptions"].as_array().unwrap().contains(&"rro".into()));
        assert_eq!(value["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!(value["linux"]["intelRdt"]["enabled"], false);
        assert_eq!(value["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "false");
    }

    #[test]
    fn every_list_is_sorted_but_those_with_an_order_of_their_own() {
        let features = Features::of_this_build();
        let lists = [
            features.mount_options,
            features.linux.namespaces,
            features.linux.seccomp.operators,
            features.linux.seccomp.archs,
            features.linux.seccomp.known_flags,
            &features.linux.seccomp.actions,
        ];
        for list in lists {
            assert!(list.is_sorted(), "{list:?}");
        }
    }

    #[test]
    fn nothing_is_claimed_that_is_not_done() {
        let features = Features::of_this_build();
        assert!(!features.linux.seccomp.actions.contains(&"SCMP_ACT_NOTIFY"));
        assert!(
            !features.linux.cgroup.systemd
                && !features.linux.selinux.enabled
                && !features.linux.net_devices.enabled
        );
    }

    #[test]
    fn oci_specs_own_type_reads_it() {
        let text = Features::of_this_build().to_json();
        let read: oci_spec::runtime::Features = serde_json::from_str(&text).unwrap();
        assert_eq!(read.oci_version_max(), "1.3.0");
    }
}
