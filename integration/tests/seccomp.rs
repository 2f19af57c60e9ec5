//! linux.seccomp: what the filter answers, seen by a process under it.

use hull_integration::{Bundle, Lab, TestResult, skip, tests};
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use std::time::Duration;

tests! {
    errno_action_returns_the_number,
    errno_action_defaults_to_eperm,
    default_errno_is_used_for_what_is_not_listed,
    newer_system_calls_than_the_profile_get_enosys.breaks_on(&[("crun", "docs/differences.md, seccomp: newer system calls get ENOSYS")]),
    argument_rules_are_compared,
    masked_argument_rules_are_compared,
    two_rules_of_one_name_are_alternatives,
    rules_of_one_argument_twice_are_alternatives,
    kill_action_ends_the_process_by_sigsys,
    an_unknown_system_call_is_ignored,
    an_unknown_architecture_is_no_parse_error.breaks_on(&[("runc", "docs/differences.md: an unknown seccomp architecture is a warning"), ("crun", "docs/differences.md: an unknown seccomp architecture is a warning")]),
    an_unknown_action_is_refused,
    filter_mode_is_on,
    no_section_means_no_filter,
    filter_holds_for_exec,
    filter_is_installed_without_no_new_privs,
    flags_are_accepted.breaks_on(&[("runc 1.1", "config-linux.md#seccomp: all four flags")]),
    a_large_profile_of_docker_works,
    a_profile_without_getcwd_starts,
    notify_of_write_is_refused.breaks_on(&[("crun", "runc's words: SCMP_ACT_NOTIFY cannot be used for the write syscall")]),
    notify_without_a_listener_is_refused.breaks_on(&[("crun 1.8", "config-linux.md#seccomp: SCMP_ACT_NOTIFY needs a listenerPath")]),
    listener_gets_the_descriptor_and_the_state,
    a_missing_listener_fails_the_start,
    a_filter_under_which_nothing_can_start_is_refused.breaks_on(&[
        ("runc", "it tries, and tells the kernel's answer or nothing"),
        ("crun", "it tries, and tells the kernel's answer or nothing"),
    ]),
}

fn allow(lab: &Lab, rules: Value) -> Bundle {
    lab.bundle().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

fn errno_action_returns_the_number(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let seen = lab.printed(&allow(lab, rule).sh("mkdir /x 2>&1 || true; test -d /x && echo made || true"));
    assert!(seen.contains("No space left") && !seen.contains("made"), "{seen}");
    Ok(())
}

fn errno_action_defaults_to_eperm(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let seen = lab.printed(&allow(lab, rule).sh("mkdir /x 2>&1 || true"));
    assert!(seen.contains("Operation not permitted"), "{seen}");
    Ok(())
}

/// What a busybox shell, the probe and the runtime itself need at exec.
const PLAIN: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "prlimit64",
    "pread64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setuid",
    "sigaltstack",
    "stat",
    "statx",
    "tgkill",
    "uname",
    "wait4",
    "waitid",
    "write",
    "writev",
];

fn default_errno_is_used_for_what_is_not_listed(lab: &Lab) -> TestResult {
    let b = lab.bundle().set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28,
               "syscalls": [{"names": PLAIN, "action": "SCMP_ACT_ALLOW"}]}),
    );
    let seen = lab.printed(&b.sh("mkdir /x 2>&1 || true"));
    assert!(seen.contains("No space left"), "{seen}");
    Ok(())
}

/// glibc and musl fall back to older calls on ENOSYS, but not on EPERM.
fn newer_system_calls_than_the_profile_get_enosys(lab: &Lab) -> TestResult {
    let names: Vec<&str> = PLAIN
        .iter()
        .copied()
        .filter(|n| *n != "openat2" && *n != "faccessat2" && *n != "close_range")
        .collect();
    let b = lab.probe_bundle()?.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": [native()],
               "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}),
    );
    // Number 460 and above are newer than every name of the profile; 83 (mkdir) is older.
    assert_eq!(lab.printed(&b.clone().args(&["/bin/probe", "syscall", "460"])), "errno 38");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(lab.printed(&b.args(&["/bin/probe", "syscall", "83"])), "errno 1");
    }
    Ok(())
}

/// personality(2) as docker's profile has it: 0 is allowed, 7 is not.
fn argument_rules_are_compared(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
                       "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]}]);
    let b = allow_probe(lab, rule)?;
    assert_eq!(lab.printed(&b.clone().args(&["/bin/probe", "syscall", &personality(), "7"])), "errno 28");
    assert_eq!(lab.printed(&b.args(&["/bin/probe", "syscall", &personality(), "0"])), "ok 0");
    Ok(())
}

fn allow_probe(lab: &Lab, rules: Value) -> Result<Bundle, hull_integration::Stop> {
    let b = lab.probe_bundle()?;
    Ok(b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})))
}

fn native() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "SCMP_ARCH_AARCH64",
        _ => "SCMP_ARCH_X86_64",
    }
}

fn personality() -> String {
    libc::SYS_personality.to_string()
}

fn masked_argument_rules_are_compared(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
                       "args": [{"index": 0, "value": 6, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}]);
    let b = allow_probe(lab, rule)?;
    let answer = |arg: &str| lab.printed(&b.clone().args(&["/bin/probe", "syscall", &personality(), arg]));
    assert_eq!(answer("2"), "errno 28");
    assert_eq!(answer("3"), "errno 28");
    assert!(answer("6").starts_with("ok"), "6 & 6 is not 2");
    Ok(())
}

fn two_rules_of_one_name_are_alternatives(lab: &Lab) -> TestResult {
    let one = |value: u32| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let b = allow_probe(lab, json!([one(2), one(4)]))?;
    let answer = |arg: &str| lab.printed(&b.clone().args(&["/bin/probe", "syscall", &personality(), arg]));
    assert_eq!(answer("2"), "errno 28");
    assert_eq!(answer("4"), "errno 28");
    assert!(answer("0").starts_with("ok"));
    Ok(())
}

/// Two conditions on one argument cannot be chained by libseccomp: runc makes two rules of them.
fn rules_of_one_argument_twice_are_alternatives(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
        "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 4, "op": "SCMP_CMP_EQ"}]}]);
    let b = allow_probe(lab, rule)?;
    let answer = |arg: &str| lab.printed(&b.clone().args(&["/bin/probe", "syscall", &personality(), arg]));
    assert_eq!(answer("2"), "errno 28");
    assert_eq!(answer("4"), "errno 28");
    assert!(answer("0").starts_with("ok"));
    Ok(())
}

fn kill_action_ends_the_process_by_sigsys(lab: &Lab) -> TestResult {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let rule = json!([{"names": ["mkdir", "mkdirat"], "action": action}]);
        lab.run(&allow(lab, rule).args(&["/bin/mkdir", "/x"])).rc(128 + 31);
    }
    Ok(())
}

fn an_unknown_system_call_is_ignored(lab: &Lab) -> TestResult {
    let rule =
        json!([{"names": ["frobnicate", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let seen = lab.printed(&allow(lab, rule).sh("mkdir /x 2>&1 || true"));
    assert!(seen.contains("No space left"), "{seen}");
    Ok(())
}

fn an_unknown_architecture_is_no_parse_error(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let b =
        allow(lab, rule).set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_Z80"]));
    lab.run(&b).ok();
    Ok(())
}

fn an_unknown_action_is_refused(lab: &Lab) -> TestResult {
    let output = lab.create(&allow(lab, json!([{"names": ["mkdir"], "action": "SCMP_ACT_SAUSAGE"}])));
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn mode(lab: &Lab, b: Bundle) -> String {
    lab.printed(&b.args(&["/bin/grep", "Seccomp:", "/proc/self/status"]))
}

fn filter_mode_is_on(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]);
    assert!(mode(lab, allow(lab, rule)).ends_with('2'));
    Ok(())
}

fn no_section_means_no_filter(lab: &Lab) -> TestResult {
    assert!(mode(lab, lab.bundle()).ends_with('0'));
    Ok(())
}

fn filter_holds_for_exec(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let b = allow(lab, rule).args(&["/bin/sleep", "100"]);
    lab.up(&b);
    let seen = lab.inside(&b.id, "mkdir /x 2>&1 || true");
    assert!(seen.contains("No space left"), "{seen}");
    Ok(())
}

fn filter_is_installed_without_no_new_privs(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]);
    let b = allow(lab, rule).set("/process/noNewPrivileges", json!(false));
    let seen = lab.printed(&b.args(&["/bin/grep", "-E", "Seccomp:|NoNewPrivs", "/proc/self/status"]));
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["NoNewPrivs:", "0", "Seccomp:", "2"]);
    Ok(())
}

fn flags_are_accepted(lab: &Lab) -> TestResult {
    for flag in ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"] {
        let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
        let b = allow(lab, rule).set("/linux/seccomp/flags", json!([flag])).sh("mkdir /x 2>&1 || true");
        assert!(lab.printed(&b).contains("No space left"), "{flag}");
    }
    Ok(())
}

fn a_large_profile_of_docker_works(lab: &Lab) -> TestResult {
    let config: Value = serde_json::from_str(include_str!("../data/docker-default.json"))?;
    let b = lab.bundle().set("/linux/seccomp", config["linux"]["seccomp"].clone());
    let seen = lab.printed(&b.sh("mkdir /x && echo made; unshare -m true 2>&1 || true"));
    assert!(seen.starts_with("made") && seen.contains("not permitted"), "{seen}");
    Ok(())
}

fn a_profile_without_getcwd_starts(lab: &Lab) -> TestResult {
    let rule = json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]);
    lab.run(&allow(lab, rule)).ok();
    Ok(())
}

fn notify_of_write_is_refused(lab: &Lab) -> TestResult {
    let b = allow(lab, json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]));
    let b = b.set("/linux/seccomp/listenerPath", json!(lab.dir.join("agent")));
    let output = lab.create(&b).fails("SCMP_ACT_NOTIFY cannot be used for the write syscall");
    assert!(output.rc > 0);
    Ok(())
}

fn notify_without_a_listener_is_refused(lab: &Lab) -> TestResult {
    let output = lab.create(&allow(lab, json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}])));
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn listener_gets_the_descriptor_and_the_state(lab: &Lab) -> TestResult {
    use std::os::fd::AsFd;
    if lab.is("hull") {
        return skip("hull: SCMP_ACT_NOTIFY is not yet supported");
    }
    let path = lab.dir.join("agent");
    let listener = UnixListener::bind(&path)?;
    let b = allow(lab, json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]));
    let b = b
        .set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("my-meta"));
    let b = b.args(&["/bin/mkdir", "/x"]);
    let running = lab.launch("run", &b, &["--detach"]).spawn();
    listener.set_nonblocking(true)?;
    let mut stream = None;
    lab.eventually("a connection to the agent", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let Some((stream, _)) = stream else { return skip("no connection") };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (text, fds) = hull_integration::console::receive(stream.as_fd())?;
    assert_eq!(fds.len(), 1);
    let state: Value = serde_json::from_str(&text)?;
    assert_eq!(state["fds"], json!(["seccompFd"]), "{text}");
    assert_eq!(state["metadata"], json!("my-meta"), "{text}");
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{text}");
    assert_eq!(state["state"]["id"], json!(b.id), "{text}");
    drop(fds);
    running.wait_for(Duration::from_secs(10))?;
    lab.delete(&b.id);
    Ok(())
}

fn a_missing_listener_fails_the_start(lab: &Lab) -> TestResult {
    let b = allow(lab, json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]));
    let b = b.set("/linux/seccomp/listenerPath", json!(lab.dir.join("nobody")));
    let output = lab.run(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

fn a_filter_under_which_nothing_can_start_is_refused(lab: &Lab) -> TestResult {
    let only = |names: &[&str]| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    let deny = |names: &[&str], action: &str| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": action}]});
    let filters = [
        (deny(&["execve", "exit_group", "exit"], "SCMP_ACT_ERRNO"), "execve"),
        (deny(&["execve"], "SCMP_ACT_KILL_PROCESS"), "execve"),
        (deny(&["execve"], "SCMP_ACT_TRAP"), "execve"),
        (deny(&["capset"], "SCMP_ACT_ERRNO"), "capset"),
        (only(&["exit_group"]), "execve"),
        (json!({"defaultAction": "SCMP_ACT_KILL"}), "execve"),
    ];
    for (filter, name) in filters {
        for verb in ["run", "create"] {
            let b = lab.bundle().set("/linux/seccomp", filter.clone());
            let b = b.set("/process/noNewPrivileges", json!(name == "execve"));
            let output = lab.launch(verb, &b, &[]).spawn().wait_for(std::time::Duration::from_secs(1))?;
            output.fails(&format!("filter denies {name}"));
            assert!(lab.ids_on_disk().is_empty());
        }
    }
    Ok(())
}
