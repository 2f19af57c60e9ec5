//! `hull exec`: runs one more process in a container.

use oci_spec::runtime::Capability;
use serde_json::Value;

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle};
use crate::container::exec::{Changes, Exec, SubCgroup, What};
use crate::error::{Error, ErrorKind, Result};

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
    let exec = Exec {
        what: match parsed.value("process") {
            Some(file) => What::File(file),
            None => What::Own(Box::new(changes(parsed)?)),
        },
        detach: parsed.has("detach"),
        console: parsed.value("console-socket"),
        announce: bundle::announce(parsed),
        preserve_fds: parsed.number("preserve-fds")?.unwrap_or(0),
        cgroups: parsed.values("cgroup").map(SubCgroup::parse).collect(),
        ignore_paused: parsed.has("ignore-paused"),
    };
    let executed = global.runtime.exec(&id, &exec)?;
    global.log.warnings(&executed.warnings);
    if exec.detach {
        return Ok(0);
    }
    executed.wait().map(|exit| exit.code())
}

/// The process of the container with what the flags change.
fn changes(parsed: &Parsed) -> Result<Changes> {
    let args = parsed.arguments.get(1..).unwrap_or(&[]);
    let args =
        if args.first().is_some_and(|first| first == "--") { args.get(1..).unwrap_or(&[]) } else { args };
    if args.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "exec needs a command, or --process FILE"));
    }
    let gid = |text| id_number(text, "additional-gids");
    Ok(Changes {
        args: args.to_vec(),
        terminal: parsed.has("tty"),
        cwd: parsed.value("cwd").map(str::to_owned),
        env: parsed.values("env").map(str::to_owned).collect(),
        user: parsed.value("user").map(user).transpose()?,
        groups: parsed.values("additional-gids").map(gid).collect::<Result<_>>()?,
        caps: parsed.values("cap").map(capability).collect::<Result<_>>()?,
        label: parsed.value("process-label").map(str::to_owned),
        apparmor: parsed.value("apparmor").map(str::to_owned),
        no_new_privs: parsed.has("no-new-privs"),
    })
}

/// `UID[:GID]`, both as numbers that fit: parsed strictly, since a number cut to 32 bits would be another
/// user (`4294967296` is not root).
fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    Ok((id_number(uid, "user")?, gid.map(|gid| id_number(gid, "user")).transpose()?))
}

fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(Value::String(full))
        .map_err(|_unknown| Error::new(ErrorKind::Usage, format!("--cap: unknown capability {name:?}")))
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
}
