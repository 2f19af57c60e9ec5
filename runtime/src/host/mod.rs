//! Facts about the host: plain data, and the probes that fill it.

pub mod cgroup;
