//! `hull ps`: the processes of a container, by their numbers on the host.

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::error::{Error, ErrorKind, Result};

pub(super) const VERB: Verb = Verb {
    name: "ps",
    arguments: "ID [ps options]",
    count: (1, usize::MAX),
    about: "list the processes in a container",
    flags: FLAGS,
    trailing: true,
};

const FLAGS: &[Flag] = &[Flag::value("format", "FORMAT", "table (default) or json").short('f')];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let pids = global.runtime.look(&super::id(parsed)?)?.pids()?;
    match parsed.value("format").unwrap_or("table") {
        "json" => {
            let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            // As Go prints a list that was never filled.
            super::print(&if pids.is_empty() { "null".to_owned() } else { format!("[{list}]") })
        }
        "table" => table(&pids, parsed.arguments.get(1..).unwrap_or(&[])),
        other => Err(Error::new(ErrorKind::Usage, format!("invalid format option: {other:?}"))
            .hint("use table or json")),
    }
}

/// The host's ps(1), its lines of other processes left out.
fn table(pids: &[i32], options: &[String]) -> Result<i32> {
    let default = ["-ef".to_owned()];
    let options = match options {
        [dashes, rest @ ..] if dashes == "--" => rest,
        other => other,
    };
    let options = if options.is_empty() { &default } else { options };
    let failed = |why: String| Error::new(ErrorKind::Ps, format!("ps {}: {why}", options.join(" ")));
    let output = std::process::Command::new("ps").args(options).output().map_err(|error| {
        failed(error.to_string().to_lowercase()).hint("install procps, or use --format json")
    })?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_ascii_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| failed("its output has no PID column".to_owned()))?;
    let is_ours = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let rows: String = lines.filter(is_ours).map(|line| format!("{line}\n")).collect();
    super::print(&format!("{header}\n{rows}"))
}
