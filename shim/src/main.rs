//! The containerd shim.

#![allow(dead_code, reason = "the callers of these parts come with the server")]

pub mod error;
pub mod mounts;
pub mod oom;
#[cfg(test)]
mod scratch;
pub mod stats;

fn main() {}
