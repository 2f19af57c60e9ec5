//! Owns the execution of a plan's writes: their order, second tries and refusals, and what the errors say.
//! It may not compute values; a value that depends on another was planned as one to be written again.
//! `launch` calls [`Cgroup::apply`] once before and once after the container's set-up, `update` once.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::Errno;
use hull_sys::open::How;

use super::Cgroup;
use super::dir::{Dir, write_failed};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::cgroup::{CgroupPlan, Denied, InForce, Invalid, Missing, UsageCheck, Version, When, Write};

impl Cgroup {
    /// Writes the limits that are due at `when`, in the plan's order; before the start also the v2 device
    /// filter.
    ///
    /// # Errors
    /// The first refusal the plan does not foresee, with its config field.
    pub fn apply(&self, plan: &CgroupPlan, when: When) -> Result<()> {
        self.apply_limits(plan, when)?;
        if when == When::BeforeStart { self.apply_devices(plan) } else { Ok(()) }
    }

    /// [`Self::apply`] without the v2 device filter.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_limits(&self, plan: &CgroupPlan, when: When) -> Result<()> {
        self.write_limits(plan, |write| write.when == when)
    }

    /// The v2 device filter alone. The kernel takes 0.15 ms to load it, and it is in force as a whole: it may
    /// be done while the container's set-up runs, but must be before anything of the container's does. (v1's
    /// rules are writes one after the other, with a moment in which everything is denied: those come first.)
    ///
    /// # Errors
    /// What `bpf(2)` answers, unless the plan foresees it.
    pub fn apply_devices(&self, plan: &CgroupPlan) -> Result<()> {
        plan.devices.as_ref().map_or(Ok(()), |devices| self.filter_devices(devices))
    }

    /// Writes all limits at once, as `update` does: all of them, or none.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_all(&self, plan: &CgroupPlan) -> Result<()> {
        let before: Vec<_> = plan.writes.iter().map(|write| self.value_before(write)).collect();
        self.write_limits(plan, |_| true).inspect_err(|_refused| {
            for (write, value) in plan.writes.iter().zip(&before).rev() {
                let dir = self.planned_dir(write.dir);
                if let (Some(dir), Some(value)) = (dir, value) {
                    // What cannot be taken back is as it was refused or as it was asked for.
                    let _restored = dir.write(&write.file, value).is_ok();
                }
            }
        })
    }

    /// What stands in a file that holds one value; those with a line for each device cannot be written as read.
    fn value_before(&self, write: &Write) -> Option<String> {
        let dir = self.planned_dir(write.dir)?;
        let text = dir.read(&write.file).ok()?;
        let value = text.trim_end();
        (!value.is_empty() && !value.contains('\n')).then(|| value.to_owned())
    }

    /// What is in force of that which an update may have to keep.
    pub fn in_force(&self) -> InForce {
        let of = |v1: &str| self.v1(v1).or_else(|| self.v2());
        let bytes = |dir: &Dir, file: &str| dir.read(file).ok().and_then(|text| limit(text.trim()));
        let mut now = InForce::default();
        // v1 has a file for each of the two.
        if let Some(dir) = of("cpu").filter(|dir| dir.version == Version::V2) {
            let text = dir.read("cpu.max").unwrap_or_default();
            let mut words = text.split_ascii_whitespace();
            now.cpu_quota = words.next().and_then(limit);
            now.cpu_period = words.next().and_then(|word| word.parse().ok());
        }
        match of("memory") {
            Some(dir) if dir.version == Version::V1 => {
                now.memory = bytes(dir, "memory.limit_in_bytes");
                now.memory_swap = bytes(dir, "memory.memsw.limit_in_bytes");
            }
            Some(dir) => {
                now.memory = bytes(dir, "memory.max");
                now.memory_swap = match (now.memory, bytes(dir, "memory.swap.max")) {
                    (Some(0..), Some(swap @ 0..)) => now.memory.map(|memory| memory.saturating_add(swap)),
                    (Some(_), Some(_)) => Some(-1),
                    _ => None,
                };
            }
            None => {}
        }
        now
    }

    fn write_limits(&self, plan: &CgroupPlan, due: impl Fn(&Write) -> bool) -> Result<()> {
        let due: Vec<_> = plan.writes.iter().filter(|write| due(write)).collect();
        let check = plan.check.as_ref().filter(|check| due.iter().any(|w| w.dir == check.dir));
        // Until the limits are written.
        let _squeezed = check.map(|check| self.check_usage(check)).transpose()?;
        let mut open = None;
        let mut again = Vec::new();
        for write in due {
            let Some(dir) = self.planned_dir(write.dir) else {
                absent(write)?;
                continue;
            };
            match (put(dir, write, &mut open), write.invalid) {
                (Err(Errno::EINVAL), Invalid::Again) => again.push((dir, write)),
                (Err(errno), _) => return Err(refused(dir, write, errno)),
                (Ok(()), Invalid::Again) => {}
                (Ok(()), Invalid::Fail) => put_again(&mut again, &mut open)?,
            }
        }
        put_again(&mut again, &mut open)
    }

    /// Has the kernel free what it can (`memory.high`), and refuses what is still too little.
    fn check_usage(&self, check: &UsageCheck) -> Result<Option<Squeezed<'_>>> {
        // As good as it can be: a cgroup that cannot say what it uses cannot be over it.
        let Some(dir) = self.planned_dir(check.dir) else { return Ok(None) };
        let Some(usage) = number(dir, "memory.current") else { return Ok(None) };
        let squeezed = check.limit.filter(|limit| *limit <= usage).and_then(|limit| Squeezed::to(dir, limit));
        let usage = number(dir, "memory.current").unwrap_or(usage);
        let over = |limit: Option<u64>| limit.filter(|limit| *limit <= usage);
        let reject = |what: &str, limit: u64, field| {
            let text = format!("rejecting {what} limit {limit} <= usage {usage}");
            let field = crate::error::Field::named(field);
            Err(Error::new(ErrorKind::MemoryInUse, text).field(field))
        };
        match (over(check.memory_swap), over(check.limit)) {
            (Some(limit), _) => reject("memory+swap", limit, "linux.resources.memory.swap"),
            (None, Some(limit)) => reject("memory", limit, "linux.resources.memory.limit"),
            (None, None) => Ok(squeezed),
        }
    }
}

/// A cgroup whose `memory.high` is lowered, which frees page caches and ends nobody, until this is dropped.
#[derive(Debug)]
struct Squeezed<'a> {
    dir: &'a Dir,
    before: String,
}

impl<'a> Squeezed<'a> {
    fn to(dir: &'a Dir, bytes: u64) -> Option<Self> {
        let before = dir.read("memory.high").ok()?.trim().to_owned();
        dir.write("memory.high", &bytes.to_string()).ok()?;
        Some(Self { dir, before })
    }
}

impl Drop for Squeezed<'_> {
    fn drop(&mut self) {
        // The file was written a moment ago.
        let _restored = self.dir.write("memory.high", &self.before).is_ok();
    }
}

/// A limit as the kernel shows it: `max`, or v1's highest number of pages, is none.
fn limit(text: &str) -> Option<i64> {
    match text {
        "max" => Some(-1),
        number => number.parse().ok().map(|bytes: i64| if bytes >= 1 << 62 { -1 } else { bytes }),
    }
}

/// The file of the last write, kept open: device rules are many writes into one file.
type Open<'a> = Option<(usize, &'a str, OwnedFd)>;

/// The second and last try of the writes that had to wait for another value to be in force.
fn put_again<'a>(again: &mut Vec<(&Dir, &'a Write)>, open: &mut Open<'a>) -> Result<()> {
    again
        .drain(..)
        .try_for_each(|(dir, write)| put(dir, write, open).map_err(|errno| refused(dir, write, errno)))
}

/// One write with its foreseen refusals.
fn put<'a>(dir: &Dir, write: &'a Write, open: &mut Open<'a>) -> Result<(), Errno> {
    let done = match put_into(dir, &write.file, &write.value, open) {
        Err(Errno::ENOENT) => match &write.missing {
            Missing::Fail => Err(Errno::ENOENT),
            Missing::Skip => Ok(()),
            Missing::Instead(file, value) => put_into(dir, file, value, open),
        },
        done => done,
    };
    match done {
        Err(Errno::EPERM | Errno::EACCES | Errno::EROFS) if write.denied == Denied::Skip => Ok(()),
        done => done,
    }
}

fn put_into<'a>(dir: &Dir, file: &'a str, value: &str, open: &mut Open<'a>) -> Result<(), Errno> {
    let fd = match open.take() {
        Some((index, name, fd)) if index == dir.index && name == file => fd,
        _ => dir.open_file(file, How::WRITE)?,
    };
    let done = hull_sys::fs::write_once(fd.as_fd(), value.as_bytes());
    *open = Some((dir.index, file, fd));
    done
}

/// A limit in a hierarchy where no cgroup could be made.
fn absent(write: &Write) -> Result<()> {
    if write.denied == Denied::Skip {
        return Ok(());
    }
    let controller = &write.controller;
    let text = format!("cannot set {controller} limit: container could not join or create cgroup");
    Err(Error::new(ErrorKind::CgroupMissing, text).field(write.field.clone()))
}

fn refused(dir: &Dir, write: &Write, errno: Errno) -> Error {
    let field = write.field.clone();
    let error = |kind, text: String| Error::new(kind, text).field(field.clone());
    match (errno, &*write.file) {
        (Errno::EBUSY, "memory.limit_in_bytes") => {
            let read = |file| number(dir, file).unwrap_or_default();
            let (usage, peak) = (read("memory.usage_in_bytes"), read("memory.max_usage_in_bytes"));
            let text = format!(
                "unable to set memory limit to {} (current usage: {usage}, peak usage: {peak})",
                write.value
            );
            error(ErrorKind::MemoryInUse, text).hint(format!("the limit must be above {usage} bytes"))
        }
        // The file of a controller that is not enabled here is not there.
        (Errno::ENOENT, file) => {
            let controller = &write.controller;
            let path = dir.path.display();
            let why = format!("{path} has no {file}");
            let hint = format!(
                "the {controller} controller may not be enabled in a parent cgroup because that contains processes"
            );
            let text =
                format!("cannot set {controller} limit: container could not join or create cgroup: {why}");
            error(ErrorKind::CgroupFileMissing, text).hint(hint)
        }
        (errno, file) => error(ErrorKind::CgroupWrite, write_failed(file, &write.value, errno)),
    }
}

fn number(dir: &Dir, file: &str) -> Option<u64> {
    dir.read(file).ok()?.trim().parse().ok()
}
