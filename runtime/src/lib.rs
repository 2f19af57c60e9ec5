//! hull: from an OCI bundle to a running container. The folders, in call order:
#![forbid(unsafe_code)]

// One file for each part of a plan: system calls in the child.
pub mod apply;
// cgroups: create, enter, limit, freeze, kill, delete.
pub mod cgroup;
// The command line: one file for each verb.
pub mod cli;
// The verbs: create, start, exec, kill, delete and the others.
pub mod container;
// The one error type.
pub mod error;
// What the plan must know of this host, as plain data.
pub mod host;
// The process tree in action.
pub mod launch;
// The one pure function: spec, facts and request to a plan.
pub mod plan;
// From config.json to checked values, and the JSON hull prints.
pub mod spec;
// The containers hull knows of: records, locks, identity.
pub mod state;
