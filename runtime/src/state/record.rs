//! What is written down of a container, versioned. The record of a container being created (the intent) is
//! saved before its first side effect, so that whatever happens `delete` knows what to undo.

use std::collections::BTreeMap;

use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::cgroup::SavedCgroup;

/// The version this build writes; it reads no other.
const VERSION: u32 = 1;

/// How far `create` got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Begun.
    Creating,
    /// Done. Whether it runs is never stored, but derived.
    Created,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Format of this record.
    pub version: u32,
    /// How far `create` got.
    pub phase: Phase,
    /// The bundle's spec version.
    pub oci_version: String,
    /// The bundle directory, absolute.
    pub bundle: String,
    /// The config it was made from, absolute.
    #[serde(default)]
    pub config: String,
    /// The root file system on the host, absolute.
    pub rootfs: String,
    /// When it was created: seconds and nanoseconds since 1970 in UTC.
    pub created: (i64, u32),
    /// The config's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its init, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Identity>,
    /// Its cgroups.
    pub cgroup: SavedCgroup,
    /// The namespaces it has of its own or joined, as `CLONE_NEW*` bits.
    pub namespaces: u64,
    /// Others may be in its pid namespace: the end of init is not the end of all.
    #[serde(default)]
    pub shares_pids: bool,
    /// `personality(2)`, for `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<u64>,
    /// `args[0]`, for errors of `start`.
    pub program: String,
    /// The programs of the hooks that run inside at `start`, for its errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<String>,
    /// Hooks `start` runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Hooks `delete` runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

impl Record {
    /// The version to put into a new record.
    pub const VERSION: u32 = VERSION;

    /// As text.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and string-keyed maps always serialise; an empty text reads as corrupt.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From text.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if record.version == VERSION {
            Ok(record)
        } else {
            Err(format!("it has version {}, but this hull reads version {VERSION}", record.version))
        }
    }
}
