//! The shim under docker: dockerd's containerd finds it as `containerd-shim-runc-v2`, before the distribution's.

use super::docker::{
    WORDS, classic_build_runs_its_steps, health_checks_run, restart_policy_starts_it_three_times_more,
};
use super::engines::*;
use hull_integration::console::Terminal;
use hull_integration::engine::IMAGE;
use hull_integration::{Engine, Lab, TestResult, tests};
use std::fs;
use std::time::Duration;

tests! {
    each.engine(Engine::DockerShim);
    the_shim_under_test_serves,
    run_passes_output_and_exit_code,
    run_passes_stdin,
    run_of_a_missing_command_is_127.breaks_on(WORDS),
    a_failed_run_leaves_a_name_that_can_be_used_again,
    a_detached_container_runs_until_stop,
    stop_kills_what_ignores_the_signal,
    kill_sends_the_signal,
    a_container_killed_from_outside_is_137,
    a_paused_container_stands_still,
    a_paused_container_can_be_removed,
    restart_runs_the_same_container_again,
    top_shows_the_processes,
    stats_show_memory_and_processes,
    update_changes_the_limits,
    ten_at_once,
    exec_passes_output_and_exit_code,
    exec_takes_user_directory_and_environment,
    exec_of_a_missing_command_fails,
    exec_with_a_terminal,
    run_with_a_terminal,
    a_detached_terminal_is_attached_again,
    out_of_memory_is_137_and_said,
    restart_policy_starts_it_three_times_more,
    health_checks_run,
    classic_build_runs_its_steps,
    removal_of_a_running_container_leaves_nothing,
}

/// Without this one the others would say nothing.
fn the_shim_under_test_serves(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let name = docker.up_waiting(&[]);
    let shim = docker.parent(&docker.inspect(&name, "{{.State.Pid}}"));
    let file = docker.dir().join("bin/containerd-shim-runc-v2");
    let exe = docker.near(&["readlink", &format!("/proc/{shim}/exe")]).go().ok().text();
    assert_eq!(exe, file.to_string_lossy());
    let under_test = lab.shim.as_ref().ok_or("no shim")?;
    assert!(
        fs::read(&file)? == fs::read(&under_test.path)?,
        "another shim than {}",
        under_test.path.display()
    );
    let output = docker.near(&[&exe, "-v"]).go().ok();
    assert!(output.out().contains(&under_test.kind), "{output}");
    assert_eq!(docker.inspect(&name, "{{.HostConfig.Runtime}}"), "under-test");
    Ok(())
}

fn stats_show_memory_and_processes(lab: &Lab) -> TestResult {
    lab.needs_controller("memory")?;
    lab.needs_controller("pids")?;
    let docker = lab.engine()?;
    let name = docker.up(&["-m", "64m"], &["sleep", "1000"]);
    let output = docker.go(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", &name]).ok();
    let text = output.text();
    let (used, rest) = text.split_once(" / ").ok_or_else(|| format!("{output}"))?;
    let used: f64 = used.trim_end_matches(|c: char| c.is_alphabetic()).parse()?;
    assert!(used > 0.0 && rest == "64MiB 1", "{output}");
    Ok(())
}

fn a_detached_terminal_is_attached_again(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let name = lab.new_id();
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = docker.run_of(IMAGE, &name, &["-it"], &["sh"]).tty(lab, slave).spawn();
    terminal.read_until("# ");
    terminal.send("kept=by-the-shell\n\u{10}")?;
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("\u{11}")?;
    running.wait_for(Duration::from_secs(10))?.ok();
    assert_eq!(docker.inspect(&name, "{{.State.Running}}"), "true");
    let (mut terminal, slave) = Terminal::open(24, 80)?;
    let running = docker.call(&["attach", &name]).tty(lab, slave).spawn();
    let mut seen = String::new();
    lab.eventually("an answer of the shell", || {
        terminal.send("echo is-$kept\n").expect("type");
        seen.push_str(&terminal.read_until("is-by-the-shell"));
        seen.contains("is-by-the-shell")
    });
    terminal.send("exit 6\n")?;
    running.wait_for(Duration::from_secs(10))?.rc(6);
    assert_eq!(docker.inspect(&name, "{{.State.ExitCode}}"), "6");
    Ok(())
}

fn removal_of_a_running_container_leaves_nothing(lab: &Lab) -> TestResult {
    let docker = lab.engine()?;
    let name = docker.up_waiting(&[]);
    let id = docker.inspect(&name, "{{.Id}}");
    let pid = docker.inspect(&name, "{{.State.Pid}}");
    let shim = docker.parent(&pid);
    // dockerd 20.10 says so of every runtime.
    let state = docker.dir().join("exec/runtime-runc/moby").join(&id);
    let bundle = docker.dir().join("containerd-state/io.containerd.runtime.v2.task/moby").join(&id);
    assert!(state.exists() && bundle.exists(), "{} {}", state.display(), bundle.display());
    docker.remove(&name);
    lab.eventually("the end of init and of the shim", || {
        docker.proc(&pid, "cmdline").is_empty() && docker.proc(&shim, "cmdline").is_empty()
    });
    assert!(!state.exists() && !bundle.exists(), "{} {}", state.display(), bundle.display());
    let list = docker.go(&["ps", "-a", "--format", "{{.Names}}"]).ok().out();
    assert!(!list.lines().any(|line| line == name), "{list}");
    Ok(())
}
