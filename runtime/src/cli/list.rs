//! `hull list`: all containers of a state root.

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::container::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::state::State;

pub(super) const VERB: Verb = Verb {
    name: "list",
    arguments: "",
    count: (0, 0),
    about: "list containers",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    Flag::value("format", "FORMAT", "table (default) or json").short('f'),
    Flag::switch("quiet", "print only the IDs").short('q'),
];

const HEADER: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let format = parsed.value("format").unwrap_or("table");
    if format != "table" && format != "json" {
        return Err(Error::new(ErrorKind::Usage, format!("invalid format option: {format:?}"))
            .hint("use table or json"));
    }
    let (found, unreadable) = match global.runtime.list()? {
        None if global.root_is_explicit => {
            let root = &global.runtime.root;
            let text = format!("the state root {root} does not exist: no such file or directory");
            return Err(Error::new(ErrorKind::RootMissing, text));
        }
        listed => listed.unwrap_or_default(),
    };
    let states: Vec<State<'_>> = found.iter().map(Found::state).collect();
    let text = match format {
        _ if parsed.has("quiet") => states.iter().map(|state| format!("{}\n", state.id)).collect(),
        // As Go prints a list that was never filled.
        "json" if states.is_empty() => "null".to_owned(),
        "json" => serde_json::to_string(&states).unwrap_or_default(),
        _ => table(&states),
    };
    global.log.warnings(&unreadable);
    super::print(&text)
}

fn table(states: &[State<'_>]) -> String {
    let row = |state: &State<'_>| {
        [
            state.id.to_owned(),
            state.pid.to_string(),
            state.status.to_string(),
            state.bundle.to_owned(),
            state.created.to_string(),
            format!("#{}", state.owner).trim_matches('#').to_owned(),
        ]
    };
    let rows: Vec<[String; 6]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(states.iter().map(row)).collect();
    // At least 12 wide, 3 apart, as scripts that cut columns expect.
    let width = |column: usize| {
        rows.iter().map(|row| row.get(column).map_or(0, String::len) + 3).max().unwrap_or(0).max(12)
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
