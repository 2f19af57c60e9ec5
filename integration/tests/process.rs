//! What the process is given: capabilities, limits, ids, environment, directory, names, sysctls.

use hull_integration::{Lab, Stop, TestResult, skip, tests};
use serde_json::{Value, json};
use std::fs;

tests! {
    the_three_capability_sets_are_exact,
    inheritable_and_ambient_sets_are_exact,
    no_capabilities_section_means_none,
    capabilities_of_a_user_are_dropped_without_ambient,
    an_unknown_capability_is_a_warning,
    a_capability_the_caller_lacks_is_a_warning.breaks_on(&[("runc", "config.md: a capability that cannot be granted SHOULD warn"), ("crun", "config.md: a capability that cannot be granted SHOULD warn")]),
    no_new_privileges_is_set,
    no_new_privileges_is_off_by_default,
    rlimits_are_set,
    a_rlimit_above_the_hard_limit_names_it,
    an_unknown_rlimit_is_refused,
    a_duplicate_rlimit_is_refused.breaks_on(&[("crun", "config.md: rlimits entries must be unique"), ("runc 1.1", "config.md: rlimits entries must be unique")]),
    user_and_groups_are_set,
    umask_is_set,
    umask_defaults_to_0022,
    a_missing_cwd_is_made,
    a_relative_cwd_is_refused.breaks_on(&[("crun", "config.md#process: cwd must be absolute")]),
    environment_is_exact,
    an_environment_entry_without_equals_is_refused.breaks_on(&[("crun", "config.md#process: env is as environ, NAME=VALUE")]),
    home_is_set_from_passwd_when_missing,
    hostname_is_set,
    domainname_is_set.breaks_on(&[("runc 1.1", "config.md#domainname came with runc 1.2")]),
    network_sysctl_is_set,
    kernel_sysctl_of_the_own_ipc_namespace_is_set,
    a_sysctl_of_the_host_is_refused,
    a_network_sysctl_with_the_network_of_the_host_is_refused,
    a_bad_sysctl_value_names_the_key,
    oom_score_is_raised,
    oom_score_that_cannot_be_lowered_is_a_warning.only("hull"),
    args_are_exact,
    a_process_is_required,
    empty_args_are_refused,
    signals_are_not_blocked_or_ignored,
    io_priority_is_set.breaks_on(&[("runc 1.1", "config.md#io-priority came with 1.2"), ("crun 1.8", "came later")]),
    scheduler_is_set.breaks_on(&[("runc 1.1", "config.md#scheduler came with 1.2"), ("crun 1.8", "came later")]),
    init_has_no_parent_death_signal_and_its_own_session,
    personality_is_set.breaks_on(&[("runc 1.1", "config-linux.md#personality came with runc 1.2")]),
    relative_parts_of_path_are_passed_over.breaks_on(&[("runc", "docs/differences.md: a relative part is passed over, not an error"), ("crun", "docs/differences.md: a program of the working directory is not meant by its bare name")]),
    the_callers_affinity_is_not_the_containers.breaks_on(&[("runc 1.1", "the affinity of the caller is inherited"), ("crun", "the affinity of the caller is inherited")]),
    of_equal_variables_the_last_counts,
    an_empty_home_is_looked_up.breaks_on(&[("crun", "an empty HOME counts")]),
    exec_has_the_personality_of_the_container.breaks_on(&[("runc 1.1", "linux.personality came with runc 1.2")]),
    exec_cap_leaves_the_other_sets_alone.breaks_on(&[("crun", "the sets of the command line replace them")]),
    an_oom_score_that_may_be_set_is_set.breaks_on(&[("crun 1.8", "init, untraceable by then, may not write its own score")]),
}

fn status(lab: &Lab, b: &hull_integration::Bundle, key: &str) -> String {
    let text = lab.printed(&b.clone().args(&["/bin/cat", "/proc/self/status"]));
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn bits(lab: &Lab, b: &hull_integration::Bundle, key: &str) -> u64 {
    u64::from_str_radix(&status(lab, b, key), 16).unwrap_or(u64::MAX)
}

fn the_three_capability_sets_are_exact(lab: &Lab) -> TestResult {
    let b = lab.bundle().set(
        "/process/capabilities",
        json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}),
    );
    assert_eq!(bits(lab, &b, "CapBnd"), 1 << 5 | 1);
    assert_eq!(
        bits(lab, &b, "CapPrm"),
        1 << 5,
        "no_new_privs keeps root from getting the bounding set at exec"
    );
    assert_eq!(bits(lab, &b, "CapEff"), 1 << 5);
    assert_eq!(bits(lab, &b, "CapInh"), 0);
    assert_eq!(bits(lab, &b, "CapAmb"), 0);
    Ok(())
}

fn inheritable_and_ambient_sets_are_exact(lab: &Lab) -> TestResult {
    let all = ["CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let b = lab.bundle().set(
        "/process/capabilities",
        json!({"bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": ["CAP_KILL"]}),
    );
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(bits(lab, &b, "CapInh"), 1 << 5 | 1 << 10);
    assert_eq!(bits(lab, &b, "CapAmb"), 1 << 5);
    assert_eq!(bits(lab, &b, "CapEff"), 1 << 5, "ambient ones survive exec by a user");
    Ok(())
}

fn no_capabilities_section_means_none(lab: &Lab) -> TestResult {
    let b = lab.bundle().remove("/process/capabilities");
    if bits(lab, &b, "CapBnd") == 0 {
        return Ok(());
    }
    // The spec leaves it open; runc keeps what the runtime has.
    if lab.is("hull") {
        Err(Stop::Fail("capabilities without the section".into()))
    } else {
        skip("left open by the spec")
    }
}

fn capabilities_of_a_user_are_dropped_without_ambient(lab: &Lab) -> TestResult {
    let b = lab.bundle().capabilities(&["CAP_KILL"]).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(bits(lab, &b, "CapEff"), 0);
    assert_eq!(bits(lab, &b, "CapBnd"), 1 << 5);
    Ok(())
}

fn an_unknown_capability_is_a_warning(lab: &Lab) -> TestResult {
    let b = lab.bundle().capabilities(&["CAP_KILL", "CAP_FROBNICATE"]);
    assert_eq!(bits(lab, &b, "CapBnd"), 1 << 5);
    Ok(())
}

fn a_capability_the_caller_lacks_is_a_warning(lab: &Lab) -> TestResult {
    let lacking = (0..41).find(|i| lab.host.capabilities & (1 << i) == 0);
    let Some(lacking) = lacking else { return skip("the caller has every capability") };
    let b = lab.bundle().capabilities(&["CAP_KILL", hull_integration::bundle::CAPABILITIES[lacking]]);
    assert_eq!(bits(lab, &b, "CapBnd"), 1 << 5);
    Ok(())
}

fn no_new_privileges_is_set(lab: &Lab) -> TestResult {
    assert_eq!(status(lab, &lab.bundle(), "NoNewPrivs"), "1");
    Ok(())
}

fn no_new_privileges_is_off_by_default(lab: &Lab) -> TestResult {
    assert_eq!(status(lab, &lab.bundle().remove("/process/noNewPrivileges"), "NoNewPrivs"), "0");
    Ok(())
}

fn limit_of(table: &str, name: &str) -> Vec<String> {
    let line = table.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().take(2).map(String::from).collect()
}

fn rlimits_are_set(lab: &Lab) -> TestResult {
    let b = lab.bundle().set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 4_194_304},
        ]),
    );
    let table = lab.printed(&b.args(&["/bin/cat", "/proc/self/limits"]));
    assert_eq!(limit_of(&table, "Max open files"), ["100", "200"]);
    assert_eq!(limit_of(&table, "Max core file size"), ["0", "0"]);
    assert_eq!(limit_of(&table, "Max stack size"), ["4194304", "4194304"]);
    Ok(())
}

fn a_rlimit_above_the_hard_limit_names_it(lab: &Lab) -> TestResult {
    if lab.host.has_sys_resource() {
        return skip("the caller may raise limits");
    }
    let hard = limit_of(&fs::read_to_string("/proc/self/limits")?, "Max open files")[1].parse::<u64>()?;
    let b = lab
        .bundle()
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": hard, "hard": hard + 1}]));
    let output = lab.run(&b);
    // A warning that names it is as good as an error that names it.
    if output.rc == 0 && lab.is("hull") {
        return Ok(());
    }
    assert!(output.err().contains("RLIMIT_NOFILE") || output.err().contains("rlimit"), "{output}");
    Ok(())
}

fn an_unknown_rlimit_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/rlimits", json!([{"type": "RLIMIT_SAUSAGES", "soft": 1, "hard": 1}]));
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_duplicate_rlimit_is_refused(lab: &Lab) -> TestResult {
    let entry = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100});
    let output = lab.create(&lab.bundle().set("/process/rlimits", json!([entry, entry])));
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn user_and_groups_are_set(lab: &Lab) -> TestResult {
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 44]});
    let b = lab.bundle().set("/process/user", user).args(&[
        "/bin/grep",
        "-E",
        "^(Uid|Gid|Groups)",
        "/proc/self/status",
    ]);
    let seen = lab.printed(&b);
    let lines: Vec<Vec<&str>> = seen.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["Uid:", "1000", "1000", "1000", "1000"]);
    assert_eq!(lines[1], ["Gid:", "1001", "1001", "1001", "1001"]);
    assert!(lines[2].contains(&"5") && lines[2].contains(&"44") && !lines[2].contains(&"0"), "{seen}");
    Ok(())
}

fn umask_is_set(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/user/umask", json!(0o027)).sh("umask");
    assert_eq!(lab.printed(&b), "0027");
    Ok(())
}

fn umask_defaults_to_0022(lab: &Lab) -> TestResult {
    assert_eq!(lab.printed(&lab.bundle().sh("umask")), "0022");
    Ok(())
}

fn a_missing_cwd_is_made(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/cwd", json!("/made/for/me")).args(&["/bin/pwd"]);
    assert_eq!(lab.printed(&b), "/made/for/me");
    Ok(())
}

fn a_relative_cwd_is_refused(lab: &Lab) -> TestResult {
    let output = lab.create(&lab.bundle().set("/process/cwd", json!("tmp")));
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn environment_is_exact(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/env", json!(["PATH=/bin", "HOME=/h", "A=1", "B=", "C=x=y", "D=a b"]));
    let output =
        lab.launch("run", &b.args(&["/bin/cat", "/proc/self/environ"]), &[]).env("HOST_VARIABLE", "1").go();
    let seen = output.ok().out();
    let lines: Vec<&str> = seen.split_terminator('\0').collect();
    assert_eq!(lines, ["PATH=/bin", "HOME=/h", "A=1", "B=", "C=x=y", "D=a b"]);
    Ok(())
}

fn an_environment_entry_without_equals_is_refused(lab: &Lab) -> TestResult {
    for entry in ["NOEQUALS", "=value", ""] {
        let output = lab.run(&lab.bundle().set("/process/env", json!(["PATH=/bin", entry])));
        assert!(output.rc > 0, "{entry:?} was accepted");
    }
    Ok(())
}

fn home_is_set_from_passwd_when_missing(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/user", json!({"uid": 1000, "gid": 1000})).sh("echo $HOME");
    assert_eq!(lab.printed(&b), "/home");
    Ok(())
}

fn hostname_is_set(lab: &Lab) -> TestResult {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    assert_eq!(
        lab.printed(&lab.bundle().set("/hostname", json!("my-host")).args(&["/bin/hostname"])),
        "my-host"
    );
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname")?, before);
    Ok(())
}

fn domainname_is_set(lab: &Lab) -> TestResult {
    let b = lab
        .bundle()
        .set("/domainname", json!("my.domain"))
        .args(&["/bin/cat", "/proc/sys/kernel/domainname"]);
    assert_eq!(lab.printed(&b), "my.domain");
    Ok(())
}

fn with_sysctl(lab: &Lab, key: &str, value: &str) -> hull_integration::Bundle {
    lab.bundle().edit(|spec| spec["linux"]["sysctl"] = json!({key: value}))
}

fn network_sysctl_is_set(lab: &Lab) -> TestResult {
    let b = with_sysctl(lab, "net.ipv4.ip_forward", "1").args(&["/bin/cat", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(lab.printed(&b), "1");
    let b = with_sysctl(lab, "net.ipv4.ping_group_range", "0 0");
    let b = b.args(&["/bin/cat", "/proc/sys/net/ipv4/ping_group_range"]);
    assert_eq!(lab.printed(&b).split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
    Ok(())
}

fn kernel_sysctl_of_the_own_ipc_namespace_is_set(lab: &Lab) -> TestResult {
    let b = with_sysctl(lab, "kernel.msgmax", "4096").args(&["/bin/cat", "/proc/sys/kernel/msgmax"]);
    assert_eq!(lab.printed(&b), "4096");
    Ok(())
}

fn a_sysctl_of_the_host_is_refused(lab: &Lab) -> TestResult {
    let before = fs::read_to_string("/proc/sys/vm/swappiness")?;
    lab.create(&with_sysctl(lab, "vm.swappiness", before.trim())).fails("vm.swappiness");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_network_sysctl_with_the_network_of_the_host_is_refused(lab: &Lab) -> TestResult {
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    let b = with_sysctl(lab, "net.ipv4.ip_forward", before.trim()).without_namespace("network");
    lab.create(&b).fails("net.ipv4.ip_forward");
    Ok(())
}

fn a_bad_sysctl_value_names_the_key(lab: &Lab) -> TestResult {
    let output = lab.create(&with_sysctl(lab, "net.ipv4.ip_forward", "sausage"));
    assert!(output.rc > 0 && output.err().contains("ip_forward"), "{output}");
    Ok(())
}

fn oom_score_is_raised(lab: &Lab) -> TestResult {
    let b =
        lab.bundle().set("/process/oomScoreAdj", json!(500)).args(&["/bin/cat", "/proc/self/oom_score_adj"]);
    assert_eq!(lab.printed(&b), "500");
    Ok(())
}

fn oom_score_that_cannot_be_lowered_is_a_warning(lab: &Lab) -> TestResult {
    if lab.host.has_sys_resource() {
        return skip("the caller may lower it");
    }
    let b =
        lab.bundle().set("/process/oomScoreAdj", json!(-998)).args(&["/bin/cat", "/proc/self/oom_score_adj"]);
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    assert_eq!(lab.printed(&b), own.trim());
    Ok(())
}

fn args_are_exact(lab: &Lab) -> TestResult {
    let b = lab.bundle().args(&["/bin/cat", "/proc/self/cmdline", "-", "", "a b", "ü", "$HOME"]);
    // The last words are files that do not exist: only the first output counts.
    let seen = lab.run(&b).out();
    let words: Vec<&str> = seen.split_terminator('\0').collect();
    assert_eq!(words, ["/bin/cat", "/proc/self/cmdline", "-", "", "a b", "ü", "$HOME"]);
    Ok(())
}

fn a_process_is_required(lab: &Lab) -> TestResult {
    let output =
        lab.run(&lab.bundle().edit(|spec| drop(spec.as_object_mut().expect("object").remove("process"))));
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn empty_args_are_refused(lab: &Lab) -> TestResult {
    for args in [json!([]), json!([""]), Value::Null, json!("sh")] {
        let output = lab.run(&lab.bundle().set("/process/args", args.clone()));
        assert!(output.rc > 0, "args {args} were accepted");
    }
    Ok(())
}

fn signals_are_not_blocked_or_ignored(lab: &Lab) -> TestResult {
    let b = lab.bundle();
    for key in ["SigBlk", "SigIgn"] {
        assert_eq!(bits(lab, &b, key), 0, "{key}");
    }
    Ok(())
}

fn io_priority_is_set(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    let seen = lab.printed(&b.sh("ionice -p $$"));
    assert!(seen.contains("best-effort") && seen.contains('6'), "{seen}");
    Ok(())
}

fn scheduler_is_set(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}));
    // Fields 19 and 41 of proc_pid_stat(5): nice and policy; SCHED_BATCH is 3.
    assert_eq!(lab.printed(&b.sh("cut -d' ' -f19,41 /proc/$$/stat")), "5 3");
    Ok(())
}

fn init_has_no_parent_death_signal_and_its_own_session(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("cut -d' ' -f5,6 /proc/$$/stat");
    assert_eq!(lab.printed(&b), "1 1", "process group and session");
    Ok(())
}

fn personality_is_set(lab: &Lab) -> TestResult {
    if !cfg!(target_arch = "x86_64") {
        return skip("the test knows x86-64 only");
    }
    let b = lab.bundle().set("/linux/personality", json!({"domain": "LINUX32"})).args(&["/bin/uname", "-m"]);
    assert_eq!(lab.printed(&b), "i686");
    Ok(())
}

fn relative_parts_of_path_are_passed_over(lab: &Lab) -> TestResult {
    let b = lab
        .bundle()
        .file("/here/program", "#!/bin/sh\necho found\n", 0o755)
        .set("/process/cwd", json!("/here"));
    for path in ["", ":", ".", "/bin:", "here:/bin", "../here"] {
        let b = b.clone().set("/process/env", json!([format!("PATH={path}")])).args(&["program"]);
        let output = lab.run(&b);
        assert!(output.rc > 0, "PATH={path:?} ran a program of the working directory: {output}");
    }
    let b = b.set("/process/env", json!(["PATH=:/here"]));
    assert_eq!(lab.run(&b.args(&["program"])).ok().text(), "found");
    Ok(())
}

fn the_callers_affinity_is_not_the_containers(lab: &Lab) -> TestResult {
    let script = "grep Cpus_allowed_list /proc/self/status";
    let all = lab.printed(&lab.bundle().sh(script));
    if !all.contains('-') && !all.contains(',') {
        return hull_integration::skip("this machine has one CPU");
    }
    let pinned = ["taskset", "1"];
    let b = lab.bundle().sh(script);
    assert_eq!(lab.launch("run", &b, &[]).through(&pinned).go().ok().text(), all);
    let b = lab.bundle().waits();
    lab.launch("run", &b, &["--detach"]).through(&pinned).go().ok();
    let exec = lab.call(&["exec", &b.id, "/bin/sh", "-c", script]).through(&pinned).go().ok();
    assert_eq!(exec.text(), all);
    Ok(())
}

fn of_equal_variables_the_last_counts(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/env", json!(["PATH=/bin", "A=first", "B=x", "A=last"]));
    let seen = lab.printed(&b.args(&["/bin/env"]));
    assert_eq!(seen.lines().filter(|line| line.starts_with("A=")).collect::<Vec<_>>(), ["A=last"]);
    Ok(())
}

fn an_empty_home_is_looked_up(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/process/env", json!(["PATH=/bin", "HOME="]));
    assert_eq!(lab.printed(&b.sh("echo $HOME")), "/root");
    Ok(())
}

fn exec_has_the_personality_of_the_container(lab: &Lab) -> TestResult {
    let b = lab.bundle().set("/linux/personality", json!({"domain": "LINUX32"})).waits();
    lab.up(&b);
    let seen = lab.inside(&b.id, "uname -m");
    assert!(seen != "x86_64" && seen != "aarch64", "{seen}");
    Ok(())
}

fn exec_cap_leaves_the_other_sets_alone(lab: &Lab) -> TestResult {
    let own = json!(["CAP_KILL"]);
    let sets =
        json!({"bounding": own, "effective": own, "permitted": own, "inheritable": own, "ambient": own});
    let b = lab.bundle().set("/process/capabilities", sets).waits();
    lab.up(&b);
    let exec = lab.rt(&[
        "exec",
        "--cap",
        "CAP_NET_RAW",
        &b.id,
        "/bin/grep",
        "-E",
        "^Cap(Inh|Amb|Prm)",
        "/proc/self/status",
    ]);
    let bits = |name: &str| {
        let text = exec.out();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        u64::from_str_radix(line.trim(), 16).unwrap_or(0)
    };
    assert_eq!(
        (bits("CapInh:"), bits("CapAmb:"), bits("CapPrm:")),
        (1 << 5, 1 << 5, 1 << 5 | 1 << 13),
        "{exec}"
    );
    Ok(())
}

/// A score below the caller's own may be one that it had before.
fn an_oom_score_that_may_be_set_is_set(lab: &Lab) -> TestResult {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse()?;
    let front = format!("echo {} > /proc/self/oom_score_adj; exec \"$@\"", own + 1);
    let shell = lab.busybox().display().to_string();
    let b =
        lab.bundle().set("/process/oomScoreAdj", json!(own)).args(&["/bin/cat", "/proc/self/oom_score_adj"]);
    let globals: &[&str] = if lab.is("hull") { &["--strict"] } else { &[] };
    b.write();
    lab.remember(&b.id);
    let call = lab.call_globals(globals, &["run", "--bundle", &b.dir.to_string_lossy(), &b.id]);
    assert_eq!(call.through(&[&shell, "sh", "-c", &front, "sh"]).go().ok().text(), own.to_string());
    Ok(())
}
