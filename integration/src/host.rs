//! What this host is and has: plain facts, read once per test. Tests skip on them, with the reason.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::fs;
use std::path::{Path, PathBuf};

/// The cgroup layout found under /sys/fs/cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Controllers mounted one by one; a cgroup2 mount beside them makes it hybrid.
    V1,
    /// As `V1`, with a cgroup2 mount at `unified`.
    Hybrid,
    /// cgroup2 at the top.
    V2,
    /// Nothing usable.
    None,
}

/// The facts.
#[derive(Clone, Debug)]
pub struct Host {
    /// Layout of /sys/fs/cgroup.
    pub mode: Mode,
    /// v1 controllers (and `name=systemd`) with their mount points.
    pub v1: Vec<(String, PathBuf)>,
    /// The cgroup2 mount point.
    pub v2: Option<PathBuf>,
    /// Controllers enabled at the cgroup2 root.
    pub v2_controllers: Vec<String>,
    /// Effective capabilities, as bits.
    pub capabilities: u64,
    /// AppArmor is active.
    pub apparmor: bool,
    /// User namespaces can be made.
    pub userns: bool,
    /// systemd is pid 1.
    pub systemd: bool,
    /// Kernel version.
    pub kernel: (u32, u32),
}

impl Host {
    /// Looks.
    pub fn probe() -> Self {
        let (v1, v2) = cgroup_mounts();
        let mode = match statfs("/sys/fs/cgroup") {
            Ok(fs) if fs.filesystem_type() == CGROUP2_SUPER_MAGIC => Mode::V2,
            _ if !v1.is_empty() && v2.is_some() => Mode::Hybrid,
            _ if !v1.is_empty() => Mode::V1,
            _ => Mode::None,
        };
        let controllers = v2.as_ref().and_then(|at| fs::read_to_string(at.join("cgroup.controllers")).ok());
        Self {
            mode,
            v1,
            v2_controllers: controllers.unwrap_or_default().split_whitespace().map(String::from).collect(),
            v2,
            capabilities: status_bits("CapEff"),
            apparmor: read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            userns: read("/proc/sys/user/max_user_namespaces").trim().parse::<u64>().unwrap_or(0) > 0
                && Path::new("/proc/self/ns/user").exists(),
            systemd: Path::new("/run/systemd/system").is_dir(),
            kernel: kernel(),
        }
    }

    /// Bit 24 of the effective set: needed to raise a hard rlimit or lower oom_score_adj.
    pub fn has_sys_resource(&self) -> bool {
        self.capabilities & (1 << 24) != 0
    }

    /// The controller can be used in the current layout.
    pub fn has_controller(&self, name: &str) -> bool {
        match self.mode {
            Mode::V2 => self.v2_controllers.iter().any(|c| c == name),
            _ => self.v1.iter().any(|(c, _)| c == name),
        }
    }

    /// One line for the head of a run.
    pub fn describe(&self) -> String {
        let v1: Vec<&str> = self.v1.iter().map(|(c, _)| c.as_str()).collect();
        format!(
            "kernel {}.{}, cgroup {:?} (v1: {}; v2: {}), CAP_SYS_RESOURCE {}, AppArmor {}, userns {}, systemd {}",
            self.kernel.0,
            self.kernel.1,
            self.mode,
            if v1.is_empty() { "none".to_owned() } else { v1.join(",") },
            if self.v2_controllers.is_empty() { "none".to_owned() } else { self.v2_controllers.join(",") },
            yes(self.has_sys_resource()),
            yes(self.apparmor),
            yes(self.userns),
            yes(self.systemd),
        )
    }
}

fn yes(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel() -> (u32, u32) {
    let release = read("/proc/sys/kernel/osrelease");
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// A capability set of this process from /proc/self/status.
pub fn status_bits(key: &str) -> u64 {
    let status = read("/proc/self/status");
    let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap_or(0)
}

/// Every cgroup mount below /sys/fs/cgroup: v1 controllers, and the cgroup2 mount.
/// By the type in mountinfo, never by the name of a directory: plain directories named like a controller
/// can lie under /sys/fs/cgroup.
pub fn cgroup_mounts() -> (Vec<(String, PathBuf)>, Option<PathBuf>) {
    let (mut v1, mut v2) = (Vec::new(), None);
    for line in read("/proc/self/mountinfo").lines() {
        let Some((mount, fs)) = line.split_once(" - ") else { continue };
        let at = PathBuf::from(mount.split(' ').nth(4).unwrap_or_default());
        // A chroot or a container on this host can have the same hierarchies mounted elsewhere.
        if !at.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let mut fs = fs.split(' ');
        match fs.next() {
            Some("cgroup2") if v2.is_none() => v2 = Some(at),
            Some("cgroup") => {
                let options = fs.nth(1).unwrap_or_default().split(',');
                let names =
                    options.filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "clone_children" | "none"));
                v1.extend(names.filter(|o| !o.contains("release_agent")).map(|o| (o.to_owned(), at.clone())));
            }
            _ => {}
        }
    }
    (v1, v2)
}
