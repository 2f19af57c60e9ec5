//! The command line: global flags, the verbs, and what becomes of an error. Each verb has a file of its own
//! that reads from top to bottom and calls down once a line: load, plan, execute, save.

pub mod flags;
pub mod log;

mod bundle;
mod create;
mod delete;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod plan;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::CString;
use std::path::PathBuf;
use std::rc::Rc;

use flags::{Flag, Parsed, Verb};
use hull_sys::exec::Strings;
use log::Log;

use crate::container::{Driver, Runtime};
use crate::error::{Error, ErrorKind, Result, io_words};
use crate::spec::ContainerId;

/// Exit code of a command that does not exist.
const UNKNOWN_COMMAND: i32 = 3;
/// Exit code of every error but those of `exec`.
pub(crate) const FAILED: i32 = 1;

/// What a verb does; it answers the exit code.
type Act = fn(&Global, &Parsed) -> Result<i32>;
/// A verb and what it does.
type Entry = (&'static Verb, Act);

/// The verbs, in the order `--help` shows them.
const VERBS: &[Entry] = &[
    (&create::VERB, create::run),
    (&start::VERB, start::run),
    (&run::VERB, run::run),
    (&exec::VERB, exec::run),
    (&state::VERB, state::run),
    (&list::VERB, list::run),
    (&ps::VERB, ps::run),
    (&kill::VERB, kill::run),
    (&pause::PAUSE, pause::pause),
    (&pause::RESUME, pause::resume),
    (&update::VERB, update::run),
    (&delete::VERB, delete::run),
    (&spec::VERB, spec::run),
    (&plan::VERB, plan::run),
    (&features::VERB, features::run),
];

/// The verbs as `--help` shows them: for the manual pages and the shell completion.
pub fn verbs() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().map(|(verb, _)| *verb)
}

/// The flags before the verb.
pub const fn global_flags() -> &'static [Flag] {
    GLOBAL
}

/// Verbs that a later version will have.
const LATER: &[&str] = &["events", "checkpoint", "restore", "mounts"];

/// Flags before the verb.
pub(crate) const GLOBAL: &[Flag] = &[
    Flag::switch("debug", "also log debug messages"),
    Flag::value("log", "FILE", "also write the log to FILE, file:FILE, journald:ID or syslog:ID"),
    Flag::value("log-format", "FORMAT", "text (default) or json"),
    Flag::value("log-level", "LEVEL", "error (default), warning or debug"),
    Flag::value("root", "DIR", "directory for the state of containers (default: /run/hull)"),
    Flag::switch("systemd-cgroup", "have systemd create the cgroup (not yet supported)"),
    Flag::value("cgroup-manager", "MANAGER", "cgroupfs (default), systemd (not yet supported) or disabled"),
    Flag::value("rootless", "BOOL", "tolerate missing cgroup permissions: true, false or auto (default)"),
    Flag::switch("strict", "fail instead of continuing with less than was asked for"),
    Flag::value("criu", "PATH", "ignored").hidden(),
    Flag::switch("version", "print the version").short('v'),
    Flag::switch("V", "print the version").hidden(),
];

/// What the flags before the verb say.
pub(crate) struct Global {
    /// Where things are said.
    pub(crate) log: Rc<Log>,
    /// How containers are made and changed.
    pub(crate) runtime: Runtime,
    /// `--root` was given.
    pub(crate) root_is_explicit: bool,
}

impl Global {
    fn new(log: Log, mut runtime: Runtime, root_is_explicit: bool) -> Self {
        let log = Rc::new(log);
        if log.is_debug() {
            let log = Rc::clone(&log);
            runtime.trace = Box::new(move |what| log.debug(what));
        }
        Self { log, runtime, root_is_explicit }
    }
}

/// How the flags have containers made.
fn runtime(parsed: &Parsed) -> Result<Runtime> {
    let driver = match parsed.value("cgroup-manager") {
        _ if parsed.has("systemd-cgroup") => Driver::Systemd,
        None | Some("cgroupfs") => Driver::Cgroupfs,
        Some("systemd") => Driver::Systemd,
        Some("disabled") => Driver::Disabled,
        Some(other) => {
            return Err(Error::new(ErrorKind::Usage, format!("invalid cgroup-manager: {other:?}")));
        }
    };
    let root = parsed.value("root").map(PathBuf::from);
    if root.as_ref().is_some_and(|root| root.as_os_str() == "/") {
        return Err(Error::new(ErrorKind::Usage, "the state root cannot be /")
            .hint("use --root with a directory of its own"));
    }
    let rootless = match parsed.value("rootless") {
        Some("true" | "1" | "yes") => Some(true),
        Some("false" | "0" | "no") => Some(false),
        _ => None,
    };
    Ok(Runtime { driver, rootless, strict: parsed.has("strict"), ..Runtime::at(root)? })
}

/// Runs one command line (without the program's name) and answers the exit code.
pub fn main(words: &[String]) -> i32 {
    let global = match flags::parse(words, GLOBAL, true) {
        Ok(global) => global,
        Err(error) => return misused(&Log::default(), &error, &usage()),
    };
    if global.has("version") || global.has("V") {
        return show(&version());
    }
    let Some(name) = global.arguments.first().filter(|_| !global.help) else {
        return show(&usage());
    };
    let entry = VERBS.iter().find(|(verb, _)| verb.name == name);
    let rest = global.arguments.get(1..).unwrap_or(&[]);
    let parsed = entry.map(|(verb, _)| flags::parse(rest, verb.flags, verb.trailing));
    // Before anything is opened: nothing a caller left open by mistake may reach a container.
    let understood = parsed.as_ref().and_then(|parsed| parsed.as_ref().ok());
    let end = understood.map_or(0, bundle::passed_fds).saturating_add(3);
    let named = understood.map(bundle::named_fds).unwrap_or_default();
    let closed = hull_sys::fs::close_inherited(end, named);
    if let Err(errno) = closed.and_then(|()| hull_sys::fs::take_free_numbers(end)) {
        Log::default().error(&crate::error::internal("close inherited descriptors", errno));
        return FAILED;
    }
    let (log, opened) = open_log(&global);
    let settings = match opened.and_then(|()| runtime(&global)) {
        Ok(runtime) => Global::new(log, runtime, global.value("root").is_some()),
        Err(error) => {
            log.error(&error);
            return FAILED;
        }
    };
    match (entry, parsed) {
        (Some((verb, act)), Some(parsed)) => run_verb(&settings, verb, *act, parsed),
        _ if name == "help" => show(&usage()),
        _ => unknown(&settings, name),
    }
}

/// The log that the flags name. Where it cannot be had, the error says so on stderr in the same form.
fn open_log(global: &Parsed) -> (Log, Result<()>) {
    let (format, level) = (global.value("log-format"), global.value("log-level"));
    match Log::new(global.value("log"), format, level, global.has("debug")) {
        Ok(log) => (log, Ok(())),
        Err(error) => (Log::new(None, format, None, false).unwrap_or_default(), Err(error)),
    }
}

fn run_verb(settings: &Global, verb: &Verb, act: Act, parsed: Result<Parsed>) -> i32 {
    match parsed {
        Err(error) => misused(&settings.log, &error, &help(verb)),
        Ok(parsed) if parsed.help => show(&help(verb)),
        Ok(parsed) if !(verb.count.0..=verb.count.1).contains(&parsed.arguments.len()) => {
            let wanted = if verb.arguments.is_empty() { "no arguments" } else { verb.arguments };
            let error = Error::new(ErrorKind::Usage, format!("{} takes {wanted}", verb.name));
            misused(&settings.log, &error, &help(verb))
        }
        Ok(parsed) => {
            let subject = parsed.arguments.first().map_or("", String::as_str);
            settings
                .log
                .debug(format_args!("{} {subject}: the state root is {}", verb.name, settings.runtime.root));
            let done = seal(verb).and_then(|()| act(settings, &parsed));
            match &done {
                Ok(code) => settings.log.debug(format_args!("{} {subject}: exits with {code}", verb.name)),
                Err(error) => settings.log.error(error),
            }
            done.unwrap_or(if verb.name == "exec" { exec::FAILED } else { FAILED })
        }
    }
}

/// What puts a process into a container runs from a read-only copy of its file's mount.
fn seal(verb: &Verb) -> Result<()> {
    if !matches!(verb.name, "create" | "run" | "exec") {
        return Ok(());
    }
    let text = |word: std::ffi::OsString| CString::new(word.into_encoded_bytes()).ok();
    let args = std::env::args_os().filter_map(text).collect();
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        text([name, value].join(std::ffi::OsStr::new("=")))
    };
    let env = std::env::vars_os().filter_map(pair).collect();
    hull_sys::seal::run_from_sealed_file(Strings::new(args), Strings::new(env)).map_err(|errno| {
        crate::error::internal("run from a read-only mount or a sealed copy of its own file", errno)
    })
}

fn unknown(settings: &Global, name: &str) -> i32 {
    let error = if LATER.contains(&name) {
        Error::new(ErrorKind::NotYetSupported, format!("{name} is not yet supported by this version of hull"))
    } else {
        Error::new(ErrorKind::Usage, format!("unknown command {name:?}; No help topic for '{name}'"))
            .hint("hull --help lists the commands")
    };
    settings.log.error(&error);
    if LATER.contains(&name) { FAILED } else { UNKNOWN_COMMAND }
}

/// A command line that cannot be understood: how it should look goes to stdout.
fn misused(log: &Log, error: &Error, usage: &str) -> i32 {
    let _shown = print(usage).is_ok();
    log.error(error);
    FAILED
}

/// Prints to stdout, before there is a log.
fn show(text: &str) -> i32 {
    print(text).unwrap_or_else(|error| {
        Log::default().error(&error);
        FAILED
    })
}

/// Prints to stdout. A reader that has gone has seen enough: only the status tells.
///
/// # Errors
/// Any other reason why it cannot be written.
pub(crate) fn print(text: &str) -> Result<i32> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(FAILED),
        Err(why) => Err(Error::new(ErrorKind::Output, format!("write standard output: {}", io_words(&why)))),
    }
}

/// What `--version` prints; go-runc reads it.
fn version() -> String {
    let commit = option_env!("HULL_COMMIT").unwrap_or("unknown");
    format!("hull version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), "1.3.0")
}

fn usage() -> String {
    let mut text = String::from(
        "NAME:\n   hull - run containers from OCI bundles\n\nUSAGE:\n   hull [global options] command [options] [arguments]\n\nCOMMANDS:\n",
    );
    for (verb, _) in VERBS {
        text.push_str(&format!("   {:<10} {}\n", verb.name, verb.about));
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.push_str(&flags::explain(GLOBAL));
    text
}

fn help(verb: &Verb) -> String {
    let mut text = format!(
        "NAME:\n   hull {} - {}\n\nUSAGE:\n   hull {} [options] {}\n",
        verb.name, verb.about, verb.name, verb.arguments
    );
    if !verb.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        text.push_str(&flags::explain(verb.flags));
    }
    text
}

/// The flag by which an argument means several containers.
pub(crate) const REGEX: Flag =
    Flag::switch("regex", "treat ID as a regular expression and act on every container whose ID matches")
        .short('r');

/// The ids that the first argument means: itself, or with `--regex` every one it matches.
pub(crate) fn ids(global: &Global, parsed: &Parsed) -> Result<Vec<ContainerId>> {
    if !parsed.has("regex") {
        return id(parsed).map(|id| vec![id]);
    }
    let pattern = regex::Regex::new(parsed.argument(0))
        .map_err(|error| Error::new(ErrorKind::Usage, format!("--regex: {error}")))?;
    let all = global.runtime.root.ids()?.unwrap_or_default();
    Ok(all.into_iter().filter(|id| pattern.is_match(id.as_str())).collect())
}

/// The id in the first argument.
pub(crate) fn id(parsed: &Parsed) -> Result<ContainerId> {
    ContainerId::parse(parsed.argument(0))
}
