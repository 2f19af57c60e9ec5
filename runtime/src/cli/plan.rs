//! `hull plan`: what `create` would do, in order, each line with the config field it comes from; none of it
//! is done.

use super::flags::{Flag, Parsed, Verb};
use super::{Global, bundle};
use crate::container::text;
use crate::error::Result;
use crate::spec::ContainerId;

pub(super) const VERB: Verb = Verb {
    name: "plan",
    arguments: "[BUNDLE]",
    count: (0, 1),
    about: "print what create would do, without doing it",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    bundle::CONFIG,
    Flag::switch("json", "print JSON"),
    Flag::value("id", "ID", "assume this container ID (default: plan)"),
    Flag::switch("no-pivot", "same as for create"),
    Flag::switch("no-new-keyring", "same as for create"),
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = ContainerId::parse(parsed.value("id").unwrap_or("plan"))?;
    let mut bundle = bundle::named(parsed)?;
    if let Some(dir) = parsed.arguments.first() {
        bundle.dir = dir;
    }
    let mut planned = global.runtime.plan(&id, &bundle)?;
    let unknown = planned.source.unknown_fields();
    global.runtime.accept(&unknown)?;
    planned.warnings.extend(unknown);
    // Told here among the other lines, and to the caller's log.
    global.log.record(&planned.warnings);
    let lines = text::lines(&planned.plan, &planned.warnings);
    super::print(&if parsed.has("json") { text::json(&lines) } else { text::table(&lines) })
}
