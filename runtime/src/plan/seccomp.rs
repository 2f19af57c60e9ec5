//! Owns the seccomp part of the plan: the filter that `hull-seccomp` compiles, and its errors with their fields of
//! config.json. `plan` makes it, `apply` loads it, `hull plan` prints it, `exec` reads it back.

use hull_seccomp::{Compiled, Filter};
use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Error, ErrorKind, Field, Result, Warning};

/// Compiles the profile for this machine into a filter under which the program can be started. Answers what was left
/// out or looks mistaken, too.
///
/// # Errors
/// The field that is refused.
pub fn plan(profile: &LinuxSeccomp, no_new_privs: bool) -> Result<(Compiled, Vec<Warning>)> {
    let mut compiled = hull_seccomp::compile_native(profile)?;
    hull_seccomp::check_start(&compiled.filter, no_new_privs)?;
    let warnings = std::mem::take(&mut compiled.warnings).into_iter().map(Warning::from).collect();
    Ok((compiled, warnings))
}

/// The filter of a running container, from its saved form.
///
/// # Errors
/// Bytes that are not a program.
pub fn restore(bytes: &[u8], flags: u32) -> Result<Filter> {
    Ok(Filter { program: hull_seccomp::from_bytes(bytes)?, flags })
}

impl From<hull_seccomp::Error> for Error {
    fn from(found: hull_seccomp::Error) -> Self {
        let field = match &*found.field {
            "" => Field::named("linux.seccomp"),
            below => Field::named("linux.seccomp").member(below),
        };
        let error = Self::new(kind(found.kind), found.message).field(field);
        match found.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

fn kind(kind: hull_seccomp::ErrorKind) -> ErrorKind {
    use hull_seccomp::ErrorKind as Found;
    match kind {
        Found::Machine => ErrorKind::SeccompMachine,
        Found::Flag => ErrorKind::SeccompFlag,
        Found::Notify => ErrorKind::SeccompNotify,
        Found::NotifyUnsupported => ErrorKind::SeccompNotifyUnsupported,
        Found::Names => ErrorKind::SeccompNames,
        Found::Arg => ErrorKind::SeccompArg,
        Found::Errno => ErrorKind::SeccompErrno,
        Found::ErrnoUnused => ErrorKind::SeccompErrnoUnused,
        Found::UnknownNames => ErrorKind::SeccompUnknownNames,
        Found::Conflict => ErrorKind::SeccompConflict,
        Found::TooLarge => ErrorKind::SeccompTooLarge,
        Found::Start => ErrorKind::SeccompStart,
        Found::Bytes => ErrorKind::SeccompBytes,
    }
}
