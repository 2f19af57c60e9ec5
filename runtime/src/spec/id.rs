//! The container id: the only user-chosen word that becomes a path component and a cgroup name.
//! It may not hold anything but the parsed word. `cli` parses it from argv, every other layer takes the type.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The longest id: one path component (`NAME_MAX`).
const MAX_BYTES: usize = 255;

/// A container id in runc's alphabet: 1 to 255 bytes of `[A-Za-z0-9_+.-]`, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes the word as given; nothing is trimmed or changed. The error holds `invalid container ID format`,
    /// which callers match.
    pub fn parse(id: &str) -> Result<Self> {
        match refusal(id) {
            None => Ok(Self(id.to_owned())),
            Some(reason) => {
                Err(Error::new(ErrorKind::ContainerId, format!("invalid container ID format: {reason}"))
                    .hint(
                        "an ID has 1 to 255 characters from A-Z a-z 0-9 _ + - . and is neither `.` nor `..`",
                    ))
            }
        }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why this word is no id; it never repeats control characters to a terminal.
fn refusal(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("it is empty".to_owned());
    }
    if id.len() > MAX_BYTES {
        return Some(format!("it has {} bytes, and the limit is {MAX_BYTES}", id.len()));
    }
    if id == "." || id == ".." {
        return Some(format!("{id:?} is a directory"));
    }
    let odd = id.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '+' | '-' | '.'))?;
    Some(format!("{id:?} contains {odd:?}"))
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runc_accepts_is_accepted() {
        for id in ["a", "c1", ".hid", "a..b", "+a", "-x", "A_b-C.9", "...", &"a".repeat(255)] {
            assert_eq!(ContainerId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn what_could_leave_the_state_directory_or_a_terminal_is_refused() {
        for id in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/abs",
            "a\nb",
            "a b",
            "a;b",
            "%s%n",
            "\x1b[31m",
            "a:b",
            "a\0b",
            "ä",
            &"a".repeat(256),
        ] {
            let error = ContainerId::parse(id).unwrap_err();
            assert!(error.message.contains("invalid container ID format"), "{id:?}: {error}");
            assert!(!error.message.contains('\x1b') && !error.message.contains('\n'), "{error}");
        }
    }
}
