//! The verbs that need no container: spec, features, --version, --help.

use hull_integration::bundle::TEMPLATE;
use hull_integration::{Lab, TestResult, tests};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

tests! {
    spec_writes_the_template_scripts_rely_on,
    spec_refuses_to_overwrite,
    spec_is_indented_by_tabs.breaks_on(&[("crun", "runc prints config.json indented by tabs")]),
    spec_bundle_names_the_directory,
    spec_rootless_maps_the_caller.breaks_on(&[("crun", "runc's rootless template")]),
    spec_of_the_runtime_can_be_run,
    features_is_json_and_nothing_else.breaks_on(&[("crun 1.8", "features.md came with crun 1.8.6")]),
    features_answers_what_the_kubelet_asks.breaks_on(&[("crun 1.8", "features.md came with crun 1.8.6"), ("runc 1.1", "features-linux.md: mountExtensions is newer than 1.1")]),
    version_has_the_form_of_runc,
    help_is_no_error,
    rootless_option_is_accepted,
    systemd_cgroup_option_is_accepted_by_every_verb,
}

fn spec_writes_the_template_scripts_rely_on(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("spec");
    lab.bare(&["spec"]).cwd(&dir).go().ok();
    let written: Value = serde_json::from_str(&fs::read_to_string(dir.join("config.json"))?)?;
    let wanted: Value = serde_json::from_str(TEMPLATE)?;
    for field in ["terminal", "user", "args", "env", "cwd", "rlimits", "noNewPrivileges"] {
        assert_eq!(written["process"][field], wanted["process"][field], "process.{field}");
    }
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(written["process"]["capabilities"][set], wanted["process"]["capabilities"][set], "{set}");
    }
    assert_eq!(written["root"], wanted["root"]);
    assert_eq!(written["linux"]["resources"], wanted["linux"]["resources"]);
    assert!(written["hostname"].as_str().is_some_and(|h| !h.is_empty()));
    assert!(written["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")));
    let mounts = |spec: &Value| -> Vec<Value> { spec["mounts"].as_array().cloned().unwrap_or_default() };
    assert_eq!(mounts(&written), mounts(&wanted));
    let contains = |list: &str| {
        let all = written["linux"][list].as_array().cloned().unwrap_or_default();
        wanted["linux"][list].as_array().is_some_and(|w| w.iter().all(|entry| all.contains(entry)))
    };
    for list in ["namespaces", "maskedPaths", "readonlyPaths"] {
        assert!(contains(list), "linux.{list}: {}", written["linux"][list]);
    }
    Ok(())
}

fn spec_refuses_to_overwrite(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("spec");
    fs::write(dir.join("config.json"), "mine")?;
    lab.bare(&["spec"]).cwd(&dir).go().rc(1);
    assert_eq!(fs::read_to_string(dir.join("config.json"))?, "mine");
    Ok(())
}

fn spec_is_indented_by_tabs(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("spec");
    lab.bare(&["spec"]).cwd(&dir).go().ok();
    let text = fs::read_to_string(dir.join("config.json"))?;
    assert!(text.starts_with("{\n\t\"ociVersion\""), "{text}");
    let mode = fs::metadata(dir.join("config.json"))?.permissions().mode() & 0o777;
    assert_eq!(mode & 0o111, 0, "{mode:o}");
    Ok(())
}

fn spec_bundle_names_the_directory(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("spec");
    lab.bare(&["spec", "--bundle", &dir.to_string_lossy()]).go().ok();
    assert!(dir.join("config.json").exists());
    Ok(())
}

fn spec_rootless_maps_the_caller(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("spec");
    lab.bare(&["spec", "--rootless"]).cwd(&dir).go().ok();
    let spec: Value = serde_json::from_str(&fs::read_to_string(dir.join("config.json"))?)?;
    let kinds: Vec<&Value> =
        spec["linux"]["namespaces"].as_array().into_iter().flatten().map(|n| &n["type"]).collect();
    assert!(kinds.contains(&&json!("user")) && !kinds.contains(&&json!("network")), "{kinds:?}");
    assert_eq!(spec["linux"]["uidMappings"][0], json!({"containerID": 0, "hostID": 0, "size": 1}));
    assert!(
        spec["linux"]
            .get("resources")
            .is_none_or(|r| r.is_null() || r.as_object().is_some_and(|o| o.is_empty()))
    );
    Ok(())
}

fn spec_of_the_runtime_can_be_run(lab: &Lab) -> TestResult {
    let mut b = lab.bundle();
    let cgroup = b.spec["linux"]["cgroupsPath"].clone();
    lab.bare(&["spec", "--bundle", &b.dir.to_string_lossy()]).go().ok();
    b.spec = serde_json::from_str(&fs::read_to_string(b.dir.join("config.json"))?)?;
    let b =
        b.set("/process/terminal", json!(false)).set("/linux/cgroupsPath", cgroup).args(&["echo", "fine"]);
    assert_eq!(lab.printed(&b), "fine");
    Ok(())
}

fn features_is_json_and_nothing_else(lab: &Lab) -> TestResult {
    let output = lab.bare(&["features"]).go().ok();
    let features: Value = serde_json::from_str(&(output.out() + &output.err()))?;
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    let has = |list: &Value, wanted: &str| list.as_array().is_some_and(|l| l.iter().any(|e| e == wanted));
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(has(&features["hooks"], hook), "{hook}");
    }
    for option in ["ro", "rbind", "rro", "rslave", "tmpcopyup", "nosuid"] {
        assert!(has(&features["mountOptions"], option), "{option}");
    }
    let linux = &features["linux"];
    for kind in ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"] {
        assert!(has(&linux["namespaces"], kind), "{kind}");
    }
    assert!(has(&linux["capabilities"], "CAP_SYS_ADMIN"));
    assert_eq!(linux["cgroup"]["v1"], json!(true));
    assert_eq!(linux["cgroup"]["v2"], json!(true));
    assert_eq!(linux["seccomp"]["enabled"], json!(true));
    assert!(has(&linux["seccomp"]["actions"], "SCMP_ACT_ERRNO"));
    Ok(())
}

fn features_answers_what_the_kubelet_asks(lab: &Lab) -> TestResult {
    let features: Value = serde_json::from_str(&lab.bare(&["features"]).go().ok().out())?;
    let options = features["mountOptions"].as_array().cloned().unwrap_or_default();
    assert!(options.contains(&json!("rro")));
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], json!(true));
    Ok(())
}

fn version_has_the_form_of_runc(lab: &Lab) -> TestResult {
    let text = lab.bare(&["--version"]).go().ok().out();
    let first: Vec<&str> = text.lines().next().unwrap_or_default().split(' ').collect();
    assert_eq!(first[..2], [lab.runtime.kind.as_str(), "version"], "{text}");
    assert!(first.len() > 2 && !first[2].is_empty(), "{text}");
    for key in ["commit: ", "spec: "] {
        assert!(text.lines().any(|l| l.starts_with(key)), "{key}: {text}");
    }
    if !lab.is("crun") {
        assert_eq!(lab.bare(&["-v"]).go().ok().out(), text);
    }
    Ok(())
}

fn help_is_no_error(lab: &Lab) -> TestResult {
    let text = lab.bare(&["--help"]).go().ok().out();
    for verb in ["create", "start", "state", "kill", "delete", "exec"] {
        assert!(text.contains(verb), "{verb}: {text}");
    }
    Ok(())
}

fn rootless_option_is_accepted(lab: &Lab) -> TestResult {
    for value in ["--rootless=true", "--rootless=false", "--rootless=auto"] {
        lab.call_globals(&[value], &["list", "-q"]).go().ok();
    }
    Ok(())
}

/// The shim's stop path and cri-o pass it or leave it out as they like.
fn systemd_cgroup_option_is_accepted_by_every_verb(lab: &Lab) -> TestResult {
    if !lab.host.systemd && lab.is("runc") {
        return hull_integration::skip("runc refuses --systemd-cgroup where systemd does not run");
    }
    lab.call_globals(&["--systemd-cgroup"], &["list", "-q"]).go().ok();
    lab.call_globals(&["--systemd-cgroup"], &["delete", "--force", "nobody"]).go().ok();
    Ok(())
}
