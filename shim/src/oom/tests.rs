use std::future::Future;
use std::process::{Child, Command};
use std::rc::Weak;

use super::*;
use crate::scratch::Scratch;

/// Runs `test` as the server runs: one thread, local tasks.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A watch and the count of its reports.
fn watch(cgroup: &Cgroup) -> (Watch, Rc<Cell<u32>>) {
    let reports = Rc::new(Cell::new(0));
    let count = Rc::clone(&reports);
    (Watch::start(cgroup, move || count.set(count.get() + 1)).unwrap(), reports)
}

fn counter(watch: &Watch) -> Weak<Counter> {
    Rc::downgrade(watch.counter.as_ref().unwrap())
}

fn is_running(watch: &Watch) -> bool {
    !watch.task.as_ref().unwrap().is_finished()
}

/// A cgroup2 directory of plain files: inotify works on every file system.
fn v2(name: &str) -> (Scratch, Cgroup) {
    let scratch = Scratch::new(name);
    scratch.file("memory.events", "oom 0\noom_kill 0\n");
    scratch.file("cgroup.events", "populated 1\nfrozen 0\n");
    let cgroup = Cgroup::at_v2(scratch.path());
    (scratch, cgroup)
}

#[test]
fn v2_kill_is_reported_once() {
    let (scratch, cgroup) = v2("oom-v2");
    run(async {
        let (watch, reports) = watch(&cgroup);
        pass(5).await;
        assert_eq!(reports.get(), 0);
        scratch.file("memory.events", "oom 1\noom_kill 0\n");
        pass(20).await;
        assert_eq!(reports.get(), 0, "memory ran out, nothing was killed");
        scratch.file("memory.events", "oom 1\noom_kill 2\n");
        pass(20).await;
        assert_eq!(reports.get(), 1);
        scratch.file("memory.events", "oom 1\noom_kill 2\n");
        watch.look();
        pass(20).await;
        assert_eq!(reports.get(), 1);
        assert!(is_running(&watch));
    });
}

#[test]
fn v2_kills_before_the_watch_are_not_reported() {
    let (scratch, cgroup) = v2("oom-v2-before");
    scratch.file("memory.events", "oom 1\noom_kill 3\n");
    run(async {
        let (watch, reports) = watch(&cgroup);
        pass(20).await;
        watch.look();
        assert_eq!(reports.get(), 0);
    });
}

#[test]
fn v2_last_look_sees_what_was_not_signalled_yet() {
    let (scratch, cgroup) = v2("oom-v2-last");
    run(async {
        let (watch, reports) = watch(&cgroup);
        scratch.file("memory.events", "oom 1\noom_kill 1\n");
        watch.look();
        assert_eq!(reports.get(), 1);
        pass(20).await;
        assert_eq!(reports.get(), 1);
    });
}

#[test]
fn v2_watch_ends_with_the_last_process() {
    let (scratch, cgroup) = v2("oom-v2-end");
    run(async {
        let (watch, reports) = watch(&cgroup);
        pass(5).await;
        assert!(is_running(&watch));
        scratch.file("cgroup.events", "populated 0\nfrozen 0\n");
        pass(20).await;
        assert!(!is_running(&watch));
        // The server's own look still counts.
        scratch.file("memory.events", "oom 1\noom_kill 1\n");
        watch.look();
        assert_eq!(reports.get(), 1);
    });
}

#[test]
fn v2_watch_ends_with_its_cgroup() {
    let (scratch, cgroup) = v2("oom-v2-gone");
    run(async {
        let (watch, reports) = watch(&cgroup);
        pass(5).await;
        std::fs::remove_file(scratch.path().join("cgroup.events")).unwrap();
        std::fs::remove_file(scratch.path().join("memory.events")).unwrap();
        pass(20).await;
        assert!(!is_running(&watch));
        watch.look();
        assert_eq!(reports.get(), 0);
    });
}

#[test]
fn dropped_watch_leaves_nothing_behind() {
    let (_scratch, cgroup) = v2("oom-drop");
    run(async {
        let (watch, _reports) = watch(&cgroup);
        pass(5).await;
        let counter = counter(&watch);
        assert_eq!(counter.strong_count(), 2);
        drop(watch);
        tokio::task::yield_now().await;
        assert_eq!(counter.strong_count(), 0, "the task, and with it the descriptor, is gone");
    });
}

#[test]
fn without_a_memory_controller_nothing_is_said() {
    let scratch = Scratch::new("oom-none");
    run(async {
        let (watch, reports) = watch(&Cgroup::at_v2(scratch.path()));
        watch.look();
        assert!(watch.task.is_none());
        assert_eq!(reports.get(), 0);
    });
}

#[test]
fn cgroup_that_cannot_be_watched_is_named() {
    let scratch = Scratch::new("oom-refused");
    scratch.file("memory.events", "oom_kill 0\n");
    let error = Watch::start(&Cgroup::at_v2(scratch.path()), || ()).unwrap_err();
    let place = scratch.path().display();
    assert_eq!(error.message, format!("watch for memory running out in {place}: no such file or directory"));
}

#[test]
fn v1_counters_of_cgroups_below_are_added() {
    let scratch = Scratch::new("oom-v1-tree");
    scratch.file("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    scratch.dir("a/b");
    scratch.file("a/memory.oom_control", "oom_kill 2\n");
    scratch.file("a/b/memory.oom_control", "oom_kill 4\n");
    assert_eq!(kills_v1(scratch.path(), 9), Some(7));
    assert_eq!(kills_v1(&scratch.path().join("none"), 9), None);
}

#[test]
fn v1_without_a_counter_counts_signals() {
    let scratch = Scratch::new("oom-v1-old");
    scratch.file("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n");
    assert_eq!(kills_v1(scratch.path(), 9), Some(9));
}

/// A cgroup that may have 4 MiB of memory.
struct Limited {
    dir: PathBuf,
    v1: bool,
}

impl Limited {
    /// On v1 below our own; nothing without root or v1.
    fn v1(name: &str) -> Option<Self> {
        let own = Cgroup::of(std::process::id().cast_signed()).unwrap();
        match own.memory() {
            Memory::V1(parent) => Self::make(parent, name, true),
            Memory::V2(_) | Memory::None => {
                println!("skipped: no cgroup of our own on a v1 memory hierarchy");
                None
            }
        }
    }

    /// On v2 at the top, as ours has processes; nothing without root or a host of v2.
    fn v2(name: &str) -> Option<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let enabled = std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap_or_default();
        if !enabled.split_whitespace().any(|controller| controller == "memory") {
            println!("skipped: no memory controller on v2");
            return None;
        }
        Self::make(top, name, false)
    }

    fn make(parent: &Path, name: &str, v1: bool) -> Option<Self> {
        let dir = parent.join(format!("hull-shim-{}-{name}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&dir) {
            println!("skipped: cannot make {}: {error}", dir.display());
            return None;
        }
        let limit = if v1 { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(dir.join(limit), "4M").unwrap();
        Some(Self { dir, v1 })
    }

    fn cgroup(&self) -> Cgroup {
        if self.v1 { Cgroup::at_v1("memory", &self.dir) } else { Cgroup::at_v2(&self.dir) }
    }

    /// A command of a shell in the cgroup below it called `sub`.
    fn spawn(&self, sub: &str, command: &str) -> Child {
        let procs = self.dir.join(sub).join("cgroup.procs");
        let script = format!("echo $$ > {} && exec {command}", procs.display());
        Command::new("sh").args(["-c", &script]).spawn().unwrap()
    }

    /// The same, to its end.
    async fn run(&self, sub: &str, command: &str) {
        end(self.spawn(sub, command)).await;
    }
}

async fn end(mut child: Child) {
    while child.try_wait().unwrap().is_none() {
        pass(5).await;
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let sub = self.dir.join("sub");
        let below = if sub.exists() { std::fs::remove_dir(sub) } else { Ok(()) };
        if let Err(error) = below.and_then(|()| std::fs::remove_dir(&self.dir)) {
            println!("{} stays: {error}", self.dir.display());
        }
    }
}

const HOG: &str = "tail /dev/zero";

#[test]
fn v1_kill_is_reported_once_and_the_removal_not() {
    let Some(limited) = Limited::v1("oom") else { return };
    run(async {
        let (watch, reports) = watch(&limited.cgroup());
        pass(20).await;
        limited.run("", HOG).await;
        pass(700).await;
        assert_eq!(reports.get(), 1);
        assert!(is_running(&watch));
        limited.run("", HOG).await;
        watch.look();
        assert_eq!(reports.get(), 2, "the last look sees it at once");
        pass(700).await;
        assert_eq!(reports.get(), 2);
        drop(limited);
        pass(100).await;
        assert_eq!(reports.get(), 2);
        assert!(!is_running(&watch));
    });
}

#[test]
fn v1_kill_in_a_cgroup_below_is_reported() {
    let Some(limited) = Limited::v1("oom-below") else { return };
    std::fs::create_dir(limited.dir.join("sub")).unwrap();
    run(async {
        let (_watch, reports) = watch(&limited.cgroup());
        limited.run("sub", HOG).await;
        pass(700).await;
        assert_eq!(reports.get(), 1);
    });
}

#[test]
fn v1_process_that_ends_by_itself_is_not_reported() {
    let Some(limited) = Limited::v1("oom-quiet") else { return };
    run(async {
        let (watch, reports) = watch(&limited.cgroup());
        limited.run("", "true").await;
        watch.look();
        drop(limited);
        pass(50).await;
        assert_eq!(reports.get(), 0);
        assert!(!is_running(&watch));
    });
}

#[test]
fn v2_kill_of_a_real_process_is_reported_once() {
    let Some(limited) = Limited::v2("oom-real") else { return };
    run(async {
        let mut init = limited.spawn("", "sleep 100");
        while limited.cgroup().pids().unwrap().is_empty() {
            pass(5).await;
        }
        let (watch, reports) = watch(&limited.cgroup());
        limited.run("", HOG).await;
        pass(100).await;
        assert_eq!(reports.get(), 1);
        assert!(is_running(&watch));
        limited.run("", HOG).await;
        watch.look();
        assert_eq!(reports.get(), 2, "the last look sees it at once");
        init.kill().unwrap();
        end(init).await;
        pass(100).await;
        assert_eq!(reports.get(), 2);
        assert!(!is_running(&watch), "no process is left");
    });
}
