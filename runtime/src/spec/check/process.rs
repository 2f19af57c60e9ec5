//! The rules on `process`: what is run, as whom, within which limits.
//! It reads the process and nothing else. `check` calls it for a config.json and for a process.json alike.

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxSchedulerPolicy, PosixRlimit, Process, Scheduler, User,
};

use super::at::At;
use super::refuse;
use crate::error::{ErrorKind, Field, Result, Warning};

/// `setuid(2)`: this id means "leave as it is" to the kernel; crun 1.8 ran such a config as root.
pub(super) const NO_ID: u32 = u32::MAX;

pub(super) fn check(process: &Process, warnings: &mut Vec<Warning>) -> Result<()> {
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Err(refuse(
            ErrorKind::CwdEmpty,
            Field::named("process.cwd"),
            "Cwd property must not be empty",
        ));
    }
    if !cwd.is_absolute() {
        return Err(refuse(
            ErrorKind::CwdRelative,
            Field::named("process.cwd"),
            "Cwd must be an absolute path",
        ));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(refuse(ErrorKind::ArgsEmpty, Field::named("process.args"), "args must not be empty"));
    }
    env(process.env().as_deref().unwrap_or_default())?;
    user(process.user(), warnings)?;
    rlimits(process.rlimits().as_deref().unwrap_or_default())?;
    if let Some(capabilities) = process.capabilities() {
        self::capabilities(capabilities, warnings)?;
    }
    if let Some(scheduler) = process.scheduler() {
        self::scheduler(scheduler)?;
    }
    numbers(process)
}

fn env(env: &[String]) -> Result<()> {
    for (index, entry) in env.iter().enumerate() {
        let message = match entry.find('=') {
            None => "invalid environment variable: missing '='",
            Some(0) => "invalid environment variable: name cannot be empty",
            Some(_) => continue,
        };
        return Err(refuse(ErrorKind::EnvInvalid, Field::item("process.env", index), message));
    }
    Ok(())
}

fn user(user: &User, warnings: &mut Vec<Warning>) -> Result<()> {
    let at = At::Named("process.user");
    for (name, id) in [("uid", user.uid()), ("gid", user.gid())] {
        if id == NO_ID {
            return Err(refuse(
                ErrorKind::IdInvalid,
                at.member(name),
                format!("{name} {id} is not a valid id"),
            ));
        }
    }
    for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
        if *gid == NO_ID {
            let list = at.member("additionalGids");
            let field = list.index(index);
            return Err(refuse(ErrorKind::IdInvalid, field, format!("gid {gid} is not a valid id")));
        }
    }
    if let Some(umask) = user.umask()
        && umask > 0o777
    {
        let message = format!("umask {umask} is above 0777: the kernel uses {:#o}", umask & 0o777);
        warnings.push(
            refuse(ErrorKind::Umask, at.member("umask"), message)
                .hint("JSON numbers are decimal: 0022 is 18"),
        );
    }
    Ok(())
}

fn rlimits(rlimits: &[PosixRlimit]) -> Result<()> {
    let at = |index| Field::item("process.rlimits", index);
    for (index, limit) in rlimits.iter().enumerate() {
        if rlimits.iter().take(index).any(|earlier| earlier.typ() == limit.typ()) {
            return Err(refuse(
                ErrorKind::RlimitDuplicate,
                at(index),
                format!("{} is given twice", limit.typ()),
            ));
        }
        if limit.soft() > limit.hard() {
            let message = format!(
                "{}: soft limit {} is above the hard limit {}",
                limit.typ(),
                limit.soft(),
                limit.hard()
            );
            return Err(refuse(ErrorKind::RlimitOrder, at(index), message));
        }
    }
    Ok(())
}

fn capabilities(sets: &LinuxCapabilities, warnings: &mut Vec<Warning>) -> Result<()> {
    let at = At::Named("process.capabilities");
    let holds = |set: &Option<oci_spec::runtime::Capabilities>, cap: &Capability| {
        set.as_ref().is_some_and(|set| set.contains(cap))
    };
    let unpermitted = sets.effective().iter().flatten().filter(|cap| !holds(sets.permitted(), cap));
    if let Some(cap) = unpermitted.min_by_key(|cap| cap.to_string()) {
        let message = format!("CAP_{cap} is not permitted, so it cannot be effective");
        return Err(refuse(ErrorKind::CapabilityNotPermitted, at.member("effective"), message)
            .hint(format!("add CAP_{cap} to process.capabilities.permitted")));
    }
    let mut lost: Vec<String> = sets
        .ambient()
        .iter()
        .flatten()
        .filter(|cap| !holds(sets.permitted(), cap) || !holds(sets.inheritable(), cap))
        .map(|cap| format!("CAP_{cap}"))
        .collect();
    lost.sort();
    if !lost.is_empty() {
        let names = lost.join(", ");
        let message = format!("can't raise ambient capability {names}: not both permitted and inheritable");
        warnings.push(refuse(ErrorKind::CapabilityAmbient, at.member("ambient"), message));
    }
    Ok(())
}

/// `sched_setattr(2)`, with runc's words.
fn scheduler(scheduler: &Scheduler) -> Result<()> {
    let at = |name| Field::named("process.scheduler").member(name);
    if let Some(nice) = scheduler.nice()
        && !(-20..=19).contains(nice)
    {
        return Err(refuse(ErrorKind::Scheduler, at("nice"), format!("invalid scheduler.nice: {nice}")));
    }
    let policy = *scheduler.policy();
    let is_realtime = matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !is_realtime {
        let message = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy";
        return Err(refuse(ErrorKind::Scheduler, at("priority"), message));
    }
    if is_realtime && !(1..=99).contains(&priority) {
        let message = format!("scheduler.priority must be 1 to 99 for {policy}, is {priority}");
        return Err(refuse(ErrorKind::Scheduler, at("priority"), message));
    }
    let times = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    for (name, time) in times {
        if time.unwrap_or(0) != 0 && policy != LinuxSchedulerPolicy::SchedDeadline {
            let message = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
            return Err(refuse(ErrorKind::Scheduler, at(name), message));
        }
    }
    Ok(())
}

/// The terminal's size is two 16-bit numbers (`winsize`, ioctl_tty(2)).
const MAX_CONSOLE: u64 = 0xffff;

fn numbers(process: &Process) -> Result<()> {
    if let Some(adj) = process.oom_score_adj()
        && !(-1000..=1000).contains(&adj)
    {
        let message = format!("oomScoreAdj must be -1000 to 1000, is {adj}");
        return Err(refuse(ErrorKind::OomScoreAdj, Field::named("process.oomScoreAdj"), message));
    }
    if let Some(io) = process.io_priority()
        && !(0..=7).contains(&io.priority())
    {
        let message = format!("ioPriority.priority must be 0 to 7, is {}", io.priority());
        return Err(refuse(ErrorKind::IoPriority, Field::named("process.ioPriority.priority"), message));
    }
    if let Some(size) = process.console_size() {
        for (name, value) in [("height", size.height()), ("width", size.width())] {
            if value > MAX_CONSOLE {
                let message = format!("{name} must be at most {MAX_CONSOLE}, is {value}");
                return Err(refuse(
                    ErrorKind::ConsoleSize,
                    Field::named("process.consoleSize").member(name),
                    message,
                ));
            }
        }
    }
    Ok(())
}
