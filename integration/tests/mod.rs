//! The tests, one file for each area. To add one: write a function named after the behaviour and put its name in
//! the table at the top of the file.

mod exec;
mod exit_codes;
mod lifecycle;
mod listing;
mod pausing;

use hull_integration::Test;

/// Every test, in the order of the files.
pub(crate) fn all() -> Vec<&'static Test> {
    [lifecycle::TESTS, listing::TESTS, pausing::TESTS, exec::TESTS, exit_codes::TESTS]
        .into_iter()
        .flatten()
        .collect()
}
