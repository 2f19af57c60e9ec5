//! A bundle: config.json as a value, and a busybox root file system. The config starts as what `spec` writes,
//! without a terminal and with a writable root.

use crate::Lab;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What `spec` writes.
pub const TEMPLATE: &str = include_str!("../data/template.json");

/// A bundle on disk; config.json is written when a container is made from it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Bundle {
    /// The bundle directory.
    pub dir: PathBuf,
    /// The id of the container made from it.
    pub id: String,
    /// config.json.
    pub spec: Value,
}

impl Bundle {
    pub(crate) fn new(lab: &Lab) -> Self {
        let dir = lab.next_path("bundle");
        let id = lab.new_id();
        populate(lab, &dir.join("rootfs"));
        let mut spec: Value = serde_json::from_str(TEMPLATE).expect("the template is JSON");
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["root"]["readonly"] = json!(false);
        spec["hostname"] = json!("box");
        spec["linux"]["cgroupsPath"] = json!(lab.cgroups_path(&id));
        Self { dir, id, spec }
    }

    /// A second bundle over the same root file system, with an id of its own.
    pub fn sibling(&self, lab: &Lab) -> Self {
        let mut other = Self { dir: lab.next_path("bundle"), id: lab.new_id(), spec: self.spec.clone() };
        fs::create_dir_all(&other.dir).expect("create a bundle directory");
        other.spec["root"]["path"] = json!(self.rootfs());
        other.spec["linux"]["cgroupsPath"] = json!(lab.cgroups_path(&other.id));
        other
    }

    /// The root file system on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// A path of the container on the host. The container must not have replaced it by a symlink.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.rootfs().join(inside.trim_start_matches('/'))
    }

    /// `process.args`.
    pub fn args(self, args: &[&str]) -> Self {
        self.set("/process/args", json!(args))
    }

    /// `process.args` as a shell script.
    pub fn sh(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A process that stays until it is told to go: it ends on TERM, unlike a plain `sleep` as pid 1.
    pub fn waits(self) -> Self {
        self.sh("trap 'exit 0' TERM; while :; do sleep 0.05; done")
    }

    /// Sets the value at a JSON pointer and makes the objects on the way.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.spec;
        for step in pointer.trim_start_matches('/').split('/') {
            let step = step.replace("~1", "/").replace("~0", "~");
            at = match step.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                _ => &mut at[step.as_str()],
            };
        }
        *at = value;
        self
    }

    /// Appends to the array at a JSON pointer, which may be missing.
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        match self.spec.pointer_mut(pointer).and_then(Value::as_array_mut) {
            Some(list) => list.push(value),
            None => return self.set(pointer, json!([value])),
        }
        self
    }

    /// Removes the value at a JSON pointer.
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        match self.spec.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.remove(key)),
            Some(Value::Array(list)) => drop(list.remove(key.parse().expect("an index"))),
            _ => panic!("no {parent} in the config"),
        }
        self
    }

    /// Any other change.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// A mount at the end of the list.
    pub fn mount(self, kind: &str, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Self {
        let source = source.as_ref();
        self.push(
            "/mounts",
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        )
    }

    /// Adds a namespace, or gives the one that is there a path.
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Self {
        let entry = match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        };
        self.without_namespace(kind).push("/linux/namespaces", entry)
    }

    /// Leaves the host's namespace in place.
    pub fn without_namespace(mut self, kind: &str) -> Self {
        let list = self.spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|ns| ns["type"] != kind);
        self
    }

    /// A user namespace of 65536 ids from `base`, with the root file system given to its root.
    pub fn userns(self, base: u32) -> Self {
        for entry in walk(&self.rootfs()) {
            if entry.is_file() && std::fs::symlink_metadata(&entry).is_ok_and(|m| m.nlink() > 1) {
                continue; // shared with every other root file system
            }
            std::os::unix::fs::lchown(&entry, Some(base), Some(base)).expect("chown the root file system");
        }
        let map = json!([{"containerID": 0, "hostID": base, "size": 65536}]);
        self.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// The same set for bounding, effective and permitted; nothing ambient or inheritable.
    pub fn capabilities(self, names: &[&str]) -> Self {
        self.set("/process/capabilities", json!({"bounding": names, "effective": names, "permitted": names}))
    }

    /// Device nodes and mounts may be used freely: the full set this process holds.
    pub fn powerful(self) -> Self {
        let names = CAPABILITIES.iter().enumerate();
        let bits = crate::host::status_bits("CapBnd");
        let held: Vec<&str> = names.filter(|(i, _)| bits & (1 << i) != 0).map(|(_, name)| *name).collect();
        self.capabilities(&held)
    }

    /// Writes config.json.
    pub fn write(&self) {
        let text = serde_json::to_string_pretty(&self.spec).expect("JSON");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
    }

    /// Writes a file of the root file system.
    pub fn file(self, inside: &str, text: &str, mode: u32) -> Self {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a parent")).expect("create a directory");
        fs::write(&path, text).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        self
    }

    /// What the container wrote to a file of its root, trimmed; empty when missing.
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_default().trim().to_owned()
    }
}

/// Names by number (capabilities(7)).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

fn walk(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.is_dir() && !path.is_symlink() {
            found.extend(fs::read_dir(path).expect("list").map(|e| e.expect("entry").path()));
        }
    }
    found
}

/// One busybox inode per run, linked; the applets are symlinks to it.
fn populate(lab: &Lab, rootfs: &Path) {
    for dir in
        ["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "var"]
    {
        fs::create_dir_all(rootfs.join(dir)).expect("create the root file system");
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod tmp");
    fs::hard_link(lab.busybox(), rootfs.join("bin/busybox")).expect("link busybox");
    for applet in lab.applets() {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")
        .expect("write passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write group");
}
