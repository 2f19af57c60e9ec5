//! The flags that `create`, `run` and `plan` share.

use super::flags::{Flag, Parsed};
use crate::container::Bundle;
use crate::container::announce::Announce;
use crate::container::bundle::listen_fds;
use crate::error::Result;

/// The flags that say which bundle.
pub(super) const BUNDLE: Flag =
    Flag::value("bundle", "DIR", "the bundle (default: the current directory)").short('b');
/// The flag that names another config.
pub(super) const CONFIG: Flag =
    Flag::value("config", "FILE", "read FILE instead of the bundle's config.json").short('f');

/// The bundle that the flags name.
///
/// # Errors
/// A number that is none.
pub(super) fn named(parsed: &Parsed) -> Result<Bundle<'_>> {
    Ok(Bundle {
        dir: parsed.value("bundle").unwrap_or_default(),
        config: parsed.value("config"),
        no_pivot: parsed.has("no-pivot"),
        no_new_keyring: parsed.has("no-new-keyring"),
        preserve_fds: parsed.number("preserve-fds")?.unwrap_or(0),
    })
}

/// Whom the flags have told of the new process.
pub(super) fn announce(parsed: &Parsed) -> Announce<'_> {
    Announce { pid_file: parsed.value("pid-file"), pidfd_socket: parsed.value("pidfd-socket") }
}

/// How many descriptors from 3 on this command line passes on. One that cannot be read passes none: it is
/// refused later.
pub(super) fn passed_fds(parsed: &Parsed) -> u32 {
    let preserved = parsed.number("preserve-fds").ok().flatten().unwrap_or(0);
    listen_fds().saturating_add(preserved)
}

/// Descriptors that the command line names as files: `--process <(...)` is `/dev/fd/63`.
pub(super) fn named_fds(parsed: &Parsed) -> Vec<u32> {
    let number = |path: &str| {
        let rest = ["/dev/fd/", "/proc/self/fd/"].iter().find_map(|dir| path.strip_prefix(dir));
        rest.and_then(|number| number.parse().ok())
    };
    ["process", "resources", "config"].iter().filter_map(|flag| parsed.value(flag).and_then(number)).collect()
}
