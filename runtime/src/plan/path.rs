//! The two kinds of path, as types that cannot be mixed: one names a place on the host, the other a place
//! below a container's root that means nothing until it is resolved there. Used by every plan.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// A path of the host, resolved by the host's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath(CString);

impl HostPath {
    /// From text; a NUL byte is refused.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        c_string(text.as_ref()).map(Self)
    }

    /// For the kernel.
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

/// A path below a container's root. It cannot be joined to a host path: only `hull_sys::open::in_root`
/// resolves it, when the step that holds it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InRoot(CString);

impl InRoot {
    /// From text, absolute or not; `.` and empty parts are dropped and `..` goes up to the root at most,
    /// as the container itself would see it.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let mut parts: Vec<&str> = Vec::new();
        for part in text.as_ref().split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        c_string(&format!("/{}", parts.join("/"))).map(Self)
    }

    /// For `open::in_root`; begins with a slash.
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("/")
    }

    /// The parts of the path, in order.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/').filter(|part| !part.is_empty())
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.as_str() == "/"
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &str) -> bool {
        self.as_str().strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text for the kernel. The loader has refused NUL bytes with the field's name; here is the last guard.
pub fn c_string(text: &str) -> Result<CString> {
    CString::new(text)
        .map_err(|nul| Error::new(ErrorKind::NulByte, format!("a NUL byte at offset {}", nul.nul_position())))
}

#[cfg(test)]
mod tests {
    use super::InRoot;

    #[test]
    fn a_path_in_the_root_cannot_climb_out_of_it() {
        assert_eq!(InRoot::new("../../etc/./x//y/..").unwrap().as_str(), "/etc/x");
    }

    #[test]
    fn within_is_about_whole_parts() {
        assert!(InRoot::new("/proc/sys").unwrap().is_within("/proc"));
        assert!(!InRoot::new("/process").unwrap().is_within("/proc"));
    }
}
