//! `hull features`: what this build can do, for engines to ask.

use super::Global;
use super::flags::{Parsed, Verb};
use crate::error::Result;
use crate::spec::features::Features;

pub(super) const VERB: Verb = Verb {
    name: "features",
    arguments: "",
    count: (0, 0),
    about: "print the features of this build as JSON",
    flags: &[],
    trailing: false,
};

pub(super) fn run(_global: &Global, _parsed: &Parsed) -> Result<i32> {
    super::print(&Features::of_this_build().to_json())
}
