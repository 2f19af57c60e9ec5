//! `hull spec`: writes a first config.json.

use std::io::Write;

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::template::{Template, User};

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
    let user = User { uid: hull_sys::cred::euid(), gid: hull_sys::cred::egid() };
    let template = Template {
        unified_cgroups: hull_cgroup::Hierarchies::of_self()?.v1.is_empty(),
        rootless: parsed.has("rootless").then_some(user),
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(template.text().as_bytes()).map_err(failed)?;
    Ok(0)
}
