//! `hull start`: lets a created container run its program.

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "start",
    arguments: "ID",
    count: (1, 1),
    about: "start the program of a created container",
    flags: &[] as &[Flag],
    trailing: false,
};

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    global.runtime.start(&super::id(parsed)?, |warnings| global.log.warnings(warnings)).map(|()| 0)
}
