//! `hull state`: where a container stands, as JSON.

use super::Global;
use super::flags::{Parsed, Verb};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "state",
    arguments: "ID",
    count: (1, 1),
    about: "print the state of a container as JSON",
    flags: &[],
    trailing: false,
};

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let found = global.runtime.look(&super::id(parsed)?)?;
    super::print(&found.state().to_json())
}
