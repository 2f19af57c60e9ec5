//! Device nodes, and the device rules of the cgroup.

use hull_integration::{Lab, TestResult, View, tests};
use serde_json::json;

const CRUN_V2: (&str, &str) =
    ("crun 1.8", "fails when RLIMIT_MEMLOCK cannot be raised, which BPF no longer needs since Linux 5.11");

tests! {
    default_devices_exist_with_their_modes,
    standard_links_exist,
    extra_device_has_mode_and_owner,
    extra_device_in_a_new_directory,
    file_type_bits_in_the_mode_are_ignored,
    a_fifo_can_be_a_device,
    an_unknown_device_type_is_refused.breaks_on(&[("crun", "callers 5: device type q is silent")]),
    a_device_that_is_not_allowed_cannot_be_opened,
    default_devices_can_be_opened_after_deny_all,
    an_allowed_device_can_be_opened,
    a_device_allowed_for_reading_cannot_be_written,
    a_later_deny_wins,
    device_rules_hold_on_cgroup_v2.view(View::V2).breaks_on(&[CRUN_V2]),
    device_rules_hold_for_exec,
}

fn default_devices_exist_with_their_modes(lab: &Lab) -> TestResult {
    let names = "null zero full random urandom tty";
    let b = lab.bundle().sh(&format!("cd /dev; for d in {names}; do stat -c '%n %F %t:%T %a' $d; done"));
    let wanted = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"].map(|device| {
        let (name, number) = device.split_once(' ').unwrap_or_default();
        format!("{name} character special file {number} 666")
    });
    assert_eq!(lab.printed(&b).lines().collect::<Vec<_>>(), wanted);
    Ok(())
}

fn standard_links_exist(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("cd /dev; for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done");
    let seen = lab.printed(&b);
    for line in
        ["fd /proc/self/fd", "stdin /proc/self/fd/0", "stdout /proc/self/fd/1", "stderr /proc/self/fd/2"]
    {
        assert!(seen.lines().any(|l| l == line), "{line}: {seen}");
    }
    assert!(seen.contains("ptmx pts/ptmx") || seen.contains("ptmx /dev/pts/ptmx"), "{seen}");
    Ok(())
}

fn extra_device_has_mode_and_owner(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8});
    let b = lab.bundle().push("/linux/devices", device);
    let b = b.args(&["/bin/stat", "-c", "%F %t:%T %a %u %g", "/dev/mine"]);
    assert_eq!(lab.printed(&b), "character special file 1:3 640 7 8");
    Ok(())
}

fn extra_device_in_a_new_directory(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/sub/dir/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666});
    let b = lab.bundle().push("/linux/devices", device);
    assert_eq!(lab.printed(&b.args(&["/bin/stat", "-c", "%t:%T", "/dev/sub/dir/mine"])), "1:5");
    Ok(())
}

/// podman --privileged sends 0o020644 = 8612.
fn file_type_bits_in_the_mode_are_ignored(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 8612});
    let b = lab.bundle().push("/linux/devices", device);
    assert_eq!(
        lab.printed(&b.args(&["/bin/stat", "-c", "%F %a", "/dev/mine"])),
        "character special file 644"
    );
    Ok(())
}

fn a_fifo_can_be_a_device(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}));
    assert_eq!(lab.printed(&b.args(&["/bin/stat", "-c", "%F %a", "/dev/pipe"])), "fifo 600");
    Ok(())
}

fn an_unknown_device_type_is_refused(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/mine", "type": "q", "major": 1, "minor": 3, "fileMode": 0o666});
    let output = lab.create(&lab.bundle().push("/linux/devices", device));
    assert!(output.rc > 0, "{output}");
    Ok(())
}

/// Memory device 1:11 (/dev/kmsg): the node is there, the rule is not.
const OPEN_KMSG: &str = "mknod /tmp/kmsg c 1 11 && (: < /tmp/kmsg) 2>&1 && echo opened || true";

fn a_device_that_is_not_allowed_cannot_be_opened(lab: &Lab) -> TestResult {
    if lab.host.mode != hull_integration::Mode::V2 {
        lab.needs_controller("devices")?;
    }
    let seen = lab.printed(&lab.bundle().powerful().sh(OPEN_KMSG));
    assert!(seen.contains("Operation not permitted"), "{seen}");
    Ok(())
}

fn default_devices_can_be_opened_after_deny_all(lab: &Lab) -> TestResult {
    let b = lab
        .bundle()
        .sh("echo x > /dev/null && head -c 2 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c");
    assert_eq!(lab.printed(&b), "2\n2");
    Ok(())
}

fn an_allowed_device_can_be_opened(lab: &Lab) -> TestResult {
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    let b = lab.bundle().powerful().push("/linux/resources/devices", rule).sh(OPEN_KMSG);
    assert_eq!(lab.printed(&b), "opened");
    Ok(())
}

fn a_device_allowed_for_reading_cannot_be_written(lab: &Lab) -> TestResult {
    if lab.host.mode != hull_integration::Mode::V2 {
        lab.needs_controller("devices")?;
    }
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let b = lab.bundle().powerful().push("/linux/resources/devices", rule);
    let b = b.sh("mknod /tmp/k c 1 11; (: < /tmp/k) && echo read; (: >> /tmp/k) 2>&1 || true");
    let seen = lab.printed(&b);
    assert!(seen.starts_with("read") && seen.contains("Operation not permitted"), "{seen}");
    Ok(())
}

fn a_later_deny_wins(lab: &Lab) -> TestResult {
    if lab.host.mode != hull_integration::Mode::V2 {
        lab.needs_controller("devices")?;
    }
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"},
    ]);
    let b = lab.bundle().powerful().set("/linux/resources/devices", rules).sh(OPEN_KMSG);
    let seen = lab.printed(&b);
    assert!(seen.contains("Operation not permitted"), "{seen}");
    Ok(())
}

fn device_rules_hold_on_cgroup_v2(lab: &Lab) -> TestResult {
    lab.needs_v2()?;
    let b = lab.bundle().powerful().sh(OPEN_KMSG);
    let seen = lab.printed(&b);
    assert!(seen.contains("Operation not permitted"), "{seen}");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    let b = lab.bundle().powerful().push("/linux/resources/devices", rule).sh(OPEN_KMSG);
    assert_eq!(lab.printed(&b), "opened");
    Ok(())
}

fn device_rules_hold_for_exec(lab: &Lab) -> TestResult {
    if lab.host.mode != hull_integration::Mode::V2 {
        lab.needs_controller("devices")?;
    }
    let b = lab.bundle().powerful().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let seen = lab.inside(&b.id, OPEN_KMSG);
    assert!(seen.contains("Operation not permitted"), "{seen}");
    Ok(())
}
