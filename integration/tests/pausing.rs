//! pause and resume.

use hull_integration::{Lab, TestResult, View, tests};
use std::fs;
use std::time::Duration;

const TEXTS: (&str, &str) = ("crun", "runc-pause(8), runc-resume(8): doing it twice is an error");

tests! {
    pause_stops_the_processes_and_resume_lets_them_go_on,
    pause_works_on_cgroup_v2.view(View::V2).breaks_on(&[("crun 1.8", "fails when RLIMIT_MEMLOCK cannot be raised, which BPF no longer needs since Linux 5.11")]),
    pausing_twice_is_refused.breaks_on(&[TEXTS]),
    resuming_a_running_container_is_refused.breaks_on(&[TEXTS]),
    exec_in_a_paused_container_is_refused.breaks_on(&[("crun", "docs/errors.md: exec that could not run the program is 255")]),
    exec_ignore_paused_waits_for_resume.breaks_on(&[("crun", "runc-exec(8): --ignore-paused")]),
    a_paused_container_can_be_killed.breaks_on(&[("crun 1.8", "docs/differences.md: the killing of a paused container thaws it")]),
    a_paused_container_can_be_deleted_by_force,
    pause_of_a_stopped_container_is_refused,
    pause_of_a_missing_container_fails.breaks_on(&[("crun", "docs/errors.md: `does not exist`")]),
}

fn freeze_and_thaw(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("i=0; while :; do i=$((i+1)); echo $i > /out; sleep 0.01; done");
    lab.up(&b);
    lab.eventually("the counter", || !b.read("/out").is_empty());
    lab.rt(&["pause", &b.id]).ok();
    assert_eq!(lab.status(&b.id), "paused");
    let before = fs::read_to_string(b.path("/out"))?;
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::read_to_string(b.path("/out"))?, before, "it counts on while paused");
    lab.rt(&["resume", &b.id]).ok();
    assert_eq!(lab.status(&b.id), "running");
    lab.eventually("the counter goes on", || {
        fs::read_to_string(b.path("/out")).is_ok_and(|now| now != before)
    });
    Ok(())
}

fn pause_stops_the_processes_and_resume_lets_them_go_on(lab: &Lab) -> TestResult {
    freeze_and_thaw(lab)
}

fn pause_works_on_cgroup_v2(lab: &Lab) -> TestResult {
    freeze_and_thaw(lab)
}

fn pausing_twice_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["pause", &b.id]).ok();
    lab.rt(&["pause", &b.id]).rc(1).fails("container not running");
    Ok(())
}

fn resuming_a_running_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["resume", &b.id]).rc(1).fails("container not paused");
    Ok(())
}

fn exec_in_a_paused_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["pause", &b.id]).ok();
    lab.exec(&b.id, &["/bin/true"]).rc(255).fails("cannot exec in a paused container");
    Ok(())
}

fn exec_ignore_paused_waits_for_resume(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["pause", &b.id]).ok();
    let running = lab.call(&["exec", "--ignore-paused", &b.id, "/bin/echo", "went"]).spawn();
    std::thread::sleep(Duration::from_millis(100));
    lab.rt(&["resume", &b.id]).ok();
    assert_eq!(running.wait_for(Duration::from_secs(10))?.ok().text(), "went");
    Ok(())
}

fn a_paused_container_can_be_killed(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["pause", &b.id]).ok();
    lab.rt(&["kill", &b.id, "KILL"]).ok();
    lab.wait_status(&b.id, "stopped");
    lab.rt(&["delete", &b.id]).ok();
    Ok(())
}

fn a_paused_container_can_be_deleted_by_force(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.rt(&["pause", &b.id]).ok();
    lab.delete(&b.id);
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn pause_of_a_stopped_container_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    assert!(lab.rt(&["pause", &b.id]).rc > 0);
    Ok(())
}

fn pause_of_a_missing_container_fails(lab: &Lab) -> TestResult {
    lab.rt(&["pause", "nobody"]).rc(1).fails("container does not exist");
    Ok(())
}
