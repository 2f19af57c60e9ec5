//! podman of the distribution with the runtime under test.

use super::engines::*;
use hull_integration::{Engine, Lab, TestResult, View, tests};
use std::fs;

/// With one limit given podman adds its default for another.
const RLIMITS: &[(&str, &str)] = &[
    ("runc", "wanted: a hard limit that cannot be raised does not stop the container"),
    ("crun", "wanted: a hard limit that cannot be raised does not stop the container"),
];
/// `setrlimit(RLIMIT_MEMLOCK)` before the device program.
const MEMLOCK: &[(&str, &str)] = &[("crun 1.8", "wanted: a limit that cannot be raised is no failure")];

tests! {
    run_passes_output_and_exit_code.engine(Engine::Podman),
    run_passes_stdin.engine(Engine::Podman),
    run_of_a_missing_command_is_127.engine(Engine::Podman),
    run_of_a_file_that_is_no_program_is_126.engine(Engine::Podman),
    run_of_a_directory_is_126.engine(Engine::Podman),
    a_failed_run_leaves_a_name_that_can_be_used_again.engine(Engine::Podman),
    a_detached_container_runs_until_stop.engine(Engine::Podman),
    stop_kills_what_ignores_the_signal.engine(Engine::Podman),
    kill_sends_the_signal.engine(Engine::Podman),
    a_paused_container_stands_still.engine(Engine::Podman),
    a_paused_container_can_be_removed.engine(Engine::Podman),
    restart_runs_the_same_container_again.engine(Engine::Podman),
    a_container_killed_from_outside_is_137.engine(Engine::Podman),
    top_shows_the_processes.engine(Engine::Podman),
    stats_counts_the_processes.engine(Engine::Podman),
    ten_at_once.engine(Engine::Podman),
    exec_passes_output_and_exit_code.engine(Engine::Podman),
    exec_takes_user_directory_and_environment.engine(Engine::Podman),
    exec_of_a_missing_command_fails.engine(Engine::Podman),
    exec_in_a_stopped_container_is_refused.engine(Engine::Podman),
    run_with_a_terminal.engine(Engine::Podman),
    exec_with_a_terminal.engine(Engine::Podman),
    detach_keys_leave_the_container_running.engine(Engine::Podman),
    privileged_gets_what_the_host_can_give.engine(Engine::Podman),
    all_capabilities_are_those_the_host_has.engine(Engine::Podman),
    dropped_capabilities_are_gone.engine(Engine::Podman),
    user_and_groups_are_set.engine(Engine::Podman),
    seccomp_filter_and_no_new_privileges.engine(Engine::Podman),
    a_custom_seccomp_profile_is_obeyed.engine(Engine::Podman),
    rlimits_are_set.engine(Engine::Podman).breaks_on(RLIMITS),
    rlimits_above_the_hard_limit_still_run.engine(Engine::Podman).breaks_on(RLIMITS),
    init_is_the_first_process.engine(Engine::Podman),
    a_read_only_root_with_writable_places.engine(Engine::Podman),
    volumes_are_bound.engine(Engine::Podman),
    devices_are_given_and_limited.engine(Engine::Podman),
    proc_and_sys_are_protected.engine(Engine::Podman),
    own_namespaces_by_default.engine(Engine::Podman),
    namespaces_of_the_host_can_be_used.engine(Engine::Podman),
    processes_in_the_pid_namespace_of_the_host_are_ended.engine(Engine::Podman),
    namespaces_of_a_container_can_be_joined.engine(Engine::Podman),
    names_are_set.engine(Engine::Podman),
    sysctls_of_the_own_network_are_set.engine(Engine::Podman),
    no_network_is_only_loopback.engine(Engine::Podman),
    containers_on_a_bridge_reach_each_other.engine(Engine::Podman),
    a_published_port_is_reached_from_the_host.engine(Engine::Podman),
    out_of_memory_is_137_and_said.engine(Engine::Podman),
    limits_arrive_in_the_cgroup.engine(Engine::Podman),
    no_limit_of_processes_means_none.engine(Engine::Podman),
    update_changes_the_limits.engine(Engine::Podman),
    ids_are_mapped.engine(Engine::Podman),
    an_idmapped_volume_shows_the_ids_of_the_container.engine(Engine::Podman).breaks_on(&[("runc 1.1", "config.md#posix-platform-mounts: idmap (needs runc 1.2)")]),
    build_runs_its_steps.engine(Engine::Podman),
    life_on_cgroup_v1_alone.engine(Engine::Podman).view(View::V1),
    life_on_cgroup_v2_alone.engine(Engine::Podman).view(View::V2).breaks_on(MEMLOCK),
}

fn ids_are_mapped(lab: &Lab) -> TestResult {
    let podman = lab.engine()?;
    let flags = ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"];
    let output = podman.sh(&flags, "id -u; touch /made; stat -c %u /made; cat /proc/self/uid_map").ok();
    assert_eq!(output.text().split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "100000", "5000"]);
    Ok(())
}

fn an_idmapped_volume_shows_the_ids_of_the_container(lab: &Lab) -> TestResult {
    let podman = lab.engine()?;
    let dir = lab.new_dir("volume");
    fs::write(dir.join("file"), "text\n")?;
    let volume = format!("{}:/data:idmap", dir.display());
    let flags = ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000", "-v", &volume];
    let output = podman.sh(&flags, "stat -c %u:%g /data/file; touch /data/made").ok();
    assert_eq!(output.text(), "0:0");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(dir.join("made"))?.uid(), 0);
    Ok(())
}

fn build_runs_its_steps(lab: &Lab) -> TestResult {
    let podman = lab.engine()?;
    let tag = format!("localhost/{}", lab.tag);
    // A cgroup of its own: buildah takes the parent itself for the container.
    let parent = format!("/{}/build", lab.tag);
    let words = ["build", "--pull-never", "--isolation", "oci", "--no-cache", "--cgroup-parent", &parent];
    let output = podman.call(&words).args(&["-t", &tag, &failing_context(lab)?]).go();
    assert!(output.rc > 0 && output.err().contains("exit status 3"), "{output}");
    podman.call(&words).args(&["-t", &tag, &context(lab)?]).go().ok();
    let output = podman.run_of(&tag, &lab.new_id(), &["--rm"], &[]).go().ok();
    assert_eq!(output.out(), "built\n1000\n");
    podman.go(&["rmi", &tag]).ok();
    Ok(())
}

/// What touches the cgroup: run, exec, pause, top, stop.
fn life(lab: &Lab) -> TestResult {
    run_passes_output_and_exit_code(lab)?;
    exec_passes_output_and_exit_code(lab)?;
    a_paused_container_stands_still(lab)?;
    a_paused_container_can_be_removed(lab)?;
    top_shows_the_processes(lab)?;
    a_detached_container_runs_until_stop(lab)
}

fn life_on_cgroup_v1_alone(lab: &Lab) -> TestResult {
    life(lab)
}

fn life_on_cgroup_v2_alone(lab: &Lab) -> TestResult {
    life(lab)
}
