//! `hull kill`: sends a signal to a container.

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::error::{Error, ErrorKind, Result};

pub(super) const VERB: Verb = Verb {
    name: "kill",
    arguments: "ID [SIGNAL]",
    count: (1, 2),
    about: "send a signal (default: TERM) to the init process of a container",
    flags: FLAGS,
    trailing: true,
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "signal all processes in the container; no error if it has already stopped")
        .short('a'),
    super::REGEX,
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let signal = number(parsed.arguments.get(1).map_or("TERM", String::as_str))?;
    for id in super::ids(global, parsed)? {
        if parsed.has("all") {
            global.runtime.kill_all(&id, signal)?;
        } else {
            global.runtime.kill(&id, signal)?;
        }
    }
    Ok(0)
}

/// Names without `SIG`, by number.
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first and last real-time signal that a program can use.
const REAL_TIME: (i32, i32) = (34, 64);

/// A signal by number or by name, with or without `SIG`, in any case; also `RTMIN+3` and `RTMAX-1`.
pub(super) fn number(text: &str) -> Result<i32> {
    let unknown = || {
        Error::new(ErrorKind::SignalUnknown, format!("unknown signal {text:?}"))
            .hint("use a name such as TERM, or a number")
    };
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=REAL_TIME.1).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let real_time = || {
        let from_first = name.strip_prefix("RTMIN").and_then(offset).map(|n| REAL_TIME.0 + n);
        let from_last = || name.strip_prefix("RTMAX").and_then(offset).map(|n| REAL_TIME.1 + n);
        from_first.or_else(from_last).filter(|number| (REAL_TIME.0..=REAL_TIME.1).contains(number))
    };
    known.or_else(real_time).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (text, expected) in
            [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN+1", 35), ("RTMAX", 64), ("0", 0)]
        {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in ["", "65", "-1", "NOPE", "RTMIN+99"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
