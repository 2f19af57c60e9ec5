//! Why a profile cannot be compiled, or what about it looks mistaken.

use std::fmt;

/// What kind of failure or remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no table of system calls for this machine.
    Machine,
    /// A flag that the kernel lacks, or that means nothing here.
    Flag,
    /// `SCMP_ACT_NOTIFY` where it cannot work.
    Notify,
    /// `SCMP_ACT_NOTIFY`, which is not supported.
    NotifyUnsupported,
    /// A name that is none.
    Names,
    /// An argument that no system call has.
    Arg,
    /// An errno out of range.
    Errno,
    /// An errno where none is returned.
    ErrnoUnused,
    /// Names of system calls that no architecture has.
    UnknownNames,
    /// Rules that contradict each other.
    Conflict,
    /// More instructions than the kernel takes.
    TooLarge,
    /// A filter under which no program can be started.
    Start,
    /// Bytes that are not a program.
    Bytes,
}

/// One failure, or one remark when it is among the warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind.
    pub kind: ErrorKind,
    /// What is wrong; complete without the field.
    pub message: String,
    /// Where in the profile, for example `syscalls[3].args[0].index`; empty for the profile itself.
    pub field: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: String::new(), hint: None }
    }

    pub(crate) fn field(self, field: String) -> Self {
        Self { field, ..self }
    }

    pub(crate) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
