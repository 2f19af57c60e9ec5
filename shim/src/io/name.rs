//! What the daemon calls a stream: a path or a URI. Reads the text only; `open` and `binary` act on it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Not wanted.
    Nowhere,
    /// A FIFO, or a file that exists.
    Path(PathBuf),
    /// A FIFO (`fifo://`).
    Fifo(PathBuf),
    /// A file, made when it does not exist (`file://`).
    File(PathBuf),
    /// A program that takes both outputs (`binary://`, `binary-v2://`).
    Program(Program),
}

/// A log program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Each key and its value, in the order of the keys.
    pub(super) args: Vec<Vec<u8>>,
    /// It has to say that it is ready (`binary-v2`); else its end of the pipe closed is as good.
    pub(super) says_ready: bool,
}

impl Name {
    /// Reads `text`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Nowhere);
        }
        let Some((scheme, rest)) = split_scheme(text) else { return Ok(Self::Path(text.into())) };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        match scheme.as_str() {
            "fifo" => Ok(Self::Fifo(absolute(text, path)?)),
            "file" => Ok(Self::File(absolute(text, path)?)),
            "binary" | "binary-v2" => Ok(Self::Program(Program {
                path: absolute(text, path)?,
                args: arguments(text, query)?,
                says_ready: scheme == "binary-v2",
            })),
            other => Err(Error::unimplemented(format!("unsupported stream scheme {other} ({text})"))),
        }
    }
}

/// The scheme, in small letters, and what follows `://`.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|one| one.is_ascii_alphanumeric() || "+-.".contains(one));
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

fn absolute(text: &str, path: &str) -> Result<PathBuf> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("{text}: not an absolute path after the scheme")));
    }
    Ok(PathBuf::from(OsString::from_vec(decode(text, path, false)?)))
}

/// `k=v&...` as `k v ...`; of a key that comes twice, the first value.
fn arguments(text: &str, query: &str) -> Result<Vec<Vec<u8>>> {
    let mut sorted = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(text, value, true)?;
        sorted.entry(decode(text, key, true)?).or_insert(value);
    }
    Ok(sorted.into_iter().flat_map(|(key, value)| [key, value]).collect())
}

/// Resolves `%xx`, and in a query `+`.
fn decode(text: &str, part: &str, query: bool) -> Result<Vec<u8>> {
    let mut bytes = part.bytes();
    let mut decoded = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next(), bytes.next()).ok_or_else(|| {
                Error::invalid(format!("{text}: % must be followed by two hexadecimal digits"))
            })?,
            b'+' if query => b' ',
            other => other,
        });
    }
    if decoded.contains(&0) {
        return Err(Error::invalid(format!("{text}: contains a NUL byte")));
    }
    Ok(decoded)
}

fn hex(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(Name::parse("").unwrap(), Name::Nowhere);
        for path in ["/run/fifo/a%20b", "/a://b", "relative", "1a://b"] {
            assert_eq!(Name::parse(path).unwrap(), Name::Path(path.into()), "{path}");
        }
    }

    #[test]
    fn a_uri_is_decoded() {
        assert_eq!(Name::parse("file:///a%20b+c").unwrap(), Name::File("/a b+c".into()));
        assert_eq!(Name::parse("FIFO:///a").unwrap(), Name::Fifo("/a".into()));
    }

    #[test]
    fn arguments_come_in_the_order_of_their_keys() {
        let name = Name::parse("binary-v2:///bin/log?z=1&a=x%26y+z&flag&a=2").unwrap();
        let args = ["a", "x&y z", "flag", "", "z", "1"].map(|word| word.as_bytes().to_vec()).to_vec();
        assert_eq!(name, Name::Program(Program { path: "/bin/log".into(), args, says_ready: true }));
        let Name::Program(old) = Name::parse("binary:///bin/log").unwrap() else { panic!("no program") };
        assert!(!old.says_ready && old.args.is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_invalid() {
        for text in ["file://a/b", "binary://", "file:///%4", "file:///%zz", "binary:///a?k=%00"] {
            assert_eq!(Name::parse(text).unwrap_err().code, ttrpc::Code::INVALID_ARGUMENT, "{text}");
        }
    }

    #[test]
    fn another_scheme_is_not_implemented_and_named() {
        let error = Name::parse("ttrpc+unix:///run/s.sock?streaming_id=x").unwrap_err();
        assert_eq!(error.code, ttrpc::Code::UNIMPLEMENTED);
        assert!(error.message.contains("scheme ttrpc+unix"), "{error}");
    }
}
