//! Where a mount or a device goes when something is in the way or missing, and what of the host stays as it is
//! under what covers a path.

use hull_integration::{Bundle, Lab, Stop, TestResult, tests};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

tests! {
    a_dangling_link_of_the_image_is_followed_below_the_root.breaks_on(&[
        ("crun 1.8", "a dangling link is not followed"),
    ]),
    a_link_that_an_earlier_bind_brings_is_followed,
    a_loop_of_links_is_refused,
    a_dangling_link_as_cwd_is_made.breaks_on(&[
        ("runc 1.1", "a link that leads nowhere is no working directory"),
        ("crun", "a link that leads nowhere is no working directory"),
    ]),
    a_mount_below_a_link_to_proc_is_refused.breaks_on(&[
        ("runc 1.1", "procfs is covered through a link"),
        ("crun 1.8", "procfs is covered through a link"),
    ]),
    a_bind_on_proc_must_be_a_procfs.breaks_on(&[("crun 1.8", "anything is bound on /proc")]),
    a_bind_on_the_root_takes_its_place.breaks_on(&[("crun 1.8", "a mount on / is without effect")]),
    a_tmpfs_on_the_root_is_refused.only("hull"),
    a_bind_source_in_the_rootfs_shows_earlier_mounts.breaks_on(&[
        ("runc 1.1", "a user namespace: the source is opened before"),
        ("crun 1.8", "a user namespace: the source is opened before"),
    ]),
    a_mount_of_the_config_comes_before_a_device,
    a_file_of_the_image_is_not_taken_for_a_device.breaks_on(&[
        ("runc 1.1", "docs/differences.md: a file is never taken for a device"),
        ("crun 1.8", "docs/differences.md: a file is never taken for a device"),
    ]),
    the_same_device_of_the_image_is_taken,
    a_directory_on_a_file_is_told_as_not_a_directory,
    flags_of_the_superblock_are_without_effect_on_a_bind,
    rw_lifts_no_read_only_flag_in_a_user_namespace.breaks_on(&[
        ("crun 1.8", "the flag is lifted outside of the user namespace"),
        ("runc 1.1", "rw is taken for nothing to be done"),
    ]),
    tmpfs_takes_the_mode_of_the_directory_below.breaks_on(&[("crun 1.8", "the mode is 1777 without a mode option")]),
    relatime_takes_noatime_back_on_a_bind,
    what_covers_a_path_cannot_change_the_hosts_device,
    devices_of_a_user_namespace_cannot_change_the_hosts.only("hull"),
    readonly_root_path_makes_all_read_only.only("hull"),
    the_hosts_null_device_behind_stdio_cannot_be_changed.breaks_on(&[
        ("crun 1.8", "the owner of the host's null device is set"),
    ]),
    a_path_named_twice_is_covered_once.breaks_on(&[
        ("runc", "a masked path named twice is covered twice"),
        ("crun", "a masked path named twice is covered twice"),
    ]),
    a_fifo_is_made_in_a_user_namespace.breaks_on(&[("runc 1.1", "a node of the host of that name is wanted"), ("crun 1.8", "a node of the host of that name is wanted")]),
}

fn source(lab: &Lab, name: &str) -> Result<PathBuf, Stop> {
    let dir = lab.new_dir("source");
    fs::write(dir.join("file"), name)?;
    Ok(dir)
}

/// As `/etc/resolv.conf` and `/var/run` are in many images.
fn a_dangling_link_of_the_image_is_followed_below_the_root(lab: &Lab) -> TestResult {
    let dir = source(lab, "bound")?;
    let links = [
        ("/etc/resolv.conf", "../run/systemd/resolve/stub.conf"),
        ("/etc/localtime", "../usr/share/zone/UTC"),
    ];
    let mut b = lab.bundle();
    for (link, to) in links {
        symlink(to, b.path(link))?;
        b = b.mount("bind", dir.join("file"), link, &["bind"]);
    }
    for (link, to) in [("/var/run", "/made/run"), ("/data", "/made/data")] {
        symlink(to, b.path(link))?;
    }
    let b = b.mount("tmpfs", "tmpfs", "/var/run/inner", &[]).mount("bind", &dir, "/data", &["rbind"]);
    let b = b.sh("cat /run/systemd/resolve/stub.conf /usr/share/zone/UTC /made/data/file; \
                  grep -c ' /made/run/inner ' /proc/self/mountinfo");
    assert_eq!(lab.printed(&b), "boundboundbound1");
    assert!(b.path("/etc/resolv.conf").is_symlink(), "the link itself was replaced");
    Ok(())
}

fn a_link_that_an_earlier_bind_brings_is_followed(lab: &Lab) -> TestResult {
    let (dir, other) = (source(lab, "first")?, source(lab, "second")?);
    fs::create_dir(dir.join("target"))?;
    symlink("/mnt/target", dir.join("link"))?;
    let b =
        lab.bundle().mount("bind", &dir, "/mnt", &["rbind"]).mount("bind", other, "/mnt/link", &["rbind"]);
    assert_eq!(lab.printed(&b.args(&["/bin/cat", "/mnt/target/file"])), "second");
    Ok(())
}

fn a_loop_of_links_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/one/made", &[]);
    symlink("/two", b.path("/one"))?;
    symlink("/one", b.path("/two"))?;
    let output = lab.run(&b);
    assert!(output.rc > 0, "{output}");
    assert!(!lab.is("hull") || output.err().contains("too many levels of symbolic links"), "{output}");
    Ok(())
}

fn a_dangling_link_as_cwd_is_made(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/cwd", json!("/work")).args(&["/bin/pwd", "-P"]);
    symlink("/made/here", b.path("/work"))?;
    assert_eq!(lab.printed(&b), "/made/here");
    Ok(())
}

fn a_mount_below_a_link_to_proc_is_refused(lab: &Lab) -> TestResult {
    let dir = source(lab, "")?;
    for (to, place) in
        [("/proc", "/data/sys"), ("/proc/sys/kernel", "/data"), ("proc", "/data/sys/kernel/hostname")]
    {
        for kind in ["tmpfs", "bind", "file"] {
            let b = match kind {
                "tmpfs" => lab.bundle().mount("tmpfs", "tmpfs", place, &[]),
                "bind" => lab.bundle().mount("bind", &dir, place, &["rbind"]),
                _ => lab.bundle().mount("bind", dir.join("file"), place, &["bind"]),
            };
            symlink(to, b.path("/data"))?;
            let output = lab.run(&b.args(&["/bin/cat", "/proc/self/mountinfo"]));
            assert!(output.rc > 0, "{kind} on {place} was accepted: {output}");
        }
    }
    Ok(())
}

fn a_bind_on_proc_must_be_a_procfs(lab: &Lab) -> TestResult {
    let dir = source(lab, "")?;
    let without_proc = |b: Bundle| {
        b.edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| m["destination"] != "/proc");
            spec["linux"]["maskedPaths"] = json!([]);
            spec["linux"]["readonlyPaths"] = json!([]);
        })
    };
    lab.run(&without_proc(lab.bundle()).mount("bind", &dir, "/proc", &["rbind"])).fails("not of type proc");
    lab.run(&without_proc(lab.bundle()).mount("bind", "/proc", "/proc", &["rbind"])).ok();
    Ok(())
}

fn a_bind_on_the_root_takes_its_place(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let (other, dir) = (lab.bundle().file("/marker", "the other root", 0o644), source(lab, "later")?);
    let mounts = b.spec["mounts"].clone();
    let mut b = b.edit(|spec| spec["mounts"] = json!([])).mount("bind", other.rootfs(), "/", &["rbind"]);
    for entry in mounts.as_array().into_iter().flatten() {
        b = b.push("/mounts", entry.clone());
    }
    let b =
        b.mount("bind", dir, "/mnt", &["rbind"]).sh("cat /marker /mnt/file; echo; stat -c %t:%T /dev/null");
    assert_eq!(lab.printed(&b), "the other rootlater\n1:3");
    Ok(())
}

fn a_tmpfs_on_the_root_is_refused(lab: &Lab) -> TestResult {
    lab.run(&lab.bundle().mount("tmpfs", "tmpfs", "/", &[]))
        .fails("would cover the root file system of the container");
    lab.run(&lab.bundle().mount("tmpfs", "tmpfs", "/..", &[]))
        .fails("would cover the root file system of the container");
    lab.run(&lab.bundle().push("/linux/maskedPaths", json!("/"))).fails("/ cannot be hidden");
    Ok(())
}

fn a_bind_source_in_the_rootfs_shows_earlier_mounts(lab: &Lab) -> TestResult {
    let dir = source(lab, "earlier")?;
    for userns in [false, true].into_iter().filter(|userns| !userns || lab.host.userns) {
        let b = lab.bundle().mount("bind", &dir, "/mnt", &["rbind"]);
        let from = b.path("/mnt");
        let b = b.mount("bind", from, "/home", &["rbind"]).args(&["/bin/cat", "/home/file"]);
        assert_eq!(
            lab.printed(&if userns { b.userns(200_000) } else { b }),
            "earlier",
            "user namespace {userns}"
        );
    }
    Ok(())
}

/// `docker run --privileged -v /dev/null:/dev/kmsg`.
fn a_mount_of_the_config_comes_before_a_device(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666});
    for userns in [false, true].into_iter().filter(|userns| !userns || lab.host.userns) {
        let b = lab.bundle().mount("bind", "/dev/null", "/dev/kmsg", &["bind"]);
        let b = b.push("/linux/devices", device.clone()).args(&["/bin/stat", "-c", "%t:%T", "/dev/kmsg"]);
        let b = if userns { b.userns(200_000) } else { b };
        if !userns || lab.is("hull") {
            assert_eq!(lab.printed(&b), "1:3", "user namespace {userns}");
        }
    }
    // The directory is there through a bind, the default devices are in it already.
    let b = lab.bundle().mount("bind", "/dev/zero", "/dev/null", &["bind"]);
    assert_eq!(lab.printed(&b.args(&["/bin/stat", "-c", "%t:%T", "/dev/null"])), "1:5");
    Ok(())
}

fn without_dev(lab: &Lab) -> Bundle {
    lab.bundle().edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"].as_str().is_none_or(|d| !d.starts_with("/dev")));
    })
}

fn a_file_of_the_image_is_not_taken_for_a_device(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3});
    for b in [without_dev(lab).file("/dev/null", "", 0o666), without_dev(lab).file("/dev/mine", "", 0o666)] {
        lab.run(&b.push("/linux/devices", device.clone())).fails("something else exists there");
    }
    Ok(())
}

fn the_same_device_of_the_image_is_taken(lab: &Lab) -> TestResult {
    let b = without_dev(lab);
    lab.run(&b.clone().set("/linux/devices", json!([]))).ok();
    assert!(fs::metadata(b.path("/dev/null"))?.file_type().is_char_device(), "the image has no device");
    let device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666});
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"});
    let again = b.sibling(lab).push("/linux/devices", device).push("/linux/resources/devices", allow);
    assert_eq!(lab.printed(&again.args(&["/bin/stat", "-c", "%t:%T", "/dev/null"])), "1:3");
    Ok(())
}

fn a_directory_on_a_file_is_told_as_not_a_directory(lab: &Lab) -> TestResult {
    let dir = source(lab, "")?;
    let bind = |from: &Path, to: &str| lab.run(&lab.bundle().mount("bind", from, to, &["rbind"]));
    assert!(bind(&dir, "/etc/passwd").rc(1).err().to_lowercase().contains("not a directory"));
    if !lab.is("crun") {
        assert!(bind(&dir.join("file"), "/etc").rc(1).err().to_lowercase().contains("not a directory"));
    }
    let output = lab.run(&lab.bundle().mount("tmpfs", "tmpfs", "/etc/passwd", &[])).rc(1);
    assert!(output.err().to_lowercase().contains("not a directory"), "{output}");
    Ok(())
}

fn flags_of_the_superblock_are_without_effect_on_a_bind(lab: &Lab) -> TestResult {
    let dir = source(lab, "")?;
    for flag in ["sync", "dirsync", "mand", "iversion", "lazytime"] {
        if lab.is("crun") && matches!(flag, "lazytime" | "iversion") || lab.is("runc") && flag == "lazytime" {
            continue; // runc 1.1 and crun 1.8 do not know all of them
        }
        let b = lab.bundle().mount("bind", &dir, "/mnt", &["rbind", flag, "nosuid"]);
        let table = lab.printed(&b.args(&["/bin/grep", " /mnt ", "/proc/self/mountinfo"]));
        assert!(table.contains("nosuid"), "{flag}: {table}");
    }
    Ok(())
}

fn rw_lifts_no_read_only_flag_in_a_user_namespace(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    lab.private_mounts()?;
    let dir = source(lab, "")?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(Some(&dir), &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    mount(None::<&str>, &dir, None::<&str>, read_only, None::<&str>)?;
    for options in [&["bind", "rw"] as &[&str], &["rbind", "rrw"]] {
        let b = lab.bundle().mount("bind", &dir, "/mnt", options).userns(200_000);
        lab.run(&b.args(&["/bin/touch", "/mnt/new"])).fails("locked flags");
    }
    let b = lab.bundle().mount("bind", &dir, "/mnt", &["bind", "rw"]);
    lab.run(&b.args(&["/bin/touch", "/mnt/new"])).ok();
    Ok(())
}

fn tmpfs_takes_the_mode_of_the_directory_below(lab: &Lab) -> TestResult {
    for options in [&[] as &[&str], &["tmpcopyup"]] {
        let mut b = lab.bundle();
        for (name, mode) in [("/a", 0o755), ("/b", 0o700), ("/c", 0o1777)] {
            fs::create_dir(b.path(name))?;
            fs::set_permissions(b.path(name), std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            std::os::unix::fs::chown(b.path(name), Some(1000), Some(1000))?;
            b = b.mount("tmpfs", "tmpfs", name, options);
        }
        // tmpcopyup has nothing to copy where nothing is.
        let absent = if options.is_empty() { "/absent" } else { "/tmp" };
        b = b.mount("tmpfs", "tmpfs", absent, &[]).mount("tmpfs", "tmpfs", "/named", &["mode=711"]);
        let script = format!("stat -c %a:%u /a /b /c {absent} /named | tr '\\n' ' '");
        assert_eq!(lab.printed(&b.sh(&script)), "755:0 700:0 1777:0 1777:0 711:0", "{options:?}");
    }
    Ok(())
}

fn relatime_takes_noatime_back_on_a_bind(lab: &Lab) -> TestResult {
    lab.private_mounts()?;
    let dir = source(lab, "")?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::MS_NOATIME, None::<&str>)?;
    for (option, wanted) in [("relatime", "relatime"), ("strictatime", ""), ("noatime", "noatime")] {
        let b = lab.bundle().mount("bind", &dir, "/mnt", &["bind", option]);
        let table = lab.printed(&b.args(&["/bin/grep", " /mnt ", "/proc/self/mountinfo"]));
        let found = ["noatime", "relatime"].into_iter().find(|word| table.contains(word)).unwrap_or("");
        assert_eq!(found, wanted, "{option}: {table}");
    }
    Ok(())
}

/// A null device of our own over the host's, in a mount namespace of our own.
fn private_null(lab: &Lab) -> Result<PathBuf, Stop> {
    lab.private_mounts()?;
    let node = lab.new_dir("node").join("null");
    let device = nix::sys::stat::makedev(1, 3);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, device)?;
    fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    mount(Some(&node), "/dev/null", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(node)
}

/// Owner, mode, size and times.
fn inode(path: &Path) -> Result<String, Stop> {
    let m = fs::metadata(path)?;
    Ok(format!(
        "{}:{} {:o} {} {}.{} {}.{}",
        m.uid(),
        m.gid(),
        m.mode(),
        m.rdev(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec()
    ))
}

fn what_covers_a_path_cannot_change_the_hosts_device(lab: &Lab) -> TestResult {
    let node = private_null(lab)?;
    let b = lab.bundle().file("/secret", "secret", 0o644).push("/linux/maskedPaths", json!("/secret"));
    let paths = "/secret $(cd /proc; ls -d kcore keys timer_list sched_debug 2>/dev/null | sed s,^,/proc/,)";
    let script = format!(
        "for f in {paths}; do chown 1000 $f; chmod 0 $f; touch -d @1 $f; chmod 4777 $f; : > $f; done 2>/dev/null; \
         test -c /secret && echo covered"
    );
    let b = b.capabilities(&["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_FSETID"]).sh(&script);
    let before = inode(&node)?;
    assert_eq!(lab.printed(&b), "covered");
    assert_eq!(inode(&node)?, before, "the host's null device was changed");
    Ok(())
}

/// There the host's nodes are bound: nodes cannot be made.
fn devices_of_a_user_namespace_cannot_change_the_hosts(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let node = private_null(lab)?;
    // Given to the container's root, who could otherwise change it.
    std::os::unix::fs::chown(&node, Some(200_000), Some(200_000))?;
    let script = "chmod 0 /dev/null; chown 1 /dev/null; touch -d @1 /dev/null; echo written > /dev/null && echo usable";
    let b = lab.bundle().userns(200_000).capabilities(&["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]);
    let before = inode(&node)?;
    assert_eq!(lab.run(&b.sh(script)).ok().text(), "usable");
    assert_eq!(inode(&node)?, before, "the host's null device was changed");
    Ok(())
}

fn readonly_root_path_makes_all_read_only(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/linux/readonlyPaths", json!(["/"]));
    let seen = lab.printed(&b.sh("for f in /x /dev/x /dev/shm/x; do touch $f 2>/dev/null || echo no; done"));
    assert_eq!(seen, "no\nno\nno");
    Ok(())
}

/// An engine gives a detached container /dev/null as stdin.
fn the_hosts_null_device_behind_stdio_cannot_be_changed(lab: &Lab) -> TestResult {
    let node = private_null(lab)?;
    let script = "for n in 0 1 2; do chmod 0 /proc/self/fd/$n; chown 1 /proc/self/fd/$n; touch -d @1 /proc/self/fd/$n; done 2>/mark; \
                  for n in 0 1 2; do test -c /proc/$$/fd/$n && seen=$seen$n; done; echo $seen > /seen";
    let caps = ["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"];
    let null = "0</dev/null 1>/dev/null 2>/dev/null";
    let before = inode(&node)?;
    let b = lab.bundle().capabilities(&caps).sh(script);
    lab.launch("create", &b, &[]).redirect(lab, null).go().ok();
    lab.start(&b.id).ok();
    lab.wait_status(&b.id, "stopped");
    assert_eq!((inode(&node)?, b.read("/seen")), (before.clone(), "012".to_owned()), "init");
    let b = lab.bundle().capabilities(&caps).waits();
    lab.up(&b);
    lab.call(&["exec", &b.id, "/bin/sh", "-c", script]).redirect(lab, null).go().ok();
    assert_eq!(inode(&node)?, before, "exec");
    Ok(())
}

fn a_path_named_twice_is_covered_once(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/secret", "secret", 0o644).file("/dir/file", "", 0o644);
    let b = b.set("/linux/maskedPaths", json!(["/secret", "/secret", "/./secret"]));
    let b = b.set("/linux/readonlyPaths", json!(["/dir", "/dir/"]));
    let table = lab.printed(&b.args(&["/bin/grep", "-cE", " /(secret|dir) ", "/proc/self/mountinfo"]));
    assert_eq!(table, "2");
    Ok(())
}

fn a_fifo_is_made_in_a_user_namespace(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let b = lab.bundle().userns(200_000).push("/linux/devices", json!({"path": "/dev/pipe", "type": "p"}));
    assert_eq!(lab.printed(&b.args(&["/bin/stat", "-c", "%F", "/dev/pipe"])), "fifo");
    Ok(())
}
