//! The one error type of the runtime: what, on what, why, with the config field it came from.
//! It renders nothing itself; `cli` turns it into the three lines a person sees and the JSON a caller
//! reads. Every layer above `hull-sys` returns it.

mod kind;

use std::borrow::Cow;
use std::fmt;

pub use kind::ErrorKind;

/// A path into config.json in the notation users know: `mounts[7].source`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Field(Cow<'static, str>);

impl Field {
    /// A field with a fixed name, for example `linux.cgroupsPath`.
    pub const fn named(path: &'static str) -> Self {
        Self(Cow::Borrowed(path))
    }

    /// A field whose name was put together by the caller.
    pub const fn owned(path: String) -> Self {
        Self(Cow::Owned(path))
    }

    /// An element of a list: `Field::item("mounts", 7)` is `mounts[7]`.
    pub fn item(list: &str, index: usize) -> Self {
        Self(Cow::Owned(format!("{list}[{index}]")))
    }

    /// An entry of a map: `Field::entry("linux.sysctl", "net.core.somaxconn")` is
    /// `linux.sysctl["net.core.somaxconn"]`.
    pub fn entry(map: &str, key: &str) -> Self {
        Self(Cow::Owned(format!("{map}[{key:?}]")))
    }

    /// The member `name` below this field.
    #[must_use]
    pub fn member(&self, name: &str) -> Self {
        Self(Cow::Owned(format!("{}.{name}", self.0)))
    }

    /// The element `index` below this field.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(Cow::Owned(format!("{}[{index}]", self.0)))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where in a file a field stands; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
}

/// One failure, or one degradation when used as a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind.
    pub kind: ErrorKind,
    /// What failed, on what, and why; lower case, complete without the field.
    pub message: String,
    /// The config field it came from.
    pub field: Option<Field>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where the field stands; filled by `cli` on the failure path only.
    pub at: Option<Location>,
}

/// The result of everything above `hull-sys`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with a complete message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None, hint: None, at: None }
    }

    /// Names the config field it came from.
    #[must_use]
    pub fn field(mut self, field: Field) -> Self {
        self.field = Some(field);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where the field stands.
    #[must_use]
    pub fn at(mut self, at: Location) -> Self {
        self.at = Some(at);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<hull_cgroup::Error> for Error {
    fn from(error: hull_cgroup::Error) -> Self {
        Self::new(ErrorKind::CgroupFacts, error.message)
    }
}

/// A degradation that lets the work go on: rendered like an error, made one by `--strict`.
pub type Warning = Error;

pub use hull_sys::words;

/// The error of a call that only fails when the system is out of something.
pub fn internal(what: &str, errno: hull_sys::Errno) -> Error {
    Error::new(ErrorKind::Internal, format!("{what}: {}", words(errno)))
}

/// The same for an error of the standard library.
pub fn io_words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => words(hull_sys::Errno::from_raw(number)),
        None => error.to_string(),
    }
}
