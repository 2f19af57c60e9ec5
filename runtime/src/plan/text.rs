//! A plan as text: one line for each thing that is done, in the order it is done, with the config field that
//! asked for it. For `hull plan` and for the golden files of the planners' tests.

use std::fmt::Write as _;

use hull_sys::mount::{Change, attr, propagation};
use oci_spec::runtime::LinuxNamespaceType;
use serde::Serialize;

use super::hooks::HookPlan;
use super::process::ProcessPlan;
use super::rootfs::{Bind, FsOp, NewMount, RootChange, Source, Step};
use super::{Plan, caps};
use crate::error::Warning;
use crate::plan::cgroup::When;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When: the part of the launch it belongs to.
    pub stage: &'static str,
    /// What is done.
    pub action: String,
    /// The config field it comes from; empty for what every container gets.
    pub field: String,
}

/// The lines of a plan.
pub fn lines(plan: &Plan, warnings: &[Warning]) -> Vec<Line> {
    let mut out = Lines(Vec::new());
    for warning in warnings {
        let field = warning.field.as_ref().map(ToString::to_string).unwrap_or_default();
        out.add("warning", warning.message.clone(), field);
    }
    out.cgroup(plan, When::BeforeStart);
    out.namespaces(plan);
    for step in &plan.rootfs.before {
        out.step("mount", step);
    }
    out.hooks("hook", "prestart", &plan.hooks.prestart);
    out.hooks("hook", "createRuntime", &plan.hooks.create_runtime);
    out.hooks("hook", "createContainer", &plan.hooks.create_container);
    for step in &plan.rootfs.after {
        out.step("mount", step);
    }
    let change = match plan.rootfs.change {
        RootChange::Pivot => "pivot_root",
        RootChange::Move => "move the mount over / and chroot",
    };
    out.add("root", format!("{change} to {}", plan.rootfs.path), "root.path");
    if let Some((kind, recursive)) = plan.rootfs.last_propagation {
        let (kind, recursive) =
            propagation_words(kind | if recursive { hull_sys::mount::RECURSIVE } else { 0 });
        out.add("root", format!("make / {recursive}{kind}"), "linux.rootfsPropagation");
    }
    for (name, value) in [("hostname", &plan.hostname), ("domainname", &plan.domainname)] {
        if let Some(value) = value {
            out.add("names", format!("set {name} {value}"), name);
        }
    }
    for sysctl in &plan.sysctl {
        let path = sysctl.path.to_string_lossy();
        out.add("sysctl", format!("write {:?} to /proc/{path}", sysctl.value), sysctl.field.as_str());
    }
    out.process(plan);
    out.cgroup(plan, When::AfterSetup);
    out.hooks("start", "startContainer", &plan.hooks.start_container);
    for rlimit in &plan.process.rlimits {
        let show = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        let (soft, hard) = (show(rlimit.limit.soft), show(rlimit.limit.hard));
        out.add(
            "start",
            format!("set resource limit {}: soft {soft}, hard {hard}", rlimit.resource),
            rlimit.field.as_str(),
        );
    }
    if let Some(filter) = &plan.seccomp {
        out.add("start", filter.summary(), "linux.seccomp");
    }
    let words: Vec<_> = plan.process.args.iter().map(|word| word.to_string_lossy()).collect();
    out.add("start", format!("execute {words:?}"), "process.args");
    out.hooks("after", "poststart", &plan.hooks.poststart);
    out.hooks("delete", "poststop", &plan.hooks.poststop);
    out.0
}

struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, stage: &'static str, action: impl Into<String>, field: impl Into<String>) {
        self.0.push(Line { stage, action: action.into(), field: field.into() });
    }

    fn cgroup(&mut self, plan: &Plan, when: When) {
        let cgroup = &plan.cgroup;
        if when == When::BeforeStart {
            for dir in &cgroup.dirs {
                self.add(
                    "cgroup",
                    format!("create {}", dir.mount.join(&dir.path).display()),
                    "linux.cgroupsPath",
                );
            }
            if let Some(owner) = &cgroup.owner {
                self.add("cgroup", format!("change its owner to uid {}", owner.uid), owner.field.as_str());
            }
        }
        for write in cgroup.writes.iter().filter(|write| write.when == when) {
            self.add("cgroup", format!("write {:?} to {}", write.value, write.file), write.field.as_str());
        }
        if let Some(devices) = cgroup.devices.as_ref().filter(|_| when == When::BeforeStart) {
            let count = devices.program.len();
            let rules = devices.rules.join("; ");
            self.add(
                "cgroup",
                format!("filter devices with {count} BPF instructions: {rules}"),
                "linux.resources.devices",
            );
        }
    }

    fn namespaces(&mut self, plan: &Plan) {
        let spaces = &plan.namespaces;
        for join in &spaces.join {
            self.add("namespace", format!("join {} {}", kinds(join.kind), join.path), join.field.as_str());
        }
        let new = kinds(spaces.new);
        if !new.is_empty() {
            self.add("namespace", format!("clone with new {new}"), "linux.namespaces");
        }
        if let Some(score) = plan.process.oom_score_adj {
            self.add("process", format!("oom_score_adj {score}"), "process.oomScoreAdj");
        }
        if let Some(ids) = &spaces.ids {
            self.add("namespace", format!("map users {:?}", ids.uid), "linux.uidMappings");
            self.add("namespace", format!("map groups {:?}", ids.gid), "linux.gidMappings");
        }
        if !spaces.time_offsets.is_empty() {
            self.add(
                "namespace",
                format!("new time, offsets {:?}", spaces.time_offsets),
                "linux.timeOffsets",
            );
        }
        if let Some(name) = &plan.keyring {
            self.add("session", format!("new session keyring {}", name.to_string_lossy()), "");
        }
        if spaces.new_cgroup {
            self.add("namespace", "new cgroup, after entering the container's cgroup", "linux.namespaces");
        }
        if spaces.makes(LinuxNamespaceType::Network) {
            self.add("namespace", "bring the loopback device up", "linux.namespaces");
        }
        let (kind, _) = propagation_words(plan.rootfs.cut);
        self.add("mount", format!("make / r{kind}"), "");
        let first: Vec<_> = propagations(plan.rootfs.first_propagation.as_slice()).collect();
        let first = if first.is_empty() { String::new() } else { format!(" ({})", first.join(",")) };
        self.add("mount", format!("bind {} over itself{first}", plan.rootfs.path), "root.path");
    }

    fn step(&mut self, stage: &'static str, step: &Step) {
        let other = step
            .fallback
            .as_ref()
            .map(|(_, op)| format!(" (or, if that fails: {})", action(op)))
            .unwrap_or_default();
        self.add(stage, format!("{}{other}", action(&step.op)), step.field.as_str());
    }

    fn hooks(&mut self, stage: &'static str, kind: &str, list: &[HookPlan]) {
        for hook in list {
            let limit = hook.timeout_s.map(|seconds| format!(", timeout {seconds} s")).unwrap_or_default();
            self.add(stage, format!("{kind} hook {}{limit}", hook.path), hook.field.as_str());
        }
    }

    /// In the order of `identify` and what follows it in `launch/init.rs`.
    fn process(&mut self, plan: &Plan) {
        let process = &plan.process;
        if process.terminal.is_some() {
            self.add("process", "use the pty on /dev/console as its terminal", "process.terminal");
        }
        self.labels(process);
        self.add("process", format!("chdir {}", process.cwd), "process.cwd");
        if process.find_home {
            self.add("process", "look up HOME in the container's /etc/passwd", "process.env");
        }
        let groups =
            process.groups.as_ref().map_or("those of the caller".to_owned(), |groups| format!("{groups:?}"));
        let text =
            format!("uid {}, gid {}, groups {groups}, umask {:04o}", process.uid, process.gid, process.umask);
        self.add("process", text, "process.user");
        let set = |bits: u64| format!("{} ({bits:#x})", bits.count_ones());
        let caps = &process.caps;
        let text = format!(
            "bounding {}, permitted {}, effective {}, inheritable {}, ambient {}",
            set(caps.bounding),
            set(caps.sets.permitted),
            set(caps.sets.effective),
            set(caps.sets.inheritable),
            set(caps.ambient)
        );
        self.add("process", format!("capabilities: {text}"), "process.capabilities");
        if caps.bounding != 0 && caps.bounding.count_ones() < 8 {
            self.add(
                "process",
                format!("bounding set: {}", caps::names(caps.bounding).join(", ")),
                "process.capabilities.bounding",
            );
        }
        if process.no_new_privs {
            self.add("process", "no new privileges", "process.noNewPrivileges");
        }
        if let Some(persona) = plan.personality {
            self.add("process", format!("personality {persona:#x}"), "linux.personality");
        }
        let places: Vec<_> = process.candidates.iter().map(|place| place.to_string_lossy()).collect();
        self.add("process", format!("find the program: {}", places.join(" or ")), "process.args");
    }

    fn labels(&mut self, process: &ProcessPlan) {
        if let Some(scheduler) = &process.scheduler {
            self.add(
                "process",
                format!("scheduling policy {}, nice {}", scheduler.policy, scheduler.nice),
                "process.scheduler",
            );
        }
        if let Some(value) = process.io_priority {
            self.add(
                "process",
                format!("I/O priority class {}, {}", value >> 13, value & 7),
                "process.ioPriority",
            );
        }
        if let Some(profile) = &process.apparmor {
            self.add(
                "process",
                format!("AppArmor profile {} at exec", profile.to_string_lossy()),
                "process.apparmorProfile",
            );
        }
        if let Some(label) = &process.selinux {
            self.add(
                "process",
                format!("SELinux label {} at exec", label.to_string_lossy()),
                "process.selinuxLabel",
            );
        }
    }
}

fn action(op: &FsOp) -> String {
    match op {
        FsOp::Mount(new) => mount_action(new),
        FsOp::Bind(bind) => bind_action(bind),
        FsOp::Node(node) => {
            let (major, minor) = node.device;
            let kind = match node.mode & libc::S_IFMT {
                libc::S_IFBLK => 'b',
                libc::S_IFIFO => 'p',
                _ => 'c',
            };
            let owner = if (node.uid, node.gid) == (0, 0) {
                String::new()
            } else {
                format!(" owner {}:{}", node.uid, node.gid)
            };
            let how = if node.bind { "bind the host's" } else { "create" };
            format!("{how} {} {kind} {major}:{minor} mode {:04o}{owner}", node.at, node.mode & 0o7777)
        }
        FsOp::Symlink { target, at, .. } => format!("symlink {at} to {}", target.to_string_lossy()),
        FsOp::Directory { at } => format!("create the directory {at}"),
        FsOp::Attributes { at, change, recursive } => {
            format!("set {} on {at}", change_words(*change, *recursive))
        }
        FsOp::Console => "mount a pty on /dev/console".to_owned(),
        FsOp::Mask(at) => format!("mask {at}"),
        FsOp::ReadOnly(at) => format!("make {at} read-only"),
    }
}

fn mount_action(new: &NewMount) -> String {
    let mut text = format!("mount {} on {}", new.kind.to_string_lossy(), new.at);
    let change = Change { set: new.attributes, ..Change::default() };
    let mut words: Vec<String> =
        if new.attributes == 0 { Vec::new() } else { vec![change_words(change, false)] };
    words.extend(new.options.iter().map(|(key, value)| match value {
        Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
        None => key.to_string_lossy().into_owned(),
    }));
    words.extend(propagations(&new.propagation));
    if new.copy_up {
        words.push("with a copy of the files it covers".to_owned());
    }
    if !words.is_empty() {
        // Writing to a String cannot fail.
        let _written = write!(text, " ({})", words.join(",")).is_ok();
    }
    text
}

fn bind_action(bind: &Bind) -> String {
    let source = bind.source.path();
    let mut words = Vec::new();
    for (change, recursive) in [(bind.change, false), (bind.recursive_change, true)] {
        if !change.is_none() {
            words.push(change_words(change, recursive));
        }
    }
    words.extend(propagations(&bind.propagation));
    if let Some(idmap) = &bind.idmap {
        let word = if idmap.recursive { "ridmap" } else { "idmap" };
        words.push(match &idmap.maps {
            Some((uids, gids)) => format!("{word} uids {uids:?} gids {gids:?}"),
            None => word.to_owned(),
        });
    }
    if bind.stays_peer {
        words.push("a peer of the host's mount".to_owned());
    }
    if matches!(bind.source, Source::Opened(..)) {
        words.push("opened on the host side".to_owned());
    }
    if let Source::Inside(_, from) = &bind.source {
        words.push(format!("the container's own {from}"));
    }
    let how = if bind.recursive { "rbind" } else { "bind" };
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(",")) };
    format!("{how} {source} on {}{words}", bind.at)
}

fn propagations(list: &[(u64, bool)]) -> impl Iterator<Item = String> {
    list.iter().map(|(kind, recursive)| {
        let flags = kind | if *recursive { hull_sys::mount::RECURSIVE } else { 0 };
        let (kind, recursive) = propagation_words(flags);
        format!("{recursive}{kind}")
    })
}

fn propagation_words(flags: u64) -> (&'static str, &'static str) {
    let recursive = if flags & hull_sys::mount::RECURSIVE != 0 { "r" } else { "" };
    let kind = match flags & !hull_sys::mount::RECURSIVE {
        propagation::SHARED => "shared",
        propagation::SLAVE => "slave",
        propagation::UNBINDABLE => "unbindable",
        _ => "private",
    };
    (kind, recursive)
}

/// Attributes by the names of mount options.
fn change_words(change: Change, recursive: bool) -> String {
    let names = [
        (attr::RDONLY, "ro", "rw"),
        (attr::NOSUID, "nosuid", "suid"),
        (attr::NODEV, "nodev", "dev"),
        (attr::NOEXEC, "noexec", "exec"),
        (attr::NOATIME, "noatime", "atime"),
        (attr::STRICTATIME, "strictatime", ""),
        (attr::NODIRATIME, "nodiratime", "diratime"),
        (attr::NOSYMFOLLOW, "nosymfollow", "symfollow"),
    ];
    let prefix = if recursive { "r" } else { "" };
    let set = names.iter().filter(|(bit, ..)| change.set & bit != 0).map(|(_, on, _)| *on);
    // The whole field of access times is cleared when any of it is set.
    let cleared = names
        .iter()
        .filter(|(bit, ..)| change.clear & bit != 0 && bit & attr::ATIME == 0)
        .map(|(.., off)| *off);
    set.chain(cleared).map(|word| format!("{prefix}{word}")).collect::<Vec<_>>().join(",")
}

/// Namespace types by the names of the spec.
fn kinds(bits: u64) -> String {
    const NAMES: [(libc::c_int, &str); 8] = [
        (libc::CLONE_NEWUSER, "user"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWNET, "network"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWNS, "mount"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (0x80, "time"),
    ];
    let has = |bit: libc::c_int| bits & u64::from(bit.cast_unsigned()) != 0;
    NAMES.iter().filter(|(bit, _)| has(*bit)).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// Aligned columns: stage, action, field.
pub fn table(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let from = if line.field.is_empty() { String::new() } else { format!("  <- {}", line.field) };
        // Writing to a String cannot fail.
        let _written = writeln!(text, "{:<10} {}{from}", line.stage, line.action).is_ok();
    }
    text
}

/// One array of objects, indented.
pub fn json(lines: &[Line]) -> String {
    serde_json::to_string_pretty(lines).map(|text| text + "\n").unwrap_or_default()
}
