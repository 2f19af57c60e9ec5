//! `hull spec`: writes a first config.json.

use std::io::Write;

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::container::bundle::first_config;
use crate::error::{Error, ErrorKind, Result};

pub(super) const VERB: Verb = Verb {
    name: "spec",
    arguments: "",
    count: (0, 0),
    about: "write a template config.json",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    Flag::value("bundle", "DIR", "directory to write to (default: the current directory)").short('b'),
    Flag::value("file", "FILE", "file name (default: config.json)").short('f'),
    Flag::switch("rootless", "write a configuration for an unprivileged user"),
];

pub(super) fn run(_global: &Global, parsed: &Parsed) -> Result<i32> {
    let dir = std::path::Path::new(parsed.value("bundle").unwrap_or("."));
    let path = dir.join(parsed.value("file").unwrap_or("config.json"));
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Error::new(
                ErrorKind::ConfigExists,
                format!("File {} exists. Remove it first", path.display()),
            );
        }
        let why = crate::error::io_words(&error);
        Error::new(ErrorKind::ConfigUnwritable, format!("write {}: {why}", path.display()))
    };
    let text = first_config(parsed.has("rootless"))?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(0)
}
