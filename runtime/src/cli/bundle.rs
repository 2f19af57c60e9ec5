//! From a bundle on disk to a plan: the part that `create`, `run` and `plan` share.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_sys::open::{self, How};
use oci_spec::runtime::Spec;

use super::Global;
use super::flags::{Flag, Parsed};
use crate::error::{Error, ErrorKind, Result, Warning, io_words, words};
use crate::host::{self, Facts};
use crate::launch::notify;
use crate::plan::{self, Plan, Request};
use crate::spec::{self, ContainerId, Loaded, Source};
use crate::state::Record;

/// The flags that say which bundle.
pub(super) const BUNDLE: Flag =
    Flag::value("bundle", "DIR", "the bundle (default: the current directory)").short('b');
/// The flag that names another config.
pub(super) const CONFIG: Flag =
    Flag::value("config", "FILE", "read FILE instead of the bundle's config.json").short('f');

/// A bundle, read and planned.
pub(super) struct Planned {
    /// The config.
    pub(super) spec: Spec,
    /// The config's text, to point into.
    pub(super) source: Source,
    /// What the plan was made for.
    pub(super) request: Request,
    /// The facts.
    pub(super) facts: Facts,
    /// The plan.
    pub(super) plan: Plan,
    /// Everything that is done only in part.
    pub(super) warnings: Vec<Warning>,
}

/// The request that the flags make; `passed_fds` have been looked at already.
pub(super) fn request(global: &Global, parsed: &Parsed, id: &str) -> Result<Request> {
    Ok(Request {
        id: id.to_owned(),
        bundle: absolute(parsed.value("bundle").unwrap_or("."))?,
        no_pivot: parsed.has("no-pivot"),
        no_new_keyring: parsed.has("no-new-keyring"),
        rootless: global.rootless,
        driver: global.driver,
        notify_dir: None,
        listen_fds: listen_fds(),
        preserve_fds: parsed.number("preserve-fds")?.unwrap_or(0),
    })
}

/// Descriptors from socket activation, if they are meant for us (`sd_listen_fds(3)`): a shell below a
/// socket-activated service passes the variables on, and they name another process.
pub(super) fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u32>().ok());
    let own = hull_sys::process::own_pid().unsigned_abs();
    number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(own)).unwrap_or(0)
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

/// Reads, checks and plans. Nothing on the host has changed when it fails.
///
/// # Errors
/// Whatever is wrong with the bundle, with the place in the file.
pub(super) fn plan(global: &Global, parsed: &Parsed, request: Request) -> Result<Planned> {
    let Loaded { spec, mut warnings, source } = load(&request.bundle, parsed.value("config"))?;
    let mut rest = || -> Result<(Facts, Plan)> {
        warnings.extend(spec::check(&spec)?);
        let facts = host::probe(&spec)?;
        let plan = plan::create(&spec, &facts, &request)?;
        warnings.extend(plan.warnings.iter().cloned());
        global.accept(&warnings)?;
        Ok((facts, plan))
    };
    let (facts, plan) = rest().map_err(|error| source.point(error))?;
    Ok(Planned { spec, source, request, facts, plan, warnings })
}

fn load(bundle: &str, config: Option<&str>) -> Result<Loaded> {
    let name = config.map_or_else(|| format!("{bundle}/config.json"), str::to_owned);
    let failed =
        |why: &str| Error::new(ErrorKind::ConfigMissing, format!("open {name}: {}", why.to_lowercase()));
    let c_name = std::ffi::CString::new(name.as_str()).map_err(|_nul| failed("NUL byte"))?;
    let file = open::on_host(None, &c_name, How::READ_NOW).map_err(|errno| {
        failed(&words(errno))
            .hint("a bundle is a directory with a config.json; `hull spec` writes a template")
    })?;
    spec::load(file.into(), &name)
}

/// The config that a container was made from, as it is now.
pub(super) fn config_of(record: &Record) -> Result<Loaded> {
    load(&record.bundle, Some(&record.config))
}

/// Says where the field of an error stands in the config the container was made from. One that has changed
/// since, or is gone, says nothing.
pub(super) fn point_into(record: &Record, error: Error) -> Error {
    let unchanged = || {
        let now = std::fs::metadata(&record.config).ok().filter(std::fs::Metadata::is_file)?;
        let is_same = (now.ctime(), now.ctime_nsec()) <= (record.created.0, record.created.1.into());
        is_same.then(|| config_of(record).ok()).flatten()
    };
    match error.field.as_ref().and_then(|_field| unchanged()) {
        Some(Loaded { source, .. }) => source.point(error),
        None => error,
    }
}

/// An absolute path without links in its last part resolved: what the state shows.
pub(super) fn absolute(path: &str) -> Result<String> {
    let failed = |error: &std::io::Error| {
        let why = io_words(error);
        Error::new(ErrorKind::BundleMissing, format!("bundle {path}: {why}"))
            .hint("--bundle names the directory that holds config.json")
    };
    let full = std::path::absolute(Path::new(path)).map_err(|error| failed(&error))?;
    let text = full.to_str().ok_or_else(|| {
        Error::new(ErrorKind::BundleMissing, format!("bundle {path}: its name is not UTF-8"))
    })?;
    let name = std::ffi::CString::new(text)
        .map_err(|_nul| Error::new(ErrorKind::BundleMissing, "its name has a NUL byte"))?;
    open::on_host(None, &name, How::DIRECTORY)
        .map_err(|errno| failed(&std::io::Error::from_raw_os_error(errno as i32)))?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// Where the container's notify socket will be, when the caller wants to be notified.
pub(super) fn notify_dir(global: &Global, id: &ContainerId) -> Option<String> {
    notify::host_socket()?;
    let dir = notify::directory(&global.root.path().join(id.as_str()));
    std::path::absolute(dir).ok().map(|dir| dir.to_string_lossy().into_owned())
}
