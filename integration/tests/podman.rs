//! podman of the distribution with the runtime under test.

use super::engines::*;
use hull_integration::{Engine, Lab, TestResult, View, tests};
use std::fs;

tests! {
    each.engine(Engine::Podman);
    run_passes_output_and_exit_code,
    run_passes_stdin,
    run_of_a_missing_command_is_127,
    run_of_a_file_that_is_no_program_is_126,
    run_of_a_directory_is_126,
    a_failed_run_leaves_a_name_that_can_be_used_again,
    a_detached_container_runs_until_stop,
    stop_kills_what_ignores_the_signal,
    kill_sends_the_signal,
    a_paused_container_stands_still,
    a_paused_container_can_be_removed,
    restart_runs_the_same_container_again,
    a_container_killed_from_outside_is_137,
    top_shows_the_processes,
    stats_counts_the_processes,
    ten_at_once,
    exec_passes_output_and_exit_code,
    exec_takes_user_directory_and_environment,
    exec_of_a_missing_command_fails,
    exec_in_a_stopped_container_is_refused,
    run_with_a_terminal,
    exec_with_a_terminal,
    detach_keys_leave_the_container_running,
    privileged_gets_what_the_host_can_give,
    all_capabilities_are_those_the_host_has,
    dropped_capabilities_are_gone,
    user_and_groups_are_set,
    seccomp_filter_and_no_new_privileges,
    a_custom_seccomp_profile_is_obeyed,
    rlimits_are_set.breaks_on(RLIMITS),
    rlimits_above_the_hard_limit_still_run.breaks_on(RLIMITS),
    init_is_the_first_process,
    a_read_only_root_with_writable_places,
    volumes_are_bound,
    devices_are_given_and_limited,
    proc_and_sys_are_protected,
    own_namespaces_by_default,
    namespaces_of_the_host_can_be_used,
    processes_in_the_pid_namespace_of_the_host_are_ended,
    namespaces_of_a_container_can_be_joined,
    names_are_set,
    sysctls_of_the_own_network_are_set,
    no_network_is_only_loopback,
    containers_on_a_bridge_reach_each_other,
    a_published_port_is_reached_from_the_host,
    out_of_memory_is_137_and_said,
    limits_arrive_in_the_cgroup,
    no_limit_of_processes_means_none,
    update_changes_the_limits,
    ids_are_mapped,
    an_idmapped_volume_shows_the_ids_of_the_container.breaks_on(&[("runc 1.1", "config.md#posix-platform-mounts: idmap (needs runc 1.2)")]),
    build_runs_its_steps,
    life_on_cgroup_v1_alone.view(View::V1),
    life_on_cgroup_v2_alone.view(View::V2).breaks_on(MEMLOCK),
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
    builds(lab, &tag, "exit status 3", |context| Ok(podman.call(&words).args(&["-t", &tag, context])))
}

fn life_on_cgroup_v2_alone(lab: &Lab) -> TestResult {
    life(lab)
}
