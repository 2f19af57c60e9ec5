//! Namespaces: new, the host's, or joined by path; user namespaces and their mappings.

use hull_integration::{Bundle, Lab, Stop, TestResult, skip, tests};
use serde_json::json;
use std::fs;

tests! {
    listed_namespaces_are_new,
    namespaces_that_are_not_listed_are_the_hosts,
    network_namespace_is_joined_by_path,
    ipc_and_uts_namespaces_are_joined_by_path,
    pid_namespace_of_another_container_is_joined,
    mount_namespace_is_required.breaks_on(&[("crun", "docs/differences.md: a config without a mount namespace is refused")]),
    a_namespace_path_that_is_missing_is_refused,
    an_unknown_namespace_is_refused,
    a_duplicate_namespace_is_refused.breaks_on(&[("crun", "config-linux.md#namespaces: a namespace named twice is an error")]),
    a_namespace_path_of_another_type_is_refused,
    loopback_is_up_in_a_new_network_namespace,
    cgroup_namespace_hides_the_path,
    time_namespace_offsets_the_clock.breaks_on(&[("runc 1.1", "config-linux.md#offset-for-time-namespace: came with runc 1.2"), ("crun 1.8", "time offsets are wrong by the boot time in 1.8")]),
    process_is_pid_1_of_its_namespace,
    hostname_without_an_own_uts_namespace_is_refused,
    userns_maps_the_ids,
    userns_root_is_mapped_on_the_host,
    userns_files_of_the_host_are_nobodys,
    userns_without_mappings_is_refused,
    userns_exec_is_root_inside,
    userns_has_devices_and_mounts,
    userns_of_another_container_is_joined.breaks_on(&[("runc 1.1", "config-linux.md#namespaces: a joined user namespace brings its mappings")]),
    userns_with_a_user_of_its_own,
    shared_pid_namespace_of_the_host_is_killed_with_the_container,
    what_belongs_to_the_hosts_namespace_is_refused_when_a_path_names_it.breaks_on(&[
        ("runc 1.1", "kernel.domainname and names are set on the host when the path is the host's"),
        ("crun", "the host's own namespace is not told from another one"),
    ]),
    sysctls_of_a_joined_namespace_are_set.breaks_on(&[("crun 1.8", "a namespace with a path counts as the host's")]),
    a_path_to_the_hosts_namespace_is_no_error_by_itself,
    userns_without_a_mapping_of_root_is_refused.breaks_on(&[("crun", "no word of the mapping")]),
}

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn host_link(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).map(|p| p.display().to_string()).unwrap_or_default()
}

fn listed_namespaces_are_new(lab: &Lab) -> TestResult {
    let b = lab.bundle().namespace("cgroup", None);
    for (_, file) in KINDS {
        let link = lab.printed(&b.clone().args(&["/bin/readlink", &format!("/proc/self/ns/{file}")]));
        assert!(link.starts_with(&format!("{file}:[")), "{link}");
        assert_ne!(link, host_link(file));
    }
    Ok(())
}

fn namespaces_that_are_not_listed_are_the_hosts(lab: &Lab) -> TestResult {
    let b = lab.bundle().edit(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "mount"}]);
        spec.as_object_mut().expect("object").remove("hostname");
    });
    for file in ["pid", "net", "ipc", "uts", "user"] {
        let link = lab.printed(&b.clone().args(&["/bin/readlink", &format!("/proc/self/ns/{file}")]));
        assert_eq!(link, host_link(file));
    }
    Ok(())
}

/// A running container, and the link of one of its namespaces.
fn other(lab: &Lab, file: &str) -> Result<(String, String), Stop> {
    let other = lab.bundle().args(&["/bin/sleep", "100"]).set("/hostname", json!("other"));
    lab.up(&other);
    let path = format!("/proc/{}/ns/{file}", lab.pid(&other.id));
    let link = fs::read_link(&path)?.display().to_string();
    Ok((path, link))
}

fn network_namespace_is_joined_by_path(lab: &Lab) -> TestResult {
    let (path, link) = other(lab, "net")?;
    let b = lab.bundle().namespace("network", Some(&path)).args(&["/bin/readlink", "/proc/self/ns/net"]);
    assert_eq!(lab.printed(&b), link);
    Ok(())
}

fn ipc_and_uts_namespaces_are_joined_by_path(lab: &Lab) -> TestResult {
    let (path, link) = other(lab, "ipc")?;
    let uts = path.replace("/ns/ipc", "/ns/uts");
    let b = lab.bundle().namespace("ipc", Some(&path)).namespace("uts", Some(&uts));
    let b = b.remove("/hostname").sh("readlink /proc/self/ns/ipc; hostname");
    assert_eq!(lab.printed(&b), format!("{link}\nother"));
    Ok(())
}

fn pid_namespace_of_another_container_is_joined(lab: &Lab) -> TestResult {
    let (path, link) = other(lab, "pid")?;
    let b = lab.bundle().namespace("pid", Some(&path));
    let b = b.sh("readlink /proc/self/ns/pid; tr '\\0' ' ' < /proc/1/cmdline; test $$ != 1 && echo not-1");
    let seen = lab.printed(&b);
    assert_eq!(seen, format!("{link}\n/bin/sleep 100 not-1"));
    Ok(())
}

fn mount_namespace_is_required(lab: &Lab) -> TestResult {
    lab.private_mounts()?;
    let b = lab.bundle().without_namespace("mount");
    let output = lab.run(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_namespace_path_that_is_missing_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().namespace("network", Some("/no/such/netns"));
    lab.create(&b).fails("/no/such/netns");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn an_unknown_namespace_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().namespace("sausage", None);
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_duplicate_namespace_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/linux/namespaces", json!({"type": "network"}));
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_namespace_path_of_another_type_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().namespace("network", Some("/proc/self/ns/uts"));
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn loopback_is_up_in_a_new_network_namespace(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/cat", "/sys/class/net/lo/flags"]);
    let flags = lab.printed(&b);
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16)?;
    assert!(flags & 1 == 1, "IFF_UP is missing: {flags:x}");
    Ok(())
}

fn cgroup_namespace_hides_the_path(lab: &Lab) -> TestResult {
    let b = lab.bundle().namespace("cgroup", None).args(&["/bin/cat", "/proc/self/cgroup"]);
    let seen = lab.printed(&b);
    assert!(!seen.contains(&lab.tag), "the path is visible: {seen}");
    Ok(())
}

fn time_namespace_offsets_the_clock(lab: &Lab) -> TestResult {
    if !std::path::Path::new("/proc/self/timens_offsets").exists() {
        return skip("the kernel has no time namespaces");
    }
    let b = lab.bundle().namespace("time", None);
    let b = b.set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    let b = b.args(&["/bin/cat", "/proc/uptime"]);
    let seconds = |text: &str| text.split('.').next().and_then(|s| s.parse::<i64>().ok()).unwrap_or(0);
    let inside = seconds(&lab.printed(&b));
    let outside = seconds(&fs::read_to_string("/proc/uptime")?);
    assert!((inside - outside - 1_000_000).abs() < 100, "{inside} inside, {outside} outside");
    Ok(())
}

fn process_is_pid_1_of_its_namespace(lab: &Lab) -> TestResult {
    let seen = lab.printed(&lab.bundle().sh("echo $$; ls -d /proc/[0-9]* | wc -l"));
    assert_eq!(seen.lines().next(), Some("1"));
    let processes: u32 = seen.lines().nth(1).unwrap_or_default().trim().parse()?;
    assert!(processes <= 3, "foreign processes are visible: {seen}");
    Ok(())
}

fn hostname_without_an_own_uts_namespace_is_refused(lab: &Lab) -> TestResult {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    // The name of the host itself: nothing changes should the runtime set it.
    let b = lab.bundle().without_namespace("uts").set("/hostname", json!(before.trim()));
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn userns_maps_the_ids(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().userns(200_000).sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g");
    let seen = lab.printed(&b);
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "65536", "0", "200000", "65536", "0", "0"]);
    Ok(())
}

fn userns_root_is_mapped_on_the_host(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().userns(200_000).args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(&b.id)))?;
    assert!(status.contains("Uid:\t200000\t200000\t200000\t200000"), "{status}");
    assert!(status.contains("Gid:\t200000\t200000\t200000\t200000"), "{status}");
    Ok(())
}

fn userns_files_of_the_host_are_nobodys(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let shared = lab.new_dir("shared");
    fs::write(shared.join("file"), "")?;
    let b = lab.bundle().userns(200_000).mount("bind", &shared, "/mnt", &["rbind", "ro"]);
    assert_eq!(lab.printed(&b.args(&["/bin/stat", "-c", "%u", "/mnt/file"])), "65534");
    Ok(())
}

fn userns_without_mappings_is_refused(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().namespace("user", None);
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn userns_exec_is_root_inside(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().userns(200_000).args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let seen = lab.inside(&b.id, "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user");
    let link = fs::read_link(format!("/proc/{}/ns/user", lab.pid(&b.id)))?.display().to_string();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "200000", "65536", &link]);
    Ok(())
}

fn userns_has_devices_and_mounts(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab
        .bundle()
        .userns(200_000)
        .sh("echo x > /dev/null; head -c 3 /dev/zero | wc -c; hostname; ls /proc/1/ns");
    let seen = lab.printed(&b);
    assert!(seen.starts_with("3\nbox\n"), "{seen}");
    Ok(())
}

fn userns_of_another_container_is_joined(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let other = lab.bundle().userns(200_000).args(&["/bin/sleep", "100"]);
    lab.up(&other);
    let ns = |file: &str| format!("/proc/{}/ns/{file}", lab.pid(&other.id));
    let link = fs::read_link(ns("user"))?.display().to_string();
    let b = lab
        .bundle()
        .userns(200_000)
        .namespace("user", Some(&ns("user")))
        .namespace("network", Some(&ns("net")));
    let b = b.remove("/linux/uidMappings").remove("/linux/gidMappings");
    assert_eq!(lab.printed(&b.args(&["/bin/readlink", "/proc/self/ns/user"])), link);
    Ok(())
}

fn userns_with_a_user_of_its_own(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().userns(200_000).set("/process/user", json!({"uid": 1000, "gid": 1001}));
    assert_eq!(lab.printed(&b.sh("id -u; id -g")), "1000\n1001");
    Ok(())
}

/// Nothing ends the other processes with init there: delete must.
fn shared_pid_namespace_of_the_host_is_killed_with_the_container(lab: &Lab) -> TestResult {
    lab.breaks_on_v2(
        "runc 1.1",
        "runtime.md#delete: processes of a container without a pid namespace of its own stay",
    )?;
    let b = lab.bundle().without_namespace("pid").sh("sleep 300 & echo up");
    let output = lab.up(&b);
    lab.eventually("output", || output.text() == "up");
    lab.wait_status(&b.id, "stopped");
    lab.delete(&b.id);
    Ok(())
}

/// A bind mount of a namespace's file, as engines make it; in a namespace of our own, so that what is changed by
/// mistake is not the machine's.
fn own_namespaces(lab: &Lab) -> Result<std::path::PathBuf, Stop> {
    use nix::sched::{CloneFlags, unshare};
    lab.private_mounts()?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    let dir = lab.new_dir("ns");
    for file in ["net", "uts", "ipc"] {
        fs::write(dir.join(file), "")?;
        let own = format!("/proc/self/ns/{file}");
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(own.as_str()), &dir.join(file), None::<&str>, flags, None::<&str>)?;
    }
    Ok(dir)
}

fn what_belongs_to_the_hosts_namespace_is_refused_when_a_path_names_it(lab: &Lab) -> TestResult {
    let dir = own_namespaces(lab)?;
    let path = |file: &str| dir.join(file).display().to_string();
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let before = (read("net/ipv4/ip_forward"), read("kernel/hostname"), read("kernel/shm_rmid_forced"));
    let sysctl = |b: Bundle, key: &str| b.edit(|spec| spec["linux"]["sysctl"] = json!({key: "1"}));
    let bare = |b: Bundle| b.remove("/hostname");
    let net = sysctl(lab.bundle().namespace("network", Some(&path("net"))), "net.ipv4.ip_forward");
    lab.run(&net).fails("sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace");
    let ipc = sysctl(lab.bundle().namespace("ipc", Some(&path("ipc"))), "kernel.shm_rmid_forced");
    lab.run(&ipc).fails("not allowed in the hosts ipc namespace");
    let uts = lab.bundle().namespace("uts", Some(&path("uts")));
    lab.run(&uts.clone().set("/hostname", json!("changed"))).fails("UTS namespace");
    lab.run(&sysctl(bare(uts), "kernel.domainname")).fails("is not in a separate kernel namespace");
    let cgroup = lab.bundle().namespace("cgroup", Some("/proc/self/ns/cgroup"));
    lab.run(&cgroup.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"])).fails("cgroup namespace");
    lab.run(&lab.bundle().namespace("mount", Some("/proc/self/ns/mnt"))).fails("mount namespace");
    assert_eq!(
        (read("net/ipv4/ip_forward"), read("kernel/hostname"), read("kernel/shm_rmid_forced")),
        before
    );
    Ok(())
}

fn sysctls_of_a_joined_namespace_are_set(lab: &Lab) -> TestResult {
    lab.private_mounts()?;
    let holder = lab.bundle().waits();
    lab.up(&holder);
    let path = format!("/proc/{}/ns/net", lab.pid(&holder.id));
    let b = lab.bundle().namespace("network", Some(&path));
    let b = b.edit(|spec| spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}));
    assert_eq!(lab.printed(&b.args(&["/bin/cat", "/proc/sys/net/ipv4/ip_forward"])), "1");
    Ok(())
}

/// `docker run --network host` names the host's namespace by a path.
fn a_path_to_the_hosts_namespace_is_no_error_by_itself(lab: &Lab) -> TestResult {
    let dir = own_namespaces(lab)?;
    let mut b = lab.bundle().remove("/hostname");
    for (kind, file) in [("network", "net"), ("uts", "uts"), ("ipc", "ipc")] {
        b = b.namespace(kind, Some(&dir.join(file).display().to_string()));
    }
    lab.run(&b.edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["type"] != "sysfs");
    }))
    .ok();
    Ok(())
}

fn userns_without_a_mapping_of_root_is_refused(lab: &Lab) -> TestResult {
    let map = json!([{"containerID": 1000, "hostID": 101_000, "size": 1}]);
    for (one, other) in
        [("/linux/uidMappings", "/linux/gidMappings"), ("/linux/gidMappings", "/linux/uidMappings")]
    {
        let whole = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let b = lab.bundle().namespace("user", None).set(one, map.clone()).set(other, whole);
        let output = lab.run(&b.set("/process/user", json!({"uid": 1000, "gid": 1000})));
        assert!(output.rc > 0, "{output}");
        if lab.is("hull") {
            assert!(output.err().contains("no mapping found for"), "{output}");
            assert!(output.err().contains(&one[1..].replace('/', ".")), "{output}");
        }
    }
    Ok(())
}
