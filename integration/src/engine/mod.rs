//! Container engines as callers of the runtime. An engine lives in namespaces of its own (mount, network, pid,
//! uts, ipc), with everything it writes in one directory of the run. The first test that names it starts it, all
//! tests share it, the end of the run stops it; what it leaves behind then is a failure of its own.
//!
//! | process | started with | does |
//! |---|---|---|
//! | runner | the user's words | holds a pipe: its end is the end of the engine |
//! | keeper | `--engine-place` | makes the namespaces, waits for init |
//! | init | `--engine-init` | pid 1 there: starts daemons, reaps, stops them, lists what is left |

/// What a test calls an engine with.
mod caller;
/// What a test calls containerd with.
mod ctr;
/// The namespaces, and pid 1 in them.
pub mod place;

pub use caller::Caller;
pub(crate) use caller::remove_containers;
pub use ctr::{Away, Ctr, WAITS};
pub(crate) use ctr::{container, end_container, inside};

use crate::View;
use crate::cgroup::{remove_tagged, tagged};
use crate::lab::which;
use crate::supervise::{Shared, Verdict};
use crate::sys::Pidfd;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, io, thread};

/// First word of the keeper of a place.
pub const PLACE: &str = "--engine-place";
/// First word of pid 1 in a place.
pub const INIT: &str = "--engine-init";
/// The image every engine has: the busybox root file system of all tests.
pub const IMAGE: &str = "localhost/bb:1";
/// What runs in a pod's sandbox: the same root file system under another name.
pub const PAUSE: &str = "localhost/pause:1";
/// The name under which dockerd knows the runtime under test.
const RUNTIME_NAME: &str = "under-test";
/// How long an engine may take to come up: on a busy host seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to go.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// An engine, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// dockerd with a containerd of its own.
    Docker,
    /// dockerd with `--userns-remap`: ids from 200000 on.
    DockerRemap,
    /// dockerd with `--live-restore`, for a test that kills it.
    DockerLive,
    /// dockerd with `--live-restore`, its containerd with the shim under test in place of the Go shim.
    DockerShim,
    /// As `DockerShim`, for tests that kill or stop the daemons.
    DockerShimKilled,
    /// containerd alone, with the shim under test under both names.
    Containerd,
    /// As `Containerd`, for a test that kills it.
    ContainerdKilled,
    /// containerd with its CRI plugin; pods run by the shim under test.
    Cri,
    /// As `Cri`, for a test that kills the daemon.
    CriLive,
    /// podman and buildah on one storage; no daemon.
    Podman,
}

impl Engine {
    const ALL: [Self; 10] = [
        Self::Docker,
        Self::DockerRemap,
        Self::DockerLive,
        Self::DockerShim,
        Self::DockerShimKilled,
        Self::Containerd,
        Self::ContainerdKilled,
        Self::Cri,
        Self::CriLive,
        Self::Podman,
    ];

    /// A word for names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::DockerRemap => "docker-remap",
            Self::DockerLive => "docker-live",
            Self::DockerShim => "docker-shim",
            Self::DockerShimKilled => "docker-shim-killed",
            Self::Containerd => "containerd",
            Self::ContainerdKilled => "containerd-killed",
            Self::Cri => "cri",
            Self::CriLive => "cri-live",
            Self::Podman => "podman",
        }
    }

    /// containerd is all there is.
    fn is_containerd(self) -> bool {
        matches!(self, Self::Containerd | Self::ContainerdKilled) || self.is_cri()
    }

    /// Its containers are served by the shim under test.
    fn has_shim(self) -> bool {
        self.is_containerd() || matches!(self, Self::DockerShim | Self::DockerShimKilled)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.word() == word)
    }

    /// Programs it cannot do without, and their Debian packages.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Containerd | Self::ContainerdKilled | Self::Cri | Self::CriLive => {
                &[("containerd", "containerd"), ("ctr", "containerd")]
            }
            Self::Podman => &[("podman", "podman"), ("conmon", "conmon")],
            Self::DockerShim | Self::DockerShimKilled => &[
                ("dockerd", "docker.io"),
                ("docker", "docker.io"),
                ("containerd", "containerd"),
                ("iptables", "iptables"),
            ],
            Self::Docker | Self::DockerRemap | Self::DockerLive => &[
                ("dockerd", "docker.io"),
                ("docker", "docker.io"),
                ("containerd", "containerd"),
                ("containerd-shim-runc-v2", "containerd"),
                ("iptables", "iptables"),
            ],
        }
    }

    fn is_cri(self) -> bool {
        matches!(self, Self::Cri | Self::CriLive)
    }

    /// Why it cannot run on this host, if so.
    fn missing(self) -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("an engine needs root".into());
        }
        let missing = self.programs().iter().find(|(program, _)| which(program).is_none());
        missing.map(|(program, package)| format!("no {program} (Debian: {package}; hack/setup callers)"))
    }
}

/// The docker client of the package: another one first in PATH may be too new for its daemon.
fn docker_client() -> PathBuf {
    let packaged = PathBuf::from("/usr/bin/docker");
    if packaged.is_file() { packaged } else { which("docker").unwrap_or(packaged) }
}

/// The engines of a run.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    known: Mutex<BTreeMap<(Engine, &'static str), Shareable>>,
}

/// Started by whoever comes first; the others wait for it, and only they.
type Shareable = Arc<OnceLock<Place>>;

/// What became of the wish for an engine.
#[derive(Debug)]
enum Place {
    Missing(String),
    Failed(String),
    Up(Running),
}

/// An engine that runs.
#[derive(Debug)]
struct Running {
    dir: PathBuf,
    tag: String,
    keeper: Child,
    /// Closed, it tells init to stop.
    hold: PipeWriter,
}

impl Engines {
    /// The directory of an engine, which is started if nobody has; else the verdict of every test that needs it.
    pub(crate) fn get(&self, engine: Engine, view: View, shared: &Shared) -> Result<PathBuf, Verdict> {
        let place = Arc::clone(self.known.lock().expect("engines").entry((engine, view.word())).or_default());
        let verdict =
            |outcome: &str, text: &String| Verdict { outcome: outcome.into(), text: text.clone(), ms: 0 };
        match place.get_or_init(|| start(engine, view, shared)) {
            Place::Up(running) => Ok(running.dir.clone()),
            Place::Missing(why) => Err(verdict("skip", why)),
            Place::Failed(why) => Err(verdict("fail", why)),
        }
    }

    /// Stops them all. A name and a verdict for each: nothing of them must be left.
    pub(crate) fn stop(self) -> Vec<(String, Verdict)> {
        let known = self.known.into_inner().expect("engines");
        let places =
            known.into_iter().filter_map(|(key, place)| Some((key, Arc::into_inner(place)?.into_inner()?)));
        places
            .filter_map(|((engine, view), place)| match place {
                Place::Up(running) => {
                    Some((format!("{}_in_view_{view}_leaves_nothing", engine.word()), running.stop()))
                }
                Place::Missing(_) | Place::Failed(_) => None,
            })
            .collect()
    }
}

fn start(engine: Engine, view: View, shared: &Shared) -> Place {
    if let Some(why) = engine.missing().or_else(|| crate::view::missing(view)) {
        return Place::Missing(why);
    }
    match try_start(engine, view, shared) {
        Ok(running) => match await_ready(&running.dir) {
            Ok(()) => Place::Up(running),
            Err(why) => {
                let log = fs::read_to_string(running.dir.join("log")).unwrap_or_default();
                running.stop();
                Place::Failed(format!("{} did not start: {why}\n{log}", engine.word()))
            }
        },
        Err(error) => Place::Failed(format!("start {}: {error}", engine.word())),
    }
}

fn try_start(engine: Engine, view: View, shared: &Shared) -> io::Result<Running> {
    let dir = shared.dir.join(format!("{}-{}", engine.word(), view.word()));
    fs::create_dir_all(&dir)?;
    let (stdin, hold) = io::pipe()?;
    let log = File::create(dir.join("log"))?;
    let tag = format!("hull-engine-{}-{}-{}", std::process::id(), engine.word(), view.word());
    let keeper = Command::new(env::current_exe()?)
        .args([PLACE, engine.word(), view.word()])
        .args([&shared.dir, &dir, &shared.runtime.path])
        .arg(&tag)
        .args(shared.shim.iter().map(|shim| &shim.path))
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir(&dir)
        .stdin(stdin)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(Running { dir, tag, keeper, hold })
}

/// Init writes `ready`: empty, or why not.
fn await_ready(dir: &Path) -> Result<(), String> {
    let until = Instant::now() + START_LIMIT;
    while Instant::now() < until {
        match fs::read_to_string(dir.join("ready")) {
            Ok(why) if why.is_empty() => return Ok(()),
            Ok(why) => return Err(why),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(format!("not within {START_LIMIT:?}"))
}

impl Running {
    fn stop(self) -> Verdict {
        let Self { dir, tag, mut keeper, hold } = self;
        let since = Instant::now();
        drop(hold);
        let mut left = String::new();
        while !matches!(keeper.try_wait(), Ok(Some(_)) | Err(_)) {
            if since.elapsed() > STOP_LIMIT {
                left.push_str("init did not stop\n");
                kill_init(&dir);
                // Its only child is dead: it ends.
                keeper.wait().ok();
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        left.push_str(&fs::read_to_string(dir.join("left")).unwrap_or_else(|_| "init said nothing\n".into()));
        // The engine's own parent of cgroups stays, as every engine leaves it; so does BuildKit's.
        let is_parent = |c: &PathBuf| c.ends_with(&tag) || c.ends_with(format!("{tag}/buildkit"));
        let cgroups = tagged(&tag).into_iter().filter(|c| !is_parent(c));
        left.extend(cgroups.map(|c| format!("cgroup: {}\n", c.display())));
        remove_tagged(&tag);
        let outcome = if left.is_empty() { "ok" } else { "fail" };
        Verdict { outcome: outcome.into(), text: left, ms: since.elapsed().as_millis() as u64 }
    }
}

/// The end of pid 1 is the end of everything in its pid namespace.
fn kill_init(dir: &Path) {
    let pid = fs::read_to_string(dir.join("pid")).ok().and_then(|text| text.parse().ok());
    if let Some(pidfd) = pid.and_then(|pid| Pidfd::open(pid).ok()) {
        pidfd.signal(libc::SIGKILL).ok();
    }
}
