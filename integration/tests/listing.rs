//! list and ps.

use hull_integration::{Lab, TestResult, tests};
use serde_json::{Value, json};

tests! {
    list_table_has_the_header_of_runc.breaks_on(&[("crun", "runc-list(8): the columns")]),
    list_quiet_prints_ids_only,
    list_json_is_one_line.breaks_on(&[("crun", "runc prints the JSON list on one line")]),
    list_json_of_an_empty_root_is_null.breaks_on(&[("crun", "runc prints null for an empty list")]),
    list_of_a_missing_explicit_root_fails.breaks_on(&[("runc 1.1", "a root that is named and missing is an error"), ("crun", "a root that is named and missing is an error")]),
    list_refuses_an_unknown_format,
    list_shows_every_status,
    ps_json_is_an_array_of_host_pids,
    ps_table_comes_from_the_host_ps.breaks_on(&[("crun", "runc-ps(8): arguments go to the host's ps")]),
    ps_of_a_missing_container_fails.breaks_on(&[("crun", "docs/errors.md: `does not exist`, exit code 1")]),
}

fn list_table_has_the_header_of_runc(lab: &Lab) -> TestResult {
    let b = lab.bundle().waits();
    lab.up(&b);
    let text = lab.rt(&["list"]).ok().out();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let pid = lab.pid(&b.id).to_string();
    assert_eq!(row[..4], [&b.id, &pid, "running", &b.dir.to_string_lossy()]);
    assert!(row[4].starts_with("20") && row[4].contains('T'), "{row:?}");
    let (head, line) = (text.lines().next().unwrap_or_default(), text.lines().nth(1).unwrap_or_default());
    assert_eq!(head.find("PID"), line.find(&pid), "columns are aligned: {text}");
    Ok(())
}

fn list_quiet_prints_ids_only(lab: &Lab) -> TestResult {
    let (a, b) = (lab.bundle(), lab.bundle());
    lab.create(&a).ok();
    lab.create(&b).ok();
    let text = lab.rt(&["list", "--quiet"]).ok().out();
    let mut ids: Vec<&str> = text.lines().collect();
    ids.sort_unstable();
    let mut wanted = vec![a.id.as_str(), b.id.as_str()];
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    assert_eq!(lab.rt(&["list", "-q"]).ok().out(), text);
    Ok(())
}

fn list_json_is_one_line(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/annotations", json!({"k": "v"}));
    lab.create(&b).ok();
    let text = lab.rt(&["list", "--format=json"]).ok().out();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    let list: Value = serde_json::from_str(&text)?;
    assert_eq!(list[0]["id"], json!(b.id));
    assert_eq!(list[0]["status"], "created");
    assert_eq!(list[0]["bundle"], json!(b.dir));
    assert_eq!(list[0]["rootfs"], json!(b.rootfs()));
    assert_eq!(list[0]["annotations"]["k"], "v");
    assert_eq!(lab.rt(&["list", "-f", "json"]).ok().out(), text);
    Ok(())
}

fn list_json_of_an_empty_root_is_null(lab: &Lab) -> TestResult {
    assert_eq!(lab.rt(&["list", "--format", "json"]).ok().text(), "null");
    Ok(())
}

fn list_of_a_missing_explicit_root_fails(lab: &Lab) -> TestResult {
    let root = lab.next_path("no-root");
    lab.bare(&["--root", &root.to_string_lossy(), "list"]).go().rc(1);
    Ok(())
}

fn list_refuses_an_unknown_format(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    lab.create(&b).ok();
    assert!(lab.rt(&["list", "--format", "yaml"]).rc > 0);
    Ok(())
}

fn list_shows_every_status(lab: &Lab) -> TestResult {
    let (created, running, stopped) = (lab.bundle(), lab.bundle().waits(), lab.bundle());
    lab.create(&created).ok();
    lab.up(&running);
    lab.up(&stopped);
    lab.wait_status(&stopped.id, "stopped");
    let list: Value = serde_json::from_str(&lab.rt(&["list", "--format", "json"]).ok().out())?;
    for (b, status) in [(&created, "created"), (&running, "running"), (&stopped, "stopped")] {
        let entry = list.as_array().and_then(|l| l.iter().find(|e| e["id"] == json!(b.id)));
        assert_eq!(entry.map(|e| &e["status"]), Some(&json!(status)), "{list}");
    }
    Ok(())
}

fn ps_json_is_an_array_of_host_pids(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let pids: Value = serde_json::from_str(&lab.rt(&["ps", "--format", "json", &b.id]).ok().out())?;
    assert_eq!(pids, json!([lab.pid(&b.id)]));
    Ok(())
}

fn ps_table_comes_from_the_host_ps(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/sleep", "100"]);
    lab.up(&b);
    if std::process::Command::new("ps").arg("-ef").output().is_err() {
        return hull_integration::skip("the host has no ps");
    }
    let text = lab.rt(&["ps", &b.id, "-ef"]).ok().out();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("PID") && lines[1].contains("sleep 100"), "{text}");
    Ok(())
}

fn ps_of_a_missing_container_fails(lab: &Lab) -> TestResult {
    lab.rt(&["ps", "nobody"]).rc(1).fails("container does not exist");
    Ok(())
}
