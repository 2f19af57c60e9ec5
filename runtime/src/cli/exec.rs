//! `hull exec`: runs one more process in a container.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::open::{self, How};
use oci_spec::runtime::{Capabilities, Process};
use serde_json::{Value, json};

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle, container};
use crate::cgroup::{Cgroup, SubCgroup};
use crate::error::{Error, ErrorKind, Field, Result, Warning, words};
use crate::host;
use crate::launch::foreground::{self, Terminal};
use crate::launch::join::{self, Join};
use crate::launch::report::check_passed_fds;
use crate::plan;
use crate::plan::process::ProcessPlan;
use crate::spec::state::Status;
use crate::spec::{self, Loaded, Source};
use crate::state::{Record, StateDir};
use hull_seccomp::Filter;

/// Exit code when the process could not be set up; any other is the process's own.
pub(super) const FAILED: i32 = 255;

pub(super) const VERB: Verb = Verb {
    name: "exec",
    arguments: "ID COMMAND [ARGUMENT...]",
    count: (1, usize::MAX),
    about: "run an additional process in a container",
    flags: FLAGS,
    trailing: true,
};

const FLAGS: &[Flag] = &[
    Flag::value("process", "FILE", "read the process from FILE instead of the command line").short('p'),
    Flag::value("cwd", "DIR", "working directory in the container"),
    Flag::value("env", "NAME=VALUE", "set an environment variable; may be repeated").short('e'),
    Flag::value("user", "UID[:GID]", "run as this user").short('u'),
    Flag::value("additional-gids", "GID", "add a group; may be repeated").short('g'),
    Flag::value("cap", "CAP", "add a capability; may be repeated").short('c'),
    Flag::switch("tty", "allocate a terminal").short('t'),
    Flag::switch("detach", "return once the program is running").short('d'),
    Flag::value("console-socket", "PATH", "send the terminal to this socket"),
    Flag::value("pidfd-socket", "PATH", "send a pidfd of the process to this socket"),
    Flag::value("pid-file", "FILE", "write the PID of the process to FILE"),
    Flag::value("process-label", "LABEL", "SELinux label of the process"),
    Flag::value("apparmor", "PROFILE", "AppArmor profile of the process"),
    Flag::switch("no-new-privs", "prevent the process from gaining privileges (no_new_privs)"),
    Flag::value(
        "preserve-fds",
        "N",
        "pass N additional file descriptors to the process, after those of LISTEN_FDS",
    ),
    Flag::value(
        "cgroup",
        "[CTRL,..:]PATH",
        "run in this sub-cgroup of the container's cgroup; may be repeated",
    ),
    Flag::switch("ignore-paused", "allow a paused container; the process waits until it is resumed"),
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    execute(global, parsed).map_err(|mut error| {
        if error.kind == ErrorKind::ContainerMissing {
            error.message = format!("exec failed: {}", error.message);
        }
        error
    })
}

fn execute(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = super::id(parsed)?;
    let listen_fds = bundle::listen_fds();
    let preserve_fds = parsed.number("preserve-fds")?.unwrap_or(0);
    check_passed_fds(listen_fds, preserve_fds)?;
    let passed_fds = listen_fds + preserve_fds;
    let dir = global.root.open(&id)?;
    let record = dir.load()?;
    check_status(&dir, &record, parsed.has("ignore-paused"))?;
    let (process, source, mut warnings) = process(&dir, parsed)?;
    let point = |error: Error| source.as_ref().map_or(error.clone(), |source| source.point(error));
    let planned = plan_process(&process, &record, global, &mut warnings).map_err(point)?;
    let (mut plan, last_cap) = planned;
    pass_listen_fds(&mut plan, listen_fds);
    let detach = parsed.has("detach");
    let terminal = plan.terminal.is_some();
    let socket = container::console_socket(parsed.value("console-socket"), terminal, detach)?;
    let (ours, theirs) = match socket {
        None if terminal => foreground::console().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        socket => (None, socket),
    };
    let gone = || Error::new(ErrorKind::ContainerNotRunning, "cannot exec a container that has stopped");
    let init = record.init.ok_or_else(gone)?;
    let handle = init.open().map_err(|_stopped| gone())?;
    let cgroup = enter_cgroup(&record, parsed)?;
    let seccomp = filter(&dir)?;
    let signals = foreground::watch()?;
    // Before the program runs: callers kill by this number (buildkit polls for the file).
    let announced = Cell::new(false);
    let announce = |pid, process: BorrowedFd<'_>| {
        announced.set(true);
        container::write_pid_file(parsed.value("pid-file"), pid)
            .and_then(|()| container::send_pidfd(parsed.value("pidfd-socket"), process))
    };
    let unsaid = |error: Error| {
        if let Some(path) = parsed.value("pid-file").filter(|_| announced.get()) {
            // A pid file means that the program ran.
            let _removed = std::fs::remove_file(path).is_ok();
        }
        point(error)
    };
    let joined = join::join(Join {
        plan: &plan,
        seccomp: seccomp.as_ref(),
        init: handle.as_fd(),
        init_pid: init.pid,
        namespaces: record.namespaces,
        cgroup: &cgroup,
        waits_when_paused: parsed.has("ignore-paused"),
        console: theirs,
        last_cap,
        passed_fds,
        affinity: affinity(&process)?,
        personality: record.personality,
        announce: &announce,
        goes_on: ours.is_none(),
    })
    .map_err(unsaid)?;
    global.log.debug(format_args!("process {} is in the namespaces of process {}", joined.pid, init.pid));
    let terminal = ours.map(|ours| Terminal::receive(ours.as_fd())).transpose();
    let started = terminal.and_then(|terminal| joined.release(&plan).map(|()| terminal));
    let terminal = started.map_err(|error| {
        joined.end();
        unsaid(error)
    })?;
    global.log.warnings(&warnings);
    if detach {
        return Ok(0);
    }
    foreground::wait(joined.pidfd.as_fd(), signals.as_fd(), terminal).map(|exit| exit.code())
}

fn check_status(dir: &StateDir, record: &Record, ignore_paused: bool) -> Result<()> {
    match super::state::status(dir, record) {
        Status::Created | Status::Running => Ok(()),
        Status::Paused if ignore_paused => Ok(()),
        Status::Paused => Err(Error::new(ErrorKind::ContainerPaused, "cannot exec in a paused container")
            .hint(format!("hull resume {}", dir.id()))),
        Status::Stopped | Status::Creating => Err(Error::new(
            ErrorKind::ContainerNotRunning,
            "cannot exec in a stopped container: container not running",
        )),
    }
}

/// The process to run: from a file, or the container's own with the flags' changes.
fn process(dir: &StateDir, parsed: &Parsed) -> Result<(Process, Option<Source>, Vec<Warning>)> {
    let (process, source, mut warnings) = match parsed.value("process") {
        Some(path) => {
            let failed = |why: &str| {
                Error::new(ErrorKind::ProcessMissing, format!("open {path}: {}", why.to_lowercase()))
            };
            let name = std::ffi::CString::new(path).map_err(|_nul| failed("NUL byte"))?;
            let file = open::on_host(None, &name, How::READ_NOW).map_err(|errno| failed(&words(errno)))?;
            let Loaded { spec, warnings, source } = spec::load_process(file.into(), path)?;
            (spec, Some(source), warnings)
        }
        None => (from_flags(dir, parsed)?, None, Vec::new()),
    };
    let checked = spec::check_process(&process);
    warnings.extend(
        checked.map_err(|error| source.as_ref().map_or(error.clone(), |source| source.point(error)))?,
    );
    Ok((process, source, warnings))
}

fn from_flags(dir: &StateDir, parsed: &Parsed) -> Result<Process> {
    let corrupt = |error: serde_json::Error| {
        Error::new(
            ErrorKind::StateCorrupt,
            format!("container {}: its saved process is unreadable: {error}", dir.id()),
        )
    };
    let mut process: Process = serde_json::from_slice(&dir.process()?).map_err(corrupt)?;
    let args = parsed.arguments.get(1..).unwrap_or(&[]);
    let args =
        if args.first().is_some_and(|first| first == "--") { args.get(1..).unwrap_or(&[]) } else { args };
    if args.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "exec needs a command, or --process FILE"));
    }
    process.set_args(Some(args.to_vec())).set_terminal(Some(parsed.has("tty"))).set_console_size(None);
    if let Some(cwd) = parsed.value("cwd") {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(parsed.values("env").map(str::to_owned));
    process.set_env(Some(env));
    if let Some(user) = parsed.value("user") {
        set_user(&mut process, user)?;
    }
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    for gid in parsed.values("additional-gids") {
        groups.push(id_number(gid, "additional-gids")?);
    }
    process.user_mut().set_additional_gids(Some(groups));
    if let Some(label) = parsed.value("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = parsed.value("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if parsed.has("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    add_caps(&mut process, parsed)?;
    Ok(process)
}

/// `UID[:GID]`, both as numbers that fit: parsed strictly, since a number cut to 32 bits would be another
/// user (`4294967296` is not root).
fn set_user(process: &mut Process, text: &str) -> Result<()> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let uid = id_number(uid, "user")?;
    let gid = gid.map(|gid| id_number(gid, "user")).transpose()?;
    let user = process.user_mut();
    user.set_uid(uid);
    if let Some(gid) = gid {
        user.set_gid(gid);
    }
    // HOME is that of the user it belongs to.
    let env = process.env().clone().unwrap_or_default();
    process.set_env(Some(env.into_iter().filter(|one| !one.starts_with("HOME=")).collect()));
    Ok(())
}

fn id_number(text: &str, flag: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        // The last number is no id: system calls read it as "leave it".
        Ok(number) if digits && number != u32::MAX => Ok(number),
        _ => Err(Error::new(ErrorKind::Usage, format!("--{flag}: {text:?} is not a valid ID"))
            .hint("an ID is a number from 0 to 4294967294")),
    }
}

/// Adds capabilities to the sets a process has at once; never to the inheritable one (CVE-2022-29162), which
/// stays as the container has it, like the ambient one.
fn add_caps(process: &mut Process, parsed: &Parsed) -> Result<()> {
    let names: Vec<&str> = parsed.values("cap").collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut caps = present_sets(process);
    for name in names {
        let upper = name.to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let cap = serde_json::from_value(Value::String(full)).map_err(|_unknown| {
            Error::new(ErrorKind::Usage, format!("--cap: unknown capability {name:?}"))
        })?;
        for set in [&mut caps.0, &mut caps.1, &mut caps.2] {
            set.insert(cap);
        }
    }
    let (inheritable, ambient) = process.capabilities().as_ref().map_or_else(Default::default, |caps| {
        (caps.inheritable().clone().unwrap_or_default(), caps.ambient().clone().unwrap_or_default())
    });
    let value = json!({
        "bounding": caps.0, "effective": caps.1, "permitted": caps.2, "inheritable": inheritable, "ambient": ambient
    });
    let sets =
        serde_json::from_value(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Bounding, effective and permitted set.
type Sets = (Capabilities, Capabilities, Capabilities);

/// The sets that the process has so far.
fn present_sets(process: &Process) -> Sets {
    let Some(caps) = process.capabilities() else { return Sets::default() };
    let set = |set: &Option<Capabilities>| set.clone().unwrap_or_default();
    (set(caps.bounding()), set(caps.effective()), set(caps.permitted()))
}

fn plan_process(
    process: &Process,
    record: &Record,
    global: &Global,
    warnings: &mut Vec<Warning>,
) -> Result<(ProcessPlan, u8)> {
    let facts = host::probe_process(Some(process))?;
    let user_namespace = record.namespaces & libc::CLONE_NEWUSER.cast_unsigned() as u64 != 0;
    let keep_groups =
        record.annotations.get("run.oci.keep_original_groups").is_some_and(|value| value == "1");
    let plan = plan::process::plan(process, &facts, user_namespace, keep_groups, warnings)?;
    global.accept(warnings)?;
    Ok((plan, facts.last_cap))
}

fn pass_listen_fds(plan: &mut ProcessPlan, count: u32) {
    if count > 0 {
        plan.env.extend(std::ffi::CString::new(format!("LISTEN_FDS={count}")));
    }
}

/// The container's cgroup, or the one below it that the flags name.
fn enter_cgroup(record: &Record, parsed: &Parsed) -> Result<Cgroup> {
    let cgroup = Cgroup::open(&record.cgroup)?;
    let asked: Vec<SubCgroup> = parsed.values("cgroup").map(SubCgroup::parse).collect();
    if !asked.is_empty() {
        return cgroup.sub(&asked);
    }
    Ok(cgroup)
}

/// The container's filter, as it was compiled for its init.
fn filter(dir: &StateDir) -> Result<Option<Filter>> {
    let Some((flags, program)) = dir.seccomp()? else { return Ok(None) };
    plan::seccomp::restore(&program, flags).map(Some)
}

/// The CPU masks of `execCPUAffinity`, before and after the cgroup.
fn affinity(process: &Process) -> Result<[Option<Vec<u64>>; 2]> {
    let Some(wanted) = process.exec_cpu_affinity() else { return Ok([None, None]) };
    let mask = |text: &Option<String>, name: &str| {
        text.as_deref()
            .map(|text| {
                cpu_mask(text).ok_or_else(|| {
                    Error::new(ErrorKind::CpuAffinity, format!("{text:?} is not a list of CPUs"))
                        .hint("a list looks like 0-3,7")
                        .field(Field::named("process.execCPUAffinity").member(name))
                })
            })
            .transpose()
    };
    Ok([mask(wanted.initial(), "initial")?, mask(wanted.cpu_affinity_final(), "final")?])
}

/// `0-3,7` as bits.
fn cpu_mask(text: &str) -> Option<Vec<u64>> {
    const MOST: usize = 8192;
    let mut mask = vec![0_u64; MOST / 64];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        for cpu in first..=last {
            *mask.get_mut(cpu / 64)? |= 1 << (cpu % 64);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_parsed_strictly() {
        assert_eq!(id_number("1000", "user"), Ok(1000));
        for text in ["", "-1", "+1", "4294967295", "4294967296", "18446744073709551616", "0x0", "root", " 0"]
        {
            assert!(id_number(text, "user").is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_list_of_cpus_is_a_mask() {
        assert_eq!(cpu_mask("0-2,5").unwrap()[0], 0b10_0111);
        assert_eq!(cpu_mask("64").unwrap()[..2], [0, 1]);
        assert!(cpu_mask("3-1").is_none() && cpu_mask("x").is_none());
    }
}
