//! The wire interfaces of a containerd shim: messages and services generated from `protos/`, one module per
//! file. Field numbers are those of containerd's API; fields that nobody here uses are left out, which
//! protobuf allows.

#[allow(warnings, clippy::all, clippy::restriction, clippy::pedantic, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::*;
