//! What a test calls containerd with: `ctr`, run in the place of the daemon. Every container has the test's tag in
//! its id and its cgroup, so that leftovers are found like any other; `gone` looks for those of the shim.

use super::IMAGE;
use super::caller::{near, number};
use super::place;
use crate::call::no_input;
use crate::cgroup::tagged;
use crate::{Bundle, Call, Lab, Output, Stop};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// containerd's client, and the place of its daemon.
#[derive(Debug)]
pub struct Ctr<'l> {
    lab: &'l Lab,
    dir: PathBuf,
}

impl Lab {
    /// The containerd of this test.
    pub fn ctr(&self) -> Result<Ctr<'_>, Stop> {
        let dir = self.engine.clone().ok_or("the table does not name an engine for this test")?;
        Ok(Ctr { lab: self, dir })
    }
}

pub(super) fn is_containerd(dir: &Path) -> bool {
    dir.join("archive.tar").exists()
}

/// The plugin has a configuration there.
pub(super) fn is_cri(dir: &Path) -> bool {
    dir.join("cni").exists()
}

/// The daemon stays away until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Away(PathBuf);

impl Drop for Away {
    fn drop(&mut self) {
        // What is not there does not hold anything.
        fs::remove_file(&self.0).ok();
    }
}

impl Ctr<'_> {
    /// The socket of the daemon.
    pub fn socket_of_daemon(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Its tests kill the daemon.
    pub(crate) fn is_live(&self) -> bool {
        self.dir.join(place::LIVE).exists()
    }

    /// For one test at a time.
    pub(crate) fn lock(&self) -> Result<Flock<File>, Stop> {
        let file = File::open(self.dir.join(place::LIVE))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// SIGKILL to the daemon. Whoever shares it notices.
    #[track_caller]
    pub fn hold_daemon(&self) -> Away {
        let away = Away(self.dir.join(place::HOLD));
        fs::write(&away.0, "").expect("write the sign that holds the daemon");
        let pid = fs::read_to_string(number(&self.dir, "containerd")).expect("the daemon's pid");
        self.near(&["kill", "-KILL", &pid]).go().ok();
        away
    }

    /// A program of the host in the place.
    pub fn near(&self, words: &[&str]) -> Call {
        near(self.lab, &self.dir, words)
    }

    /// A command of ctr, not yet given.
    pub fn call(&self, words: &[&str]) -> Call {
        let socket = self.dir.join("containerd.sock");
        near(self.lab, &self.dir, &["ctr", "-a", &socket.to_string_lossy()]).args(words)
    }

    /// As `call`, outside of the place: of commands without streams, whose process the test can end.
    pub fn call_from_here(&self, words: &[&str]) -> Call {
        let socket = self.dir.join("containerd.sock");
        Call::new(self.lab, vec!["ctr".into(), "-a".into(), socket.into()]).args(words)
    }

    /// Gives the command and waits for its end.
    pub fn go(&self, words: &[&str]) -> Output {
        self.call(words).go()
    }

    /// `run` of a command line over a directory as its root file system.
    pub fn run(&self, id: &str, flags: &[&str], command: &[&str]) -> Call {
        let rootfs = self.rootfs();
        self.run_of(id, flags, &["--rootfs", "--read-only"], &rootfs.to_string_lossy(), command)
    }

    /// As `run`, over a snapshot of the image: the daemon asks the shim for an overlay.
    pub fn run_image(&self, id: &str, flags: &[&str], command: &[&str]) -> Call {
        self.run_of(id, flags, &[], IMAGE, command)
    }

    fn run_of(&self, id: &str, flags: &[&str], more: &[&str], image: &str, command: &[&str]) -> Call {
        let cgroup = self.lab.cgroups_path(id);
        self.call(&["run", "--cgroup", &cgroup, "--env", "PATH=/bin"])
            .args(more)
            .args(flags)
            .args(&[image, id])
            .args(command)
    }

    /// As `run`, of a bundle of the test, whose config is taken as it stands.
    pub fn run_bundle(&self, bundle: &Bundle, flags: &[&str]) -> Call {
        let rootfs = bundle.rootfs();
        bundle.clone().set("/root/path", json!(rootfs)).write();
        let config = bundle.dir.join("config.json");
        self.call(&["run", "--config", &config.to_string_lossy()]).args(flags).args(&[&bundle.id])
    }

    /// `run --detach` of a shell that ends with 7 on TERM and waits for it; its id.
    #[track_caller]
    pub fn up(&self, flags: &[&str]) -> String {
        let id = self.lab.new_id();
        let flags: Vec<&str> = ["-d", "--null-io"].iter().chain(flags).copied().collect();
        self.run(&id, &flags, &["sh", "-c", WAITS]).go().ok();
        id
    }

    /// `task exec` under an exec id.
    pub fn exec(&self, id: &str, exec: &str, flags: &[&str], command: &[&str]) -> Call {
        self.call(&["task", "exec", "--exec-id", exec]).args(flags).args(&[id]).args(command)
    }

    /// The status that `task ls` shows.
    pub fn status(&self, id: &str) -> Option<String> {
        let list = self.go(&["task", "ls"]).ok().out();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(2).map(String::from)
    }

    /// The init process, as the place numbers it.
    #[track_caller]
    pub fn pid(&self, id: &str) -> i32 {
        let list = self.go(&["task", "ls"]).ok().out();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
        let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        pid.expect("a pid in task ls")
    }

    /// A file of a process of the place.
    pub fn proc(&self, pid: i32, file: &str) -> String {
        let bytes = fs::read(self.root().join(format!("proc/{pid}/{file}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A signal to a process of the place.
    #[track_caller]
    pub fn signal(&self, pid: i32, signal: &str) {
        near(self.lab, &self.dir, &["kill", "-s", signal, &pid.to_string()]).go().ok();
    }

    /// SIGKILL to containerd, and another one answers. Whoever shares it notices.
    pub fn kill_containerd(&self) -> Result<(), Stop> {
        let before = fs::read_to_string(number(&self.dir, "containerd"))?;
        near(self.lab, &self.dir, &["kill", "-s", "KILL", &before]).go().ok();
        let is_new = || fs::read_to_string(number(&self.dir, "containerd")).is_ok_and(|now| now != before);
        self.lab.eventually("another containerd", is_new);
        self.lab.eventually("its answer", || self.call_from_here(&["version"]).go().rc == 0);
        Ok(())
    }

    /// What containerd has said of the container.
    pub fn said(&self, id: &str) -> String {
        let log = fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains(id));
        lines.fold(String::new(), |all, line| format!("{all}\n  {line}"))
    }

    /// containerd has a record of the container.
    pub fn is_known(&self, id: &str) -> bool {
        let list = self.go(&["container", "ls", "-q"]).ok().out();
        list.lines().any(|line| line == id)
    }

    /// The root directory of the place, from here.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init()))
    }

    fn init(&self) -> String {
        fs::read_to_string(self.dir.join("pid")).unwrap_or_default()
    }

    /// The shim processes of this container: their command line or working directory names it.
    pub fn shims(&self, id: &str) -> Vec<i32> {
        let is_shim = |pid: &i32| {
            let link = |name: &str| fs::read_link(self.root().join(format!("proc/{pid}/{name}")));
            let (exe, cwd) = (link("exe").unwrap_or_default(), link("cwd").unwrap_or_default());
            let names_it = |text: &str| text.split(['\0', '/', ' ']).any(|word| word == id);
            exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("containerd-shim"))
                && (names_it(&self.proc(*pid, "cmdline")) || names_it(&cwd.to_string_lossy()))
        };
        let entries = fs::read_dir(self.root().join("proc")).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        pids.filter(is_shim).collect()
    }

    /// Where the socket of its shim is, seen from this test.
    pub fn socket(&self, id: &str) -> PathBuf {
        let text = format!("{}/default/{id}", self.dir.join("containerd.sock").display());
        let name = Sha256::digest(text).iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
        self.root().join("run/containerd/s").join(name)
    }

    /// The directory that is every container's root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// The bundle of a running container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.join("containerd-state/io.containerd.runtime.v2.task/default").join(id)
    }

    /// SIGKILL to the task, then the task and the container are removed.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        self.go(&["task", "rm", "-f", id]).ok();
        self.go(&["container", "rm", id]).ok();
    }

    /// A task that has ended with this code, and the container are removed.
    #[track_caller]
    pub fn remove_ended(&self, id: &str, code: i32) {
        let output = self.go(&["task", "rm", id]).ok();
        let said = format!("non-zero exit code {code}");
        assert!(code == 0 || output.err().contains(&format!("{said}\"")), "{output}");
        self.go(&["container", "rm", id]).ok();
    }

    /// Nothing of the container is left: process, mount, cgroup, socket, state.
    #[track_caller]
    pub fn gone(&self, id: &str) {
        let left = self.left(id);
        assert!(left.is_empty(), "left of {id}: {left:?}");
    }

    /// What is left of the container after 10 s at the latest.
    pub fn left(&self, id: &str) -> Vec<String> {
        let mut left = Vec::new();
        let clean = || {
            left = self.left_of(id);
            left.is_empty()
        };
        self.lab.settles(clean);
        left
    }

    /// What there is of the container.
    pub fn left_of(&self, id: &str) -> Vec<String> {
        let mut left: Vec<String> = self.shims(id).iter().map(|pid| format!("shim {pid}")).collect();
        let mounts = self.proc(1, "mountinfo");
        left.extend(mounts.lines().filter(|l| l.contains(&format!("/{id}/"))).map(|l| format!("mount {l}")));
        let cgroups = tagged(&self.lab.tag).into_iter().filter(|c| c.ends_with(id));
        left.extend(cgroups.map(|c| format!("cgroup {}", c.display())));
        let state = self.root().join("run/containerd/runc/default").join(id);
        let work = self.dir.join("containerd/io.containerd.runtime.v2.task/default").join(id);
        let paths = [self.socket(id), self.bundle(id), state, work];
        left.extend(paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
        left
    }
}

/// Ends with 7 on TERM.
pub const WAITS: &str = "trap 'exit 7' TERM; while :; do sleep 0.05; done";

/// `ctr run` of a shell script in a cgroup below `/parent`, over a directory, without a test.
pub(crate) fn container(
    dir: &Path,
    runtime: &Path,
    parent: &str,
    id: &str,
    flags: &[&str],
    script: &str,
) -> Command {
    let mut command = place::ctr(dir);
    command.args(["run", "--cgroup", &format!("/{parent}/{id}"), "--env", "PATH=/bin"]);
    command.arg("--runc-binary").arg(runtime).args(flags);
    command.args(["--rootfs", "--read-only"]).arg(dir.join("image")).args([id, "sh", "-c", script]);
    command
}

/// The same command in the namespaces of the daemon: for one with streams.
pub(crate) fn inside(dir: &Path, call: &Command) -> Command {
    let pid = fs::read_to_string(dir.join("pid")).unwrap_or_default();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-m", "-n", "-p", "-u", "-i", "--"]).arg(call.get_program());
    command.args(call.get_args()).stdin(no_input());
    command
}

/// Removes a container and its task, if they are there: what stays is found when the engine stops.
pub(crate) fn end_container(dir: &Path, id: &str) {
    for words in [&["task", "rm", "-f", id][..], &["container", "rm", id]] {
        place::ctr(dir).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}

/// Removes every container of a test; those it found.
pub(super) fn remove_containers(dir: &Path, tag: &str) -> Result<Vec<String>, Stop> {
    let list = place::ctr(dir).args(["container", "ls", "-q"]).output()?;
    let ids: Vec<String> = String::from_utf8_lossy(&list.stdout)
        .split_whitespace()
        .filter(|id| id.starts_with(tag))
        .map(String::from)
        .collect();
    for id in &ids {
        // One that has no task, or whose task has ended: the next command says so if it matters.
        place::ctr(dir).args(["task", "rm", "-f", id]).output()?;
        let removed = place::ctr(dir).args(["container", "rm", id]).output()?;
        if !removed.status.success() {
            let text = String::from_utf8_lossy(&removed.stderr);
            return Err(Stop::Fail(format!("container rm {id}: {text}")));
        }
    }
    Ok(ids)
}
