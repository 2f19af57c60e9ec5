//! The rules on `linux.seccomp` that need no kernel.
//! It compiles nothing. `check` calls it.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use super::at::At;
use super::refuse;
use crate::error::{ErrorKind, Result};

/// crun's annotation that names a listener in place of `listenerPath`.
const RECEIVER: &str = "run.oci.seccomp.receiver";

/// A system call has six arguments.
const MAX_INDEX: usize = 5;

pub(super) fn check(seccomp: &LinuxSeccomp, annotations: Option<&HashMap<String, String>>) -> Result<()> {
    let at = At::Named("linux.seccomp");
    let rules = at.member("syscalls");
    if seccomp.default_action() == LinuxSeccompAction::ScmpActNotify {
        let message = "SCMP_ACT_NOTIFY cannot be used as default action";
        return Err(refuse(ErrorKind::SeccompNotify, at.member("defaultAction"), message));
    }
    errno(seccomp.default_errno_ret(), at.member("defaultErrnoRet"))?;
    let receiver = annotations.is_some_and(|map| map.contains_key(RECEIVER));
    let has_path = seccomp.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    let has_metadata = seccomp.listener_metadata().as_ref().is_some_and(|text| !text.is_empty());
    if has_metadata && !has_path && !receiver {
        let message = "listenerMetadata must not be set without listenerPath";
        return Err(refuse(ErrorKind::SeccompListener, at.member("listenerMetadata"), message));
    }
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        check_rule(rule, rules.index(index))?;
    }
    Ok(())
}

fn check_rule(rule: &LinuxSyscall, at: At<'_>) -> Result<()> {
    if rule.names().is_empty() {
        return Err(refuse(ErrorKind::SeccompNames, at.member("names"), "the rule names no system call"));
    }
    for (index, name) in rule.names().iter().enumerate() {
        let names = at.member("names");
        let field = names.index(index);
        if name.is_empty() {
            return Err(refuse(ErrorKind::SeccompNames, field, "empty string is not a valid syscall"));
        }
        // The listener's own message goes out by write: the container would wait for itself.
        if rule.action() == LinuxSeccompAction::ScmpActNotify && name == "write" {
            return Err(refuse(
                ErrorKind::SeccompNotify,
                field,
                "SCMP_ACT_NOTIFY cannot be used for the write syscall",
            ));
        }
    }
    errno(rule.errno_ret(), at.member("errnoRet"))?;
    for (index, arg) in rule.args().iter().flatten().enumerate() {
        if arg.index() > MAX_INDEX {
            let args = at.member("args");
            let message = format!("a system call has arguments 0 to {MAX_INDEX}, not {}", arg.index());
            return Err(refuse(ErrorKind::SeccompArg, args.index(index).member("index"), message));
        }
    }
    Ok(())
}

/// An errno with an action that has none is the planner's to warn of.
fn errno(errno: Option<u32>, at: At<'_>) -> Result<()> {
    match errno.filter(|errno| *errno > 0xffff) {
        Some(errno) => {
            Err(refuse(ErrorKind::SeccompErrno, at, format!("errno {errno} does not fit in 16 bits")))
        }
        None => Ok(()),
    }
}
