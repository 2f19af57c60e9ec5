//! Known escapes of this field and hostile configs. "Canary" is a file or directory of the host that must not
//! change; refusing the container is as good as confining it.

use hull_integration::{Bundle, Lab, Stop, TestResult, skip, tests};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

tests! {
    a_program_that_is_the_runtime_itself_changes_nothing,
    the_binary_of_the_runtime_cannot_be_written_from_inside,
    paths_of_the_config_through_symlinks_stay_inside,
    proc_as_a_symlink_is_refused,
    sysctl_keys_with_separators_are_refused,
    exchange_of_a_destination_keeps_the_host_clean.breaks_on(&[("runc 1.1", "CVE-2024-45310: directories are made on the host")]),
    exec_cap_leaves_the_inheritable_set_empty,
    cwd_in_a_leaked_descriptor_is_refused.breaks_on(&[("crun 1.8", "CVE-2024-21626 class")]),
    exec_cwd_in_a_leaked_descriptor_is_refused.breaks_on(&[("crun 1.8", "CVE-2024-21626 class")]),
    uid_forms_of_the_config.breaks_on(&[("crun", "config.md#posix-platform-user: 4294967295 runs as 0, \"0\" and true are taken as 0")]),
    uid_forms_of_exec.breaks_on(&[("runc", "4294967296 is no id; exec -u runs as uid 0"), ("crun 1.8", "4294967296 is no id; exec -u runs as uid 0")]),
    dev_null_of_the_image_as_a_symlink.breaks_on(&[("runc 1.1", "stdout goes to the file of the image"), ("crun 1.8", "stdout goes to the file of the image")]),
    dev_null_of_the_image_as_a_file.breaks_on(&[("runc 1.1", "stdout goes to the file of the image"), ("crun 1.8", "stdout goes to the file of the image")]),
    dev_as_a_symlink_to_the_host.breaks_on(&[("runc 1.1", "CVE-2026-41579: /dev is a symlink")]),
    dev_as_a_symlink_without_the_tmpfs.breaks_on(&[("runc 1.1", "CVE-2026-41579: /dev is a symlink"), ("crun 1.8", "CVE-2026-47766: /dev is a symlink")]),
    readonly_path_through_a_symlink_keeps_the_host_writable,
    zero_bytes_in_strings_are_refused.breaks_on(&[("runc", "docs/differences.md: \\u0000 in a string is refused; accepted in hostname"), ("crun", "docs/differences.md: \\u0000 in a string is refused; the string is cut there")]),
    duplicate_keys_are_refused.breaks_on(&[("runc", "docs/differences.md: a key given twice is refused; the last wins"), ("crun", "docs/differences.md: a key given twice is refused; the first wins")]),
    keys_of_other_case_are_never_merged.breaks_on(&[("runc", "docs/differences.md: JSON keys are exact; theirs match in any case")]),
    deep_nesting_is_refused_or_ignored.breaks_on(&[("crun", "docs/differences.md: at most 64 levels; SIGSEGV at a million")]),
    a_huge_config_ends_in_time,
    many_environment_entries_end_in_time.breaks_on(&[("runc 1.1", "its time grows with the square of the number of entries"), ("crun 1.8", "its time grows with the square of the number of entries")]),
    many_mounts_end_in_time,
    exec_processes_have_no_host_descriptors_to_steal.breaks_on(&[("crun 1.8", "CVE-2016-9962 class: descriptors of the caller are open while joining")]),
    rootfs_that_is_the_host_root_is_not_mounted_over,
    init_keyring_is_its_own,
    process_cannot_ptrace_its_way_to_the_runtime,
    the_binary_on_a_mount_that_cannot_be_bound_is_sealed,
    files_of_the_image_that_do_not_answer_hold_nothing_up.breaks_on(&[
        ("runc", "passwd and group are opened with blocking"),
        ("crun", "passwd is opened with blocking"),
    ]),
    files_of_the_host_behind_stdio_keep_their_owner.breaks_on(&[
        ("crun", "fchown of whatever stdio is"),
    ]),
    a_watcher_sees_nothing_of_the_host_in_an_exec.limit_s(240).breaks_on(&[
        ("runc 1.1", "now and then a descriptor of a process that joins can be opened"),
        ("crun 1.8", "CVE-2016-9962 class: the host's root is within reach while joining"),
    ]),
    a_watcher_sees_nothing_of_the_host_in_a_create_that_joins_its_pid_namespace.limit_s(240).breaks_on(&[
        ("runc", "the host's root is within reach until pivot_root"),
        ("crun", "the host's root is within reach until pivot_root"),
    ]),
}

/// A host directory that must not change.
fn canary(lab: &Lab) -> Result<PathBuf, Stop> {
    let dir = lab.new_dir("canary");
    fs::write(dir.join("file"), "canary")?;
    fs::write(dir.join("ptmx"), "canary")?;
    Ok(dir)
}

#[track_caller]
fn untouched(dir: &Path) {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("list")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "ptmx"], "the listing changed");
    for name in ["file", "ptmx"] {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap_or_default(), "canary", "{name} changed");
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    assert!(!table.contains(&dir.display().to_string()), "something is mounted there");
}

/// The container starts or is refused; the runtime is not killed by a signal.
#[track_caller]
fn orderly(output: hull_integration::Output) -> hull_integration::Output {
    assert!(output.rc >= 0, "the runtime died: {output}");
    output
}

fn checksum(path: &Path) -> Result<(u64, Vec<u8>), Stop> {
    let bytes = fs::read(path)?;
    Ok((bytes.len() as u64, bytes))
}

fn a_program_that_is_the_runtime_itself_changes_nothing(lab: &Lab) -> TestResult {
    let before = checksum(&lab.runtime.path)?;
    let b = lab.bundle().file("/evil", "#!/proc/self/exe\n", 0o755).args(&["/evil"]);
    lab.launch("run", &b, &[]).spawn().wait_for(std::time::Duration::from_secs(20))?;
    assert!(checksum(&lab.runtime.path)? == before, "the binary of the runtime changed");
    Ok(())
}

/// Opens for writing only: nothing would be written even if it worked. The loop meets init and exec processes.
fn the_binary_of_the_runtime_cannot_be_written_from_inside(lab: &Lab) -> TestResult {
    let own = fs::canonicalize(&lab.runtime.path)?;
    let script = "while :; do for e in /proc/[0-9]*/exe; do \
        l=$(readlink $e); case \"$l\" in /bin/busybox) ;; '') ;; *) (: >> $e) 2>/dev/null && echo \"WROTE $l\" >> /found;; esac; \
        done; done";
    let b = lab.bundle().powerful().sh(script);
    let before = fs::metadata(&own)?.modified()?;
    lab.up(&b);
    for _ in 0..30 {
        lab.exec(&b.id, &["/bin/true"]).ok();
    }
    let found = b.read("/found");
    // A private copy (a sealed memfd, an overlay) may be writable in name only: what counts is the host's file.
    assert!(!found.contains(&own.display().to_string()), "{found}");
    assert!(fs::metadata(&own)?.modified()? == before);
    Ok(())
}

fn paths_of_the_config_through_symlinks_stay_inside(lab: &Lab) -> TestResult {
    let canary = canary(lab)?;
    let up = format!("../../../../../../../..{}", canary.display());
    for target in [canary.clone(), PathBuf::from(up)] {
        let device = json!({"path": "/link/dev", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666});
        let changes: [&dyn Fn(Bundle) -> Bundle; 6] = [
            &|b| b.mount("tmpfs", "tmpfs", "/link/made", &[]),
            &|b| b.mount("bind", "/etc/passwd", "/link/file2", &["bind"]),
            &|b| b.push("/linux/devices", device.clone()),
            &|b| b.push("/linux/maskedPaths", json!("/link/file")),
            &|b| b.push("/linux/readonlyPaths", json!("/link")),
            &|b| b.set("/process/cwd", json!("/link/made")),
        ];
        for change in changes {
            let b = change(lab.bundle());
            symlink(&target, b.path("/link"))?;
            orderly(lab.run(&b));
            untouched(&canary);
        }
    }
    Ok(())
}

fn proc_as_a_symlink_is_refused(lab: &Lab) -> TestResult {
    for name in ["proc", "sys"] {
        let b = lab.bundle();
        fs::create_dir(b.path("/elsewhere"))?;
        fs::remove_dir(b.path(name))?;
        symlink("/elsewhere", b.path(name))?;
        let output = lab.run(&b);
        assert!(output.rc > 0, "/{name} as a symlink was accepted: {output}");
    }
    Ok(())
}

fn sysctl_keys_with_separators_are_refused(lab: &Lab) -> TestResult {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    for key in [
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "kernel.shm_rmid_forced=1+kernel.core_pattern",
        "net.ipv4.ip_forward\nkernel.core_pattern",
        "net.ipv4.ip_forward kernel.core_pattern",
        "/kernel/core_pattern",
        "net..ipv4.ip_forward/../../../kernel/core_pattern",
        "",
    ] {
        // The value is the one of the host: nothing changes even if it is written.
        let b = lab.bundle().edit(|spec| spec["linux"]["sysctl"] = json!({key: before.trim()}));
        let output = orderly(lab.run(&b));
        assert!(output.rc > 0, "{key:?} was accepted");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern")?, before);
    Ok(())
}

/// A process of the host swaps a directory of the image and a symlink to the canary while mounts are made there.
fn exchange_of_a_destination_keeps_the_host_clean(lab: &Lab) -> TestResult {
    use std::sync::atomic::{AtomicBool, Ordering};
    let canary = canary(lab)?;
    let mut b = lab.bundle();
    for i in 0..6 {
        b = b.mount("tmpfs", "tmpfs", &format!("/mnt/a/d{i}"), &["size=4k"]);
    }
    let (a, other) = (b.path("/mnt/a"), b.path("/mnt/b"));
    fs::create_dir(&a)?;
    symlink(&canary, &other)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hull_integration::sys::exchange(&a, &other).expect("exchange");
            }
        });
        for _ in 0..30 {
            orderly(lab.run(&b));
        }
        done.store(true, Ordering::Relaxed);
    });
    untouched(&canary);
    Ok(())
}

fn exec_cap_leaves_the_inheritable_set_empty(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let output =
        lab.rt(&["exec", "--cap", "CAP_NET_RAW", &b.id, "/bin/grep", "CapInh", "/proc/self/status"]).ok();
    assert_eq!(output.text(), "CapInh:\t0000000000000000");
    Ok(())
}

/// Exit code 66: a file of the host was read.
fn steal(lab: &Lab, canary: &Path) -> String {
    format!("for up in . .. ../.. ../../..; do grep -qs canary-{} $up/file && exit 66; done; exit 0", lab.tag)
        .replace("file", &canary.join("file").file_name().unwrap_or_default().to_string_lossy())
}

fn marked_canary(lab: &Lab) -> Result<PathBuf, Stop> {
    let dir = lab.new_dir("canary");
    fs::write(dir.join("file"), format!("canary-{}", lab.tag))?;
    Ok(dir)
}

fn cwd_in_a_leaked_descriptor_is_refused(lab: &Lab) -> TestResult {
    let canary = marked_canary(lab)?;
    let dir = canary.display();
    for number in 3..=15 {
        let b = lab
            .bundle()
            .set("/process/cwd", json!(format!("/proc/self/fd/{number}")))
            .sh(&steal(lab, &canary));
        let words = format!("3<{dir} 4<{dir} 5<{dir}");
        let output = orderly(lab.launch("run", &b, &[]).redirect(lab, &words).go());
        assert!(output.rc != 66, "a file of the host was read through descriptor {number}");
    }
    Ok(())
}

fn exec_cwd_in_a_leaked_descriptor_is_refused(lab: &Lab) -> TestResult {
    let canary = marked_canary(lab)?;
    let dir = canary.display();
    let b = lab.bundle().waits();
    lab.up(&b);
    for number in 3..=15 {
        let cwd = format!("/proc/self/fd/{number}");
        let call = lab.call(&["exec", "--cwd", &cwd, &b.id, "/bin/sh", "-c", &steal(lab, &canary)]);
        let output = orderly(call.redirect(lab, &format!("3<{dir} 4<{dir} 5<{dir}")).go());
        assert!(output.rc != 66, "a file of the host was read through descriptor {number}");
    }
    Ok(())
}

fn uid_forms_of_the_config(lab: &Lab) -> TestResult {
    for field in ["uid", "gid"] {
        let forms = ["-1", "4294967295", "4294967296", "18446744073709551616", "\"0\"", "true", "1.5", "[]"];
        for form in forms {
            let value: Value = serde_json::from_str(form)?;
            let b = lab.bundle().set(&format!("/process/user/{field}"), value).sh("id -u; id -g");
            let output = orderly(lab.run(&b));
            assert!(output.rc > 0, "{field} {form} was accepted as {:?}", output.text());
        }
    }
    let b = lab.bundle().set("/process/user", json!({"uid": 2_147_483_648u32, "gid": 4_294_967_294u32}));
    let output = lab.run(&b.args(&["/bin/grep", "-E", "^[UG]id", "/proc/self/status"]));
    assert!(output.rc > 0 || output.text().contains("2147483648"), "{output}");
    Ok(())
}

fn uid_forms_of_exec(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    for form in [
        "-1",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1.0",
        "0x0",
        "1:-1",
        "1:4294967296",
        "1:x",
        ":",
        "+1",
        " 1",
    ] {
        let output = orderly(lab.call(&["exec", &format!("--user={form}"), &b.id, "/bin/id", "-u"]).go());
        assert!(output.rc > 0, "--user {form:?} was accepted as {:?}", output.text());
    }
    for form in ["-1", "4294967295", "4294967296", "x"] {
        let output =
            orderly(lab.call(&["exec", &format!("--additional-gids={form}"), &b.id, "/bin/id", "-G"]).go());
        assert!(output.rc > 0, "--additional-gids {form:?} was accepted as {:?}", output.text());
    }
    Ok(())
}

fn without_dev(lab: &Lab) -> Bundle {
    lab.bundle().edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"].as_str().is_none_or(|d| !d.starts_with("/dev")));
    })
}

fn dev_null_of_the_image_as_a_symlink(lab: &Lab) -> TestResult {
    for target in ["/captured", "/proc/sys/kernel/hostname"] {
        let b =
            without_dev(lab).push("/linux/maskedPaths", json!("/secret")).file("/secret", "secret", 0o644);
        let b = b.file("/captured", "", 0o666).sh("echo to-the-caller; cat /secret");
        symlink(target, b.path("/dev/null"))?;
        let output = orderly(lab.run(&b));
        if output.rc == 0 {
            assert_eq!(
                output.text(),
                "to-the-caller",
                "{target}: output was diverted or the mask does not hold"
            );
        }
        assert_eq!(b.read("/captured"), "", "{target}: the image's file got the output");
    }
    Ok(())
}

fn dev_null_of_the_image_as_a_file(lab: &Lab) -> TestResult {
    let b = without_dev(lab).push("/linux/maskedPaths", json!("/secret")).file("/secret", "secret", 0o644);
    let b = b.file("/dev/null", "", 0o666).sh("echo to-the-caller; cat /secret");
    let output = orderly(lab.run(&b));
    if output.rc == 0 {
        assert_eq!(output.text(), "to-the-caller");
    }
    assert!(
        fs::symlink_metadata(b.path("/dev/null"))?.file_type().is_char_device()
            || b.read("/dev/null").is_empty()
    );
    Ok(())
}

fn dev_as_symlink(lab: &Lab, b: &Bundle) -> TestResult {
    let canary = canary(lab)?;
    fs::remove_dir_all(b.path("/dev"))?;
    symlink(&canary, b.path("/dev"))?;
    orderly(lab.run(b));
    untouched(&canary);
    Ok(())
}

fn dev_as_a_symlink_to_the_host(lab: &Lab) -> TestResult {
    dev_as_symlink(lab, &lab.bundle())
}

fn dev_as_a_symlink_without_the_tmpfs(lab: &Lab) -> TestResult {
    dev_as_symlink(lab, &without_dev(lab))
}

fn readonly_path_through_a_symlink_keeps_the_host_writable(lab: &Lab) -> TestResult {
    let canary = canary(lab)?;
    let b = lab.bundle().push("/linux/readonlyPaths", json!("/link"));
    symlink(&canary, b.path("/link"))?;
    orderly(lab.run(&b));
    fs::write(canary.join("file"), "canary")?;
    untouched(&canary);
    Ok(())
}

fn zero_bytes_in_strings_are_refused(lab: &Lab) -> TestResult {
    for pointer in [
        "/process/args/0",
        "/process/env/0",
        "/process/cwd",
        "/mounts/0/destination",
        "/linux/maskedPaths/0",
        "/hostname",
    ] {
        let b = lab.bundle();
        let old = b.spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let output = orderly(lab.run(&b.set(pointer, json!(format!("{old}\u{0}x")))));
        assert!(output.rc > 0, "a zero byte in {pointer} was accepted");
    }
    Ok(())
}

/// A config text instead of a value.
fn run_text(lab: &Lab, b: &Bundle, text: &str) -> hull_integration::Output {
    fs::write(b.dir.join("config.json"), text).expect("write config.json");
    lab.remember(&b.id);
    lab.call(&["run", "--bundle", &b.dir.to_string_lossy(), &b.id]).go()
}

fn duplicate_keys_are_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let good = b.spec.to_string();
    let process = b.spec["process"].to_string();
    let text = format!("{{\"process\":{process},{}", &good[1..]);
    let output = orderly(run_text(lab, &b, &text));
    assert!(output.rc > 0, "a duplicate key was accepted");
    Ok(())
}

fn keys_of_other_case_are_never_merged(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/echo", "lower"]);
    let mut process = b.spec["process"].clone();
    process["args"] = json!(["/bin/echo", "UPPER"]);
    let good = b.spec.to_string();
    let text = format!("{},\"PROCESS\":{process}}}", &good[..good.len() - 1]);
    let output = orderly(run_text(lab, &b, &text));
    assert!(!output.text().contains("UPPER"), "{output}");
    Ok(())
}

fn deep_nesting_is_refused_or_ignored(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let good = b.spec.to_string();
    for levels in [10_000, 1_000_000] {
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let output = run_text(lab, &b, &format!("{},\"x\":{deep}}}", &good[..good.len() - 1]));
        orderly(output);
    }
    Ok(())
}

fn a_huge_config_ends_in_time(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let good = b.spec.to_string();
    let text = format!("{},\"x\":\"{}\"}}", &good[..good.len() - 1], "a".repeat(100_000_000));
    let output = orderly(run_text(lab, &b, &text));
    assert!(output.took.as_secs() < 5, "{output}");
    Ok(())
}

fn many_environment_entries_end_in_time(lab: &Lab) -> TestResult {
    let env: Vec<String> = (0..100_000).map(|i| format!("V{i}=x")).collect();
    let output = orderly(lab.run(&lab.bundle().set("/process/env", json!(env))));
    assert!(output.took.as_secs() < 5, "{output}");
    Ok(())
}

fn many_mounts_end_in_time(lab: &Lab) -> TestResult {
    let mut b = lab.bundle();
    for i in 0..300 {
        b = b.mount("tmpfs", "tmpfs", &format!("/mnt/{i}"), &["size=4k"]);
    }
    let output = lab.run(&b).ok();
    assert!(output.took.as_secs() < 20, "{output}");
    Ok(())
}

/// The container looks at the descriptors of every process that enters it.
fn exec_processes_have_no_host_descriptors_to_steal(lab: &Lab) -> TestResult {
    let canary = canary(lab)?;
    let script = "while :; do ls -l /proc/[0-9]*/fd 2>/dev/null | grep canary >> /found; done";
    let b = lab.bundle().powerful().sh(script);
    lab.up(&b);
    for _ in 0..30 {
        let call = lab.call(&["exec", &b.id, "/bin/true"]);
        call.redirect(lab, &format!("3<{0} 4<{0} 9<{0}", canary.display())).go().ok();
    }
    assert_eq!(b.read("/found"), "");
    Ok(())
}

fn rootfs_that_is_the_host_root_is_not_mounted_over(lab: &Lab) -> TestResult {
    lab.private_mounts()?;
    let points = || -> Result<Vec<String>, Stop> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(table.lines().filter_map(|l| l.split(' ').nth(4)).map(String::from).collect())
    };
    let before = points()?;
    for path in ["/", "/proc/self/root"] {
        orderly(lab.create(&lab.bundle().set("/root/path", json!(path)).set("/root/readonly", json!(true))));
    }
    // Mounts of other tests may go away meanwhile; none may come.
    let new: Vec<String> = points()?.into_iter().filter(|p| !before.contains(p)).collect();
    assert!(new.is_empty(), "mounts on the host: {new:?}");
    Ok(())
}

fn init_keyring_is_its_own(lab: &Lab) -> TestResult {
    if !Path::new("/proc/keys").exists() {
        return skip("the kernel has no keyrings");
    }
    let b = lab.bundle().edit(|s| s["linux"]["maskedPaths"] = json!([])).powerful();
    let keys = lab.printed(&b.clone().args(&["/bin/cat", "/proc/keys"]));
    assert!(keys.contains(&format!("_ses.{}", b.id)) || keys.contains(&b.id), "{keys}");
    Ok(())
}

/// What a process of the container can reach through init while that waits for start.
fn process_cannot_ptrace_its_way_to_the_runtime(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    let script = "for f in /proc/1/fd/*; do test -d $f && readlink $f; done; readlink /proc/1/cwd; readlink /proc/1/root";
    let seen = lab.exec(&b.id, &["/bin/sh", "-c", script]).out();
    assert!(seen.lines().all(|l| l == "/"), "directories of the host within reach: {seen}");
    Ok(())
}

/// A container that watches with every right but a user namespace's. Answers it and the host's file it looks for.
fn watcher(lab: &Lab) -> Result<(Bundle, PathBuf), Stop> {
    let canary = lab.new_dir("canary").join("file");
    fs::write(&canary, "canary")?;
    let b = lab.probe_bundle()?.powerful();
    let b = b.args(&["/bin/probe", "watch", &canary.to_string_lossy()]);
    lab.up(&b);
    lab.eventually("the watcher watches", || b.path("/watching").exists());
    Ok((b, canary))
}

/// What the watcher found; it must have seen at least this many processes.
#[track_caller]
fn found_nothing(lab: &Lab, b: &Bundle, least: usize) {
    fs::write(b.path("/stop"), "").expect("write /stop");
    lab.eventually("the watcher tells", || {
        b.path("/found").exists() && b.read("/found").contains("processes")
    });
    let found = b.read("/found");
    lab.say(found.lines().next().unwrap_or_default());
    let seen = found.split("of ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    assert!(seen.is_some_and(|seen| seen >= least), "the watcher saw too little: {found}");
    assert!(found.starts_with("root 0 cwd 0 fd 0 environ 0 "), "{found}");
}

fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("FULL").is_some() { long } else { short }
}

fn a_watcher_sees_nothing_of_the_host_in_an_exec(lab: &Lab) -> TestResult {
    let (b, _) = watcher(lab)?;
    let count = rounds(100, 1000);
    for _ in 0..count {
        // With a HOME the container's own passwd is not read.
        lab.call(&["exec", "--env", "HOME=/", &b.id, "/bin/true"]).env("OF_THE_HOST", "canary").go().ok();
    }
    found_nothing(lab, &b, count / 2);
    Ok(())
}

fn a_watcher_sees_nothing_of_the_host_in_a_create_that_joins_its_pid_namespace(lab: &Lab) -> TestResult {
    let (b, _) = watcher(lab)?;
    let path = format!("/proc/{}/ns/pid", lab.pid(&b.id));
    let count = rounds(30, 200);
    for _ in 0..count {
        let other = b.sibling(lab).namespace("pid", Some(&path)).args(&["/bin/true"]);
        lab.launch("create", &other, &[]).env("OF_THE_HOST", "canary").go().ok();
        lab.delete(&other.id);
        fs::remove_dir_all(&other.dir)?;
    }
    found_nothing(lab, &b, count / 2);
    Ok(())
}

/// A process in the container keeps a way to the runtime's file open until that is no longer executed.
fn the_binary_on_a_mount_that_cannot_be_bound_is_sealed(lab: &Lab) -> TestResult {
    use nix::mount::{MsFlags, mount};
    lab.private_mounts()?;
    let copy = lab.new_dir("copy").join("runtime");
    fs::copy(&lab.runtime.path, &copy)?;
    mount(Some(&copy), &lab.runtime.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    mount(None::<&str>, &lab.runtime.path, None::<&str>, MsFlags::MS_UNBINDABLE, None::<&str>)?;
    let before = fs::read(&copy)?;
    let b = lab.bundle().powerful().waits();
    lab.create(&b).ok();
    let script = "exec 3</proc/1/exe; : > /open; until test -e /go; do sleep 0.01; done; \
                  for i in 1 2 3 4 5 6 7 8 9; do echo overwritten > /proc/self/fd/3 && break; sleep 0.05; done; : > /tried";
    // Detached: what is executed cannot be written, so no process of the runtime's may be left.
    lab.call(&["exec", "--detach", &b.id, "/bin/sh", "-c", script]).go().ok();
    lab.eventually("the file is open", || b.path("/open").exists());
    lab.start(&b.id).ok();
    fs::write(b.path("/go"), "")?;
    lab.eventually("it has tried", || b.path("/tried").exists());
    assert!(fs::read(&copy)? == before, "the runtime's file was changed");
    Ok(())
}

fn files_of_the_image_that_do_not_answer_hold_nothing_up(lab: &Lab) -> TestResult {
    use std::time::Duration;
    let limit = Duration::from_secs(5);
    let fifo = |path: &Path| -> TestResult {
        fs::remove_file(path).ok();
        Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666))?)
    };
    let b = lab.bundle().set("/process/env", json!(["PATH=/bin"])).waits();
    fifo(&b.path("/etc/passwd"))?;
    fifo(&b.path("/etc/group"))?;
    lab.launch("run", &b, &["--detach"]).spawn().wait_for(limit)?.ok();
    let home = lab.call(&["exec", &b.id, "/bin/sh", "-c", "echo $HOME"]).spawn().wait_for(limit)?.ok();
    assert_eq!(home.text(), "/");
    // Of the caller: a fifo that nobody writes to is no config, and holds no lock.
    let named = lab.dir.join("fifo");
    fifo(&named)?;
    let file = named.to_string_lossy().into_owned();
    let writer = fs::File::options().read(true).write(true).open(&named)?;
    let update = lab.call(&["update", "--resources", &file, &b.id]).spawn();
    let exec = lab.call(&["exec", "--process", &file, &b.id]).spawn();
    std::thread::sleep(Duration::from_millis(100));
    lab.call(&["delete", "--force", &b.id]).spawn().wait_for(Duration::from_secs(2))?.ok();
    drop(writer);
    for running in [update, exec] {
        let output = running.wait_for(limit)?;
        assert!(output.rc > 0, "{output}");
    }
    let other = lab.bundle();
    other.write();
    let call = lab.call(&["run", "--config", &file, "--bundle", &other.dir.to_string_lossy(), &other.id]);
    assert!(call.spawn().wait_for(limit)?.rc > 0);
    Ok(())
}

fn files_of_the_host_behind_stdio_keep_their_owner(lab: &Lab) -> TestResult {
    use std::os::unix::fs::MetadataExt;
    let file = lab.dir.join("of-the-host");
    fs::write(&file, "")?;
    let words = format!("0<{0} 1>>{0} 2>>{0}", file.display());
    let b = lab.bundle().set("/process/user", json!({"uid": 1000, "gid": 1000}));
    lab.launch("run", &b, &[]).redirect(lab, &words).go().ok();
    let b = lab.bundle().waits();
    lab.up(&b);
    lab.call(&["exec", "--user", "1000:1000", &b.id, "/bin/true"]).redirect(lab, &words).go().ok();
    let found = fs::metadata(&file)?;
    assert_eq!((found.uid(), found.gid()), (0, 0));
    Ok(())
}
