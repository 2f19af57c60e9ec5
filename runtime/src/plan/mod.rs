//! The plan: what will be done, as data. No I/O, no environment, no clock.

pub mod cgroup;
