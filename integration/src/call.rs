//! One call of the runtime and what came back. Output goes to files, never pipes: a detached container keeps
//! its stdio, and waiting for the end of a pipe would wait for the container.

use crate::{Lab, Stop};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A call that has not been made yet.
#[derive(Debug)]
#[must_use]
pub struct Call {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Stdin,
    base: PathBuf,
}

#[derive(Debug)]
enum Stdin {
    None,
    Text(String),
    Tty(OwnedFd),
}

impl Call {
    pub(crate) fn new(lab: &Lab, argv: Vec<OsString>) -> Self {
        Self { argv, env: Vec::new(), cwd: None, stdin: Stdin::None, base: lab.next_path("call") }
    }

    /// More arguments at the end.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.argv.extend(args.iter().map(OsString::from));
        self
    }

    /// As `args`, of words that need not be text.
    pub(crate) fn os_args(mut self, args: Vec<OsString>) -> Self {
        self.argv.extend(args);
        self
    }

    /// Sets a variable for the runtime.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The runtime's working directory.
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Feeds this text and closes.
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Stdin::Text(text.into());
        self
    }

    /// Gives the runtime the terminal as stdin, stdout, stderr and controlling terminal.
    pub fn tty(mut self, lab: &Lab, slave: OwnedFd) -> Self {
        self.wrap(vec![lab.busybox().into(), "setsid".into(), "-c".into()]);
        self.stdin = Stdin::Tty(slave);
        self
    }

    /// Opens descriptors for the runtime in a shell's words: `3</etc 4>>/tmp/x`.
    pub fn redirect(mut self, lab: &Lab, words: &str) -> Self {
        // sd_listen_fds(3) wants the runtime's own pid; the shell's pid stays the runtime's through exec.
        let script = format!("[ -z \"$LISTEN_FDS\" ] || export LISTEN_PID=$$; exec \"$@\" {words}");
        self.wrap(vec![lab.busybox().into(), "sh".into(), "-c".into(), script.into(), "sh".into()]);
        self
    }

    /// Puts a program in front of the runtime's own command line.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.wrap(words.iter().map(OsString::from).collect());
        self
    }

    fn wrap(&mut self, mut front: Vec<OsString>) {
        front.append(&mut self.argv);
        self.argv = front;
    }

    /// Makes the call and waits for its end.
    pub fn go(self) -> Output {
        self.spawn().wait()
    }

    /// Makes the call and goes on.
    pub fn spawn(self) -> Running {
        let (out, err) = (self.base.with_extension("out"), self.base.with_extension("err"));
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env);
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "XDG_RUNTIME_DIR", "RUNTIME"] {
            if !command.get_envs().any(|(k, _)| k == name) {
                command.env_remove(name);
            }
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let create = |path: &PathBuf| File::create(path).expect("create an output file");
        command.stdout(create(&out)).stderr(create(&err)).stdin(no_input());
        let mut text = None;
        match self.stdin {
            Stdin::None => {}
            Stdin::Text(t) => {
                command.stdin(Stdio::piped());
                text = Some(t);
            }
            Stdin::Tty(fd) => {
                let copy = || Stdio::from(fd.try_clone().expect("dup the terminal"));
                command.stdout(copy()).stderr(copy()).stdin(copy());
            }
        }
        let words: Vec<String> = self.argv.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        let since = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("spawn {}: {e}", words.join(" ")));
        if let Some(text) = text {
            // A runtime that does not read its stdin leaves us with EPIPE: not this call's business.
            child.stdin.take().expect("piped").write_all(text.as_bytes()).ok();
        }
        Running { words, child, since, out, err }
    }
}

/// A call under way.
#[derive(Debug)]
pub struct Running {
    words: Vec<String>,
    child: Child,
    since: Instant,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// The runtime's own process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it and the container have printed so far.
    pub fn printed(&self) -> String {
        text_of(&self.out)
    }

    /// SIGKILL to the runtime, then its end.
    pub fn kill(mut self) -> Output {
        // The process may have ended a moment ago: that is as good.
        self.child.kill().ok();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let status = self.child.wait().expect("wait for the runtime");
        self.finish(status)
    }

    /// As `wait`, for at most this long.
    pub fn wait_for(mut self, limit: Duration) -> Result<Output, Stop> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(self.finish(status));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = Self::kill(self);
        Err(Stop::Fail(format!("no end after {limit:?}: {output}")))
    }

    fn finish(self, status: ExitStatus) -> Output {
        let output = Output {
            line: self.words.join(" "),
            rc: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            took: self.since.elapsed(),
            out: self.out,
            err: self.err,
        };
        Lab::note(&output.to_string());
        output
    }
}

/// What came back from a call.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line.
    pub line: String,
    /// The exit code; minus the signal when the runtime itself was killed.
    pub rc: i32,
    /// How long it took.
    pub took: Duration,
    out: PathBuf,
    err: PathBuf,
}

impl Output {
    /// stdout up to now: of a detached container it can still grow.
    pub fn out(&self) -> String {
        text_of(&self.out)
    }

    /// stderr up to now.
    pub fn err(&self) -> String {
        text_of(&self.err)
    }

    /// stdout without surrounding white space.
    pub fn text(&self) -> String {
        self.out().trim().to_owned()
    }

    /// It must have ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.rc(0)
    }

    /// It must have ended with this code.
    #[track_caller]
    pub fn rc(self, code: i32) -> Self {
        assert!(self.rc == code, "exit code {} instead of {code}: {self}", self.rc);
        self
    }

    /// It must have failed in an orderly way, and said this (on stderr).
    #[track_caller]
    pub fn fails(self, text: &str) -> Self {
        assert!(self.rc > 0, "exit code {} instead of a failure: {self}", self.rc);
        assert!(self.err().contains(text), "the error does not say {text:?}: {self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.took.as_millis();
        write!(f, "$ {}\n  -> {} after {ms} ms", self.line, self.rc)?;
        for (name, text) in [("stdout", self.out()), ("stderr", self.err())] {
            for line in text.lines().take(20) {
                write!(f, "\n  {name}: {line}")?;
            }
        }
        Ok(())
    }
}

/// An input that has ended. Not /dev/null: crun 1.8 gives that of the host to the user of the container.
pub fn no_input() -> Stdio {
    let (reader, _) = std::io::pipe().expect("make a pipe");
    reader.into()
}

/// A file that a container may have filled with anything.
pub(crate) fn text_of(path: &PathBuf) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
