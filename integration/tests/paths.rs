//! maskedPaths and readonlyPaths.

use hull_integration::{Lab, TestResult, tests};
use serde_json::json;

tests! {
    masked_file_reads_empty,
    masked_directory_is_empty_and_read_only,
    masked_path_that_is_missing_is_skipped,
    masked_paths_of_proc_are_masked,
    readonly_path_cannot_be_written,
    readonly_path_that_is_missing_is_skipped,
    readonly_path_keeps_what_is_below.breaks_on(&[("crun 1.8", "a read-only path loses noexec and nosuid")]),
    masked_path_through_a_symlink_stays_inside,
    no_masked_and_readonly_paths_at_all,
    masked_paths_hold_for_exec,
}

fn masked_file_reads_empty(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/secret", "secret", 0o644).push("/linux/maskedPaths", json!("/secret"));
    assert_eq!(lab.printed(&b.clone().sh("cat /secret; stat -c %t:%T /secret")), "1:3");
    assert_eq!(b.read("/secret"), "secret");
    Ok(())
}

fn masked_directory_is_empty_and_read_only(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/secret/file", "secret", 0o644).push("/linux/maskedPaths", json!("/secret"));
    let seen = lab.printed(&b.sh("ls /secret | wc -l; touch /secret/new 2>&1 || true"));
    assert!(seen.starts_with('0') && seen.contains("Read-only file system"), "{seen}");
    Ok(())
}

fn masked_path_that_is_missing_is_skipped(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/linux/maskedPaths", json!("/no/such/path")).sh("test -e /no || echo none");
    assert_eq!(lab.printed(&b), "none");
    Ok(())
}

fn masked_paths_of_proc_are_masked(lab: &Lab) -> TestResult {
    let seen = lab.printed(&lab.bundle().sh("for f in kcore keys timer_list; do cat /proc/$f | wc -c; done"));
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0"]);
    Ok(())
}

fn readonly_path_cannot_be_written(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/conf/file", "kept", 0o666).push("/linux/readonlyPaths", json!("/conf"));
    let seen = lab.printed(
        &b.clone().sh("exec 2>&1; echo x > /conf/file || true; touch /conf/y || true; cat /conf/file"),
    );
    assert_eq!(seen.matches("Read-only file system").count(), 2, "{seen}");
    assert!(seen.ends_with("kept"), "{seen}");
    // Opened for appending only: nothing is written should the path be writable.
    let seen = lab.printed(&lab.bundle().powerful().sh("exec 2>&1; (: >> /proc/sys/kernel/panic) || true"));
    assert!(seen.contains("Read-only file system"), "{seen}");
    Ok(())
}

fn readonly_path_that_is_missing_is_skipped(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/linux/readonlyPaths", json!("/no/such/path"));
    lab.run(&b).ok();
    Ok(())
}

fn readonly_path_keeps_what_is_below(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("tmpfs", "tmpfs", "/mnt", &["noexec", "nosuid"]);
    let b = b.push("/linux/readonlyPaths", json!("/mnt")).args(&["/bin/cat", "/proc/self/mountinfo"]);
    let table = lab.printed(&b);
    let m = super::mounts::find(&table, "/mnt").ok_or("no mount at /mnt")?;
    for option in ["ro", "noexec", "nosuid"] {
        assert!(m.options.split(',').any(|o| o == option), "{option}: {m:?}");
    }
    Ok(())
}

fn masked_path_through_a_symlink_stays_inside(lab: &Lab) -> TestResult {
    let canary = lab.new_dir("canary");
    std::fs::write(canary.join("file"), "canary")?;
    let b =
        lab.bundle().push("/linux/maskedPaths", json!("/link")).push("/linux/readonlyPaths", json!("/link"));
    std::os::unix::fs::symlink(&canary, b.path("/link"))?;
    // Refusing is as good as staying inside.
    lab.run(&b);
    std::fs::write(canary.join("file"), "still mine")?;
    assert_eq!(std::fs::read_to_string(canary.join("file"))?, "still mine");
    Ok(())
}

fn no_masked_and_readonly_paths_at_all(lab: &Lab) -> TestResult {
    let b = lab.bundle().remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    let table = lab.printed(&b.args(&["/bin/cat", "/proc/self/mountinfo"]));
    assert!(super::mounts::find(&table, "/proc/sys").is_none(), "{table}");
    Ok(())
}

fn masked_paths_hold_for_exec(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/secret", "secret", 0o644).push("/linux/maskedPaths", json!("/secret"));
    let b = b.args(&["/bin/sleep", "100"]);
    lab.up(&b);
    assert_eq!(lab.inside(&b.id, "cat /secret"), "");
    Ok(())
}
