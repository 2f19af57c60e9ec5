//! hull: from an OCI bundle to a running container.
#![forbid(unsafe_code)]

pub mod error;
pub mod plan;
