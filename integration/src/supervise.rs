//! Around one test: it runs in a process of its own below a supervisor that is the sub-reaper of everything the
//! test and its containers start. So a hang ends at the time limit, nothing escapes, and what is left afterwards
//! is found: state directories, cgroups, mounts, processes. A leftover is a failure.
//!
//! | process | started with | does |
//! |---|---|---|
//! | runner | the user's words | prints |
//! | supervisor | `--supervise NAME` | reaps, limits, looks for leftovers; a verdict as JSON on stdout |
//! | test | `--run-one NAME` | the test function; exit 0, 77 = skip (reason in the file `verdict`), else failed |

use crate::call::no_input;
use crate::cgroup::{remove_tagged, tagged};
use crate::engine::Engines;
use crate::lab::Lab;
use crate::sys::Pidfd;
use crate::{Stop, Test, View};
use nix::mount::{MntFlags, umount2};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, panic, thread};

const SKIPPED: i32 = 77;
const FAILED: i32 = 1;

/// The body of the test process: the exit code.
pub fn run_one(test: &Test) -> i32 {
    panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        std::process::exit(FAILED);
    }));
    let result = crate::view::enter(Lab::view_from_env()).and_then(|()| {
        let lab = Lab::from_env()?;
        let result = (test.run)(&lab);
        match result {
            Err(Stop::Fail(_)) => result,
            Ok(()) | Err(Stop::Skip(_)) => lab.tidy().and(result),
        }
    });
    match result {
        Ok(()) => 0,
        Err(Stop::Fail(why)) => {
            eprintln!("{why}");
            FAILED
        }
        Err(Stop::Skip(why)) => {
            let dir = PathBuf::from(env::var_os("HULL_LAB_DIR").unwrap_or_default());
            fs::write(dir.join("verdict"), why).expect("write the reason");
            SKIPPED
        }
    }
}

/// The body of the supervisor: prints the verdict.
#[allow(clippy::zombie_processes, reason = "`wait` reaps it, with everything else")]
pub fn supervise(test: &Test) {
    let dir = PathBuf::from(env::var_os("HULL_LAB_DIR").expect("HULL_LAB_DIR"));
    let tag = env::var("HULL_LAB_TAG").expect("HULL_LAB_TAG");
    set_child_subreaper(true).expect("PR_SET_CHILD_SUBREAPER");
    let log = File::create(dir.join("log")).expect("create the log");
    let since = Instant::now();
    let child = Command::new(env::current_exe().expect("own path"))
        .args(["--run-one", &format!("{}::{}", test.group, test.name)])
        .current_dir(&dir)
        .stdin(no_input())
        .stdout(log.try_clone().expect("dup the log"))
        .stderr(log)
        .spawn()
        .expect("spawn the test");
    let code = wait(child.id() as i32, Duration::from_secs(test.limit_s));
    let took = since.elapsed();
    let (mut outcome, mut text) = match code {
        Some(0) => ("ok", fs::read_to_string(dir.join("said")).unwrap_or_default()),
        Some(SKIPPED) => ("skip", fs::read_to_string(dir.join("verdict")).unwrap_or_default()),
        Some(_) => ("fail", String::new()),
        None => ("fail", format!("no end after {} s", test.limit_s)),
    };
    let left = if outcome == "fail" { Vec::new() } else { leftovers(&dir, &tag) };
    if !left.is_empty() {
        outcome = "fail";
        text = format!("left behind:\n  {}", left.join("\n  "));
    }
    if outcome == "fail" {
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        text = format!("{}{text}\n--- calls\n{}", read("log"), tail(&read("transcript"), 80));
        sweep(&dir, &tag);
    }
    if let Some(what) = not_yet(&text).filter(|_| outcome == "fail" && !test.expects_refusals) {
        (outcome, text) = ("skip", what);
    }
    remove_tagged(&tag);
    println!("{}", json!({"outcome": outcome, "text": text, "ms": took.as_millis() as u64}));
}

/// What a runtime says of itself that it cannot do yet, in its last error: no failure, and counted as a skip.
fn not_yet(text: &str) -> Option<String> {
    let line = text.lines().rfind(|line| line.contains("stderr: error: "))?;
    let line = Some(line).filter(|line| line.contains(" is not yet supported"))?;
    Some(line.rsplit("error: ").next().unwrap_or(line).trim().to_owned())
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Reaps everything until the test ends; `None` when it had to be killed.
fn wait(test: i32, limit: Duration) -> Option<i32> {
    let until = Instant::now() + limit;
    let mut expired = false;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == test => return (!expired).then_some(code),
            Ok(WaitStatus::Signaled(pid, ..)) if pid.as_raw() == test => return (!expired).then_some(FAILED),
            Ok(WaitStatus::StillAlive) | Err(_) => thread::sleep(Duration::from_millis(1)),
            Ok(_) => {}
        }
        if !expired && Instant::now() > until {
            expired = true;
            kill(test);
        }
    }
}

fn reap() {
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {}
}

fn kill(pid: i32) {
    // ESRCH: it has ended by itself.
    if let Ok(pidfd) = Pidfd::open(pid) {
        pidfd.signal(libc::SIGKILL).ok();
    }
}

/// Everything of the test that still exists, after a short grace for what is just ending.
fn leftovers(dir: &Path, tag: &str) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        reap();
        let left = look(dir, tag);
        if left.is_empty() || Instant::now() > until {
            return left;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn look(dir: &Path, tag: &str) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    let state = fs::read_dir(dir.join("root")).into_iter().flatten().flatten();
    // Dot files are the runtime's own: a cache or a lock that outlives containers.
    let state = state.filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
    left.extend(state.map(|e| format!("state: {}", e.path().display())));
    // The parent of cgroupsPath is allowed to stay: every runtime leaves it. So does podman with its conmon's.
    let parents = |path: &PathBuf| path.ends_with(tag) || path.ends_with(format!("{tag}/conmon"));
    left.extend(tagged(tag).iter().filter(|c| !parents(c)).map(|c| format!("cgroup: {}", c.display())));
    left.extend(mounts_below(dir).iter().map(|m| format!("mount: {m}")));
    left.extend(descendants().into_iter().map(|(pid, what)| format!("process: {pid} {what}")));
    left
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(String::from);
    points.filter(|at| Path::new(at).starts_with(dir)).collect()
}

/// Processes below this one, without zombies, which `reap` collects.
fn descendants() -> Vec<(i32, String)> {
    let mut parents: BTreeMap<i32, (i32, String, String)> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let mut rest = rest.split_whitespace();
        let state = rest.next().unwrap_or_default().to_owned();
        let parent = rest.next().and_then(|p| p.parse().ok()).unwrap_or(0);
        parents.insert(pid, (parent, name.to_owned(), state));
    }
    let own = Pid::this().as_raw();
    let is_below = |mut pid: i32| {
        while let Some((parent, ..)) = parents.get(&pid) {
            if *parent == own {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let alive = parents.iter().filter(|(_, (_, _, state))| state != "Z" && state != "X");
    alive
        .filter(|(pid, _)| is_below(**pid))
        .map(|(pid, (_, name, s))| (*pid, format!("{name}) {s}")))
        .collect()
}

/// After a failure: ends and removes what is left, so that the next tests see a clean host.
fn sweep(dir: &Path, tag: &str) {
    if let Some(engine) = env::var_os("HULL_LAB_ENGINE") {
        // What cannot be removed is found when the engine stops.
        crate::engine::remove_containers(Path::new(&engine), tag).ok();
    }
    let runtime = env::var_os("HULL_LAB_RUNTIME").unwrap_or_default();
    for entry in fs::read_dir(dir.join("root")).into_iter().flatten().flatten() {
        // `timeout` guards against a runtime that hangs in delete; its result does not matter here.
        let mut delete = Command::new(
            env::var_os("HULL_LAB_SHARED").map_or("busybox".into(), |s| PathBuf::from(s).join("busybox")),
        );
        delete.args(["timeout", "-s", "KILL", "5"]).arg(&runtime).arg("--root").arg(dir.join("root"));
        delete.args(["delete", "--force"]).arg(entry.file_name());
        delete.stdin(no_input()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        for cgroup in tagged(tag) {
            // A frozen process does not die: thaw first. Files of the other layout do not exist.
            fs::write(cgroup.join("cgroup.freeze"), "0").ok();
            fs::write(cgroup.join("freezer.state"), "THAWED").ok();
            let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            procs.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 1).for_each(kill);
        }
        descendants().iter().for_each(|(pid, _)| kill(*pid));
        reap();
        thread::sleep(Duration::from_millis(20));
        remove_tagged(tag);
        if descendants().is_empty() && tagged(tag).is_empty() {
            break;
        }
    }
    for at in mounts_below(dir).iter().rev() {
        umount2(at.as_str(), MntFlags::MNT_DETACH).ok();
    }
}

/// How a test ended, as the runner sees it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: String,
    pub(crate) text: String,
    pub(crate) ms: u64,
}

/// What every test of a run shares.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) runtime: crate::lab::Runtime,
    pub(crate) shim: Option<crate::Shim>,
    pub(crate) view: View,
}

/// Starts the engine of the test, if it has one, and a supervisor for the test and reads its verdict.
pub(crate) fn launch(test: &Test, shared: &Shared, engines: &Engines, number: usize) -> Verdict {
    let failed = |text: String| Verdict { outcome: "fail".into(), text, ms: 0 };
    let view = test.view.unwrap_or(shared.view);
    let engine = match test.engine.map(|engine| engines.get(engine, view, shared)).transpose() {
        Ok(engine) => engine,
        Err(verdict) => return verdict,
    };
    let dir = shared.dir.join(number.to_string());
    if let Err(error) = fs::create_dir_all(&dir) {
        return failed(format!("create {}: {error}", dir.display()));
    }
    let mut supervisor = Command::new(env::current_exe().expect("own path"));
    if let Some(engine) = engine {
        supervisor.env("HULL_LAB_ENGINE", engine);
    }
    if let Some(shim) = &shared.shim {
        supervisor
            .env("HULL_LAB_SHIM", &shim.path)
            .env("HULL_LAB_SHIM_KIND", &shim.kind)
            .env("HULL_LAB_SHIM_VERSION", &shim.version);
    }
    let output = supervisor
        .args(["--supervise", &format!("{}::{}", test.group, test.name)])
        .env("HULL_LAB_DIR", &dir)
        .env("HULL_START_DIR", env::current_dir().unwrap_or_default())
        .env("HULL_LAB_SHARED", &shared.dir)
        .env("HULL_LAB_TAG", format!("hull-test-{}-{number}t", std::process::id()))
        .env("HULL_LAB_RUNTIME", &shared.runtime.path)
        .env("HULL_LAB_KIND", &shared.runtime.kind)
        .env("HULL_LAB_VERSION", &shared.runtime.version)
        .env("HULL_LAB_VIEW", view.word())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let verdict = output.ok().and_then(|o| serde_json::from_slice::<Value>(&o.stdout).ok());
    let Some(verdict) = verdict else { return failed("the supervisor gave no verdict".into()) };
    if verdict["outcome"] != "fail" || env::var_os("HULL_TEST_KEEP").is_none() {
        // Immutable or busy leftovers were reported by the supervisor.
        fs::remove_dir_all(&dir).ok();
    }
    Verdict {
        outcome: verdict["outcome"].as_str().unwrap_or("fail").to_owned(),
        text: verdict["text"].as_str().unwrap_or_default().to_owned(),
        ms: verdict["ms"].as_u64().unwrap_or(0),
    }
}
