//! Callers that are not root: a user namespace that maps the caller, no cgroup rights.

use hull_integration::{Bundle, Lab, Output, Stop, TestResult, tests};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{chown, lchown};

tests! {
    a_user_runs_a_container,
    a_user_creates_starts_and_deletes_a_container,
    a_user_with_limits_is_told_why_not.breaks_on(&[("crun", "runc's words: rootless needs no limits + no cgrouppath")]),
}

const USER: u32 = 1000;

/// The template of `spec --rootless`: the caller is root inside, the network is the host's, no resources.
fn bundle(lab: &Lab) -> Result<Bundle, Stop> {
    lab.needs_userns()?;
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let b = lab.bundle().without_namespace("network").namespace("user", None);
    let b = b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let b = b.remove("/linux/resources").remove("/linux/cgroupsPath").edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
        let pts = mounts.iter_mut().find(|m| m["type"] == "devpts").expect("devpts");
        // The group 5 is not mapped.
        pts["options"].as_array_mut().expect("options").retain(|o| o != "gid=5");
        mounts.push(json!({"destination": "/sys", "type": "none", "source": "/sys",
                           "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}));
    });
    for dir in [&lab.dir, &lab.root, &b.dir, &b.rootfs()] {
        chown(dir, Some(USER), Some(USER))?;
    }
    for entry in fs::read_dir(b.rootfs())?.flatten() {
        lchown(entry.path(), Some(USER), Some(USER))?;
    }
    Ok(b)
}

fn as_user(lab: &Lab, words: &[&str]) -> Result<Output, Stop> {
    let probe = lab.probe()?;
    Ok(lab.call(words).through(&[&probe.to_string_lossy(), "as", "1000", "1000"]).go())
}

fn a_user_runs_a_container(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.sh("id -u; cat /proc/self/uid_map; exit 3");
    b.write();
    let output = as_user(lab, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id])?.rc(3);
    assert_eq!(output.text().split_whitespace().collect::<Vec<_>>(), ["0", "0", "1000", "1"]);
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_user_creates_starts_and_deletes_a_container(lab: &Lab) -> TestResult {
    let b = bundle(lab)?.sh("echo ran > /out; sleep 100");
    b.write();
    as_user(lab, &["create", "--bundle", &b.dir.to_string_lossy(), &b.id])?.ok();
    as_user(lab, &["start", &b.id])?.ok();
    lab.eventually("the process", || b.read("/out") == "ran");
    assert_eq!(as_user(lab, &["exec", &b.id, "/bin/hostname"])?.ok().text(), "box");
    as_user(lab, &["delete", "--force", &b.id])?.ok();
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_user_with_limits_is_told_why_not(lab: &Lab) -> TestResult {
    lab.needs_controller("pids")?;
    let path = format!("/{}/limited", lab.tag);
    let b = bundle(lab)?
        .set("/linux/resources", json!({"pids": {"limit": 10}}))
        .set("/linux/cgroupsPath", json!(path));
    b.write();
    let output = as_user(lab, &["create", "--bundle", &b.dir.to_string_lossy(), &b.id])?;
    assert!(output.rc > 0, "{output}");
    // Which one depends on the layout: runc says the first on v2 only.
    let texts = [
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        "unable to apply cgroup configuration",
        "cannot set pids limit: container could not join or create cgroup",
    ];
    assert!(texts.iter().any(|text| output.err().contains(text)), "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}
