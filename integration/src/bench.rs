//! `hull-integration bench`: the time of one call, for several runtimes in one run. The calls of the runtimes
//! take turns, so that what else the machine does falls on all of them alike: read the ratios, not the
//! milliseconds.

use crate::bundle::TEMPLATE;
use crate::lab::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const DOCKER: &str = include_str!("../data/docker-default.json");

const USAGE: &str = "\
hull-integration bench [-n COUNT] [--gap MS] [--floor PROGRAM] RUNTIME...

Times run, exec, state, create, start, kill and delete, the runtimes taking turns. The first is the measure.
-n COUNT     calls of each kind (default 60)
--gap MS     idle time before each call (default 0): an idle kernel is slower to move processes
--floor PROGRAM  times the least that a plain run can cost, too (runtime/sys/examples/floor.rs)

`bench shim` compares shims of containerd.
";

/// One runtime and its containers.
struct Contestant {
    path: PathBuf,
    name: String,
    /// Its state root; the floor has none.
    root: Option<PathBuf>,
}

impl Contestant {
    fn call(&self, words: &[&str]) -> Result<Duration, String> {
        let mut command = Command::new(&self.path);
        if let Some(root) = &self.root {
            command.arg("--root").arg(root);
        }
        command.args(words);
        command.stdin(crate::call::no_input()).stdout(Stdio::null()).stderr(Stdio::piped());
        let since = Instant::now();
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.name))?;
        let status = child.wait().map_err(|error| error.to_string())?;
        let took = since.elapsed();
        if status.success() {
            return Ok(took);
        }
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said).ok();
        }
        Err(format!("{} {}: {status}: {}", self.name, words.join(" "), said.trim()))
    }
}

/// What is timed: a name, what is done before, the call, what is done after.
struct Case {
    name: &'static str,
    bundle: &'static str,
    before: &'static [&'static [&'static str]],
    call: &'static [&'static str],
    after: &'static [&'static [&'static str]],
}

/// The case that the floor takes part in.
const FLOORED: &str = "run, plain";

/// `BUNDLE` stands for the bundle's directory.
const CASES: &[Case] = &[
    Case {
        name: FLOORED,
        bundle: "plain",
        before: &[],
        call: &["run", "--bundle", "BUNDLE", "c"],
        after: &[],
    },
    Case {
        name: "run, as Docker asks",
        bundle: "docker",
        before: &[],
        call: &["run", "--bundle", "BUNDLE", "c"],
        after: &[],
    },
    Case {
        name: "create",
        bundle: "plain",
        before: &[],
        call: &["create", "--bundle", "BUNDLE", "c"],
        after: &[&["delete", "--force", "c"]],
    },
    Case {
        name: "start",
        bundle: "waits",
        before: &[&["create", "--bundle", "BUNDLE", "c"]],
        call: &["start", "c"],
        after: &[&["delete", "--force", "c"]],
    },
    Case { name: "exec", bundle: "", before: &[], call: &["exec", "up", "/bin/true"], after: &[] },
    Case { name: "state", bundle: "", before: &[], call: &["state", "up"], after: &[] },
    Case { name: "kill 0", bundle: "", before: &[], call: &["kill", "up", "CONT"], after: &[] },
    Case { name: "list, one container", bundle: "", before: &[], call: &["list"], after: &[] },
    Case {
        name: "delete --force of a running one",
        bundle: "waits",
        before: &[&["run", "--detach", "--bundle", "BUNDLE", "c"]],
        call: &["delete", "--force", "c"],
        after: &[],
    },
    Case { name: "--version", bundle: "", before: &[], call: &["--version"], after: &[] },
];

/// The body: the exit code.
pub fn main(words: &[String]) -> i32 {
    let result = match words {
        [word, rest @ ..] if word == "shim" => crate::bench_shim::run(rest),
        _ => run(words),
    };
    match result {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let (mut count, mut gap, mut floor, mut names) = (60_usize, Duration::ZERO, None, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--floor" {
            floor = Some(PathBuf::from(words.next().ok_or(USAGE)?));
            continue;
        }
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).ok_or(USAGE.to_owned());
        match word.as_str() {
            "-n" => count = usize::try_from(number()?).unwrap_or(60).max(1),
            "--gap" => gap = Duration::from_millis(number()?),
            flag if flag.starts_with('-') => return Err(USAGE.to_owned()),
            name => names.push(name.to_owned()),
        }
    }
    if names.is_empty() {
        return Err(USAGE.to_owned());
    }
    let unique = format!("hull-bench-{}", std::process::id());
    let place = std::env::temp_dir().join(&unique);
    // In memory, as /run is on most machines: a disk's journal is not what is measured.
    let roots = Path::new("/dev/shm").join(&unique);
    let contestants = contestants(&roots, &names, floor);
    let result = contestants.and_then(|contestants| measure(&place, &contestants, count, gap));
    fs::remove_dir_all(&place).ok();
    fs::remove_dir_all(&roots).ok();
    result
}

fn contestants(roots: &Path, names: &[String], floor: Option<PathBuf>) -> Result<Vec<Contestant>, String> {
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let runtime = Runtime::find(name)?;
        let root = roots.join(index.to_string());
        fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        let name = format!("{} {}", runtime.kind, runtime.version);
        found.push(Contestant { path: runtime.path, name, root: Some(root) });
    }
    found.extend(floor.map(|path| Contestant { path, name: "floor".to_owned(), root: None }));
    Ok(found)
}

fn measure(place: &Path, contestants: &[Contestant], count: usize, gap: Duration) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    fs::create_dir_all(place).map_err(io)?;
    for (name, config) in [("plain", plain()), ("waits", waits()), ("docker", docker(place)?)] {
        make_bundle(&place.join(name), &config).map_err(io)?;
    }
    println!("median (fastest quarter) of {count} calls in ms, {} ms idle before each", gap.as_millis());
    print!("{:<34}", "");
    contestants.iter().for_each(|one| print!("{:>22}", one.name));
    println!();
    let waits = place.join("waits").to_string_lossy().into_owned();
    let up = |one: &Contestant| one.call(&["run", "--detach", "--bundle", &waits, "up"]).map(drop);
    let runtimes = || contestants.iter().filter(|one| one.root.is_some());
    let result = runtimes()
        .try_for_each(up)
        .and_then(|()| CASES.iter().try_for_each(|case| compare(place, case, contestants, count, gap)));
    for one in runtimes() {
        one.call(&["delete", "--force", "up"]).ok();
        one.call(&["delete", "--force", "c"]).ok();
    }
    result
}

fn compare(
    place: &Path,
    case: &Case,
    contestants: &[Contestant],
    count: usize,
    gap: Duration,
) -> Result<(), String> {
    let bundle = place.join(case.bundle).to_string_lossy().into_owned();
    let fill = |words: &[&'static str]| -> Vec<String> {
        words.iter().map(|word| word.replace("BUNDLE", &bundle)).collect()
    };
    let mut times = vec![Vec::with_capacity(count); contestants.len()];
    for round in 0..count + 2 {
        let takes_part = |one: &Contestant| one.root.is_some() || case.name == FLOORED;
        for (one, times) in contestants.iter().zip(&mut times).filter(|(one, _)| takes_part(one)) {
            let call = |words: &[&'static str]| {
                let words = fill(words);
                one.call(&words.iter().map(String::as_str).collect::<Vec<_>>())
            };
            case.before.iter().try_for_each(|words| call(words).map(drop))?;
            sleep(gap);
            let took = call(case.call)?;
            case.after.iter().try_for_each(|words| call(words).map(drop))?;
            // The first two rounds only fill caches.
            if round >= 2 {
                times.push(took);
            }
        }
    }
    print!("{:<34}", case.name);
    let mut base = None;
    for times in times.iter_mut().filter(|times| !times.is_empty()) {
        times.sort();
        let at =
            |part: usize| times.get(times.len() * part / 4).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        let (quarter, median) = (at(1), at(2));
        let base = *base.get_or_insert(median);
        print!("{:>22}", format!("{median:.2} ({quarter:.2}) {:.1}x", median / base));
    }
    println!();
    Ok(())
}

fn edited(edit: impl FnOnce(&mut Value)) -> Value {
    let mut config: Value = serde_json::from_str(TEMPLATE).unwrap_or_default();
    config["process"]["terminal"] = json!(false);
    edit(&mut config);
    config
}

fn plain() -> Value {
    edited(|config| config["process"]["args"] = json!(["/bin/true"]))
}

fn waits() -> Value {
    edited(|config| config["process"]["args"] = json!(["/bin/sleep", "1000"]))
}

/// What dockerd writes, with this host's paths: the same namespaces, limits, mounts and filter.
fn docker(place: &Path) -> Result<Value, String> {
    let mut config: Value = serde_json::from_str(DOCKER).map_err(|error| error.to_string())?;
    config["process"]["args"] = json!(["/bin/true"]);
    config["root"]["path"] = json!("rootfs");
    config["linux"]["cgroupsPath"] = json!(format!("/hull-bench-{}", std::process::id()));
    if let Some(object) = config.as_object_mut() {
        object.remove("hooks");
    }
    let file = place.join("file");
    fs::write(&file, "127.0.0.1 localhost\n").map_err(|error| error.to_string())?;
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["type"] == "bind" {
            mount["source"] = json!(file);
        }
    }
    Ok(config)
}

fn make_bundle(dir: &Path, config: &Value) -> std::io::Result<()> {
    let bin = dir.join("rootfs/bin");
    fs::create_dir_all(&bin)?;
    for name in ["proc", "sys", "dev", "etc"] {
        fs::create_dir_all(dir.join("rootfs").join(name))?;
    }
    let busybox = crate::runner::find_busybox().map_err(std::io::Error::other)?;
    fs::copy(busybox, bin.join("busybox"))?;
    for name in ["true", "sleep"] {
        symlink("busybox", bin.join(name))?;
    }
    fs::write(dir.join("config.json"), config.to_string())
}
