//! How errors and warnings are told: three lines on stderr for a person, one JSON object or one line in the
//! file a caller named. Nothing is said below this layer. Called by `cli`.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use hull_sys::open::{self, How};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, Warning};
use crate::spec::Timestamp;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The command failed.
    Error,
    /// Something is done only in part.
    Warning,
    /// What was done.
    Debug,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }
}

/// Where a caller wants it.
#[derive(Debug)]
enum Target {
    Stderr,
    File(std::fs::File),
    Journal(String),
    Syslog(String),
}

/// Where and how things are said.
#[derive(Debug)]
pub struct Log {
    target: Target,
    json: bool,
    level: Level,
}

impl Default for Log {
    fn default() -> Self {
        Self { target: Target::Stderr, json: false, level: Level::Error }
    }
}

impl Log {
    /// As the global flags say.
    ///
    /// # Errors
    /// An unknown format or level, or a file that cannot be opened.
    pub fn new(target: Option<&str>, format: Option<&str>, level: Option<&str>, debug: bool) -> Result<Self> {
        let json = match format {
            None | Some("text" | "") => false,
            Some("json") => true,
            Some(other) => {
                return Err(Error::new(ErrorKind::Usage, format!("invalid log-format: {other:?}"))
                    .hint("use text or json"));
            }
        };
        let level = match level {
            _ if debug => Level::Debug,
            None | Some("error" | "fatal" | "") => Level::Error,
            Some("warning" | "warn") => Level::Warning,
            Some("debug" | "info" | "trace") => Level::Debug,
            Some(other) => {
                return Err(Error::new(ErrorKind::Usage, format!("invalid log-level: {other:?}"))
                    .hint("use error, warning or debug"));
            }
        };
        let target = match target {
            None | Some("") => Target::Stderr,
            Some(text) => match text.split_once(':') {
                Some(("journald", id)) => Target::Journal(id.to_owned()),
                Some(("syslog", id)) => Target::Syslog(id.to_owned()),
                Some(("file", path)) => open_file(path)?,
                _ => open_file(text)?,
            },
        };
        Ok(Self { target, json, level })
    }

    /// Tells why the command failed. It goes to the caller's file and to stderr: one of them may be the
    /// container's own.
    pub fn error(&self, error: &Error) {
        self.write(Level::Error, error);
        if self.json && matches!(self.target, Target::Stderr) {
            return;
        }
        let mut text = format!("error: {error}\n");
        for (name, line) in [
            ("hint", error.hint.clone()),
            ("at", error.at.as_ref().map(|at| format!("{}:{}:{}", at.file, at.line, at.column))),
        ] {
            if let Some(line) = line {
                text.push_str(&format!("{name}: {line}\n"));
            }
        }
        say(&text);
    }

    /// Tells what is done only in part. A caller's file gets it in any case: after success only, so that
    /// the one error of a failure stands alone. On stderr, which may be the container's, it is said to a
    /// person or when asked for.
    pub fn warnings(&self, warnings: &[Warning]) {
        for warning in warnings {
            self.write(Level::Warning, warning);
            let is_stderr = matches!(self.target, Target::Stderr) && !self.json;
            if is_stderr && (self.level >= Level::Warning || std::io::stderr().is_terminal()) {
                let hint = warning.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
                say(&format!("warning: {warning}\n{hint}"));
            }
        }
    }

    /// Writes warnings to the caller's log alone: they are shown in another way.
    pub fn record(&self, warnings: &[Warning]) {
        if !matches!(self.target, Target::Stderr) {
            self.warnings(warnings);
        }
    }

    /// Whether everything is said.
    pub fn is_debug(&self) -> bool {
        self.level >= Level::Debug
    }

    /// Tells what is being done, when asked for.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        if self.level < Level::Debug {
            return;
        }
        // The kind is not told.
        let message = Error::new(ErrorKind::Internal, message.to_string());
        self.write(Level::Debug, &message);
        if matches!(self.target, Target::Stderr) && !self.json {
            say(&format!("{}\n", text_line(Level::Debug, &message)));
        }
    }

    fn write(&self, level: Level, what: &Error) {
        let line = if self.json { json_line(level, what) } else { text_line(level, what) };
        let done = match &self.target {
            Target::Stderr if self.json => {
                say(&format!("{line}\n"));
                Ok(())
            }
            Target::Stderr => Ok(()),
            Target::File(file) => hull_sys::fs::write_once(file.as_fd(), format!("{line}\n").as_bytes())
                .map_err(|errno| std::io::Error::from_raw_os_error(errno as i32)),
            Target::Journal(id) => to_journal(id, level, what),
            Target::Syslog(id) => to_syslog(id, level, what),
        };
        if let Err(error) = done {
            say(&format!("warning: the log cannot be written: {error}\n"));
        }
    }
}

fn open_file(path: &str) -> Result<Target> {
    let failed =
        |why: &str| Error::new(ErrorKind::Log, format!("open the log file {path}: {}", why.to_lowercase()));
    let name = std::ffi::CString::new(path).map_err(|_nul| failed("NUL byte"))?;
    let file = open::on_host(None, &name, How::append(0o644))
        .map_err(|errno| failed(&crate::error::words(errno)))?;
    Ok(Target::File(file.into()))
}

fn say(text: &str) {
    // When stderr is gone there is nobody to tell.
    let _told = std::io::stderr().write_all(text.as_bytes()).is_ok();
}

fn now() -> String {
    Timestamp::from(std::time::SystemTime::now()).to_string()
}

/// One object with the keys engines read (`level`, `msg`, `time`) and ours.
fn json_line(level: Level, what: &Error) -> String {
    let mut object = Map::new();
    let mut put = |key: &str, value: String| drop(object.insert(key.to_owned(), Value::String(value)));
    put("level", level.as_str().to_owned());
    put("msg", what.to_string());
    put("time", now());
    if level != Level::Debug {
        put("code", what.kind.to_string());
        if let Some(field) = &what.field {
            put("field", field.to_string());
        }
        if let Some(hint) = &what.hint {
            put("hint", hint.clone());
        }
    }
    Value::Object(object).to_string()
}

fn text_line(level: Level, what: &Error) -> String {
    format!("time={:?} level={} msg={:?}", now(), level.as_str(), what.to_string())
}

fn to_journal(id: &str, level: Level, what: &Error) -> std::io::Result<()> {
    let priority = if level == Level::Error { 3 } else { 4 };
    let message = what.to_string().replace('\n', " ");
    let text = format!("MESSAGE={message}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=hull\nCONTAINER_ID={id}\n");
    UnixDatagram::unbound()?.send_to(text.as_bytes(), "/run/systemd/journal/socket").map(drop)
}

fn to_syslog(id: &str, level: Level, what: &Error) -> std::io::Result<()> {
    // Facility 1 (user), severity 3 (error) or 4 (warning).
    let priority = 8 + if level == Level::Error { 3 } else { 4 };
    let text = format!("<{priority}>hull[{}]: {id}: {what}", std::process::id());
    UnixDatagram::unbound()?.send_to(text.as_bytes(), "/dev/log").map(drop)
}
