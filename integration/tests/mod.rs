//! The tests, one file for each area. To add one: write a function named after the behaviour and put its name in
//! the table at the top of the file.

mod buildah;
mod cgroups;
mod codes;
mod descriptors;
mod devices;
mod docker;
mod engines;
mod exec;
mod exit_codes;
mod hooks;
mod leftovers;
mod lifecycle;
mod listing;
mod logging;
mod messages;
mod mounts;
mod namespaces;
mod paths;
mod pausing;
mod places;
mod podman;
mod process;
mod propagation;
mod rootless;
mod samples;
mod seccomp;
mod security;
mod shim_bootstrap;
mod shim_crashes;
mod shim_cri;
mod shim_ctr;
mod shim_docker;
mod shim_events;
mod shim_exits;
mod shim_sandbox;
mod shim_stdio;
mod shim_task;
mod terminals;
mod verbs;

use hull_integration::Test;

/// Every test, in the order of the files.
pub(crate) fn all() -> Vec<&'static Test> {
    [
        lifecycle::TESTS,
        listing::TESTS,
        pausing::TESTS,
        exec::TESTS,
        exit_codes::TESTS,
        verbs::TESTS,
        logging::TESTS,
        terminals::TESTS,
        descriptors::TESTS,
        namespaces::TESTS,
        mounts::TESTS,
        propagation::TESTS,
        devices::TESTS,
        paths::TESTS,
        places::TESTS,
        process::TESTS,
        rootless::TESTS,
        seccomp::TESTS,
        hooks::TESTS,
        cgroups::TESTS,
        messages::TESTS,
        codes::TESTS,
        security::TESTS,
        samples::TESTS,
        leftovers::TESTS,
        docker::TESTS,
        podman::TESTS,
        buildah::TESTS,
        shim_ctr::TESTS,
        shim_sandbox::TESTS,
        shim_docker::TESTS,
        shim_crashes::TESTS,
        shim_cri::TESTS,
        shim_task::TESTS,
        shim_bootstrap::TESTS,
        shim_stdio::TESTS,
        shim_events::TESTS,
        shim_exits::TESTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}
