//! What a test holds in its hand: a directory of its own, a state root, a runtime to call, a tag that is in every
//! name the test makes (container ids, cgroups) so that leftovers can be found.

use crate::{Bundle, Call, Host, Output, Stop, TestResult, View, skip};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The place a test works in.
#[derive(Debug)]
pub struct Lab {
    /// A directory of this test's own.
    pub dir: PathBuf,
    /// The runtime's state root (`--root`).
    pub root: PathBuf,
    /// In the name of everything the test makes.
    pub tag: String,
    /// What the host has, as seen in the test's view.
    pub host: Host,
    /// The runtime under test.
    pub runtime: Runtime,
    /// The shim under test.
    pub shim: Option<Shim>,
    pub(crate) engine: Option<PathBuf>,
    shared: PathBuf,
    count: Cell<u32>,
    made: RefCell<Vec<String>>,
}

/// The binary under test.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Its path.
    pub path: PathBuf,
    /// First word of `--version`: hull, runc, crun, youki.
    pub kind: String,
    /// Third word.
    pub version: String,
}

impl Runtime {
    /// Finds the binary (a path, or a name in PATH) and asks for its version.
    pub fn find(name: &str) -> Result<Self, String> {
        let path = which(name).ok_or_else(|| format!("RUNTIME: no executable {name}"))?;
        let output = std::process::Command::new(&path).arg("--version").output();
        let output = output.map_err(|e| format!("{} --version: {e}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or("unknown").to_owned();
        let version = words.nth(1).unwrap_or_default().to_owned();
        Ok(Self { path, kind, version })
    }
}

/// The containerd shim under test.
#[derive(Clone, Debug)]
pub struct Shim {
    /// Its path.
    pub path: PathBuf,
    /// What `-v` calls it: containerd-shim-hull-v1, containerd-shim-runc-v2.
    pub kind: String,
    /// Its version.
    pub version: String,
}

impl Shim {
    /// The one named by SHIM, or hull's beside the runtime; `None` when neither is there.
    pub fn find(runtime: &Runtime) -> Result<Option<Self>, String> {
        let beside = runtime.path.with_file_name("containerd-shim-hull-v1");
        let path = match env::var("SHIM") {
            Ok(name) => which(&name).ok_or_else(|| format!("SHIM: no executable {name}"))?,
            Err(_) if beside.is_file() => beside,
            Err(_) => return Ok(None),
        };
        Self::at(path).map(Some)
    }

    /// The one at this path or of this name in PATH.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Self::at(which(name).ok_or_else(|| format!("no executable {name}"))?)
    }

    fn at(path: PathBuf) -> Result<Self, String> {
        let output = std::process::Command::new(&path).arg("-v").output();
        let output = output.map_err(|e| format!("{} -v: {e}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let version = words.iter().skip_while(|word| **word != "Version:").nth(1).or(words.get(1));
        let kind = words.first().copied().unwrap_or("unknown").trim_end_matches(':');
        let kind = kind.rsplit('/').next().unwrap_or(kind).to_owned();
        Ok(Self { path, kind, version: version.copied().unwrap_or_default().to_owned() })
    }

    /// The kind and the version, as `breaks_on` names them.
    pub fn full(&self) -> String {
        format!("{} {}", self.kind, self.version)
    }
}

pub(crate) fn which(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return fs::canonicalize(name).ok();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)).find(|p| p.is_file())
}

impl Lab {
    /// From the variables the supervisor set.
    pub(crate) fn from_env() -> Result<Self, Stop> {
        let var = |name: &str| env::var(name).map_err(|e| Stop::Fail(format!("{name}: {e}")));
        let dir = PathBuf::from(var("HULL_LAB_DIR")?);
        let root = dir.join("root");
        fs::create_dir_all(&root)?;
        Ok(Self {
            root,
            dir,
            tag: var("HULL_LAB_TAG")?,
            host: Host::probe(),
            runtime: Runtime {
                path: var("HULL_LAB_RUNTIME")?.into(),
                kind: var("HULL_LAB_KIND")?,
                version: var("HULL_LAB_VERSION")?,
            },
            shim: env::var_os("HULL_LAB_SHIM").map(|path| Shim {
                path: path.into(),
                kind: var("HULL_LAB_SHIM_KIND").unwrap_or_default(),
                version: var("HULL_LAB_SHIM_VERSION").unwrap_or_default(),
            }),
            engine: env::var_os("HULL_LAB_ENGINE").map(PathBuf::from),
            shared: var("HULL_LAB_SHARED")?.into(),
            count: Cell::new(0),
            made: RefCell::default(),
        })
    }

    /// A line of the transcript that is shown when the test fails.
    pub fn note(line: &str) {
        let Some(dir) = env::var_os("HULL_LAB_DIR") else { return };
        let file = fs::OpenOptions::new().create(true).append(true).open(Path::new(&dir).join("transcript"));
        // The transcript is a convenience: a full disk must not change the verdict.
        let _written = file.and_then(|mut f| writeln!(f, "{line}"));
    }

    /// A line shown under the test's own line, also when it passes: what it adjusted, how much it did.
    pub fn say(&self, line: &str) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("said"));
        file.and_then(|mut f| writeln!(f, "{line}")).expect("write what the test says");
    }

    /// A fresh path in the test's directory.
    pub fn next_path(&self, stem: &str) -> PathBuf {
        self.count.set(self.count.get() + 1);
        self.dir.join(format!("{stem}{}", self.count.get()))
    }

    /// A fresh directory in the test's directory.
    pub fn new_dir(&self, stem: &str) -> PathBuf {
        let path = self.next_path(stem);
        fs::create_dir_all(&path).expect("create a directory");
        path
    }

    /// A fresh container id.
    pub fn new_id(&self) -> String {
        self.count.set(self.count.get() + 1);
        format!("{}c{}", self.tag, self.count.get())
    }

    /// The `cgroupsPath` of a container of this test.
    pub fn cgroups_path(&self, id: &str) -> String {
        format!("/{}/{id}", self.tag)
    }

    /// The busybox of this run; linked into every root file system, so never to be written.
    pub fn busybox(&self) -> PathBuf {
        self.shared.join("busybox")
    }

    pub(crate) fn applets(&self) -> Vec<String> {
        let list = fs::read_to_string(self.shared.join("applets")).expect("the list of applets");
        list.lines().map(String::from).collect()
    }

    /// The runtime is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.runtime.kind == kind
    }

    /// A bundle that runs /bin/true.
    pub fn bundle(&self) -> Bundle {
        Bundle::new(self)
    }

    /// This binary under the name `probe`.
    pub fn probe(&self) -> Result<PathBuf, Stop> {
        let probe = self.shared.join("probe");
        if probe.exists() {
            return Ok(probe);
        }
        skip("hull-integration is not a static binary: build it for a musl target")
    }

    /// A bundle with this binary as /bin/probe.
    pub fn probe_bundle(&self) -> Result<Bundle, Stop> {
        let probe = self.probe()?;
        let bundle = self.bundle();
        fs::hard_link(probe, bundle.path("/bin/probe"))?;
        Ok(bundle)
    }

    /// A call of the runtime with `--root` and these words.
    pub fn call(&self, words: &[&str]) -> Call {
        self.call_globals(&[], words)
    }

    /// As `call`, with more global options in front of the verb.
    pub fn call_globals(&self, globals: &[&str], words: &[&str]) -> Call {
        let mut argv: Vec<OsString> = vec![self.runtime.path.clone().into(), "--root".into()];
        argv.push(self.root.clone().into());
        argv.extend(globals.iter().chain(words).map(OsString::from));
        Call::new(self, argv)
    }

    /// A call of the runtime without `--root`.
    pub fn bare(&self, words: &[&str]) -> Call {
        let mut argv: Vec<OsString> = vec![self.runtime.path.clone().into()];
        argv.extend(words.iter().map(OsString::from));
        Call::new(self, argv)
    }

    /// Makes the call and waits for its end.
    pub fn rt(&self, words: &[&str]) -> Output {
        self.call(words).go()
    }

    /// `create` or `run` of the bundle, not yet made: writes config.json and remembers the id for the end.
    pub fn launch(&self, verb: &str, bundle: &Bundle, flags: &[&str]) -> Call {
        bundle.write();
        self.remember(&bundle.id);
        let dir = bundle.dir.to_string_lossy().into_owned();
        self.call(&[verb, "--bundle", &dir]).args(flags).args(&[&bundle.id])
    }

    /// This id is deleted at the end of a test that passed, if it still exists.
    pub fn remember(&self, id: &str) {
        self.made.borrow_mut().push(id.to_owned());
    }

    /// `run` in the foreground.
    pub fn run(&self, bundle: &Bundle) -> Output {
        self.launch("run", bundle, &[]).go()
    }

    /// `run`, which must end with 0; what it printed.
    #[track_caller]
    pub fn printed(&self, bundle: &Bundle) -> String {
        self.run(bundle).ok().text()
    }

    /// `create`.
    pub fn create(&self, bundle: &Bundle) -> Output {
        self.launch("create", bundle, &[]).go()
    }

    /// `run --detach`, which must end with 0.
    #[track_caller]
    pub fn up(&self, bundle: &Bundle) -> Output {
        self.launch("run", bundle, &["--detach"]).go().ok()
    }

    /// `start`.
    pub fn start(&self, id: &str) -> Output {
        self.rt(&["start", id])
    }

    /// `exec` of a command line.
    pub fn exec(&self, id: &str, words: &[&str]) -> Output {
        self.call(&["exec", id]).args(words).go()
    }

    /// `exec` of a shell script that must end with 0; what it printed.
    #[track_caller]
    pub fn inside(&self, id: &str, script: &str) -> String {
        self.exec(id, &["/bin/sh", "-c", script]).ok().text()
    }

    /// `delete --force`, which must end with 0.
    #[track_caller]
    pub fn delete(&self, id: &str) {
        self.rt(&["delete", "--force", id]).ok();
    }

    /// `state`, which must end with 0.
    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        let text = self.rt(&["state", id]).ok().out();
        serde_json::from_str(&text).expect("state prints JSON")
    }

    /// `status` of `state`.
    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("a status").to_owned()
    }

    /// `pid` of `state`.
    #[track_caller]
    pub fn pid(&self, id: &str) -> i32 {
        self.state(id)["pid"].as_i64().expect("a pid") as i32
    }

    /// Polls `state` until it shows this status, for 10 s.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        self.eventually(&format!("status {status} of {id}"), || self.status(id) == status);
    }

    /// Polls a condition for 10 s.
    #[track_caller]
    pub fn eventually(&self, what: &str, holds: impl FnMut() -> bool) {
        assert!(self.settles(holds), "not within 10 s: {what}");
    }

    /// Polls a condition for 10 s: whether it held in the end.
    pub fn settles(&self, mut holds: impl FnMut() -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if holds() {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Names of the containers in the state root.
    pub fn ids_on_disk(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| !n.starts_with('.'))
            .collect()
    }

    /// `breaks_on` for a runtime that breaks the line on cgroup v2 only.
    pub fn breaks_on_v2(&self, prefix: &str, line: &str) -> TestResult {
        let full = format!("{} {}", self.runtime.kind, self.runtime.version);
        if self.host.mode == crate::Mode::V2 && full.starts_with(prefix) {
            return skip(format!("known on {prefix} with cgroup v2: {line}"));
        }
        Ok(())
    }

    /// Skips unless the host has the controller in the current layout.
    pub fn needs_controller(&self, name: &str) -> TestResult {
        if self.host.has_controller(name) {
            return Ok(());
        }
        skip(format!("the cgroup controller {name} is not available"))
    }

    /// Skips unless user namespaces can be made.
    pub fn needs_userns(&self) -> TestResult {
        if self.host.userns { Ok(()) } else { skip("user namespaces are not available") }
    }

    /// Moves this test into a mount namespace of its own. Before any other thread.
    pub fn private_mounts(&self) -> TestResult {
        crate::view::private_mounts()
    }

    /// The view word the supervisor asked for.
    pub(crate) fn view_from_env() -> View {
        env::var("HULL_LAB_VIEW").ok().and_then(|w| View::parse(&w)).unwrap_or(View::Host)
    }

    /// At the end of a test that passed: every container it made and did not delete.
    pub(crate) fn tidy(&self) -> TestResult {
        if let Some(engine) = &self.engine {
            crate::engine::remove_containers(engine, &self.tag)?;
        }
        for id in self.made.take() {
            if self.root.join(&id).exists() {
                let output = self.rt(&["delete", "--force", &id]);
                if output.rc != 0 {
                    return Err(Stop::Fail(format!("the final delete --force failed: {output}")));
                }
            }
        }
        Ok(())
    }
}
