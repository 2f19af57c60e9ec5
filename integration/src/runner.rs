//! The command line: which tests, how many at once, one line for each, and a summary whose last line is
//! `N passed, N failed, N skipped`.

use crate::engine::Engines;
use crate::lab::{Runtime, Shim};
use crate::supervise::{self, Shared, Verdict};
use crate::{Host, Mode, Test, View};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

const USAGE: &str = "\
hull-integration [--list] [--jobs N] [--keep-going] [--try-known] [--view host|v1|v2] [FILTER...]

Runs the integration tests against the runtime named by RUNTIME (a path or a name; default bin/hull).
FILTER is a part of group::name; several are joined by or; one that begins with - excludes.

--list         print the names and stop
--jobs N       N tests at once (default 2)
--keep-going   do not stop at the first failure
--try-known    run also the tests that this runtime is known to fail
--view VIEW    what the host's cgroups look like to every test that does not choose itself

RUNTIME          the runtime under test
SHIM             the containerd shim under test (default containerd-shim-hull-v1 beside the runtime)
FULL=1           the long variants of the fault tests
HULL_CONFIGS     a folder of more configs to plan and run (default none)
HULL_TEST_TMP    where the tests work (default the temporary directory)
HULL_TEST_KEEP=1 keep the directories of failed tests
BUSYBOX          a static busybox (default: the first busybox of PATH, /bin, /usr/bin)
";

#[derive(Debug, Default)]
struct Options {
    list: bool,
    jobs: usize,
    keep_going: bool,
    try_known: bool,
    view: Option<View>,
    filters: Vec<String>,
}

/// Does what the words say; the exit code.
pub fn main(tests: &[&Test], words: &[String]) -> i32 {
    match words {
        [flag, name] if flag == "--run-one" => return named(tests, name).map_or(64, supervise::run_one),
        [flag, name] if flag == "--supervise" => {
            return named(tests, name).map_or(64, |test| {
                supervise::supervise(test);
                0
            });
        }
        _ => {}
    }
    let options = match parse(words) {
        Ok(options) => options,
        Err(why) => {
            eprint!("{why}\n{USAGE}");
            return 64;
        }
    };
    let chosen: Vec<&Test> = tests.iter().copied().filter(|t| wanted(t, &options.filters)).collect();
    if options.list {
        chosen.iter().for_each(|t| println!("{}", full_name(t)));
        return 0;
    }
    match run(&chosen, &options) {
        Ok(failed) => i32::from(failed > 0),
        Err(why) => {
            eprintln!("hull-integration: {why}");
            2
        }
    }
}

fn full_name(test: &Test) -> String {
    format!("{}::{}", test.group.rsplit("::").next().unwrap_or_default(), test.name)
}

fn named<'t>(tests: &[&'t Test], name: &str) -> Option<&'t Test> {
    tests.iter().copied().find(|t| format!("{}::{}", t.group, t.name) == name)
}

fn wanted(test: &Test, filters: &[String]) -> bool {
    let name = full_name(test);
    let (out, within): (Vec<&String>, Vec<&String>) = filters.iter().partition(|f| f.starts_with('-'));
    !out.iter().any(|f| name.contains(&f[1..]))
        && (within.is_empty() || within.iter().any(|f| name.contains(*f)))
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options { jobs: 2, ..Options::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--list" => options.list = true,
            "--keep-going" => options.keep_going = true,
            "--try-known" => options.try_known = true,
            "--jobs" => {
                options.jobs = value()?.parse().map_err(|_no_number| "--jobs needs a number".to_owned())?
            }
            "--view" => options.view = Some(View::parse(value()?).ok_or("--view is host, v1 or v2")?),
            "--help" | "-h" => return Err(String::new()),
            flag if flag.starts_with("--") => return Err(format!("what is {flag}?")),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    Ok(options)
}

fn run(tests: &[&Test], options: &Options) -> Result<usize, String> {
    let shared = prepare(options)?;
    let engines = Engines::default();
    let results = Mutex::new(Results::default());
    let queue = Mutex::new(tests.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    if !options.keep_going && results.lock().expect("results").failed > 0 {
                        break;
                    }
                    let next = queue.lock().expect("queue").next();
                    let Some((number, test)) = next else { break };
                    let verdict =
                        match test.excluded(&shared.runtime, shared.shim.as_ref(), options.try_known) {
                            Some(why) => Verdict { outcome: "skip".into(), text: why, ms: 0 },
                            None => supervise::launch(test, &shared, &engines, number),
                        };
                    results.lock().expect("results").add(&full_name(test), &verdict);
                }
            });
        }
    });
    let mut results = results.into_inner().expect("results");
    let stopped = engines.stop();
    stopped.iter().for_each(|(name, verdict)| results.add(&format!("engines::{name}"), verdict));
    if env::var_os("HULL_TEST_KEEP").is_none() {
        // What could not be removed was reported with its test.
        fs::remove_dir_all(&shared.dir).ok();
    }
    results.print(tests.len() + stopped.len());
    Ok(results.failed)
}

#[derive(Debug, Default)]
struct Results {
    passed: usize,
    failed: usize,
    skipped: usize,
    reasons: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Results {
    fn add(&mut self, full_name: &str, verdict: &Verdict) {
        let name = full_name.rsplit("::").next().unwrap_or(full_name);
        match verdict.outcome.as_str() {
            "ok" => {
                self.passed += 1;
                println!("ok {} {}ms", name, verdict.ms);
                verdict.text.lines().for_each(|line| println!("    {line}"));
            }
            "skip" => {
                self.skipped += 1;
                *self.reasons.entry(verdict.text.clone()).or_default() += 1;
                println!("skip {}: {}", name, verdict.text);
            }
            _ => {
                self.failed += 1;
                self.failures.push(full_name.to_owned());
                println!("FAIL {} {}ms", name, verdict.ms);
                verdict.text.lines().for_each(|line| println!("    {line}"));
            }
        }
    }

    fn print(&self, planned: usize) {
        println!();
        self.reasons.iter().for_each(|(why, count)| println!("skipped {count}: {why}"));
        self.failures.iter().for_each(|name| println!("failed: {name}"));
        let done = self.passed + self.failed + self.skipped;
        if done < planned {
            println!(
                "stopped at the first failure, {} tests not run (--keep-going runs all)",
                planned - done
            );
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
    }
}

/// The directory of the run: busybox and its list of applets, the probe, one directory for each test.
fn prepare(options: &Options) -> Result<Shared, String> {
    let runtime = Runtime::find(&env::var("RUNTIME").unwrap_or_else(|_| "bin/hull".into()))?;
    let shim = Shim::find(&runtime)?;
    let host = Host::probe();
    // crun refuses a hybrid host with a controller on cgroup2: it gets the pure v1 view there.
    let refuses = runtime.kind == "crun" && host.mode == Mode::Hybrid && !host.v2_controllers.is_empty();
    let view = options.view.unwrap_or(if refuses { View::V1 } else { View::Host });
    println!("runtime: {} ({} {})", runtime.path.display(), runtime.kind, runtime.version);
    if let Some(shim) = &shim {
        println!("shim: {} ({})", shim.path.display(), shim.full());
    }
    println!("host: {}", host.describe());
    println!("view: {}", view.word());
    let tmp = env::var_os("HULL_TEST_TMP").map_or_else(env::temp_dir, PathBuf::from);
    let dir = tmp.join(format!("hull-integration-{}", std::process::id()));
    make_shared(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(Shared { dir, runtime, shim, view })
}

pub(crate) fn make_shared(dir: &Path) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    fs::create_dir_all(dir).map_err(text)?;
    let busybox = find_busybox()?;
    fs::copy(&busybox, dir.join("busybox")).map_err(text)?;
    let list = Command::new(dir.join("busybox")).arg("--list").output().map_err(text)?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    // The list names busybox itself: a link of that name would replace the binary.
    let applets: Vec<&str> = list.lines().filter(|name| *name != "busybox").collect();
    fs::write(dir.join("applets"), applets.join("\n")).map_err(text)?;
    let own = env::current_exe().map_err(text)?;
    if is_static(&own) {
        fs::copy(own, dir.join("probe")).map_err(text)?;
        fs::set_permissions(dir.join("probe"), fs::Permissions::from_mode(0o755)).map_err(text)?;
    }
    Ok(())
}

/// The static busybox that containers are made of.
pub(crate) fn find_busybox() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let fixed = [PathBuf::from("/bin"), PathBuf::from("/usr/bin")];
    let named = env::var_os("BUSYBOX").map(PathBuf::from);
    let found = env::split_paths(&path).chain(fixed).map(|d| d.join("busybox")).find(|p| p.is_file());
    match named.or(found) {
        Some(path) if is_static(&path) => Ok(path),
        Some(path) => Err(format!("{} is not static; BUSYBOX names another", path.display())),
        None => Err("no busybox (Debian: busybox-static); BUSYBOX names one".into()),
    }
}

/// No PT_INTERP among the program headers of a 64-bit little-endian ELF file.
fn is_static(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    let number = |at: usize, size: usize| {
        let field = bytes.get(at..at + size).unwrap_or_default();
        field.iter().rev().fold(0usize, |sum, b| (sum << 8) | usize::from(*b))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    !(0..count).any(|i| number(table + i * size, 4) == 3)
}
