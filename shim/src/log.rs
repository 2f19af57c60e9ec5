//! The shim's log: lines appended to the FIFO `log` of the bundle, which the daemon copies to its own log.
//! Never blocks and never fails: a line that the FIFO cannot take is dropped. Everything here may call it.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// What happens once in a life.
    Info,
    /// What is not as it should be.
    Warning,
    /// What failed.
    Error,
}

struct Log {
    file: Option<File>,
    least: Level,
}

thread_local! {
    static LOG: RefCell<Log> = const { RefCell::new(Log { file: None, least: Level::Info }) };
}

/// Opens the FIFO. Both of its ends are held, so that a daemon that is away costs no more than its lines.
pub fn open(bundle: &Path, debug: bool) {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let least = if debug { Level::Debug } else { Level::Info };
    LOG.set(Log { file: options.open(bundle.join("log")).ok(), least });
}

/// Writes one line; `spans` name the call and the container it is about.
pub fn line(level: Level, message: &str) {
    LOG.with_borrow_mut(|log| {
        let Some(file) = log.file.as_mut().filter(|_| level >= log.least) else { return };
        let name = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let now = crate::time::rfc3339(SystemTime::now());
        let text = format!("time=\"{now}\" level={name} msg={message:?} runtime=hull\n");
        // Nobody reads, and the FIFO is full: the daemon is away.
        let _dropped = file.write(text.as_bytes()).is_err();
    });
}

/// Writes one line at debug.
pub fn debug(message: &str) {
    line(Level::Debug, message);
}

/// Writes one line at warning.
pub fn warning(message: &str) {
    line(Level::Warning, message);
}
