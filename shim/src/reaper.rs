//! Orphans: a container without a pid namespace of its own leaves its children to us, the subreaper. Those
//! that the shim waits for are left alone; the others are reaped as they end. Called by `server` on `SIGCHLD`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use hull_sys::pidfd;
use hull_sys::process::{self, Pid};
use std::os::fd::AsFd;

/// Who is waited for.
#[derive(Debug, Default)]
pub struct Reaper {
    known: RefCell<BTreeSet<Pid>>,
    /// Calls of the runtime that are on their way: each may make a process whose number is not known yet.
    calls: Cell<usize>,
}

impl Reaper {
    /// From now on nobody but the one who waits for it reaps this process.
    pub fn keep(&self, pid: Pid) {
        self.known.borrow_mut().insert(pid);
    }

    /// It has been reaped.
    pub fn forget(&self, pid: Pid) {
        self.known.borrow_mut().remove(&pid);
    }

    /// No orphan is reaped until this is dropped.
    pub fn hold(&self) -> Hold<'_> {
        self.calls.set(self.calls.get() + 1);
        Hold(self)
    }

    /// Reaps the children that have ended and that nobody waits for.
    pub fn reap_orphans(&self) {
        if self.calls.get() > 0 {
            return;
        }
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        for pid in children.split_ascii_whitespace().filter_map(|text| text.parse::<Pid>().ok()) {
            if self.known.borrow().contains(&pid) {
                continue;
            }
            // One that still runs stays; one that is gone was not ours.
            let _reaped = pidfd::open(pid).and_then(|handle| process::wait(handle.as_fd(), false)).is_ok();
        }
    }
}

/// While one of these lives, a process that nobody knows may be the one a call of the runtime has made.
#[derive(Debug)]
pub struct Hold<'a>(&'a Reaper);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
        self.0.reap_orphans();
    }
}
