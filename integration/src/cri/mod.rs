//! A kubelet as containerd sees it: pods and containers through the CRI, one call at a time.
//!
//! | file | has |
//! |---|---|
//! | `client` | a gRPC call over HTTP/2 on the daemon's socket |
//! | `pod` | pods and their containers; what may be left of them |

mod client;
mod pod;

/// The messages, generated from `protos/cri.proto`.
#[allow(warnings, clippy::all, clippy::restriction, clippy::pedantic, reason = "generated")]
pub mod proto {
    pub use cri::*;
    include!(concat!(env!("OUT_DIR"), "/protos/mod.rs"));
}

pub use client::Refusal;
pub(crate) use pod::remove_pods;
pub use pod::{Container, Cri, EXITED, Pod, RUNNING, Shape};
