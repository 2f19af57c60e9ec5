//! Real mounts, each test in a mount namespace of its own thread. They need root.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hull_cgroup::mountinfo;

use super::*;
use crate::scratch::Scratch;

/// Runs `test` where its mounts disturb nobody; says so when that is not possible.
fn alone(name: &'static str, test: impl FnOnce(&Scratch) + Send + 'static) {
    let run = move || {
        let private = set_private();
        if let Err(errno) = private {
            println!("skipped: no mount namespace: {}", errno.desc());
            return;
        }
        let scratch = Scratch::new(name);
        scratch.dir("rootfs");
        test(&scratch);
        unmount_all(scratch.path()).unwrap();
    };
    std::thread::spawn(run).join().unwrap();
}

fn set_private() -> hull_sys::Result<()> {
    hull_sys::namespace::unshare(u64::from(libc::CLONE_NEWNS.cast_unsigned()))?;
    set_propagation(c"/", hull_sys::mount::propagation::PRIVATE | hull_sys::mount::RECURSIVE)
}

fn mount(kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Mount {
    Mount {
        type_: kind.to_owned(),
        source: source.as_ref().to_str().unwrap().to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// The line of the table for the mount at `point`, the last one.
fn line(point: &Path) -> String {
    let table = String::from_utf8(mountinfo::read().unwrap()).unwrap();
    let word = format!(" {} ", point.display());
    table.lines().rfind(|line| line.contains(&word)).unwrap_or_default().to_owned()
}

fn mounted_below(dir: &Path) -> usize {
    mountinfo::entries(&mountinfo::read().unwrap()).filter(|entry| entry.point.starts_with(dir)).count()
}

/// A tmpfs to make directories in that overlay takes as upper ones.
fn on_tmpfs(scratch: &Scratch) {
    mount_all(&[mount("tmpfs", "tmpfs", &[])], &scratch.dir("tmp")).unwrap();
}

#[test]
fn bind_is_recursive_only_when_asked() {
    alone("bind", |scratch| {
        let (source, rootfs) = (scratch.dir("source/below"), scratch.path().join("rootfs"));
        mount_all(&[mount("tmpfs", "tmpfs", &[])], &source).unwrap();
        fs::write(source.join("file"), "x").unwrap();
        let source = scratch.path().join("source");
        mount_all(&[mount("bind", &source, &["bind"])], &rootfs).unwrap();
        assert!(!rootfs.join("below/file").exists());
        mount_all(&[mount("bind", &source, &["rbind", "rw"])], &rootfs).unwrap();
        assert!(rootfs.join("below/file").exists());
        fs::write(rootfs.join("new"), "x").unwrap();
        unmount_all(&rootfs).unwrap();
        assert_eq!(mounted_below(&rootfs), 0);
        assert_eq!(mounted_below(&source), 1, "the source is left alone");
    });
}

#[test]
fn read_only_bind_keeps_what_its_source_has() {
    alone("bind-ro", |scratch| {
        let (source, rootfs) = (scratch.dir("source"), scratch.path().join("rootfs"));
        mount_all(&[mount("tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "noatime"])], &source).unwrap();
        mount_all(&[mount("bind", &source, &["rbind", "ro"])], &rootfs).unwrap();
        assert!(line(&rootfs).contains(" ro,nosuid,nodev,noexec,noatime"), "{}", line(&rootfs));
        assert_eq!(fs::write(rootfs.join("new"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
        fs::write(source.join("new"), "x").unwrap();
    });
}

#[test]
fn file_system_has_the_flags_it_was_given() {
    alone("flags", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        let options =
            ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow", "sync", "mode=700"];
        mount_all(&[mount("tmpfs", "mine", &options)], &rootfs).unwrap();
        let line = line(&rootfs);
        assert!(line.contains(" ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow "), "{line}");
        assert!(line.contains(" tmpfs mine ro,sync,"), "{line}");
        assert_eq!(fs::metadata(&rootfs).unwrap().mode() & 0o777, 0o700);
    });
}

#[test]
fn propagation_is_what_was_asked_for() {
    alone("propagation", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        let fields = |options: &[&str]| {
            mount_all(&[mount("tmpfs", "tmpfs", options)], &rootfs).unwrap();
            let line = line(&rootfs);
            unmount_all(&rootfs).unwrap();
            line.split(" - ").next().unwrap().split(' ').skip(6).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fields(&[]), "");
        assert!(fields(&["rshared"]).starts_with("shared:"));
        assert_eq!(fields(&["shared", "rprivate"]), "");
        assert_eq!(fields(&["unbindable"]), "unbindable");
        let source = scratch.dir("source");
        mount_all(&[mount("tmpfs", "tmpfs", &["shared"])], &source).unwrap();
        mount_all(&[mount("bind", &source, &["rbind", "rslave"])], &rootfs).unwrap();
        assert!(line(&rootfs).contains(" master:"), "{}", line(&rootfs));
    });
}

#[test]
fn target_is_a_path_inside_of_what_is_mounted_already() {
    alone("target", |scratch| {
        let (layer, rootfs) = (scratch.dir("layer"), scratch.path().join("rootfs"));
        scratch.dir("layer/data");
        // Would lead out of the rootfs for anybody else.
        std::os::unix::fs::symlink("/data", layer.join("link")).unwrap();
        let mut second = mount("tmpfs", "tmpfs", &["size=1m"]);
        second.target = "/link".to_owned();
        mount_all(&[mount("bind", &layer, &["rbind"]), second], &rootfs).unwrap();
        assert!(line(&rootfs.join("data")).contains("size=1024k"));
        unmount_all(&rootfs).unwrap();
        assert_eq!(mounted_below(&rootfs), 0);
    });
}

#[test]
fn failure_takes_back_what_was_mounted_and_is_named() {
    alone("undo", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        let mut missing = mount("tmpfs", "tmpfs", &["size=1m", "ro"]);
        missing.target = "none".to_owned();
        let list = [mount("tmpfs", "tmpfs", &[]), mount("tmpfs", "tmpfs", &["rshared"]), missing];
        let error = mount_all(&list, &rootfs).unwrap_err();
        let place = rootfs.display();
        let wanted =
            format!("mount tmpfs on {place}/none (size=1m,ro): open {place}/none: no such file or directory");
        assert_eq!(error.message, wanted);
        assert_eq!(mounted_below(&rootfs), 0);
    });
}

#[test]
fn errors_say_what_the_kernel_says() {
    alone("errors", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        let place = rootfs.display();
        let refused = |mount: Mount| mount_all(&[mount], &rootfs).unwrap_err().message;
        let source = scratch.path().join("none");
        assert_eq!(
            refused(mount("bind", &source, &["rbind"])),
            format!("mount bind on {place} (rbind): open {}: no such file or directory", source.display())
        );
        assert_eq!(refused(mount("nofs", "x", &[])), format!("mount nofs on {place} (): no such device"));
        let odd = refused(mount("tmpfs", "x", &["oddity=1"]));
        let wanted = format!(
            "mount tmpfs on {place} (oddity=1): invalid argument (tmpfs: Unknown parameter 'oddity')"
        );
        assert_eq!(odd, wanted);
        let word = refused(mount("tmpfs", "x", &["ro", "X-containerd.mkdir.path=/x"]));
        assert!(word.ends_with(": option X-containerd.mkdir.path=/x is not supported"), "{word}");
        let long = refused(mount("overlay", "overlay", &[&format!("lowerdir=/{}", "x".repeat(300))]));
        assert!(long.contains("xxx...): "), "{long}");
        assert_eq!(mounted_below(&rootfs), 0);
    });
}

#[test]
fn rootfs_that_is_no_directory_is_refused() {
    alone("no-dir", |scratch| {
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink("rootfs", &link).unwrap();
        let error = mount_all(&[mount("tmpfs", "tmpfs", &[])], &link).unwrap_err();
        let place = link.display();
        assert_eq!(error.message, format!("mount tmpfs on {place} (): open {place}: not a directory"));
    });
}

/// Layers `0` to `count` below `dir`, each with a file of its name, as a `lowerdir`.
fn layers(dir: &Path, count: usize) -> String {
    let layer = |number: usize| {
        let layer = dir.join(number.to_string());
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("file{number}")), "x").unwrap();
        layer.to_str().unwrap().to_owned()
    };
    (0..count).map(layer).collect::<Vec<_>>().join(":")
}

fn overlay(scratch: &Scratch, lower: &str) -> Mount {
    for dir in ["tmp/upper", "tmp/work"] {
        scratch.dir(dir);
    }
    let dir = scratch.path().join("tmp");
    let place = |name: &str| dir.join(name).display().to_string();
    let (upper, work) = (format!("upperdir={}", place("upper")), format!("workdir={}", place("work")));
    mount("overlay", "overlay", &["index=off", &format!("lowerdir={lower}"), &work, &upper])
}

#[test]
fn overlay_takes_few_layers_and_many() {
    alone("overlay", |scratch| {
        on_tmpfs(scratch);
        let rootfs = scratch.path().join("rootfs");
        for count in [1, 2, 30, 200] {
            let lower = layers(&scratch.dir("tmp/layers"), count);
            mount_all(&[overlay(scratch, &lower)], &rootfs).unwrap();
            assert!(rootfs.join(format!("file{}", count - 1)).exists());
            fs::write(rootfs.join("new"), "x").unwrap();
            unmount_all(&rootfs).unwrap();
            assert!(scratch.path().join("tmp/upper/new").exists());
        }
    });
}

#[test]
fn overlay_without_an_upper_directory_is_read_only() {
    alone("overlay-ro", |scratch| {
        on_tmpfs(scratch);
        let (rootfs, lower) = (scratch.path().join("rootfs"), layers(&scratch.dir("tmp/l"), 2));
        let options = ["ro", &format!("lowerdir={lower}")];
        mount_all(&[mount("overlay", "overlay", &options)], &rootfs).unwrap();
        assert_eq!(fs::write(rootfs.join("new"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
    });
}

#[test]
fn colon_in_the_name_of_a_layer_is_kept() {
    alone("overlay-colon", |scratch| {
        on_tmpfs(scratch);
        let (rootfs, odd) = (scratch.path().join("rootfs"), scratch.dir("tmp/a:b"));
        fs::write(odd.join("file"), "x").unwrap();
        let odd = odd.display().to_string().replace(':', "\\:");
        for more in [1, 30] {
            let lower = format!("{odd}:{}", layers(&scratch.dir("tmp/l"), more));
            mount_all(&[overlay(scratch, &lower)], &rootfs).unwrap();
            assert!(rootfs.join("file").exists());
            unmount_all(&rootfs).unwrap();
        }
    });
}

/// What kernels before 6.7 get.
#[test]
fn overlay_goes_the_old_way_with_names_and_with_numbers() {
    alone("overlay-old", |scratch| {
        on_tmpfs(scratch);
        let rootfs = scratch.path().join("rootfs");
        let here = std::env::current_dir().unwrap();
        for count in [30, 200] {
            let lower = layers(&scratch.dir("tmp/layers"), count);
            let mount = overlay(scratch, &lower);
            let mut options = Options::parse(&mount.options).unwrap();
            options.own.retain(|(key, _)| key != "lowerdir");
            let place = place(&mount, &rootfs).unwrap();
            let made = overlay::make_old(&mount, &options, &lower, place.as_fd()).unwrap();
            assert_eq!(mounted_below(&rootfs), 0, "not attached yet");
            attach(made.as_fd(), place.as_fd()).unwrap();
            drop((made, place));
            assert!(rootfs.join(format!("file{}", count - 1)).exists());
            fs::write(rootfs.join("new"), "x").unwrap();
            unmount_all(&rootfs).unwrap();
            assert_eq!(std::env::current_dir().unwrap(), here);
        }
    });
}

#[test]
fn option_longer_than_a_call_takes_is_mounted_the_old_way() {
    alone("long", |scratch| {
        on_tmpfs(scratch);
        let rootfs = scratch.path().join("rootfs");
        let long = format!("tmp/{}/{}", "u".repeat(150), "v".repeat(150));
        let upper = scratch.dir(&format!("{long}/upper"));
        let lower = layers(&scratch.dir("tmp/l"), 2);
        let mut mount = overlay(scratch, &lower);
        mount.options.pop();
        mount.options.push(format!("upperdir={}", upper.display()));
        mount.options.extend(["noexec".to_owned(), "rshared".to_owned()]);
        mount_all(&[mount], &rootfs).unwrap();
        assert!(line(&rootfs).contains(" rw,noexec,relatime shared:"), "{}", line(&rootfs));
        fs::write(rootfs.join("new"), "x").unwrap();
        assert!(upper.join("new").exists());
    });
}

/// Directories with mapped ids lie where the tests do: before Linux 6.3 a tmpfs would not do.
const MAPS: [&str; 2] = ["uidmap=0:1000:10", "gidmap=0:2000:10"];

/// Who owns `file`.
fn owner(file: &Path) -> (u32, u32) {
    let data = fs::metadata(file).unwrap();
    (data.uid(), data.gid())
}

#[test]
fn ids_of_a_bind_are_mapped() {
    alone("idmap-bind", |scratch| {
        let (source, rootfs) = (scratch.dir("tmp/source"), scratch.path().join("rootfs"));
        fs::write(source.join("file"), "x").unwrap();
        let options = ["rbind", MAPS[0], MAPS[1]];
        match mount_all(&[mount("bind", &source, &options)], &rootfs) {
            Ok(()) => assert_eq!(owner(&rootfs.join("file")), (1000, 2000)),
            Err(error) => println!("skipped: {error}"),
        }
        assert_eq!(owner(&source.join("file")), (0, 0));
    });
}

#[test]
fn ids_of_lower_directories_are_mapped() {
    alone("idmap-overlay", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        for count in [1, 40] {
            let lower = layers(&scratch.dir("tmp/l"), count);
            let mut mount = overlay(scratch, &lower);
            mount.options.extend(MAPS.map(str::to_owned));
            if let Err(error) = mount_all(&[mount], &rootfs) {
                println!("skipped: {error}");
                return;
            }
            assert_eq!(owner(&rootfs.join(format!("file{}", count - 1))), (1000, 2000));
            assert_eq!(mounted_below(&rootfs), 1, "the copies are gone");
            unmount_all(&rootfs).unwrap();
        }
    });
}

#[test]
fn file_is_shown_as_a_device_while_it_is_mounted() {
    alone("loop", |scratch| {
        let (image, rootfs) = (scratch.path().join("image"), scratch.path().join("rootfs"));
        let file = fs::File::create(&image).unwrap();
        file.set_len(4 << 20).unwrap();
        let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(&image).status();
        if !made.is_ok_and(|status| status.success()) || !Path::new("/dev/loop-control").exists() {
            println!("skipped: no mkfs.ext4, or no loop devices");
            return;
        }
        mount_all(&[mount("ext4", &image, &["loop", "nosuid"])], &rootfs).unwrap();
        fs::write(rootfs.join("new"), "x").unwrap();
        let device = line(&rootfs).split(" - ext4 ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let backing =
            Path::new("/sys/block").join(device.trim_start_matches("/dev/")).join("loop/backing_file");
        assert_eq!(fs::read_to_string(&backing).unwrap().trim(), image.to_str().unwrap());
        unmount_all(&rootfs).unwrap();
        assert!(!backing.exists(), "the device is free again");
        mount_all(&[mount("ext4", &image, &["ro", "loop", "direct-io"])], &rootfs).unwrap();
        assert!(rootfs.join("new").exists());
        assert!(line(&rootfs).contains(" ro,relatime "), "{}", line(&rootfs));
        let missing =
            mount_all(&[mount("ext4", image.with_extension("no"), &["loop"])], &rootfs).unwrap_err();
        assert!(missing.message.ends_with("image.no: no such file or directory"), "{missing}");
    });
}

#[test]
fn helper_is_given_all_and_may_leave_a_program_behind() {
    alone("helper-runs", |scratch| {
        if !Path::new("/usr/sbin/mount.fuse3").exists() {
            println!("skipped: no mount.fuse3");
            return;
        }
        let (rootfs, program) = (scratch.path().join("rootfs"), scratch.path().join("program"));
        // What it leaves behind holds the helper's streams open.
        let script = "#!/bin/sh\nmount -t tmpfs \"$1\" \"$2\" && echo \"$@\" >\"$2\"/words\nsleep 2 &\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let kind = format!("fuse3.{}", program.display());
        let before = std::time::Instant::now();
        mount_all(&[mount(&kind, "mine", &["ro", "x=1"])], &rootfs).unwrap();
        assert!(before.elapsed().as_millis() < 1500, "{:?}", before.elapsed());
        assert!(line(&rootfs).contains(" tmpfs mine "));
        let words = fs::read_to_string(rootfs.join("words")).unwrap();
        assert!(
            words.starts_with(&format!("mine {} -o ro,", rootfs.display())) && words.contains("x=1"),
            "{words}"
        );
    });
}

#[test]
fn helper_that_fails_is_quoted() {
    alone("helper", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        let error = mount_all(&[mount("fuse3.hull-none", "x", &["ro"])], &rootfs).unwrap_err();
        assert!(
            error.message.contains("(ro): mount.fuse3 ended with")
                || error.message.contains("run mount.fuse3")
        );
    });
}

#[test]
fn busy_mount_is_waited_for() {
    alone("busy", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        mount_all(&[mount("tmpfs", "tmpfs", &[])], &rootfs).unwrap();
        let file = fs::File::create(rootfs.join("file")).unwrap();
        let (told, tell) = std::sync::mpsc::channel::<()>();
        let user = std::thread::spawn(move || {
            let file = file;
            tell.recv().unwrap_err();
            std::thread::sleep(std::time::Duration::from_millis(200));
            drop(file);
        });
        drop(told);
        unmount_all(&rootfs).unwrap();
        user.join().unwrap();
        assert_eq!(mounted_below(&rootfs), 0);
    });
}

#[test]
fn mount_that_stays_busy_is_named_and_others_are_served() {
    alone("busy-async", |scratch| {
        let rootfs = scratch.path().join("rootfs");
        mount_all(&[mount("tmpfs", "tmpfs", &[])], &rootfs).unwrap();
        let file = fs::File::create(rootfs.join("file")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let served = std::cell::Cell::new(0);
        let others = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                served.set(served.get() + 1);
            }
        };
        let result = runtime.block_on(async {
            tokio::select! { result = unmount_all_async(&rootfs) => result, () = others => unreachable!() }
        });
        assert_eq!(
            result.unwrap_err().message,
            format!("unmount {}: device or resource busy", rootfs.display())
        );
        assert!(served.get() > 10);
        drop(file);
        unmount_all(&rootfs).unwrap();
    });
}

#[test]
fn symlink_on_top_does_not_lead_the_unmounting_astray() {
    alone("astray", |scratch| {
        let (rootfs, victim) = (scratch.path().join("rootfs"), scratch.dir("victim"));
        mount_all(&[mount("tmpfs", "tmpfs", &[])], &victim).unwrap();
        scratch.dir("rootfs/a/victim");
        mount_all(&[mount("tmpfs", "tmpfs", &[])], &rootfs.join("a/victim")).unwrap();
        mount_all(&[mount("tmpfs", "tmpfs", &[])], &rootfs).unwrap();
        std::os::unix::fs::symlink(scratch.path(), rootfs.join("a")).unwrap();
        unmount_all(&rootfs).unwrap();
        assert_eq!(mounted_below(&rootfs), 0);
        assert_eq!(mounted_below(&victim), 1);
    });
}
