//! The one error type of the shim: a gRPC code, which the daemon maps to its own kinds of errors, and a
//! sentence that clients show and sometimes match. Every file here returns it.

use std::fmt;

use hull_cgroup::ErrorKind;
use ttrpc::{Code, get_status};

/// What went wrong, for the caller of a method.
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind of error the daemon makes of it.
    pub code: Code,
    /// What, on what, why.
    pub message: String,
}

/// The result of whatever can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// No such container or process, or it is over.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    /// The id is taken.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(Code::ALREADY_EXISTS, message)
    }

    /// Not in the state for it.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    /// A request that cannot be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    /// What this shim does not do.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::UNIMPLEMENTED, message)
    }

    /// Whatever else: the sentence says it.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Code::UNKNOWN, message)
    }

    /// A failed operation: `open /x: permission denied`.
    pub fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        // std adds the number to the words.
        let words = why.split_once(" (os error ").map_or(why.as_str(), |(words, _)| words);
        let mut rest = words.chars();
        let first = rest.next().map(|first| first.to_ascii_lowercase());
        Self::other(format!("{what}: {}{}", first.map(String::from).unwrap_or_default(), rest.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<hull_cgroup::Error> for Error {
    fn from(error: hull_cgroup::Error) -> Self {
        match error.kind {
            ErrorKind::Gone => Self::not_found(error.message),
            ErrorKind::Unreadable | ErrorKind::NotMounted => Self::other(error.message),
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(get_status(error.code, error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_in_words_alone() {
        let why = std::io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(Error::failed("open /X", why).message, "open /X: no such file or directory");
        assert_eq!(Error::failed("read", "Bad /Path").message, "read: bad /Path");
    }
}
