//! Control groups, v1, v2 and hybrid hosts: which hierarchies are mounted where, where a process is in them, and the
//! forms of their files. The runtime and the shim stand on it; it knows neither config.json nor any daemon.
#![forbid(unsafe_code)]

mod error;
pub mod files;
pub mod hierarchy;
pub mod mountinfo;

pub use error::{Error, ErrorKind, Result};
pub use hierarchy::{Hierarchies, Mode, V1Hierarchy, V2Hierarchy};
