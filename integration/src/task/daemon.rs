//! The daemon's own part: namespace, bundles, and the shim's command lines `start`, `delete`, `-info`.

use super::service::{finish, is_gone};
use super::{Client, Events, Refusal, Task};
use crate::call::no_input;
use crate::{Bundle, Lab, Shim, Stop, TestResult, skip};
use hull_proto::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use hull_proto::runc_options::Options;
use hull_proto::task::DeleteResponse;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How a version of containerd talks to `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 1.6: flags and one variable; the answer is an address.
    V1_6,
    /// 1.7 to 2.2: more variables; the answer is an address or JSON.
    V1_7,
    /// 2.3 and later: a message on stdin, the answer is a message.
    V2_3,
}

/// The answer of `start`.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where it listens.
    pub socket: PathBuf,
    /// Of the task service.
    pub version: i32,
    /// As it came.
    pub raw: Vec<u8>,
}

/// What came back from the shim's command line.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The exit code, minus the signal.
    pub rc: i32,
    /// stdout.
    pub out: Vec<u8>,
    /// stderr.
    pub err: String,
}

impl Asked {
    /// Must have ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(
            self.rc == 0,
            "the shim ended with {}: {}{}",
            self.rc,
            String::from_utf8_lossy(&self.out),
            self.err
        );
        self
    }
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon<'l> {
    /// The test's.
    pub lab: &'l Lab,
    /// Its state directory.
    pub dir: PathBuf,
    /// In which its containers are.
    pub namespace: String,
    /// Its service for events.
    pub events: Events,
    /// The shim under test.
    pub shim: PathBuf,
    /// The shim starts and answers as this one expects.
    pub dialect: Dialect,
    known: RefCell<Vec<(String, PathBuf, Started)>>,
}

/// Where shims listen by default.
pub(super) const SOCKETS: &str = "/run/containerd/s";

impl Lab {
    /// A daemon, and a /run of this test's own. Before any other thread.
    pub fn daemon(&self) -> Result<Daemon<'_>, Stop> {
        if !nix::unistd::geteuid().is_root() {
            return skip("a shim needs root");
        }
        self.private_mounts()?;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        let shim = self.shim.as_ref().ok_or("no shim")?;
        let dir = self.new_dir("d");
        let events = Events::new(&dir.join("e.ttrpc"));
        let dialect = if is_old(shim) { Dialect::V1_6 } else { Dialect::V2_3 };
        let (shim, namespace, known) = (shim.path.clone(), "test".into(), RefCell::default());
        Ok(Daemon { lab: self, dir, namespace, events, shim, dialect, known })
    }
}

/// The Go shim up to 1.7, which knows version 2 of the service alone.
fn is_old(shim: &Shim) -> bool {
    shim.kind == "containerd-shim-runc-v2" && shim.version.starts_with("1.")
}

impl Daemon<'_> {
    /// The address of the daemon that the shim's flags and variables name.
    pub fn address(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// Where its shims' service for events is.
    pub fn events_address(&self) -> PathBuf {
        self.dir.join("e.ttrpc")
    }

    /// A bundle, named as its container and in the daemon's state directory.
    pub fn bundle(&self) -> Bundle {
        self.place(self.lab.bundle())
    }

    /// A bundle of the same group as another, over the root file system of that one.
    pub fn member(&self, of: &Bundle) -> Bundle {
        let bundle = self.place(of.sibling(self.lab));
        bundle.set("/annotations/io.kubernetes.cri.sandbox-id", json!(of.id))
    }

    fn place(&self, mut bundle: Bundle) -> Bundle {
        let dir = self.dir.join(&self.namespace).join(&bundle.id);
        fs::create_dir_all(dir.parent().expect("a parent")).expect("the namespace's directory");
        fs::rename(&bundle.dir, &dir).expect("move the bundle");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).expect("chmod the bundle");
        bundle.dir = dir;
        bundle
    }

    /// What a daemon has ready before it starts a shim.
    pub fn prepare(&self, bundle: &Bundle) -> Result<(), Stop> {
        bundle.write();
        if bundle.dir.join("log").exists() {
            return Ok(());
        }
        symlink(self.lab.new_dir("work"), bundle.dir.join("work"))?;
        let log = bundle.dir.join("log");
        mkfifo(&log, Mode::from_bits_truncate(0o700))?;
        // For both, so that it never ends; as the daemon, we keep what the shim says.
        let file = OpenOptions::new().read(true).write(true).open(&log)?;
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(file)).map_while(Result::ok) {
                Lab::note(&format!("shim: {line}"));
            }
        });
        Ok(())
    }

    /// The shim's command line up to its verb, in the bundle.
    pub fn command(&self, bundle: &Bundle) -> Command {
        let mut command = Command::new(&self.shim);
        command
            .arg("-namespace")
            .arg(&self.namespace)
            .arg("-address")
            .arg(self.address())
            .args(["-publish-binary", "/usr/bin/containerd", "-id", &bundle.id])
            .current_dir(&bundle.dir)
            .env("GOMAXPROCS", "2")
            .env("TTRPC_ADDRESS", self.events_address())
            .env_remove("XDG_RUNTIME_DIR")
            .process_group(0);
        if self.dialect != Dialect::V1_6 {
            command
                .env("MAX_SHIM_VERSION", "2")
                .env("GRPC_ADDRESS", self.address())
                .env("NAMESPACE", &self.namespace);
        }
        command
    }

    /// What 2.3 writes to the shim's stdin.
    pub fn bootstrap(&self, bundle: &Bundle) -> BootstrapParams {
        BootstrapParams {
            instance_id: bundle.id.clone(),
            namespace: self.namespace.clone(),
            containerd_version: "2.3.4".into(),
            containerd_ttrpc_address: self.events_address().to_string_lossy().into_owned(),
            containerd_grpc_address: self.address().to_string_lossy().into_owned(),
            containerd_binary: "/usr/bin/containerd".into(),
            extensions: vec![Extension {
                value: MessageField::some(self.options(|_| {})),
                ..Extension::default()
            }],
            ..BootstrapParams::default()
        }
    }

    /// `start` in the daemon's dialect; options, if any, go along as each version does it.
    pub fn start(&self, bundle: &Bundle) -> Result<Asked, Stop> {
        self.prepare(bundle)?;
        let stdin = match self.dialect {
            Dialect::V1_6 | Dialect::V1_7 => Vec::new(),
            Dialect::V2_3 => self.bootstrap(bundle).write_to_bytes()?,
        };
        self.ask(self.command(bundle).arg("start"), &stdin)
    }

    /// As `start`, with these bytes on stdin and any change of the command line.
    pub fn start_with(
        &self,
        bundle: &Bundle,
        stdin: &[u8],
        edit: impl FnOnce(&mut Command),
    ) -> Result<Asked, Stop> {
        self.prepare(bundle)?;
        let mut command = self.command(bundle);
        edit(&mut command);
        self.ask(command.arg("start"), stdin)
    }

    /// Gives a command line of the shim and waits for its end.
    pub fn ask(&self, command: &mut Command, stdin: &[u8]) -> Result<Asked, Stop> {
        ask(command, stdin).map_err(Stop::from)
    }

    /// Reads the answer of `start` as a daemon of this dialect does.
    pub fn read_answer(&self, asked: &Asked) -> Result<Started, Stop> {
        let raw = asked.out.clone();
        let text = String::from_utf8_lossy(&raw).into_owned();
        let (version, address) = match self.dialect {
            Dialect::V2_3 if !text.starts_with('{') && !text.starts_with("unix://") => {
                let result = BootstrapResult::parse_from_bytes(&raw)?;
                if result.protocol != "ttrpc" {
                    return Err(Stop::Fail(format!("protocol {:?}", result.protocol)));
                }
                (result.version, result.address)
            }
            Dialect::V1_7 | Dialect::V2_3 if text.starts_with('{') => {
                let answer: Value = serde_json::from_str(&text)?;
                let version = answer["version"].as_i64().unwrap_or_default() as i32;
                (version, answer["address"].as_str().unwrap_or_default().to_owned())
            }
            _ => (2, text.trim().to_owned()),
        };
        let Some(socket) = address.strip_prefix("unix://") else {
            return Err(Stop::Fail(format!("no address: {text:?} {}", asked.err)));
        };
        Ok(Started { socket: socket.into(), version, raw })
    }

    /// Starts a shim for the bundle and connects.
    pub fn task(&self, bundle: Bundle) -> Result<Task<'_>, Stop> {
        let asked = self.start(&bundle)?.ok();
        let started = self.read_answer(&asked)?;
        self.attach(bundle, started)
    }

    /// Connects to a shim that was started for the bundle.
    pub fn attach(&self, bundle: Bundle, started: Started) -> Result<Task<'_>, Stop> {
        let client = self.connect(&started)?;
        self.known.borrow_mut().push((bundle.id.clone(), bundle.dir.clone(), started.clone()));
        Ok(Task { daemon: self, id: bundle.id.clone(), bundle, started, client })
    }

    /// A connection to a shim.
    pub fn connect(&self, started: &Started) -> Result<Client, Refusal> {
        let service =
            if started.version >= 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" };
        Client::connect(&started.socket, service, &self.namespace)
    }

    /// The runc options every Create has: the runtime under test, and what the test adds.
    pub fn options(&self, edit: impl FnOnce(&mut Options)) -> Any {
        let mut options = Options::new();
        options.binary_name = self.lab.runtime.path.to_string_lossy().into_owned();
        edit(&mut options);
        any("containerd.runc.v1.Options", &options)
    }

    /// A runtime that does something else first: a shell script that ends with running `"$runtime" "$@"`, and in
    /// which `$verb` is the verb.
    pub fn wrapper(&self, script: &str) -> Result<PathBuf, Stop> {
        let path = self.lab.next_path("runtime");
        let find_verb = "for verb; do case $verb in create|start|delete|kill|exec|pause|resume|update|state|ps|features) break;; esac; done";
        let text = format!(
            "#!{} sh\nruntime={}\n{find_verb}\n{script}\nexec \"$runtime\" \"$@\"\n",
            self.lab.busybox().display(),
            self.lab.runtime.path.display()
        );
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// `delete`, as the daemon does it for a shim that is gone or told to go.
    pub fn delete(&self, bundle: &Bundle) -> Result<DeleteResponse, Stop> {
        let mut command = self.command(bundle);
        command.arg("-bundle").arg(&bundle.dir).arg("delete");
        let asked = self.ask(&mut command, &[])?.ok();
        Ok(DeleteResponse::parse_from_bytes(&asked.out)?)
    }

    /// Where the sockets of shims are.
    pub fn sockets(&self) -> Vec<PathBuf> {
        entries(Path::new(SOCKETS))
    }

    /// At the end of a test: every container goes as a daemon makes it go, and nothing may be left.
    pub fn end(&self) -> TestResult {
        let known: Vec<_> = self.known.take().into_iter().filter(|(_, dir, _)| dir.exists()).collect();
        // One whose shim is gone already has only `delete` to come.
        let ended = known.iter().filter_map(|(id, _, started)| finish(&self.connect(started).ok()?, id));
        let shims: Vec<i32> = ended.collect();
        self.lab.eventually("the end of the shims", || shims.iter().all(|pid| is_gone(*pid)));
        for (id, dir, _) in known {
            let bundle = Bundle { id, dir, spec: Value::Null };
            let mut command = self.command(&bundle);
            let asked = self.ask(command.arg("-bundle").arg(&bundle.dir).arg("delete"), &[])?;
            // The Go shim of 1.6 fails for a container that was never created.
            if asked.rc != 0 && self.dialect != Dialect::V1_6 {
                return Err(Stop::Fail(format!("delete ended with {}: {}", asked.rc, asked.err)));
            }
            self.remove_bundle(&bundle);
        }
        self.events.go_away();
        let mut left = Vec::new();
        let clean = self.lab.settles(|| {
            left = self.left();
            left.is_empty()
        });
        if clean { Ok(()) } else { Err(Stop::Fail(format!("left: {left:?}"))) }
    }

    /// The last step of a daemon.
    pub fn remove_bundle(&self, bundle: &Bundle) {
        fs::remove_dir_all(&bundle.dir).expect("remove the bundle");
    }

    /// What shims and runtimes have left.
    pub fn left(&self) -> Vec<String> {
        let state = Path::new("/run/containerd/runc").join(&self.namespace);
        let paths = self.sockets().into_iter().chain(entries(&state)).filter(|path| !is_hidden(path));
        let mut left: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        left.extend(
            points.filter(|at| Path::new(at).starts_with(&self.lab.dir)).map(|at| format!("mount {at}")),
        );
        left
    }
}

/// Gives a command line and waits for its end and that of its output: a server that kept a stream would hang here.
pub fn ask(command: &mut Command, stdin: &[u8]) -> std::io::Result<Asked> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_empty() { no_input() } else { Stdio::piped() });
    let mut child = command.spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A shim that does not read it says so by its answer.
        pipe.write_all(stdin).ok();
    }
    let output = child.wait_with_output()?;
    let status = output.status;
    let asked = Asked {
        rc: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let out = String::from_utf8_lossy(&asked.out);
    Lab::note(&format!("$ shim {}\n  -> {} {out}{}", words.join(" "), asked.rc, asked.err));
    Ok(asked)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// A message with the name of its kind.
pub(super) fn any(kind: &str, message: &impl Message) -> Any {
    Any { type_url: kind.to_owned(), value: message.write_to_bytes().expect("a message"), ..Any::default() }
}
