//! Tells when the kernel's OOM killer has ended a process of a container. Watches from create on, by an
//! eventfd on v1 and by inotify on v2, and compares the counter of kills, so that none is missed and none
//! reported twice. `container` calls it.
//!
//! | what the kernel signals | what follows |
//! |---|---|
//! | v1: memory ran out, just before the kill is counted | looks until the counter has grown, 0.6 s at most |
//! | v1: the cgroup is removed | the watch ends without a report |
//! | v2: `memory.events` changed | a look |
//! | v2: `cgroup.events` changed | a look, the last one when no process is left |

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use hull_cgroup::files::number_of;
use hull_sys::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::stats::{Cgroup, Memory};
use crate::watch::watch;

/// v1 signals in `mem_cgroup_oom` before the victim is chosen and counted: how long each further look waits.
const PAUSES_MS: [u64; 6] = [1, 5, 20, 80, 160, 320];

/// A watch over one container, until it is dropped.
pub struct Watch {
    counter: Option<Rc<Counter>>,
    task: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches `cgroup` and calls `report` once for each look in which the counter has grown. Belongs into a
    /// `LocalSet`.
    ///
    /// # Errors
    /// When the kernel gives no watch; a cgroup without a memory controller gives one that says nothing.
    pub fn start(cgroup: &Cgroup, report: impl Fn() + 'static) -> Result<Self> {
        let (dir, source) = match cgroup.memory() {
            Memory::V1(dir) => (dir, Source::V1 { signals: Cell::new(0) }),
            Memory::V2(dir) => (dir, Source::V2),
            Memory::None => return Ok(Self { counter: None, task: None }),
        };
        let counter = Counter { dir: dir.to_owned(), source, seen: Cell::new(0), report: Box::new(report) };
        let failed = |error: io::Error| {
            let reason = Errno::try_from(error).unwrap_or(Errno::EIO).desc();
            Error::failed(format!("watch for memory running out in {}", dir.display()), reason)
        };
        // Counted before it is watched: what comes between the two is seen by the first look.
        counter.seen.set(counter.kills().unwrap_or(0));
        let signals = counter.register().map_err(failed)?;
        let counter = Rc::new(counter);
        let task = tokio::task::spawn_local(follow(signals, Rc::clone(&counter)));
        Ok(Self { counter: Some(counter), task: Some(task) })
    }

    /// Looks once more: for when init has ended, before its exit is told.
    pub fn look(&self) {
        if let Some(counter) = &self.counter {
            counter.look();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("dir", &self.counter.as_ref().map(|c| &c.dir)).finish_non_exhaustive()
    }
}

/// Looks whenever the kernel signals, until the cgroup is gone or empty.
async fn follow(signals: AsyncFd<OwnedFd>, counter: Rc<Counter>) {
    let mut seen = counter.look();
    while seen != Seen::End {
        let Ok(mut ready) = signals.readable().await else { return };
        let mut events = [0; 512];
        match ready.try_io(|fd| Ok(nix::unistd::read(fd, &mut events)?)) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_not_ready) => continue,
        }
        counter.hear(&events);
        seen = counter.look();
        for pause in counter.pauses() {
            if seen != Seen::Same {
                break;
            }
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            seen = counter.look();
        }
    }
}

/// The counter of kills in one cgroup, and how far it has been reported.
struct Counter {
    dir: PathBuf,
    source: Source,
    seen: Cell<u64>,
    report: Box<dyn Fn()>,
}

enum Source {
    /// Counts signals for kernels that do not count kills (before Linux 4.13).
    V1 {
        signals: Cell<u64>,
    },
    V2,
}

/// The outcome of a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// More kills than before; reported.
    More,
    /// As many as before.
    Same,
    /// Nothing will come any more.
    End,
}

impl Counter {
    fn look(&self) -> Seen {
        let seen = match self.kills() {
            Some(now) if now > self.seen.replace(now) => {
                (self.report)();
                Seen::More
            }
            Some(_) => Seen::Same,
            None => Seen::End,
        };
        if self.is_over() { Seen::End } else { seen }
    }

    /// Nothing when the cgroup is gone.
    fn kills(&self) -> Option<u64> {
        match &self.source {
            Source::V1 { signals } => kills_v1(&self.dir, signals.get()),
            Source::V2 => {
                let text = std::fs::read_to_string(self.dir.join("memory.events")).ok()?;
                Some(number_of(&text, "oom_kill").unwrap_or(self.seen.get()))
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.source {
            Source::V1 { .. } => false,
            // What cannot be read has ended, too.
            Source::V2 => std::fs::read_to_string(self.dir.join("cgroup.events"))
                .map_or(true, |text| number_of(&text, "populated") == Some(0)),
        }
    }

    /// Takes note of what was read from the watch: on v1, how many signals there were.
    fn hear(&self, events: &[u8]) {
        if let (Source::V1 { signals }, Some(count)) = (&self.source, events.first_chunk()) {
            signals.set(signals.get().saturating_add(u64::from_ne_bytes(*count)));
        }
    }

    /// v2 counts before it signals.
    fn pauses(&self) -> &'static [u64] {
        match self.source {
            Source::V1 { .. } => &PAUSES_MS,
            Source::V2 => &[],
        }
    }

    /// Has the kernel tell of changes by a descriptor.
    fn register(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let signals = match self.source {
            Source::V1 { .. } => register_v1(&self.dir)?,
            Source::V2 => register_v2(&self.dir)?,
        };
        watch(signals, Interest::READABLE)
    }
}

/// Kills in `dir` and in the cgroups below it, which a v1 counter does not include: a container may have
/// containers of its own. Without such a counter, `signals`.
fn kills_v1(dir: &Path, signals: u64) -> Option<u64> {
    let text = std::fs::read_to_string(dir.join("memory.oom_control")).ok()?;
    let Some(own) = number_of(&text, "oom_kill") else { return Some(signals) };
    // One that goes meanwhile takes its count along.
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Some(own + below.filter_map(|entry| kills_v1(&entry.path(), 0)).sum::<u64>())
}

/// By the rules of `cgroup-v1/memory.rst`, section 10. The control file may be closed afterwards.
fn register_v1(dir: &Path) -> io::Result<OwnedFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = File::open(dir.join("memory.oom_control"))?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    let registry = std::fs::OpenOptions::new().write(true).open(dir.join("cgroup.event_control"))?;
    nix::unistd::write(&registry, line.as_bytes())?;
    Ok(event.into())
}

fn register_v2(dir: &Path) -> io::Result<OwnedFd> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    changes.add_watch(&dir.join("memory.events"), AddWatchFlags::IN_MODIFY)?;
    changes.add_watch(&dir.join("cgroup.events"), AddWatchFlags::IN_MODIFY)?;
    Ok(changes.into())
}

#[cfg(test)]
mod tests;
