use std::future::Future;
use std::process::Command;
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

/// A v1 memory cgroup below our own; nothing without root or v1.
struct V1(PathBuf);

impl V1 {
    fn new(name: &str) -> Option<Self> {
        let own = Cgroup::of(std::process::id().cast_signed()).unwrap();
        let Memory::V1(parent) = own.memory() else {
            println!("skipped: no cgroup of our own on a v1 memory hierarchy");
            return None;
        };
        let dir = parent.join(format!("hull-shim-{}-{name}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                println!("skipped: cannot make {}: {error}", dir.display());
                None
            }
        }
    }

    /// Runs `command` of a shell in the cgroup below it called `sub`, to its end.
    async fn run(&self, sub: &str, command: &str) {
        let procs = self.0.join(sub).join("cgroup.procs");
        let script = format!("echo $$ > {} && exec {command}", procs.display());
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            pass(5).await;
        }
    }

    fn limit(&self) {
        std::fs::write(self.0.join("memory.limit_in_bytes"), "4M").unwrap();
    }
}

impl Drop for V1 {
    fn drop(&mut self) {
        let left = [self.0.join("sub"), self.0.clone()].map(std::fs::remove_dir);
        assert!(left[1].is_ok() || !self.0.exists());
    }
}

const HOG: &str = "tail /dev/zero";

#[test]
fn v1_kill_is_reported_once_and_the_removal_not() {
    let Some(v1) = V1::new("oom") else { return };
    v1.limit();
    run(async {
        let (watch, reports) = watch(&Cgroup::at_v1("memory", &v1.0));
        pass(20).await;
        v1.run("", HOG).await;
        pass(700).await;
        assert_eq!(reports.get(), 1);
        assert!(is_running(&watch));
        v1.run("", HOG).await;
        watch.look();
        assert_eq!(reports.get(), 2, "the last look sees it at once");
        pass(700).await;
        assert_eq!(reports.get(), 2);
        drop(v1);
        pass(100).await;
        assert_eq!(reports.get(), 2);
        assert!(!is_running(&watch));
    });
}

#[test]
fn v1_kill_in_a_cgroup_below_is_reported() {
    let Some(v1) = V1::new("oom-below") else { return };
    v1.limit();
    std::fs::create_dir(v1.0.join("sub")).unwrap();
    run(async {
        let (_watch, reports) = watch(&Cgroup::at_v1("memory", &v1.0));
        v1.run("sub", HOG).await;
        pass(700).await;
        assert_eq!(reports.get(), 1);
    });
}

#[test]
fn v1_process_that_ends_by_itself_is_not_reported() {
    let Some(v1) = V1::new("oom-quiet") else { return };
    run(async {
        let (watch, reports) = watch(&Cgroup::at_v1("memory", &v1.0));
        v1.run("", "true").await;
        watch.look();
        drop(v1);
        pass(50).await;
        assert_eq!(reports.get(), 0);
        assert!(!is_running(&watch));
    });
}
