//! Between the container's mounts and the host's: what is done on one side is not seen on the other, unless the
//! config asks for just that. Each test makes its own mount namespace a host where everything is shared, as
//! systemd does.

use hull_integration::{Bundle, Lab, Stop, TestResult, tests};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

tests! {
    no_rootfs_propagation_changes_the_callers_mounts.limit_s(200).breaks_on(&[
        ("crun 1.8", "without pivot_root it unmounts the host's procfs and sysfs"),
    ]),
    what_is_mounted_below_a_bind_stays_inside.breaks_on(&[
        ("crun 1.8", "with a user namespace a bind stays a peer of the host's mount"),
    ]),
    what_is_mounted_below_an_idmapped_bind_stays_inside.breaks_on(&[
        ("crun 1.8", "an idmapped bind stays a peer of the host's mount"),
    ]),
    the_root_gets_no_later_mounts_of_the_host.breaks_on(&[
        ("runc 1.1", "without linux.rootfsPropagation its root stays a slave of the host's mount"),
    ]),
    a_slave_root_gets_later_mounts_of_the_host.breaks_on(&[
        ("crun 1.8", "config-linux.md#rootfs-mount-propagation: a slave root is private"),
    ]),
    a_shared_bind_reaches_the_host_when_the_root_is_shared,
    a_shared_bind_in_a_user_namespace_stays_inside.breaks_on(&[
        ("crun 1.8", "with a user namespace a bind stays a peer of the host's mount"),
    ]),
    without_pivot_root_no_procfs_of_the_host_is_left,
    what_the_runtime_binds_receives_nothing_from_the_host.only("hull"),
}

const VALUES: [&str; 8] = ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "runbindable"];

/// A host on which every mount is shared, with one more mount.
fn shared_host(lab: &Lab) -> Result<PathBuf, Stop> {
    lab.private_mounts()?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)?;
    let dir = lab.new_dir("shared");
    tmpfs(&dir)?;
    fs::create_dir_all(dir.join("below/inside"))?;
    tmpfs(&dir.join("below"))?;
    for name in ["config", "inside", "below/inside"] {
        fs::create_dir(dir.join(name))?;
    }
    Ok(dir)
}

fn tmpfs(at: &Path) -> TestResult {
    Ok(mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

fn mountinfo() -> Result<String, Stop> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?)
}

fn no_rootfs_propagation_changes_the_callers_mounts(lab: &Lab) -> TestResult {
    shared_host(lab)?;
    for userns in [false, true].into_iter().filter(|userns| !userns || lab.host.userns) {
        for value in VALUES {
            for flags in [&[] as &[&str], &["--no-pivot"]] {
                let mut b = lab.bundle();
                if !value.is_empty() {
                    b = b.set("/linux/rootfsPropagation", json!(value));
                }
                if userns {
                    b = b.userns(200_000);
                }
                let before = mountinfo()?;
                let output = lab.launch("run", &b, flags).go();
                assert_eq!(mountinfo()?, before, "{value:?} {flags:?}, user namespace {userns}: {output}");
                assert!(output.rc == 0 || !lab.is("hull"), "{value:?} {flags:?}, {userns}: {output}");
            }
        }
    }
    Ok(())
}

/// The config mounts below the bind, and so does a process of the container.
fn mounts_below(b: Bundle, map: Option<serde_json::Value>, source: &Path, options: &[&str]) -> Bundle {
    let mut bind = json!({"destination": "/mnt", "type": "bind", "source": source, "options": options});
    if let Some(map) = map {
        bind["uidMappings"] = map.clone();
        bind["gidMappings"] = map;
    }
    b.push("/mounts", bind)
        .mount("tmpfs", "tmpfs", "/mnt/config", &[])
        .capabilities(&["CAP_SYS_ADMIN"])
        .sh("mount -t tmpfs t /mnt/inside && mount -t tmpfs t /mnt/below/inside && echo mounted")
}

fn what_is_mounted_below_a_bind_stays_inside(lab: &Lab) -> TestResult {
    let dir = shared_host(lab)?;
    let options: [&[&str]; 6] = [
        &["rbind"],
        &["bind"],
        &["rbind", "private"],
        &["rbind", "rprivate"],
        &["rbind", "slave"],
        &["rbind", "rslave"],
    ];
    for userns in [false, true].into_iter().filter(|userns| !userns || lab.host.userns) {
        for options in options {
            if userns && options[0] == "bind" && !lab.is("hull") {
                continue; // they bind inside, where the kernel locks the mounts below together
            }
            let b = mounts_below(lab.bundle(), None, &dir, options);
            let b = if userns { b.userns(200_000) } else { b };
            let before = mountinfo()?;
            let output = lab.run(&b);
            assert_eq!(mountinfo()?, before, "{options:?}, user namespace {userns}: {output}");
            assert_eq!(output.ok().text(), "mounted");
        }
    }
    Ok(())
}

fn what_is_mounted_below_an_idmapped_bind_stays_inside(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let dir = shared_host(lab)?;
    for options in [&["rbind"] as &[&str], &["bind"], &["bind", "shared"]] {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
        let b = mounts_below(lab.bundle(), Some(map), &dir, options);
        let before = mountinfo()?;
        let output = lab.run(&b);
        assert_eq!(mountinfo()?, before, "{options:?}: {output}");
        if output.rc > 0 && output.err().contains("nvalid argument") {
            return hull_integration::skip("tmpfs cannot be idmapped by this kernel");
        }
        assert_eq!(output.ok().text(), "mounted");
    }
    Ok(())
}

/// Whether a mount that the host makes below the root of a running container is seen in it.
fn later_mount_is_seen(lab: &Lab, b: Bundle) -> Result<bool, Stop> {
    shared_host(lab)?;
    let b = b.args(&["/bin/sleep", "100"]);
    lab.up(&b);
    tmpfs(&b.path("/home"))?;
    fs::write(b.path("/home/file"), "")?;
    let seen = lab.inside(&b.id, "ls /home") == "file";
    lab.delete(&b.id);
    nix::mount::umount(&b.path("/home"))?;
    Ok(seen)
}

fn the_root_gets_no_later_mounts_of_the_host(lab: &Lab) -> TestResult {
    assert!(!later_mount_is_seen(lab, lab.bundle())?);
    Ok(())
}

fn a_slave_root_gets_later_mounts_of_the_host(lab: &Lab) -> TestResult {
    assert!(later_mount_is_seen(lab, lab.bundle().set("/linux/rootfsPropagation", json!("rslave")))?);
    Ok(())
}

/// What a kubelet calls Bidirectional.
fn a_shared_bind_reaches_the_host_when_the_root_is_shared(lab: &Lab) -> TestResult {
    let dir = shared_host(lab)?;
    let b = lab.bundle().set("/linux/rootfsPropagation", json!("rshared"));
    let b = b.mount("bind", &dir, "/mnt", &["rbind", "rshared"]).capabilities(&["CAP_SYS_ADMIN"]);
    lab.run(&b.sh("mount -t tmpfs t /mnt/inside && touch /mnt/inside/file")).ok();
    assert!(dir.join("inside/file").exists(), "{}", mountinfo()?);
    Ok(())
}

fn a_shared_bind_in_a_user_namespace_stays_inside(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    let dir = shared_host(lab)?;
    let b = mounts_below(lab.bundle(), None, &dir, &["rbind", "rshared"]).userns(200_000);
    let before = mountinfo()?;
    let output = lab.run(&b.set("/linux/rootfsPropagation", json!("rshared")));
    assert_eq!(mountinfo()?, before, "{output}");
    assert_eq!(output.ok().text(), "mounted");
    Ok(())
}

/// A whole procfs within reach is all it takes to mount another one, without the masks.
fn without_pivot_root_no_procfs_of_the_host_is_left(lab: &Lab) -> TestResult {
    lab.needs_userns()?;
    lab.private_mounts()?;
    let script = "unshare -m -r -p -f sh -c 'mount -t proc p /mnt && echo proc; mount -t sysfs s /mnt && echo sys'; echo end";
    for flags in [&[] as &[&str], &["--no-pivot"]] {
        let b = lab.bundle().capabilities(&["CAP_SETFCAP", "CAP_SYS_CHROOT"]).sh(script);
        assert_eq!(lab.launch("run", &b, flags).go().ok().text(), "end", "{flags:?}");
    }
    Ok(())
}

fn what_the_runtime_binds_receives_nothing_from_the_host(lab: &Lab) -> TestResult {
    shared_host(lab)?;
    let script = "grep -E ' /(dev|proc|sys)' /proc/self/mountinfo | grep -E 'master|shared'; echo end";
    for b in [lab.bundle(), lab.bundle().userns(200_000)] {
        let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(lab.printed(&b.sh(script)), "end");
        if !lab.host.userns {
            break;
        }
    }
    Ok(())
}
