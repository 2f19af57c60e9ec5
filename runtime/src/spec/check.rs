//! The rules of the runtime spec that config.json decides alone, before anything of the host is looked at.
//! It may not touch the host, and it changes nothing: a rule passes, warns or refuses. `cli` calls it after `load`.

use oci_spec::runtime::{Process, Spec};

use crate::error::{Result, Warning};

/// Every rule on a whole config.json; the first violation is the error.
pub fn check(spec: &Spec) -> Result<Vec<Warning>> {
    let _ = spec;
    Ok(Vec::new())
}

/// The rules on a process, for the process.json of `exec`.
pub fn check_process(process: &Process) -> Result<Vec<Warning>> {
    let _ = process;
    Ok(Vec::new())
}
