//! Mounts: options as the kernel shows them, order, propagation, and where a destination may lead.

use hull_integration::{Bundle, Lab, Stop, TestResult, tests};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

tests! {
    tmpfs_takes_size_and_mode.breaks_on(&[("runc 1.1", "tmpfs(5) mode= is overridden by the mode of the directory below")]),
    flags_reach_the_mount.breaks_on(&[("crun 1.8", "a later word does not clear an earlier flag")]),
    bind_of_a_directory_shows_its_files,
    bind_of_a_file_over_a_missing_target_makes_it,
    bind_of_a_directory_over_a_missing_target_makes_it,
    bind_of_a_file_over_a_file_hides_it,
    bind_ro_cannot_be_written,
    bind_rw_writes_to_the_source,
    rbind_brings_the_mounts_below,
    bind_ro_leaves_the_mounts_below_writable,
    rro_reaches_the_mounts_below,
    a_missing_bind_source_is_refused,
    a_bind_source_may_be_relative_to_the_bundle,
    an_unknown_filesystem_type_is_refused,
    mounts_keep_their_order,
    a_destination_mounted_twice_shows_the_last,
    tmpcopyup_keeps_the_files_below,
    a_destination_with_dots_stays_inside,
    a_destination_through_an_absolute_symlink_stays_inside,
    a_destination_through_a_relative_symlink_stays_inside,
    rslave_gets_later_mounts_of_the_host,
    rprivate_gets_no_later_mounts_of_the_host,
    rshared_is_shared,
    root_propagation_shared.breaks_on(&[("runc", "config-linux.md#rootfs-mount-propagation: / itself stays private")]),
    root_propagation_unbindable.breaks_on(&[("runc", "config-linux.md#rootfs-mount-propagation: unbindable fails with EINVAL")]),
    root_propagation_defaults_to_private,
    mounts_of_the_container_are_not_on_the_host,
    old_root_is_gone,
    sysfs_and_proc_have_the_flags_of_the_config,
    cgroup_mount_shows_the_own_cgroup,
    mqueue_is_mounted,
    root_readonly_cannot_be_written,
    root_can_be_written_by_default,
    nosymfollow_reaches_the_mount.breaks_on(&[("crun", "config.md#linux-mount-options: nosymfollow")]),
    idmapped_bind_shows_mapped_owners.breaks_on(&[("runc 1.1", "config.md#posix-platform-mounts: uidMappings of a mount came with 1.2")]),
    remount_options_can_be_cleared_by_rw.breaks_on(&[("crun 1.8", "a later word does not clear an earlier flag")]),
    a_mount_of_proc_below_proc_is_refused,
}

/// A line of /proc/self/mountinfo.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) options: String,
    pub(crate) propagation: String,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// The topmost mount at a path, from the text of mountinfo.
pub(crate) fn find(table: &str, path: &str) -> Option<Mount> {
    let line = table.lines().rfind(|l| l.split(' ').nth(4) == Some(path))?;
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(Mount {
        options: left[5].to_owned(),
        propagation: left[6..].join(" "),
        kind: right[0].to_owned(),
        data: right[2..].join(" "),
    })
}

#[track_caller]
fn mountinfo(lab: &Lab, b: &Bundle, path: &str) -> Mount {
    let table = lab.printed(&b.clone().args(&["/bin/cat", "/proc/self/mountinfo"]));
    find(&table, path).unwrap_or_else(|| panic!("no mount at {path}:\n{table}"))
}

fn has(options: &str, wanted: &str) -> bool {
    options.split(',').any(|o| o == wanted)
}

fn tmpfs_takes_size_and_mode(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &["size=128k", "mode=711"]);
    let m = mountinfo(lab, &b, "/mnt");
    assert!(m.kind == "tmpfs" && has(&m.data, "size=128k") && has(&m.data, "mode=711"), "{m:?}");
    assert_eq!(lab.printed(&b.args(&["/bin/stat", "-c", "%a", "/mnt"])), "711");
    Ok(())
}

fn flags_reach_the_mount(lab: &Lab) -> TestResult {
    for flag in ["nosuid", "nodev", "noexec", "ro", "noatime", "nodiratime"] {
        let b = lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &[flag]);
        let m = mountinfo(lab, &b, "/mnt");
        assert!(has(&m.options, flag), "{flag}: {m:?}");
    }
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &["nosuid", "suid", "noexec", "exec"]);
    let m = mountinfo(lab, &b, "/mnt");
    assert!(!has(&m.options, "nosuid") && !has(&m.options, "noexec"), "the later word wins: {m:?}");
    Ok(())
}

/// A directory of the host with a file in it.
fn source(lab: &Lab) -> Result<std::path::PathBuf, Stop> {
    let dir = lab.new_dir("source");
    fs::write(dir.join("file"), "from the host")?;
    Ok(dir)
}

fn bind_of_a_directory_shows_its_files(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", source(lab)?, "/mnt", &["bind"]).args(&["/bin/cat", "/mnt/file"]);
    assert_eq!(lab.printed(&b), "from the host");
    Ok(())
}

fn bind_of_a_file_over_a_missing_target_makes_it(lab: &Lab) -> TestResult {
    let file = source(lab)?.join("file");
    let b = lab.bundle().mount("bind", file, "/new/deep/target", &["bind", "ro"]);
    assert_eq!(lab.printed(&b.args(&["/bin/cat", "/new/deep/target"])), "from the host");
    Ok(())
}

fn bind_of_a_directory_over_a_missing_target_makes_it(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", source(lab)?, "/new/deep/dir", &["rbind"]);
    assert_eq!(lab.printed(&b.args(&["/bin/cat", "/new/deep/dir/file"])), "from the host");
    Ok(())
}

fn bind_of_a_file_over_a_file_hides_it(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/etc/hosts", "of the image", 0o644);
    let b = b.mount("bind", source(lab)?.join("file"), "/etc/hosts", &["rbind", "rprivate"]);
    assert_eq!(lab.printed(&b.clone().args(&["/bin/cat", "/etc/hosts"])), "from the host");
    assert_eq!(b.read("/etc/hosts"), "of the image");
    Ok(())
}

fn bind_ro_cannot_be_written(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", source(lab)?, "/mnt", &["bind", "ro"]);
    assert!(has(&mountinfo(lab, &b, "/mnt").options, "ro"));
    let seen = lab.printed(&b.sh("exec 2>&1; echo x > /mnt/file || true"));
    assert!(seen.contains("Read-only file system"), "{seen}");
    Ok(())
}

fn bind_rw_writes_to_the_source(lab: &Lab) -> TestResult {
    let dir = source(lab)?;
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["bind", "rw"]).sh("echo inside > /mnt/file");
    lab.run(&b).ok();
    assert_eq!(fs::read_to_string(dir.join("file"))?, "inside\n");
    Ok(())
}

/// A source with a tmpfs below it, in a mount namespace of this test's own.
fn source_with_submount(lab: &Lab) -> Result<std::path::PathBuf, Stop> {
    lab.private_mounts()?;
    let dir = source(lab)?;
    let sub = dir.join("sub");
    fs::create_dir(&sub)?;
    mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(sub.join("deep"), "deep")?;
    Ok(dir)
}

fn rbind_brings_the_mounts_below(lab: &Lab) -> TestResult {
    let dir = source_with_submount(lab)?;
    let b = lab.bundle().sh("cat /mnt/sub/deep 2>/dev/null || echo none");
    assert_eq!(lab.printed(&b.clone().mount("bind", &dir, "/mnt", &["rbind"])), "deep");
    assert_eq!(lab.printed(&b.mount("bind", &dir, "/mnt", &["bind"])), "none");
    Ok(())
}

fn bind_ro_leaves_the_mounts_below_writable(lab: &Lab) -> TestResult {
    let dir = source_with_submount(lab)?;
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["rbind", "ro"]);
    assert!(has(&mountinfo(lab, &b, "/mnt").options, "ro"));
    assert!(has(&mountinfo(lab, &b, "/mnt/sub").options, "rw"));
    Ok(())
}

fn rro_reaches_the_mounts_below(lab: &Lab) -> TestResult {
    let dir = source_with_submount(lab)?;
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["rbind", "rro"]);
    assert!(has(&mountinfo(lab, &b, "/mnt").options, "ro"));
    assert!(has(&mountinfo(lab, &b, "/mnt/sub").options, "ro"));
    Ok(())
}

fn a_missing_bind_source_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", "/no/such/source", "/mnt", &["rbind"]);
    let output = lab.create(&b).fails("/no/such/source");
    assert!(output.err().to_lowercase().contains("no such file") || lab.is("hull"), "{output}");
    Ok(())
}

fn a_bind_source_may_be_relative_to_the_bundle(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", "beside", "/mnt", &["rbind"]).args(&["/bin/cat", "/mnt/file"]);
    fs::create_dir(b.dir.join("beside"))?;
    fs::write(b.dir.join("beside/file"), "relative")?;
    assert_eq!(lab.printed(&b), "relative");
    Ok(())
}

fn an_unknown_filesystem_type_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("nosuchfs", "none", "/mnt", &[]);
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn mounts_keep_their_order(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &[]).mount("tmpfs", "tmpfs", "/mnt/inner", &["ro"]);
    let table = lab.printed(&b.args(&["/bin/cat", "/proc/self/mountinfo"]));
    let inner = find(&table, "/mnt/inner").ok_or("the inner mount is hidden")?;
    assert!(has(&inner.options, "ro"), "{inner:?}");
    Ok(())
}

/// As the sandbox of containerd's CRI has /dev/shm: a tmpfs, then a bind.
fn a_destination_mounted_twice_shows_the_last(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &[]).mount("bind", source(lab)?, "/mnt", &["rbind"]);
    assert_eq!(lab.printed(&b.clone().args(&["/bin/cat", "/mnt/file"])), "from the host");
    let table = lab.printed(&b.args(&["/bin/cat", "/proc/self/mountinfo"]));
    assert_eq!(table.lines().filter(|l| l.split(' ').nth(4) == Some("/mnt")).count(), 2, "{table}");
    Ok(())
}

fn tmpcopyup_keeps_the_files_below(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/data/dir/file", "of the image", 0o640);
    let b = b.mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"]);
    let b = b.sh("cat /data/dir/file; stat -c ' %a' /data/dir/file; echo new > /data/dir/file");
    assert_eq!(lab.printed(&b), "of the image 640");
    assert_eq!(b.read("/data/dir/file"), "of the image");
    Ok(())
}

fn stays_inside(lab: &Lab, b: &Bundle, canary: &Path) -> TestResult {
    let before = list(canary)?;
    // Refusing is as good as staying inside.
    let output = lab.run(b);
    assert!(output.rc >= 0, "{output}");
    assert_eq!(list(canary)?, before, "the host was changed");
    Ok(())
}

pub(crate) fn list(dir: &Path) -> Result<Vec<String>, Stop> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn a_destination_with_dots_stays_inside(lab: &Lab) -> TestResult {
    let canary = source(lab)?;
    let name = canary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let b = lab.bundle().mount("tmpfs", "tmpfs", &format!("/../../{name}/made"), &[]);
    stays_inside(lab, &b, &canary)
}

fn a_destination_through_an_absolute_symlink_stays_inside(lab: &Lab) -> TestResult {
    let canary = source(lab)?;
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/link/made", &[]).sh("ls /link/");
    symlink(&canary, b.path("/link"))?;
    stays_inside(lab, &b, &canary)
}

fn a_destination_through_a_relative_symlink_stays_inside(lab: &Lab) -> TestResult {
    let canary = source(lab)?;
    let b = lab.bundle().mount("bind", source(lab)?.join("file"), "/dir/link/made", &["bind"]);
    fs::create_dir(b.path("/dir"))?;
    let name = canary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    symlink(format!("../../../{name}"), b.path("/dir/link"))?;
    stays_inside(lab, &b, &canary)
}

/// A shared mount of the host (in this test's mount namespace).
fn shared_source(lab: &Lab) -> Result<std::path::PathBuf, Stop> {
    lab.private_mounts()?;
    let dir = lab.new_dir("shared");
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
    fs::create_dir(dir.join("later"))?;
    Ok(dir)
}

fn later_mount_is_seen(lab: &Lab, option: &str) -> Result<bool, Stop> {
    let dir = shared_source(lab)?;
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["rbind", option]).args(&["/bin/sleep", "100"]);
    let b = b.set("/linux/rootfsPropagation", json!("rslave"));
    lab.up(&b);
    mount(Some("tmpfs"), &dir.join("later"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(dir.join("later/file"), "")?;
    Ok(lab.inside(&b.id, "ls /mnt/later") == "file")
}

fn rslave_gets_later_mounts_of_the_host(lab: &Lab) -> TestResult {
    assert!(later_mount_is_seen(lab, "rslave")?);
    Ok(())
}

fn rprivate_gets_no_later_mounts_of_the_host(lab: &Lab) -> TestResult {
    assert!(!later_mount_is_seen(lab, "rprivate")?);
    Ok(())
}

fn rshared_is_shared(lab: &Lab) -> TestResult {
    let dir = shared_source(lab)?;
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["rbind", "rshared"]);
    let b = b.set("/linux/rootfsPropagation", json!("shared"));
    let m = mountinfo(lab, &b, "/mnt");
    assert!(m.propagation.contains("shared:"), "{m:?}");
    Ok(())
}

fn root_propagation_shared(lab: &Lab) -> TestResult {
    let m = mountinfo(lab, &lab.bundle().set("/linux/rootfsPropagation", json!("shared")), "/");
    assert!(m.propagation.contains("shared:"), "{m:?}");
    Ok(())
}

fn root_propagation_unbindable(lab: &Lab) -> TestResult {
    let m = mountinfo(lab, &lab.bundle().set("/linux/rootfsPropagation", json!("unbindable")), "/");
    assert!(m.propagation.contains("unbindable"), "{m:?}");
    Ok(())
}

fn root_propagation_defaults_to_private(lab: &Lab) -> TestResult {
    let m = mountinfo(lab, &lab.bundle(), "/");
    assert!(!m.propagation.contains("shared:"), "{m:?}");
    Ok(())
}

fn mounts_of_the_container_are_not_on_the_host(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits().mount("tmpfs", "tmpfs", "/mnt", &[]);
    lab.up(&b);
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let dir = b.dir.display().to_string();
    let left: Vec<&str> = table.lines().filter(|l| l.contains(&dir)).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

fn old_root_is_gone(lab: &Lab) -> TestResult {
    let table = lab.printed(&lab.bundle().args(&["/bin/cat", "/proc/self/mountinfo"]));
    let points: Vec<&str> = table.lines().filter_map(|l| l.split(' ').nth(4)).collect();
    assert_eq!(points.iter().filter(|p| **p == "/").count(), 1, "{table}");
    let below: Vec<&&str> =
        points.iter().filter(|p| !["/", "/proc", "/dev", "/sys"].iter().any(|t| p.starts_with(t))).collect();
    assert!(below.is_empty(), "{below:?}");
    Ok(())
}

fn sysfs_and_proc_have_the_flags_of_the_config(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let sys = mountinfo(lab, &b, "/sys");
    assert!(
        sys.kind == "sysfs" && ["ro", "nosuid", "nodev", "noexec"].iter().all(|o| has(&sys.options, o)),
        "{sys:?}"
    );
    let proc = mountinfo(lab, &b, "/proc");
    assert!(proc.kind == "proc" && has(&proc.options, "rw"), "{proc:?}");
    Ok(())
}

fn cgroup_mount_shows_the_own_cgroup(lab: &Lab) -> TestResult {
    let mut b = lab.bundle();
    if lab.host.mode == hull_integration::Mode::V2 {
        // Without it, what a cgroup2 mount shows is the host's tree.
        b = b.namespace("cgroup", None);
    }
    let b = b.sh("cat /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null || cat /sys/fs/cgroup/cgroup.procs");
    let seen = lab.printed(&b);
    assert!(seen.lines().any(|l| l == "1"), "our own process is not in it: {seen:?}");
    let b = lab.bundle().sh("mkdir /sys/fs/cgroup/x /sys/fs/cgroup/pids/x 2>&1 || true");
    let seen = lab.printed(&b);
    assert!(seen.contains("Read-only"), "{seen}");
    Ok(())
}

fn mqueue_is_mounted(lab: &Lab) -> TestResult {
    let m = mountinfo(lab, &lab.bundle(), "/dev/mqueue");
    assert_eq!(m.kind, "mqueue");
    Ok(())
}

fn root_readonly_cannot_be_written(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/root/readonly", json!(true));
    assert!(has(&mountinfo(lab, &b, "/").options, "ro"));
    let seen = lab.printed(&b.sh("touch /x 2>&1 || true; touch /dev/shm/y && echo shm-fine"));
    assert!(seen.contains("Read-only file system") && seen.contains("shm-fine"), "{seen}");
    Ok(())
}

fn root_can_be_written_by_default(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("echo made > /x");
    lab.run(&b).ok();
    assert_eq!(b.read("/x"), "made");
    Ok(())
}

fn nosymfollow_reaches_the_mount(lab: &Lab) -> TestResult {
    let m = mountinfo(lab, &lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &["nosymfollow"]), "/mnt");
    assert!(has(&m.options, "nosymfollow"), "{m:?}");
    Ok(())
}

fn idmapped_bind_shows_mapped_owners(lab: &Lab) -> TestResult {
    if lab.host.kernel < (5, 12) {
        return hull_integration::skip("the kernel is older than 5.12");
    }
    lab.needs_userns()?;
    let dir = source(lab)?;
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    let b = lab.bundle().push(
        "/mounts",
        json!({"destination": "/mnt", "type": "bind", "source": dir, "options": ["rbind"],
               "uidMappings": map, "gidMappings": map}),
    );
    let output = lab.run(&b.args(&["/bin/stat", "-c", "%u", "/mnt/file"]));
    if output.rc > 0 && output.err().contains("nvalid argument") {
        return hull_integration::skip("the file system of the temporary directory cannot be idmapped");
    }
    assert_eq!(output.ok().text(), "5000");
    Ok(())
}

fn remount_options_can_be_cleared_by_rw(lab: &Lab) -> TestResult {
    let m = mountinfo(lab, &lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &["ro", "rw"]), "/mnt");
    assert!(has(&m.options, "rw"), "{m:?}");
    Ok(())
}

fn a_mount_of_proc_below_proc_is_refused(lab: &Lab) -> TestResult {
    if lab.is("crun") {
        return hull_integration::skip("known on crun: only what proc has itself may be covered; accepted");
    }
    for destination in ["/proc", "/proc/self/fd"] {
        let b = lab.bundle().mount("tmpfs", "tmpfs", destination, &[]);
        let output = lab.run(&b);
        assert!(output.rc > 0, "tmpfs on {destination} was accepted");
    }
    Ok(())
}
