//! `--log`: what callers read after a failure.

use hull_integration::{Lab, Stop, TestResult, tests};
use serde_json::Value;
use std::fs;

const CRUN: (&str, &str) = ("crun 1.8", "docs/errors.md: level, msg and an RFC 3339 time");

tests! {
    json_log_has_level_msg_and_time.breaks_on(&[CRUN]),
    json_log_is_appended,
    json_log_of_a_failed_create_ends_with_the_error,
    json_log_has_one_object_when_a_warning_came_first.breaks_on(&[("runc", "docs/errors.md: one line; podman parses the log as one object")]),
    text_log_has_level_and_msg.breaks_on(&[("crun", "runc's text log: time=\"..\" level=error msg=\"..\"")]),
    stderr_has_the_error_even_with_a_log,
    stderr_without_a_log_has_level_and_msg.breaks_on(&[("crun", "runc's text log: time=\"..\" level=error msg=\"..\"")]),
    an_unknown_log_format_is_refused,
    a_backtrace_variable_changes_nothing,
    success_logs_nothing,
    debug_logs_more,
    a_log_that_nobody_reads_holds_nothing_up.breaks_on(&[("runc", "it waits for a reader"), ("crun", "it waits for a reader")]),
    debug_says_something_on_every_verb.breaks_on(&[("runc", "not on all"), ("crun", "not on all")]),
}

fn failing(lab: &Lab, format: &str) -> Result<(String, String), Stop> {
    let log = lab.dir.join("log.out");
    let path = log.to_string_lossy().into_owned();
    let output = lab.call_globals(&["--log", &path, "--log-format", format], &["state", "nobody"]).go();
    assert!(output.rc > 0);
    Ok((fs::read_to_string(log)?, output.err()))
}

fn json_log_has_level_msg_and_time(lab: &Lab) -> TestResult {
    let (text, _) = failing(lab, "json")?;
    let line: Value = serde_json::from_str(&text)?;
    assert_eq!(line["level"], "error");
    let message = line["msg"].as_str().unwrap_or_default();
    assert!(message.contains("does not exist"), "{text}");
    let time = line["time"].as_str().unwrap_or_default();
    assert!(is_rfc3339(time), "time: {time}");
    Ok(())
}

/// `2026-11-21T12:16:21Z`, with a fraction or a numeric zone if the runtime likes.
fn is_rfc3339(time: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd";
    let head = time.len() > pattern.len()
        && time.chars().zip(pattern.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p });
    let rest = time.get(pattern.len()..).unwrap_or_default();
    let rest = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    head && (rest == "Z" || (rest.len() == 6 && rest.starts_with(['+', '-'])))
}

fn json_log_is_appended(lab: &Lab) -> TestResult {
    failing(lab, "json")?;
    let (text, _) = failing(lab, "json")?;
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    assert_eq!(lines?.len(), 2, "{text}");
    Ok(())
}

fn json_log_of_a_failed_create_ends_with_the_error(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/no/such/program"]);
    b.write();
    let log = b.dir.join("log.json");
    let globals = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    let dir = b.dir.to_string_lossy();
    lab.remember(&b.id);
    let output = lab.call_globals(&globals, &["run", "--bundle", &dir, &b.id]).go();
    assert!(output.rc > 0);
    let text = fs::read_to_string(log)?;
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines?;
    let last = lines.iter().rfind(|l| l["level"] == "error").ok_or("no error line")?;
    let message = last["msg"].as_str().unwrap_or_default().to_lowercase();
    assert!(message.contains("/no/such/program") && message.contains("no such file"), "{text}");
    Ok(())
}

fn json_log_has_one_object_when_a_warning_came_first(lab: &Lab) -> TestResult {
    let b = lab.bundle().capabilities(&["CAP_NO_SUCH"]).args(&["/no/such/program"]);
    b.write();
    let log = b.dir.join("log.json");
    let globals = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    let output = lab.call_globals(&globals, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id]).go();
    assert!(output.rc > 0);
    let text = fs::read_to_string(log)?;
    let one: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    assert_eq!(one["level"], "error");
    Ok(())
}

fn text_log_has_level_and_msg(lab: &Lab) -> TestResult {
    let (text, _) = failing(lab, "text")?;
    assert!(text.starts_with("time=\"") && text.contains(" level=error msg=\""), "{text}");
    Ok(())
}

fn stderr_has_the_error_even_with_a_log(lab: &Lab) -> TestResult {
    let (_, stderr) = failing(lab, "json")?;
    assert!(stderr.contains("does not exist") || stderr.contains("nobody"), "{stderr}");
    Ok(())
}

fn stderr_without_a_log_has_level_and_msg(lab: &Lab) -> TestResult {
    let text = lab.rt(&["state", "nobody"]).err();
    // hull says it in three lines instead (docs/errors.md).
    let (start, level) = match lab.runtime.kind.as_str() {
        "hull" => ("error: ", ""),
        _ => ("time=\"", " level=error msg=\""),
    };
    let line = text.lines().find(|l| l.starts_with(start)).unwrap_or_default();
    assert!(line.contains(level) && line.contains("container does not exist"), "{text}");
    Ok(())
}

fn an_unknown_log_format_is_refused(lab: &Lab) -> TestResult {
    let output = lab.call_globals(&["--log-format", "yaml"], &["list"]).go();
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_backtrace_variable_changes_nothing(lab: &Lab) -> TestResult {
    let plain = lab.rt(&["state", "nobody"]).err();
    let traced = lab.call(&["state", "nobody"]).env("RUST_BACKTRACE", "1").go().err();
    assert_eq!(plain.lines().count(), traced.lines().count(), "{traced}");
    Ok(())
}

fn success_logs_nothing(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    b.write();
    let log = lab.dir.join("log.out");
    let globals = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    let output = lab.call_globals(&globals, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id]).go().ok();
    assert_eq!(fs::read_to_string(log).unwrap_or_default() + &output.err(), "");
    Ok(())
}

fn debug_logs_more(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    b.write();
    let log = lab.dir.join("log.out");
    let globals = ["--debug", "--log", &log.to_string_lossy(), "--log-format", "text"];
    lab.call_globals(&globals, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id]).go().ok();
    if lab.is("crun") {
        return hull_integration::skip("crun 1.8 has no debug lines");
    }
    let text = fs::read_to_string(log)?;
    assert!(text.contains("level=debug"), "{text}");
    Ok(())
}

fn debug_says_something_on_every_verb(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    b.write();
    let dir = b.dir.to_string_lossy().into_owned();
    let id = b.id.as_str();
    let calls: [(&[&str], &str); 15] = [
        (&["create", "--bundle", &dir, id], "init is process"),
        (&["state", id], "state root"),
        (&["start", id], "/bin/sleep"),
        (&["exec", id, "/bin/true"], "in the namespaces of process"),
        (&["pause", id], "freeze cgroup"),
        (&["resume", id], "thaw cgroup"),
        (&["update", "--pids-limit", "50", id], "pids.max"),
        (&["ps", id], "state root"),
        (&["list"], "state root"),
        (&["plan", &dir], "state root"),
        (&["features"], "state root"),
        (&["kill", id, "KILL"], "signal 9 to process"),
        (&["delete", "--force", id], "removed: cgroup"),
        (&["run", "--detach", "--bundle", &dir, id], "init is process"),
        (&["delete", "--force", id], "removed: cgroup"),
    ];
    for (words, wanted) in calls {
        let log = lab.dir.join(format!("{}.log", words[0]));
        let path = log.to_string_lossy().into_owned();
        lab.call_globals(&["--debug", "--log", &path], words).go().ok();
        let text = fs::read_to_string(&log)?;
        assert!(text.contains(wanted), "{words:?}: {text}");
        assert!(text.lines().all(|line| line.contains("level=debug")), "{words:?}: {text}");
        fs::remove_file(log)?;
    }
    Ok(())
}

fn a_log_that_nobody_reads_holds_nothing_up(lab: &Lab) -> TestResult {
    let fifo = lab.dir.join("log.fifo");
    let made = std::process::Command::new(lab.busybox()).arg("mkfifo").arg(&fifo).status()?;
    assert!(made.success());
    let path = fifo.to_string_lossy().into_owned();
    let call = lab.call_globals(&["--log", &path], &["state", "nobody"]).spawn();
    call.wait_for(std::time::Duration::from_secs(5))?.fails("open the log file");
    Ok(())
}
