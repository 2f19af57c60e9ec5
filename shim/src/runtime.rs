//! How the runtime is called: hull, or any other with runc's command line. One process for each call, its
//! log read for the reason of a failure. Knows nothing of the states of a container. `container` and `delete`
//! call it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use serde::Deserialize;
use ttrpc::Code;

use crate::error::{Error, Result};
use crate::io::Ends;
use crate::options::Options;
use crate::reaper::Reaper;
use crate::sandbox::Host;
use crate::spawn::Process;

/// Where runtimes keep their state when the options do not say.
const ROOT: &str = "/run/containerd/runc";

/// The runtime of one container.
#[derive(Clone, Debug)]
pub struct Runtime {
    binary: PathBuf,
    root: PathBuf,
    bundle: PathBuf,
    id: String,
    options: Options,
    reaper: Rc<Reaper>,
    /// The namespaces it is started from, when those are not our own.
    host: Option<Rc<Host>>,
}

impl Runtime {
    /// The one that the options ask for.
    pub fn new(options: &Options, namespace: &str, bundle: &Path, id: &str, reaper: &Rc<Reaper>) -> Self {
        let root = if options.root.is_empty() { Path::new(ROOT) } else { Path::new(&options.root) };
        Self {
            binary: if options.binary_name.is_empty() { own() } else { (&options.binary_name).into() },
            root: root.join(namespace),
            bundle: bundle.to_owned(),
            id: id.to_owned(),
            options: options.clone(),
            reaper: Rc::clone(reaper),
            host: None,
        }
    }

    /// The same, started from other namespaces than ours.
    #[must_use]
    pub fn from(self, host: Option<Rc<Host>>) -> Self {
        Self { host, ..self }
    }

    /// The file to be executed.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Whether it has a record of the container.
    pub fn knows(&self) -> bool {
        self.record().exists()
    }

    fn record(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    /// Makes the container.
    ///
    /// # Errors
    /// `OCI runtime create failed: ...`.
    pub async fn create(&self, ends: Ends, pid_file: &Path, console: Option<&Path>) -> Result<()> {
        let mut words = self.making(pid_file, console);
        words.extend(["--bundle".into(), self.bundle.clone().into_os_string()]);
        let mut command = self.command("create", words);
        give(&mut command, ends);
        self.call(command, "OCI runtime create failed").await
    }

    /// Makes the container from a checkpoint and lets it run.
    ///
    /// # Errors
    /// `OCI runtime restore failed: ...`.
    pub async fn restore(
        &self,
        ends: Ends,
        pid_file: &Path,
        console: Option<&Path>,
        image: &Path,
        work: &Path,
    ) -> Result<()> {
        let mut words = self.making(pid_file, console);
        words.extend(["--bundle".into(), self.bundle.clone().into_os_string(), "--detach".into()]);
        words.extend(["--image-path".into(), image.into(), "--work-path".into(), work.into()]);
        let mut command = self.command("restore", words);
        give(&mut command, ends);
        self.call(command, "OCI runtime restore failed").await
    }

    fn making(&self, pid_file: &Path, console: Option<&Path>) -> Vec<std::ffi::OsString> {
        let mut words = vec!["--pid-file".into(), pid_file.into()];
        if let Some(console) = console {
            words.extend(["--console-socket".into(), console.into()]);
        }
        if self.options.no_pivot_root {
            words.push("--no-pivot".into());
        }
        if self.options.no_new_keyring {
            words.push("--no-new-keyring".into());
        }
        words
    }

    /// Runs the container's program.
    ///
    /// # Errors
    /// `OCI runtime start failed: ...`.
    pub async fn start(&self) -> Result<()> {
        self.call(self.command("start", vec![]), "OCI runtime start failed").await
    }

    /// Runs one more process, described in `process`.
    ///
    /// # Errors
    /// `OCI runtime exec failed: ...`.
    pub async fn exec(
        &self,
        ends: Ends,
        process: &Path,
        pid_file: &Path,
        console: Option<&Path>,
    ) -> Result<()> {
        let mut words = vec!["--process".into(), process.into(), "--detach".into()];
        words.extend(["--pid-file".into(), pid_file.into()]);
        if let Some(console) = console {
            words.extend(["--console-socket".into(), console.into()]);
        }
        let mut command = self.command("exec", words);
        give(&mut command, ends);
        self.call(command, "OCI runtime exec failed").await
    }

    /// Sends a signal to the container's init, or to all of its processes.
    ///
    /// # Errors
    /// Not found, when there is no such process any more.
    pub async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        let mut command = self.plain("kill");
        if all {
            command.arg("--all");
        }
        command.arg("--").arg(&self.id).arg(signal.to_string());
        self.call(command, "OCI runtime kill failed").await.map_err(|error| kill_error(error, &self.id))
    }

    /// Removes the container; one that does not exist is no error.
    ///
    /// # Errors
    /// `OCI runtime delete failed: ...`.
    pub async fn delete(&self, force: bool) -> Result<()> {
        let words = if force { vec!["--force".into()] } else { vec![] };
        match self.call(self.command("delete", words), "OCI runtime delete failed").await {
            Err(error) if error.code == Code::NOT_FOUND => Ok(()),
            done => done,
        }
    }

    /// The call that kills and removes whatever is left, for who does not live in the event loop.
    pub fn deletion(&self) -> Command {
        self.command("delete", vec!["--force".into()])
    }

    /// The call that lists all containers of the daemon's namespace as JSON; nothing when there was none yet.
    pub fn listing(&self) -> Option<Command> {
        self.root.exists().then(|| {
            let mut command = self.plain("list");
            command.args(["--format", "json"]);
            command
        })
    }

    /// Freezes all processes of the container.
    ///
    /// # Errors
    /// `OCI runtime pause failed: ...`.
    pub async fn pause(&self) -> Result<()> {
        self.call(self.command("pause", vec![]), "OCI runtime pause failed").await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// `OCI runtime resume failed: ...`.
    pub async fn resume(&self) -> Result<()> {
        self.call(self.command("resume", vec![]), "OCI runtime resume failed").await
    }

    /// Changes its limits to those in the JSON file.
    ///
    /// # Errors
    /// `OCI runtime update failed: ...`.
    pub async fn update(&self, resources: &Path) -> Result<()> {
        let words = vec!["--resources".into(), resources.into()];
        self.call(self.command("update", words), "OCI runtime update failed").await
    }

    /// Writes its processes down, with `words` for CRIU.
    ///
    /// # Errors
    /// `OCI runtime checkpoint failed: ...`.
    pub async fn checkpoint(&self, words: Vec<std::ffi::OsString>) -> Result<()> {
        self.call(self.command("checkpoint", words), "OCI runtime checkpoint failed").await
    }

    /// What it says of itself (`features`), or nothing.
    pub fn features(&self) -> Option<Vec<u8>> {
        let output = Command::new(&self.binary).arg("features").stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }

    fn plain(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(verb).current_dir(&self.bundle);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn command(&self, verb: &str, words: Vec<std::ffi::OsString>) -> Command {
        let mut command = self.plain(verb);
        command.args(words).arg("--").arg(&self.id);
        command
    }

    async fn call(&self, mut command: Command, failed: &str) -> Result<()> {
        let _hold = self.reaper.hold();
        // What this call says is what follows.
        let log = std::fs::symlink_metadata(self.log());
        if log.as_ref().is_ok_and(|meta| !meta.is_file()) {
            return Err(Error::other(format!("{failed}: {} is not a regular file", self.log().display())));
        }
        let said = log.map_or(0, |meta| meta.len());
        if let Some(host) = &self.host {
            host.place(&mut command)?;
        }
        let process =
            Process::spawn(&mut command).map_err(|error| Error::other(format!("{failed}: {error}")))?;
        // Its copies of the container's streams, which else would never end.
        drop(command);
        let exit = process.wait().await;
        if exit.status == 0 {
            return Ok(());
        }
        let reason = last_error(&self.log(), said);
        let reason =
            reason.unwrap_or_else(|| format!("it exited with status {} and printed no error", exit.status));
        let text = format!("{failed}: {reason}");
        Err(if self.is_missing(&reason) { Error::not_found(text) } else { Error::other(text) })
    }

    /// Whether a reason is that the runtime has no such container: somebody has deleted it by hand. Other runtimes
    /// than runc and hull say it in other words, or name the file that is not there.
    fn is_missing(&self, reason: &str) -> bool {
        let names_it =
            || reason.contains("does not exist") || reason.contains(&*self.record().to_string_lossy());
        reason.contains("container does not exist") || !self.knows() && names_it()
    }
}

/// hull: beside this program, else in PATH.
fn own() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("hull")));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "hull".into())
}

fn give(command: &mut Command, ends: Ends) {
    let end = |end: Option<std::os::fd::OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
    command.stdin(end(ends.stdin)).stdout(end(ends.stdout)).stderr(end(ends.stderr));
}

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// The last error in a runtime's log from byte `start` on.
fn last_error(log: &Path, start: u64) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(text.get(usize::try_from(start).ok()?..)?).into_owned();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.filter(|line| line.level == "error").map(|line| line.msg).next_back()
}

/// The two answers that callers tell apart.
fn kill_error(error: Error, id: &str) -> Error {
    let text = error.message.to_lowercase();
    let finished = ["process already finished", "container not running", "no such process"];
    if finished.iter().any(|words| text.contains(words)) {
        Error::not_found("process already finished")
    } else if error.code == Code::NOT_FOUND {
        Error::not_found(format!("no such container: {id}"))
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_reason_is_the_last_error_of_this_call() {
        let dir = std::env::temp_dir().join(format!("hull-shim-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let log = dir.join("log.json");
        let old = "{\"level\":\"error\",\"msg\":\"old\"}\n";
        let new = "{\"level\":\"error\",\"msg\":\"first\"}\nnoise\n{\"level\":\"error\",\"msg\":\"why\"}\n{\"level\":\"warning\",\"msg\":\"w\"}\n";
        std::fs::write(&log, format!("{old}{new}")).unwrap();
        let said = u64::try_from(old.len()).unwrap();
        assert_eq!(last_error(&log, said).as_deref(), Some("why"));
        assert_eq!(last_error(&log, said + u64::try_from(new.len()).unwrap()), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_finished_process_is_not_found() {
        for text in ["container not running", "os: process already finished", "no such process"] {
            let error = kill_error(Error::other(text), "c");
            assert_eq!(error.code, ttrpc::Code::NOT_FOUND);
            assert_eq!(error.message, "process already finished");
        }
        assert_eq!(kill_error(Error::not_found("x"), "c").message, "no such container: c");
        assert_eq!(kill_error(Error::other("x"), "c").code, ttrpc::Code::UNKNOWN);
    }

    #[test]
    fn a_container_without_a_record_is_missing() {
        let dir = Scratch::new("missing");
        let options = Options { root: dir.path().to_string_lossy().into_owned(), ..Options::default() };
        let runtime = Runtime::new(&options, "ns", dir.path(), "c", &Rc::default());
        let crun = format!("error opening file `{}/ns/c/status`: No such file or directory", options.root);
        for reason in ["exec failed: container does not exist", "container `c` does not exist", &crun] {
            assert!(runtime.is_missing(reason), "{reason}");
        }
        assert!(!runtime.is_missing("exec: no-such-program: no such file or directory"));
        std::fs::create_dir_all(runtime.record()).unwrap();
        assert!(!runtime.is_missing("/work does not exist"));
    }
}
