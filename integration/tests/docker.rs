//! dockerd and containerd of the distribution with the runtime under test as their default runtime.

use super::engines::*;
use hull_integration::{Engine, Lab, TestResult, View, skip, tests};
use std::time::Duration;

const SHORT_CAPS: &[(&str, &str)] = &[
    (
        "runc",
        "config.md#capabilities: one that cannot be granted is a warning (root without CAP_SYS_RESOURCE)",
    ),
    (
        "crun",
        "config.md#capabilities: one that cannot be granted is a warning (root without CAP_SYS_RESOURCE)",
    ),
];
/// docker 20.10 makes its codes of `executable file not found`, `no such file or directory` and
/// `permission denied`, in lower case and nothing else.
pub(super) const WORDS: &[(&str, &str)] = &[("crun", "docs/errors.md: the words docker makes exit codes of")];

tests! {
    each.engine(Engine::Docker);
    run_passes_output_and_exit_code,
    run_passes_stdin,
    run_of_a_missing_command_is_127.breaks_on(WORDS),
    run_of_a_file_that_is_no_program_is_126.breaks_on(WORDS),
    run_of_a_directory_is_126.breaks_on(WORDS),
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
    privileged_gets_what_the_host_can_give.breaks_on(SHORT_CAPS),
    all_capabilities_are_those_the_host_has.breaks_on(SHORT_CAPS),
    exec_privileged_gets_what_the_host_can_give.breaks_on(SHORT_CAPS),
    dropped_capabilities_are_gone,
    user_and_groups_are_set,
    seccomp_filter_and_no_new_privileges,
    a_custom_seccomp_profile_is_obeyed,
    rlimits_are_set,
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
    a_private_cgroup_namespace,
    restart_policy_starts_it_three_times_more,
    health_checks_run,
    info_knows_the_runtime,
    classic_build_runs_its_steps,
    buildkit_runs_its_steps,
    a_remapped_root_is_an_ordinary_user_outside.engine(Engine::DockerRemap),
    a_container_outlives_its_daemon.engine(Engine::DockerLive),
    life_on_cgroup_v1_alone.view(View::V1),
    life_on_cgroup_v2_alone.view(View::V2).breaks_on(MEMLOCK),
    devices_on_cgroup_v2_alone.view(View::V2).breaks_on(MEMLOCK),
    processes_on_cgroup_v2_alone_are_ended.view(View::V2).breaks_on(MEMLOCK),
}

fn exec_privileged_gets_what_the_host_can_give(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let name = docker.up_waiting(&[]);
    let words = ["exec", "--privileged", &name, "grep", "CapEff", "/proc/self/status"];
    let ours = hull_integration::host::status_bits("CapBnd") & ((1 << 38) - 1);
    assert_eq!(docker.go(&words).ok().text(), format!("CapEff:\t{ours:016x}"));
    Ok(())
}

fn a_private_cgroup_namespace(lab: &Lab) -> TestResult {
    let output = lab.engine()?.sh(&["--cgroupns", "private"], "cut -d: -f3 /proc/self/cgroup | sort -u").ok();
    assert_eq!(output.text(), "/");
    Ok(())
}

pub(super) fn restart_policy_starts_it_three_times_more(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let name = docker.up(&["--restart", "on-failure:3"], &["false"]);
    lab.eventually("three restarts", || {
        docker.inspect(&name, "{{.RestartCount}} {{.State.Status}}") == "3 exited"
    });
    Ok(())
}

pub(super) fn health_checks_run(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let flags = ["--health-cmd", "test -e /tmp/well", "--health-interval", "300ms", "--health-retries", "1"];
    let name = docker.up_waiting(&flags);
    lab.eventually("unhealthy", || docker.inspect(&name, "{{.State.Health.Status}}") == "unhealthy");
    docker.go(&["exec", &name, "touch", "/tmp/well"]).ok();
    lab.eventually("healthy", || docker.inspect(&name, "{{.State.Health.Status}}") == "healthy");
    Ok(())
}

fn info_knows_the_runtime(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let text = docker.go(&["info", "--format", "{{.DefaultRuntime}} {{.RuncCommit.ID}}"]).ok().text();
    assert!(text.starts_with("under-test "), "{text}");
    Ok(())
}

fn build(lab: &Lab, buildkit: &str) -> TestResult {
    let docker = lab.engine()?;
    let tag = format!("{}-{buildkit}", lab.tag);
    let parent = format!("--cgroup-parent=/{}", lab.tag);
    builds(lab, &tag, "3", |context| {
        let words = ["build", "--no-cache", &parent, "-t", &tag, context];
        Ok(docker.call(&words).env("DOCKER_BUILDKIT", buildkit))
    })
}

pub(super) fn classic_build_runs_its_steps(lab: &Lab) -> TestResult {
    build(lab, "0")
}

/// `BuildKit` calls the `runc` of its PATH: a link to the runtime under test.
fn buildkit_runs_its_steps(lab: &Lab) -> TestResult {
    build(lab, "1")
}

fn a_remapped_root_is_an_ordinary_user_outside(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let name = docker.up_waiting(&[]);
    let pid = docker.inspect(&name, "{{.State.Pid}}");
    let status = docker.near(&["grep", "Uid", &format!("/proc/{pid}/status")]).go().ok().text();
    assert_eq!(status.split_whitespace().nth(1), Some("200000"));
    let output =
        docker.go(&["exec", &name, "sh", "-c", "id -u; touch /made /tmp/made; cat /proc/self/uid_map"]).ok();
    assert_eq!(output.text().split_whitespace().collect::<Vec<_>>(), ["0", "0", "200000", "65536"]);
    docker.go(&["stop", &name]).ok();
    assert_eq!(docker.inspect(&name, "{{.State.ExitCode}}"), "7");
    let output =
        docker.sh(&["--read-only", "--tmpfs", "/scratch", "-u", "1000"], "id -u; touch /scratch/x").ok();
    assert_eq!(output.text(), "1000");
    Ok(())
}

fn a_container_outlives_its_daemon(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let stays = docker
        .up(&[], &["sh", "-c", "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]);
    let ends = docker.up_waiting(&[]);
    let pid = docker.inspect(&stays, "{{.State.Pid}}");
    let pid_of_other = docker.inspect(&ends, "{{.State.Pid}}");
    let count = || docker.go(&["logs", &stays]).out().lines().count();
    docker.kill_dockerd()?;
    docker.near(&["kill", "-TERM", &pid_of_other]).go();
    assert_eq!(docker.inspect(&stays, "{{.State.Pid}}"), pid);
    let before = count();
    lab.eventually("more lines", || count() > before);
    let numbers: Vec<usize> =
        docker.go(&["logs", &stays]).out().lines().filter_map(|l| l.parse().ok()).collect();
    assert!(numbers.iter().enumerate().all(|(i, n)| *n == i + 1), "a gap: {numbers:?}");
    docker.go(&["exec", &stays, "true"]).ok();
    lab.eventually("the end of the other", || docker.inspect(&ends, "{{.State.ExitCode}}") == "7");
    let output = docker.go(&["stop", &stays]).ok();
    assert!(output.took < Duration::from_secs(8), "{output}");
    assert_eq!(docker.inspect(&stays, "{{.State.ExitCode}}"), "9");
    Ok(())
}

fn life_on_cgroup_v2_alone(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let version = docker.go(&["info", "--format", "{{.CgroupVersion}}"]).ok().text();
    if version != "2" {
        return skip(format!("dockerd sees cgroup version {version}"));
    }
    life(lab)
}

fn devices_on_cgroup_v2_alone(lab: &Lab) -> TestResult {
    devices_are_given_and_limited(lab)
}

fn processes_on_cgroup_v2_alone_are_ended(lab: &Lab) -> TestResult {
    processes_in_the_pid_namespace_of_the_host_are_ended(lab)
}
