//! `hull-integration bench shim`: what shims cost, several in one run. Each is put under a containerd of its own,
//! which starts N idle containers; then all of them are looked at over the same time. Called by `bench`.

use crate::engine::{Engine, Engines, container, end_container, inside};
use crate::lab::{Runtime, Shim};
use crate::supervise::{Shared, Verdict};
use crate::{View, cgroup, runner};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

const USAGE: &str = "\
hull-integration bench shim [-n COUNT] [--idle SECONDS] [--output GIB] SHIM...

Starts COUNT idle containers through containerd for each shim, over one runtime, and prints per shim process: private
dirty memory, PSS, RSS, threads and context switches; the time of the starts; the CPU time for output.
-n COUNT          containers of each shim (default 20)
--idle SECONDS    how long context switches are counted (default 30)
--output GIB      how much output of a container is copied (default 1; 0 leaves it out)
RUNTIME           the runtime of them all (default bin/hull)
";

struct Options {
    count: u32,
    idle: Duration,
    /// Bytes that a container prints for the last line of the table.
    output: u64,
    names: Vec<String>,
}

/// A shim with the containerd it serves.
struct Contestant {
    name: String,
    /// The directory of its containerd.
    dir: PathBuf,
    /// In the names of its containers and of their cgroups.
    tag: String,
    starts: Duration,
    sizes: Sizes,
    switches: u64,
    output: Option<Duration>,
}

/// Sums over the processes of a shim.
#[derive(Default)]
struct Sizes {
    processes: usize,
    private_dirty: u64,
    pss: u64,
    rss: u64,
    threads: usize,
}

/// Does what the words after `bench shim` say.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let options = parse(words)?;
    let runtime = Runtime::find(&std::env::var("RUNTIME").unwrap_or_else(|_| "bin/hull".into()))?;
    let tag = format!("hull-bench-{}", std::process::id());
    let tmp = std::env::var_os("HULL_TEST_TMP").map_or_else(std::env::temp_dir, PathBuf::from);
    let place = tmp.join(&tag);
    let result = compare(&place, &runtime, &tag, &options);
    fs::remove_dir_all(&place).ok();
    cgroup::remove_tagged(&tag);
    result
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options =
        Options { count: 20, idle: Duration::from_secs(30), output: 1 << 30, names: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u32>().ok()).ok_or(USAGE.to_owned());
        match word.as_str() {
            "-n" => options.count = number()?.max(1),
            "--idle" => options.idle = Duration::from_secs(number()?.into()),
            "--output" => options.output = u64::from(number()?) << 30,
            flag if flag.starts_with('-') => return Err(USAGE.to_owned()),
            name => options.names.push(name.to_owned()),
        }
    }
    if options.names.is_empty() { Err(USAGE.to_owned()) } else { Ok(options) }
}

fn compare(place: &Path, runtime: &Runtime, tag: &str, options: &Options) -> Result<(), String> {
    // One set of engines for each shim: a set has one containerd.
    let mut sets = Vec::new();
    let result = options
        .names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let shim = Shim::named(name)?;
            let dir = place.join(at.to_string());
            runner::make_shared(&dir)?;
            let shared = Shared { dir, runtime: runtime.clone(), shim: Some(shim.clone()), view: View::Host };
            let engines = Engines::default();
            let dir = engines.get(Engine::Containerd, View::Host, &shared).map_err(said);
            sets.push(engines);
            Ok(Contestant {
                name: shim.full(),
                dir: dir?,
                tag: format!("{tag}-{at}"),
                starts: Duration::ZERO,
                sizes: Sizes::default(),
                switches: 0,
                output: None,
            })
        })
        .collect::<Result<Vec<_>, String>>()
        .and_then(|mut all| {
            let measured = measure(&mut all, runtime, options);
            for (one, n) in all.iter().flat_map(|one| (0..=options.count).map(move |n| (one, n))) {
                end_container(&one.dir, &one.id(n));
            }
            measured.map(|()| all)
        });
    let stopped: Vec<(String, Verdict)> = sets.into_iter().flat_map(Engines::stop).collect();
    let all = result?;
    println!("{} {}, {} containers of each shim", runtime.kind, runtime.version, options.count);
    print(&all, options);
    let left: Vec<String> =
        stopped.into_iter().filter(|(_, v)| v.outcome != "ok").map(|(_, v)| v.text).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {}", left.concat())) }
}

fn said(verdict: Verdict) -> String {
    verdict.text
}

impl Contestant {
    /// The last one is that of the output.
    fn id(&self, n: u32) -> String {
        format!("{}c{n}", self.tag)
    }
}

fn measure(all: &mut [Contestant], runtime: &Runtime, options: &Options) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    // In turns, so that what else the machine does falls on all of them alike.
    for n in 0..options.count {
        for one in all.iter_mut() {
            let words = ["-d", "--null-io"];
            let mut call =
                container(&one.dir, &runtime.path, &one.tag, &one.id(n), &words, "exec sleep 100000");
            let since = Instant::now();
            let output = call.output().map_err(text)?;
            one.starts += since.elapsed();
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{}: start of container {n}: {said}", one.name));
            }
        }
    }
    sleep(Duration::from_secs(2));
    let shims: Vec<Vec<PathBuf>> = all.iter().map(|one| shims(&one.dir)).collect();
    let before: Vec<u64> = shims.iter().map(|pids| pids.iter().map(|p| switches(p)).sum()).collect();
    sleep(options.idle);
    for ((one, pids), before) in all.iter_mut().zip(&shims).zip(before) {
        one.switches = pids.iter().map(|p| switches(p)).sum::<u64>().saturating_sub(before);
        one.sizes = Sizes::of(pids);
    }
    if options.output != 0 {
        for (one, known) in all.iter_mut().zip(&shims) {
            one.output = Some(output(one, runtime, &one.id(options.count), known, options.output)?);
        }
    }
    Ok(())
}

/// The directories in /proc of the shims in the pid namespace of this containerd.
fn shims(dir: &Path) -> Vec<PathBuf> {
    let init = fs::read_to_string(dir.join("pid")).unwrap_or_default();
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let wanted = namespace(&Path::new("/proc").join(init));
    let is_shim = |process: &PathBuf| {
        let exe = fs::read_link(process.join("exe")).unwrap_or_default();
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("containerd-shim") && namespace(process) == wanted
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_shim).collect()
}

fn tasks(process: &Path) -> Vec<PathBuf> {
    fs::read_dir(process.join("task")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Context switches of all threads, wanted and unwanted.
fn switches(process: &Path) -> u64 {
    let of = |task: &PathBuf| {
        sum(&task.join("status"), &["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"])
    };
    tasks(process).iter().map(of).sum()
}

/// The sum of these keys of a file of `key: value` lines.
fn sum(file: &Path, keys: &[&str]) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| keys.contains(key));
    lines.filter_map(|(_, value)| value.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

impl Sizes {
    fn of(processes: &[PathBuf]) -> Self {
        let total = |key: &str| processes.iter().map(|p| sum(&p.join("smaps_rollup"), &[key])).sum::<u64>();
        Self {
            processes: processes.len(),
            private_dirty: total("Private_Dirty"),
            pss: total("Pss"),
            rss: total("Rss"),
            threads: processes.iter().map(|p| tasks(p).len()).sum(),
        }
    }
}

/// CPU time of the shim from its start until so many bytes of the container's output have come out of `ctr run`.
fn output(
    one: &Contestant,
    runtime: &Runtime,
    id: &str,
    known: &[PathBuf],
    bytes: u64,
) -> Result<Duration, String> {
    let text = |error: std::io::Error| error.to_string();
    let script = format!("dd if=/dev/zero bs=64k count={} 2>/dev/null; exec sleep 1000", bytes >> 16);
    let call = container(&one.dir, &runtime.path, &one.tag, id, &[], &script);
    let mut child = inside(&one.dir, &call).stdout(Stdio::piped()).spawn().map_err(text)?;
    let mut stdout = child.stdout.take().ok_or("no output")?;
    let (mut seen, mut buffer) = (0, vec![0; 1 << 20]);
    while seen < bytes {
        match stdout.read(&mut buffer).map_err(text)? {
            0 => break,
            n => seen += n as u64,
        }
    }
    let new: Vec<PathBuf> = shims(&one.dir).into_iter().filter(|p| !known.contains(p)).collect();
    let took = match new.as_slice() {
        [shim] => cpu_time(shim),
        others => Err(format!("shims: {others:?}")),
    };
    end_container(&one.dir, id);
    // Ended by the end of its container.
    child.wait().map_err(text)?;
    if seen < bytes { Err(format!("{}: {seen} bytes of {bytes}", one.name)) } else { took }
}

/// User and system time of all threads; `/proc/PID/stat` counts in hundredths of a second.
fn cpu_time(process: &Path) -> Result<Duration, String> {
    let stat = fs::read_to_string(process.join("stat")).map_err(|error| error.to_string())?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn print(all: &[Contestant], options: &Options) {
    let per = |value: u64, one: &Contestant| value as f64 / one.sizes.processes.max(1) as f64;
    type Cell<'c> = (&'c str, Box<dyn Fn(&Contestant) -> String + 'c>);
    let seconds = options.idle.as_secs();
    let switches = format!("context switches in {seconds} s");
    let cells: Vec<Cell<'_>> = vec![
        ("shim processes", Box::new(|one| one.sizes.processes.to_string())),
        ("private dirty, KiB", Box::new(|one| format!("{:.0}", per(one.sizes.private_dirty, one)))),
        ("PSS, KiB", Box::new(|one| format!("{:.0}", per(one.sizes.pss, one)))),
        ("RSS, KiB", Box::new(|one| format!("{:.0}", per(one.sizes.rss, one)))),
        ("threads", Box::new(|one| format!("{:.1}", per(one.sizes.threads as u64, one)))),
        (&switches, Box::new(|one| format!("{:.1}", per(one.switches, one)))),
        ("start of all, s", Box::new(|one| format!("{:.2}", one.starts.as_secs_f64()))),
        (
            "CPU for that much output, s",
            Box::new(|one| one.output.map_or("-".into(), |took| format!("{:.2}", took.as_secs_f64()))),
        ),
    ];
    let line = |name: &str, cell: &dyn Fn(&Contestant) -> String| {
        let values = all.iter().fold(String::new(), |row, one| format!("{row}{:>36}", cell(one)));
        println!("{name:<34}{values}");
    };
    line("each shim process", &|one| one.name.clone());
    cells.iter().for_each(|(name, cell)| line(name, cell));
}
