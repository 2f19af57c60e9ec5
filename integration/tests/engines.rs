//! What every engine asks of the runtime below it. The bodies only: `docker` and `podman` list them.

use hull_integration::console::Terminal;
use hull_integration::{Lab, TestResult, skip};
use std::time::Duration;

pub(super) fn run_passes_output_and_exit_code(lab: &Lab) -> TestResult {
    let engine = lab.engine()?;
    let output = engine.sh(&[], "echo out; echo err >&2; exit 23").rc(23);
    assert_eq!((output.text(), output.err().trim()), ("out".into(), "err"));
    Ok(())
}
