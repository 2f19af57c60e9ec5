//! hull's errors: the config field, a hint, and where in config.json the field stands.

use hull_integration::{Bundle, Lab, Stop, TestResult, tests};
use serde_json::json;
use std::fs;

tests! {
    error_names_the_field_the_hint_and_the_place.only("hull"),
    place_points_at_the_value.only("hull"),
    a_missing_mount_source_names_its_field.only("hull"),
    a_host_sysctl_names_its_field.only("hull"),
    an_unknown_namespace_names_its_field.only("hull"),
    a_wrong_json_type_names_its_field.only("hull"),
    an_unknown_seccomp_action_names_its_field.only("hull"),
    a_bad_device_type_names_its_field.only("hull"),
    a_missing_rootfs_names_its_field.only("hull"),
    a_missing_program_names_its_field.only("hull"),
    an_unknown_rlimit_names_its_field.only("hull"),
    a_cpuset_out_of_range_names_its_field.only("hull"),
    broken_json_names_line_and_column.only("hull"),
    json_log_carries_code_field_and_hint.only("hull"),
    start_of_a_file_that_is_no_program_names_its_field.only("hull"),
    start_with_a_failing_hook_names_its_field.only("hull"),
    start_with_a_failing_poststart_hook_names_its_field.only("hull"),
    start_of_a_changed_config_names_the_field_without_a_place.only("hull"),
    plan_prints_and_does_nothing.only("hull"),
    plan_of_a_bad_config_fails.only("hull"),
}

/// `at: FILE:LINE:COLUMN` of an error text.
fn place(text: &str) -> Option<(String, usize, usize)> {
    let line = text.lines().find_map(|l| l.split_once("at: ")).map(|(_, rest)| rest.trim())?;
    let mut parts = line.rsplitn(3, ':');
    let column = parts.next()?.trim_matches('"').parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    Some((parts.next()?.to_owned(), number, column))
}

#[track_caller]
fn names(lab: &Lab, b: &Bundle, field: &str) {
    let output = lab.run(b);
    assert!(output.rc > 0, "{output}");
    assert!(output.err().contains(field), "the error does not name {field}: {output}");
    assert!(place(&output.err()).is_some(), "no `at: FILE:LINE:COLUMN`: {output}");
}

fn error_names_the_field_the_hint_and_the_place(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", "/no/such/src", "/data", &["rbind"]);
    let index = b.spec["mounts"].as_array().map_or(0, Vec::len) - 1;
    let text = lab.create(&b).rc(1).err();
    let has = |start: &str| text.lines().any(|l| l.trim_start().starts_with(start));
    assert!(text.contains(&format!("mounts[{index}].source")), "{text}");
    assert!(text.contains("/no/such/src") && text.contains("/data"), "{text}");
    assert!(has("error: ") || text.contains("level=error"), "{text}");
    assert!(has("hint: "), "{text}");
    assert!(has("at: "), "{text}");
    Ok(())
}

fn place_points_at_the_value(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", "/no/such/src", "/data", &["rbind"]);
    let text = lab.create(&b).rc(1).err();
    let found = pointed_at(&b, &text)?;
    assert!(found.starts_with("\"/no/such/src\""), "{found:?}");
    Ok(())
}

fn a_missing_mount_source_names_its_field(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    let index = b.spec["mounts"].as_array().map_or(0, Vec::len);
    names(lab, &b.mount("bind", "/no/such", "/mnt", &["bind"]), &format!("mounts[{index}].source"));
    Ok(())
}

fn a_host_sysctl_names_its_field(lab: &Lab) -> TestResult {
    names(lab, &lab.bundle().edit(|s| s["linux"]["sysctl"] = json!({"vm.swappiness": "60"})), "linux.sysctl");
    Ok(())
}

fn an_unknown_namespace_names_its_field(lab: &Lab) -> TestResult {
    names(lab, &lab.bundle().namespace("sausage", None), "linux.namespaces[");
    Ok(())
}

fn a_wrong_json_type_names_its_field(lab: &Lab) -> TestResult {
    names(lab, &lab.bundle().set("/process/args", json!("sh")), "process.args");
    Ok(())
}

fn an_unknown_seccomp_action_names_its_field(lab: &Lab) -> TestResult {
    let seccomp =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SAUSAGE"}]});
    names(lab, &lab.bundle().set("/linux/seccomp", seccomp), "linux.seccomp.syscalls[0].action");
    Ok(())
}

fn a_bad_device_type_names_its_field(lab: &Lab) -> TestResult {
    let device = json!({"path": "/dev/mine", "type": "q", "major": 1, "minor": 3});
    names(lab, &lab.bundle().push("/linux/devices", device), "linux.devices[0].type");
    Ok(())
}

fn a_missing_rootfs_names_its_field(lab: &Lab) -> TestResult {
    names(lab, &lab.bundle().set("/root/path", json!("not-there")), "root.path");
    Ok(())
}

fn a_missing_program_names_its_field(lab: &Lab) -> TestResult {
    names(lab, &lab.bundle().args(&["/no/such/program"]), "process.args[0]");
    Ok(())
}

fn an_unknown_rlimit_names_its_field(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/rlimits", json!([{"type": "RLIMIT_SAUSAGES", "soft": 1, "hard": 1}]));
    names(lab, &b, "process.rlimits[0].type");
    Ok(())
}

fn a_cpuset_out_of_range_names_its_field(lab: &Lab) -> TestResult {
    lab.needs_controller("cpuset")?;
    names(
        lab,
        &lab.bundle().set("/linux/resources/cpu", json!({"cpus": "4095"})),
        "linux.resources.cpu.cpus",
    );
    Ok(())
}

fn broken_json_names_line_and_column(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    fs::write(b.dir.join("config.json"), "{\n  \"ociVersion\": \"1.0.2\",\n  \"process\": {,}\n}\n")?;
    let output = lab.rt(&["create", "--bundle", &b.dir.to_string_lossy(), &b.id]);
    assert!(output.rc > 0, "{output}");
    let (_, line, _) = place(&output.err()).ok_or(format!("no place: {output}"))?;
    assert_eq!(line, 3, "{output}");
    Ok(())
}

fn json_log_carries_code_field_and_hint(lab: &Lab) -> TestResult {
    let b = lab.bundle().mount("bind", "/no/such/src", "/data", &["rbind"]);
    b.write();
    let log = lab.dir.join("log.json");
    let globals = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    assert!(lab.call_globals(&globals, &["create", "--bundle", &b.dir.to_string_lossy(), &b.id]).go().rc > 0);
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(log)?)?;
    for key in ["code", "field", "hint", "msg"] {
        assert!(line[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {line}");
    }
    assert!(line["msg"].as_str().is_some_and(|m| m.contains("/no/such/src")), "{line}");
    Ok(())
}

/// A container whose program the kernel refuses to execute, which is found out at start.
fn created(lab: &Lab) -> Bundle {
    let b = lab.bundle().file("/data", "no program", 0o755).args(&["/data"]);
    lab.create(&b).ok();
    b
}

/// What stands at the place that an error names.
fn pointed_at(b: &Bundle, text: &str) -> Result<String, Stop> {
    let (file, line, column) = place(text).ok_or(format!("no place: {text}"))?;
    assert_eq!(file, b.dir.join("config.json").to_string_lossy());
    let config = fs::read_to_string(file)?;
    Ok(config.lines().nth(line - 1).and_then(|l| l.get(column - 1..)).unwrap_or_default().to_owned())
}

fn start_of_a_file_that_is_no_program_names_its_field(lab: &Lab) -> TestResult {
    let b = created(lab);
    let text = lab.start(&b.id).fails("error: process.args[0]: exec /data: exec format error").err();
    assert!(text.contains("hint: "), "{text}");
    assert_eq!(pointed_at(&b, &text)?, "\"/data\"");
    Ok(())
}

fn start_with_a_failing_hook_names_its_field(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/hooks/startContainer", json!({"path": "/bin/false"}));
    lab.create(&b).ok();
    let output =
        lab.start(&b.id).fails("error: hooks.startContainer[0]: error running startContainer hook #0");
    assert_eq!(pointed_at(&b, &output.err())?, "{");
    Ok(())
}

/// A warning, which has no place.
fn start_with_a_failing_poststart_hook_names_its_field(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/hooks/poststart", json!({"path": "/no/such"}));
    lab.create(&b).ok();
    let output = lab.call_globals(&["--log-level", "warning"], &["start", &b.id]).go().ok();
    assert!(output.err().contains("hooks.poststart[0]: error running poststart hook #0"), "{output}");
    Ok(())
}

fn start_of_a_changed_config_names_the_field_without_a_place(lab: &Lab) -> TestResult {
    let b = created(lab);
    b.clone().args(&["/bin/true", "other"]).write();
    let text = lab.start(&b.id).fails("error: process.args[0]: exec /data: exec format error").err();
    assert!(place(&text).is_none(), "{text}");
    Ok(())
}

fn plan_prints_and_does_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    b.write();
    let output = lab.rt(&["plan", &b.dir.to_string_lossy()]).ok();
    assert!(!output.text().is_empty());
    assert!(lab.ids_on_disk().is_empty() && lab.cgroups_left().is_empty());
    Ok(())
}

fn plan_of_a_bad_config_fails(lab: &Lab) -> TestResult {
    let b = lab.bundle().namespace("sausage", None);
    b.write();
    assert!(lab.rt(&["plan", &b.dir.to_string_lossy()]).rc > 0);
    Ok(())
}
