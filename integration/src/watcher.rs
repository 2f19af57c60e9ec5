//! A hostile process of a container that looks at each new process it can see, as fast as it can: root, working
//! directory, descriptors, environment. Run as `/bin/probe watch CANARY`: it reads the host's file CANARY through
//! whatever leads there, looks for the word `canary` in environments, and prints its counts when /stop appears.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// What was found.
#[derive(Default)]
struct Counts {
    /// Processes seen at least once.
    processes: usize,
    looks: usize,
    /// Reads of the canary through /proc/PID/root.
    root: usize,
    /// Working directories outside of the container's root.
    cwd: usize,
    /// Directories and files of the host that are open.
    fd: usize,
    /// Environments of the host.
    environ: usize,
    /// The first of each, to be told.
    examples: Vec<String>,
}

/// Watches until /stop exists; the exit code.
pub(crate) fn watch(canary: &str) -> i32 {
    let own = fs::metadata("/").map(|m| (m.dev(), m.ino())).unwrap_or_default();
    let procfs = fs::metadata("/proc").map(|m| m.dev()).unwrap_or_default();
    let mut counts = Counts::default();
    let mut last = std::process::id();
    fs::write("/watching", "").ok();
    loop {
        // Numbers are given in order: the next process has one of the next numbers.
        for pid in last + 1..last + 32 {
            let mut seen = false;
            while look(pid, canary, own, procfs, &mut counts) {
                seen = true;
            }
            if seen {
                counts.processes += 1;
                last = pid;
                break;
            }
        }
        counts.looks += 1;
        if counts.looks.is_multiple_of(64) && fs::exists("/stop").unwrap_or(false) {
            break;
        }
    }
    let Counts { processes, root, cwd, fd, environ, examples, .. } = counts;
    let text = format!(
        "root {root} cwd {cwd} fd {fd} environ {environ} of {processes} processes\n{}",
        examples.join("\n")
    );
    i32::from(fs::write("/found", text).is_err())
}

/// Whether it is a directory other than the container's root, with something in it.
fn is_foreign(dir: &str, own: (u64, u64)) -> bool {
    let is_other = fs::metadata(dir).is_ok_and(|m| (m.dev(), m.ino()) != own);
    is_other && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// One look; false when there is no such process.
fn look(pid: u32, canary: &str, own: (u64, u64), procfs: u64, counts: &mut Counts) -> bool {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    if fs::symlink_metadata(file("root")).is_err() {
        return false;
    }
    let mut found = Vec::new();
    if fs::read(file(&format!("root{canary}"))).is_ok_and(|text| text.starts_with(b"canary")) {
        counts.root += 1;
        found.push("root".to_owned());
    }
    if is_foreign(&file("cwd"), own) {
        counts.cwd += 1;
        found.push(format!("cwd {:?}", fs::read_link(file("cwd")).unwrap_or_default()));
    }
    for entry in fs::read_dir(file("fd")).into_iter().flatten().flatten() {
        // What the caller gives as stdio is meant for the container.
        let is_stdio = entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|number| number < 3);
        let Ok(m) = fs::metadata(entry.path()) else { continue };
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let is_own = m.dev() == procfs
            || target.starts_with("/sys/kernel")
            || target.starts_with("/etc/")
            || target.starts_with("/dev/");
        let is_open =
            m.is_dir() && is_foreign(&entry.path().to_string_lossy(), own) || m.is_file() && !is_own;
        if is_open && !is_own && !is_stdio && !target.starts_with("/memfd:") {
            counts.fd += 1;
            found.push(format!("fd {target:?}"));
        }
    }
    if fs::read(file("environ")).is_ok_and(|text| text.windows(6).any(|word| word == b"canary")) {
        counts.environ += 1;
        found.push("environ".to_owned());
    }
    for example in found {
        if counts.examples.len() < 10 && !counts.examples.contains(&example) {
            counts.examples.push(example);
        }
    }
    true
}
