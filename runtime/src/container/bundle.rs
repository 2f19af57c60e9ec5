//! From a bundle on disk to a plan: what `create`, `run` and `plan` begin with. Nothing on the host is changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_cgroup::Hierarchies;
use hull_sys::open::{self, How};
use oci_spec::runtime::Spec;

use super::Runtime;
use crate::error::{Error, ErrorKind, Result, Warning, io_words, words};
use crate::host::{self, Facts};
use crate::launch::notify;
use crate::launch::report::check_passed_fds;
use crate::plan::{self, Plan, Request};
use crate::spec::template::{Template, User};
use crate::spec::{self, ContainerId, Loaded, Source};
use crate::state::Record;

/// Which bundle, and how a container is to be made of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bundle<'a> {
    /// Its directory; empty for the current one.
    pub dir: &'a str,
    /// Read in place of its `config.json`.
    pub config: Option<&'a str>,
    /// Move the root in place of `pivot_root`.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Descriptors that are passed on, after those of socket activation.
    pub preserve_fds: u32,
}

/// A bundle, read, checked and planned.
#[derive(Debug)]
pub struct Planned {
    /// The config.
    pub spec: Spec,
    /// The config's text, to point into.
    pub source: Source,
    /// What the plan was made for.
    pub request: Request,
    /// The facts.
    pub facts: Facts,
    /// The plan.
    pub plan: Plan,
    /// Everything that is done only in part.
    pub warnings: Vec<Warning>,
}

impl Planned {
    /// Whether the config asks for a terminal.
    pub const fn has_terminal(&self) -> bool {
        self.plan.process.terminal.is_some()
    }
}

impl Runtime {
    /// Plans the container that `create` would make.
    ///
    /// # Errors
    /// Whatever is wrong with the bundle, with the place in the file.
    pub fn plan(&self, id: &ContainerId, bundle: &Bundle<'_>) -> Result<Planned> {
        self.plan_for(self.request(id, bundle)?, bundle)
    }

    /// As [`Self::plan`], for a container that is then made: readiness is passed on, and the descriptors are there.
    ///
    /// # Errors
    /// As [`Self::plan`]; and a descriptor that is not open.
    pub fn plan_to_create(&self, id: &ContainerId, bundle: &Bundle<'_>) -> Result<Planned> {
        let request = self.request(id, bundle)?;
        check_passed_fds(request.listen_fds, request.preserve_fds)?;
        self.plan_for(Request { notify_dir: self.notify_dir(id), ..request }, bundle)
    }

    fn request(&self, id: &ContainerId, bundle: &Bundle<'_>) -> Result<Request> {
        Ok(Request {
            id: id.to_string(),
            bundle: absolute(if bundle.dir.is_empty() { "." } else { bundle.dir })?,
            no_pivot: bundle.no_pivot,
            no_new_keyring: bundle.no_new_keyring,
            rootless: self.rootless,
            driver: self.driver,
            notify_dir: None,
            listen_fds: listen_fds(),
            preserve_fds: bundle.preserve_fds,
        })
    }

    fn plan_for(&self, request: Request, bundle: &Bundle<'_>) -> Result<Planned> {
        let Loaded { spec, mut warnings, source } = load(&request.bundle, bundle.config)?;
        let mut rest = || -> Result<(Facts, Plan)> {
            warnings.extend(spec::check(&spec)?);
            let facts = host::probe(&spec)?;
            let plan = plan::create(&spec, &facts, &request)?;
            warnings.extend(plan.warnings.iter().cloned());
            self.accept(&warnings)?;
            Ok((facts, plan))
        };
        let (facts, plan) = rest().map_err(|error| source.point(error))?;
        Ok(Planned { spec, source, request, facts, plan, warnings })
    }

    /// Where the container's notify socket will be, when the caller wants to be notified.
    fn notify_dir(&self, id: &ContainerId) -> Option<String> {
        notify::host_socket()?;
        let dir = notify::directory(&self.root.path().join(id.as_str()));
        std::path::absolute(dir).ok().map(|dir| dir.to_string_lossy().into_owned())
    }
}

/// A config.json to start from, for this host and, where `rootless`, this user.
///
/// # Errors
/// When the cgroups of this host cannot be read.
pub fn first_config(rootless: bool) -> Result<String> {
    let user = User { uid: hull_sys::cred::euid(), gid: hull_sys::cred::egid() };
    let template = Template {
        unified_cgroups: Hierarchies::of_self()?.v1.is_empty(),
        rootless: rootless.then_some(user),
    };
    Ok(template.text())
}

/// Descriptors from socket activation, if they are meant for us (`sd_listen_fds(3)`): a shell below a
/// socket-activated service passes the variables on, and they name another process.
pub fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u32>().ok());
    let own = hull_sys::process::own_pid().unsigned_abs();
    number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(own)).unwrap_or(0)
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
fn absolute(path: &str) -> Result<String> {
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
