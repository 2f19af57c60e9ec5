//! hull: from an OCI bundle to a running container.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod error;
pub mod host;
pub mod plan;
