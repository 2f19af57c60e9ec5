//! `hull-integration`: the tests of `integration/tests` in one binary that needs no cargo where it runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::wildcard_enum_match_arm,
    reason = "test code: a panic is a failed test and shows the runtime's last calls"
)]

use hull_integration::{bench, engine, probe, runner};
use std::path::Path;

#[path = "../tests/mod.rs"]
mod tests;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let called = Path::new(&words[0]).file_name().unwrap_or_default();
    let code = match words.get(1).map(String::as_str) {
        _ if called == "probe" => probe::main(&words[1..]),
        Some(engine::PLACE) => engine::place::main(&words[2..]),
        Some(engine::INIT) => engine::place::init(&words[2..]),
        Some("bench") => bench::main(&words[2..]),
        _ => runner::main(&tests::all(), &words[1..]),
    };
    std::process::exit(code);
}
