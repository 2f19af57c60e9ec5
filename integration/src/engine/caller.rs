//! What a test calls an engine with: the command line of docker, podman or buildah. Every container gets the
//! test's tag in its name and the test's own parent cgroup, so that leftovers are found like any other.

use super::place::{HOLD, docker, podman, search_path};
use super::{IMAGE, docker_client};
use crate::call::no_input;
use crate::lab::which;
use crate::{Call, Lab, Output, Stop, TestResult, skip};
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The client of an engine.
#[derive(Debug)]
pub struct Caller<'l> {
    lab: &'l Lab,
    /// The engine's directory.
    dir: PathBuf,
    is_podman: bool,
}

impl Lab {
    /// The engine of this test.
    pub fn engine(&self) -> Result<Caller<'_>, Stop> {
        let dir = self.engine.clone().ok_or("the table does not name an engine for this test")?;
        Ok(Caller { lab: self, is_podman: is_podman(&dir), dir })
    }
}

fn is_podman(dir: &Path) -> bool {
    dir.join("storage").exists()
}

impl Caller<'_> {
    /// The engine is podman.
    pub fn is_podman(&self) -> bool {
        self.is_podman
    }

    /// A command of the engine, not yet given.
    pub fn call(&self, words: &[&str]) -> Call {
        if self.is_podman {
            return self.near(&[]).os_args(podman(&self.dir, &self.lab.runtime.path)).args(words);
        }
        let socket = format!("unix://{}", self.dir.join("docker.sock").display());
        let call = Call::new(self.lab, vec![docker_client().into(), "-H".into(), socket.into()]);
        call.env("DOCKER_CONFIG", self.dir.join("client")).args(words)
    }

    /// Gives the command and waits for its end.
    pub fn go(&self, words: &[&str]) -> Output {
        self.call(words).go()
    }

    /// `run` with these flags of this command line in the image of all tests.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Call {
        self.run_of(IMAGE, &self.lab.new_id(), flags, command)
    }

    /// As `run --rm`, of a shell script, to its end.
    pub fn sh(&self, flags: &[&str], script: &str) -> Output {
        let flags: Vec<&str> = ["--rm"].iter().chain(flags).copied().collect();
        self.run(&flags, &["sh", "-c", script]).go()
    }

    /// As `run`, of another image and with a name for the container, which must begin with the tag.
    pub fn run_of(&self, image: &str, name: &str, flags: &[&str], command: &[&str]) -> Call {
        let parent = format!("/{}", self.lab.tag);
        let mut words = vec!["run", "--name", name, "--cgroup-parent", &parent, "--pull", "never"];
        if self.is_podman && self.lab.host.mode == crate::Mode::V2 && !self.lab.host.has_controller("pids") {
            words.extend(["--pids-limit", "-1"]);
        }
        words.extend(flags);
        words.push(image);
        self.call(&words).args(command)
    }

    /// `run -d`, which must end with 0; the container's name.
    #[track_caller]
    pub fn up(&self, flags: &[&str], command: &[&str]) -> String {
        let name = self.lab.new_id();
        let flags: Vec<&str> = ["-d"].iter().chain(flags).copied().collect();
        self.run_of(IMAGE, &name, &flags, command).go().ok();
        name
    }

    /// `up` of a shell that says "up", ends with 7 on TERM and waits for it.
    #[track_caller]
    pub fn up_waiting(&self, flags: &[&str]) -> String {
        let name = self
            .up(flags, &["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"]);
        self.lab.eventually("the first line of the log", || self.go(&["logs", &name]).out().contains("up"));
        name
    }

    /// A value by its Go template.
    #[track_caller]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.go(&["inspect", "--format", template, name]).ok().text()
    }

    /// `rm -f`, which must end with 0.
    #[track_caller]
    pub fn remove(&self, name: &str) {
        self.go(&["rm", "-f", name]).ok();
    }

    /// A program of the host in the engine's namespaces.
    pub fn near(&self, words: &[&str]) -> Call {
        near(self.lab, &self.dir, words)
    }

    /// buildah on the storage of podman: a verb and its words. Skips when it is not installed.
    pub fn buildah(&self, words: &[&str]) -> Result<Call, Stop> {
        if which("buildah").is_none() {
            return skip("no buildah (Debian: buildah; hack/setup callers)");
        }
        let at = |name: &str| self.dir.join(name).into_os_string();
        let front = ["buildah".into(), "--root".into(), at("storage"), "--runroot".into(), at("runroot")];
        Ok(self.near(&[]).os_args(front.into()).args(&["--storage-driver", "overlay"]).args(words))
    }

    /// Until the value is dropped nobody else has this lock of the engine: for what others would notice.
    pub fn alone(&self) -> Result<Flock<File>, Stop> {
        let file = File::create(self.dir.join("alone"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    /// The engine's directory, which it sees under the same name.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file of a process of the engine, by its number there.
    pub fn proc(&self, pid: &str, file: &str) -> String {
        let init = fs::read_to_string(self.dir.join("pid")).unwrap_or_default();
        let bytes = fs::read(format!("/proc/{init}/root/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The parent of a process of the engine.
    #[track_caller]
    pub fn parent(&self, pid: &str) -> String {
        let status = self.proc(pid, "status");
        status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().to_owned()
    }

    /// A signal to these of `dockerd` and `containerd`.
    #[track_caller]
    pub fn signal_daemons(&self, names: &[&str], signal: &str) {
        for name in names {
            let pid = fs::read_to_string(number(&self.dir, name)).expect("the number of a daemon");
            self.near(&["kill", "-s", signal, &pid]).go().ok();
        }
    }

    /// SIGKILL to dockerd and its containerd, which stay away until `daemons_come_back`, or for 40 s.
    pub fn kill_daemons(&self) -> TestResult {
        fs::write(self.dir.join(HOLD), "")?;
        let both = ["dockerd", "containerd"];
        self.signal_daemons(&both, "KILL");
        let are_gone = || both.iter().all(|name| !number(&self.dir, name).exists());
        self.lab.eventually("the end of the daemons", are_gone);
        Ok(())
    }

    /// What `kill_daemons` killed is started again.
    pub fn daemons_come_back(&self) -> TestResult {
        fs::remove_file(self.dir.join(HOLD))?;
        self.lab.eventually("containerd", || number(&self.dir, "containerd").exists());
        let answers = || self.go(&["version"]).rc == 0;
        // dockerd asks for its containers first: on a busy host that takes its time.
        assert!(self.lab.settles(answers) || self.lab.settles(answers), "dockerd does not come back");
        Ok(())
    }

    /// SIGKILL to dockerd. Whoever shares the engine notices.
    pub fn kill_dockerd(&self) -> TestResult {
        let pid = fs::read_to_string(self.dir.join("docker.pid"))?;
        self.near(&["kill", "-KILL", pid.trim()]).go().ok();
        self.lab.eventually("another dockerd", || {
            let now = fs::read_to_string(self.dir.join("docker.pid")).unwrap_or_default();
            now != pid && self.go(&["version"]).rc == 0
        });
        Ok(())
    }
}

/// Where the number of a daemon is, while it runs.
pub(super) fn number(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.number"))
}

/// A program of the host in an engine's namespaces.
pub(super) fn near(lab: &Lab, dir: &Path, words: &[&str]) -> Call {
    let pid = fs::read_to_string(dir.join("pid")).unwrap_or_default();
    let mut argv: Vec<OsString> =
        ["nsenter", "-t", &pid, "-m", "-n", "-p", "-u", "-i", "--"].map(OsString::from).into();
    argv.extend(words.iter().map(OsString::from));
    Call::new(lab, argv).env("PATH", search_path(dir)).env("TMPDIR", dir)
}

/// Removes every container of a test; those it found.
pub(crate) fn remove_containers(dir: &Path, tag: &str) -> Result<Vec<String>, Stop> {
    if super::ctr::is_cri(dir) {
        return crate::cri::remove_pods(&dir.join("containerd.sock"), tag);
    }
    if super::ctr::is_containerd(dir) {
        return super::ctr::remove_containers(dir, tag);
    }
    let command = || {
        if !is_podman(dir) {
            return docker(dir);
        }
        let pid = fs::read_to_string(dir.join("pid")).unwrap_or_default();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &pid, "-m", "-n", "-p", "-u", "-i", "--"])
            .env("PATH", search_path(dir))
            .stdin(no_input());
        let runtime = std::env::var_os("HULL_LAB_RUNTIME").unwrap_or_default();
        command.args(podman(dir, Path::new(&runtime)));
        command
    };
    let list = command().args(["ps", "-aq", "--filter", &format!("name={tag}c")]).output()?;
    let ids: Vec<String> =
        String::from_utf8_lossy(&list.stdout).split_whitespace().map(String::from).collect();
    if !ids.is_empty() {
        let removed = command().args(["rm", "-f", "-v"]).args(&ids).output()?;
        if !removed.status.success() {
            let text = String::from_utf8_lossy(&removed.stderr);
            return Err(Stop::Fail(format!("rm -f of the test's containers: {text}")));
        }
    }
    Ok(ids)
}
