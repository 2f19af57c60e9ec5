//! `hull delete`: removes a container and all that hull made for it. Its answer 0 means that nothing is
//! left.

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "delete",
    arguments: "ID",
    count: (1, 1),
    about: "delete a container and everything that was created for it",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    Flag::switch("force", "kill the container if it is running; no error if it does not exist").short('f'),
    super::REGEX,
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    for id in super::ids(global, parsed)? {
        let warnings = global.runtime.delete(&id, parsed.has("force"))?;
        global.log.warnings(&warnings);
    }
    Ok(0)
}
