//! Hooks: when, where, with what on stdin, and what a failing one does.

use hull_integration::{Bundle, Lab, TestResult, tests};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const POSTSTART: (&str, &str) =
    ("runc", "runtime.md#lifecycle: poststart hooks run at start, not at the end of create");

tests! {
    hooks_run_in_the_order_of_the_spec.breaks_on(&[("crun 1.8", "runtime.md#lifecycle: poststart comes after startContainer"), POSTSTART]),
    hooks_run_at_their_verbs.breaks_on(&[POSTSTART]),
    hook_gets_the_state_on_stdin,
    prestart_sees_the_status_created.breaks_on(&[("runc", "runtime.md#lifecycle: the hooks get the state, which is `created` by then")]),
    poststart_sees_the_status_running.breaks_on(&[POSTSTART]),
    poststop_sees_the_status_stopped,
    a_hook_that_does_not_read_its_stdin_is_no_error.breaks_on(&[("crun 1.8", "now and then dies of SIGPIPE when the hook ends first")]),
    hook_gets_its_args_and_environment,
    hook_without_environment_gets_none.breaks_on(&[("runc", "config.md#posix-platform-hooks: env has the semantics of environ"), ("crun", "config.md: env of the hook")]),
    failing_prestart_hook_fails_create,
    failing_create_runtime_hook_fails_create,
    failing_create_container_hook_fails_create,
    failing_start_container_hook_fails_start,
    failing_hook_is_named_with_its_number.breaks_on(&[("runc 1.1", "runc's words: error running <name> hook #N:"), ("crun", "runc's words: error running <name> hook #N:")]),
    failing_hook_shows_its_stderr.breaks_on(&[("crun", "callers 5: no stderr of the hook")]),
    failing_poststart_hook_is_a_warning.breaks_on(&[("runc", "runtime.md#lifecycle: a failing poststart hook is a warning")]),
    failing_poststop_hook_is_a_warning.breaks_on(&[("runc 1.5", "runtime.md#lifecycle: a failing poststop hook is a warning")]),
    a_hook_that_is_missing_fails_create,
    hook_timeout_ends_the_hook,
    hooks_after_a_failing_one_do_not_run,
    prestart_hook_runs_in_the_namespaces_of_the_runtime,
    create_runtime_hook_sees_the_network_namespace_before_pivot,
    create_container_hook_runs_in_the_mount_namespace,
    start_container_hook_runs_inside_the_root,
    start_container_hook_is_held_to_rlimits_and_the_filter.breaks_on(&[("crun", "the filter is loaded after the hooks")]),
    failing_start_container_hook_shows_its_output.breaks_on(&[("runc", "start returns before the hook has run"), ("crun", "callers 5: no stderr of the hook")]),
    a_failing_hook_shows_its_own_output_only.breaks_on(&[("crun", "callers 5: no stderr of the hook")]),
    poststop_runs_once_at_delete,
    poststop_runs_when_create_fails.breaks_on(&[("crun", "runtime.md#lifecycle: poststop hooks after a failed create")]),
    a_relative_hook_path_is_refused,
    hooks_inside_are_told_the_pid_as_the_container_sees_it.breaks_on(&[("crun 1.8", "runtime.md#state: the pid as seen by the container")]),
    hooks_of_every_kind_run_in_the_same_surroundings.breaks_on(&[
        ("runc", "the spec says nothing of cwd and umask; runc's are the caller's"),
        ("crun", "the spec says nothing of cwd and umask; crun's are the caller's"),
    ]),
}

/// A hook of the host: a shell script.
fn script(lab: &Lab, text: &str) -> Value {
    json!({"path": lab.busybox(), "args": ["busybox", "sh", "-c", text], "env": ["PATH=/bin:/usr/bin"]})
}

/// A hook that takes the state from its stdin before it does what the text says.
fn hook(lab: &Lab, b: Bundle, kind: &str, text: &str) -> Bundle {
    reading_hook(lab, b, kind, &format!("cat > /dev/null; {text}"))
}

/// A hook whose text deals with stdin itself.
fn reading_hook(lab: &Lab, b: Bundle, kind: &str, text: &str) -> Bundle {
    b.push(&format!("/hooks/{kind}"), script(lab, text))
}

/// Every kind appends its name to one file; startContainer does it inside.
fn with_all(lab: &Lab) -> (Bundle, std::path::PathBuf) {
    let order = lab.dir.join("order");
    fs::write(&order, "").expect("write the order file");
    let mut b = lab.bundle().mount("bind", &order, "/order", &["bind", "rw"]);
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        b = hook(lab, b, kind, &format!("echo {kind} >> {}", order.display()));
    }
    let inside = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /order"]});
    (b.push("/hooks/startContainer", inside).sh("echo process >> /order; sleep 100"), order)
}

fn hooks_run_in_the_order_of_the_spec(lab: &Lab) -> TestResult {
    let (b, order) = with_all(lab);
    lab.create(&b).ok();
    lab.start(&b.id).ok();
    let read = || fs::read_to_string(&order).unwrap_or_default();
    lab.eventually("the process", || read().contains("process") && read().contains("poststart"));
    lab.delete(&b.id);
    let text = read();
    let mut seen: Vec<&str> = text.lines().collect();
    // The process runs beside poststart: their order is open.
    seen.retain(|l| *l != "process");
    let wanted = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(seen, wanted);
    Ok(())
}

fn hooks_run_at_their_verbs(lab: &Lab) -> TestResult {
    let (b, order) = with_all(lab);
    let read = || fs::read_to_string(&order).unwrap_or_default();
    lab.create(&b).ok();
    assert_eq!(read(), "prestart\ncreateRuntime\ncreateContainer\n");
    lab.start(&b.id).ok();
    assert!(read().contains("poststart\n"), "{}", read());
    // crun's start does not wait for what init does.
    lab.eventually("startContainer", || read().contains("startContainer\n"));
    assert!(!read().contains("poststop"));
    lab.delete(&b.id);
    assert!(read().ends_with("poststop\n"), "{}", read());
    Ok(())
}

fn state_of(lab: &Lab, kind: &str) -> Result<(Bundle, Value), hull_integration::Stop> {
    let file = lab.dir.join("hook-state");
    let b = reading_hook(lab, lab.bundle(), kind, &format!("cat > {}", file.display()));
    lab.create(&b).ok();
    lab.start(&b.id).ok();
    lab.wait_status(&b.id, "stopped");
    lab.delete(&b.id);
    let state = serde_json::from_str(&fs::read_to_string(file)?)?;
    Ok((b, state))
}

fn hook_gets_the_state_on_stdin(lab: &Lab) -> TestResult {
    let (b, state) = state_of(lab, "createRuntime")?;
    assert_eq!(state["id"], json!(b.id));
    assert_eq!(state["bundle"], json!(b.dir));
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
    assert!(state["ociVersion"].is_string(), "{state}");
    Ok(())
}

fn prestart_sees_the_status_created(lab: &Lab) -> TestResult {
    assert_eq!(state_of(lab, "prestart")?.1["status"], "created");
    Ok(())
}

fn poststart_sees_the_status_running(lab: &Lab) -> TestResult {
    assert_eq!(state_of(lab, "poststart")?.1["status"], "running");
    Ok(())
}

fn poststop_sees_the_status_stopped(lab: &Lab) -> TestResult {
    assert_eq!(state_of(lab, "poststop")?.1["status"], "stopped");
    Ok(())
}

/// A long state: more than a pipe takes, so writing it meets the end of the hook.
fn a_hook_that_does_not_read_its_stdin_is_no_error(lab: &Lab) -> TestResult {
    let b = reading_hook(lab, lab.bundle(), "createRuntime", "exec < /dev/null; true");
    let b = reading_hook(lab, b, "poststop", "exec < /dev/null; true");
    let b = b.set("/annotations", json!({"long": "x".repeat(200_000)}));
    lab.run(&b).ok();
    Ok(())
}

fn hook_gets_its_args_and_environment(lab: &Lab) -> TestResult {
    let file = lab.dir.join("out");
    let text = format!("echo \"$0,$1,$MINE\" > {}", file.display());
    let entry =
        json!({"path": lab.busybox(), "args": ["sh", "-c", text, "zero", "one"], "env": ["MINE=my value"]});
    lab.run(&lab.bundle().push("/hooks/createRuntime", entry)).ok();
    assert_eq!(fs::read_to_string(file)?, "zero,one,my value\n");
    Ok(())
}

fn hook_without_environment_gets_none(lab: &Lab) -> TestResult {
    let file = lab.dir.join("out");
    let text = format!("cat /proc/self/environ > {}", file.display());
    let entry = json!({"path": lab.busybox(), "args": ["sh", "-c", text]});
    let b = lab.bundle().push("/hooks/createRuntime", entry);
    lab.launch("run", &b, &[]).env("OF_THE_CALLER", "1").go().ok();
    let seen = fs::read_to_string(file)?;
    assert!(!seen.contains("OF_THE_CALLER"), "{seen}");
    Ok(())
}

fn create_fails(lab: &Lab, kind: &str) -> TestResult {
    let b = hook(lab, lab.bundle(), kind, "exit 3");
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn failing_prestart_hook_fails_create(lab: &Lab) -> TestResult {
    create_fails(lab, "prestart")
}

fn failing_create_runtime_hook_fails_create(lab: &Lab) -> TestResult {
    create_fails(lab, "createRuntime")
}

fn failing_create_container_hook_fails_create(lab: &Lab) -> TestResult {
    create_fails(lab, "createContainer")
}

fn failing_start_container_hook_fails_start(lab: &Lab) -> TestResult {
    let entry = json!({"path": "/bin/false", "args": ["false"]});
    let b = lab.bundle().push("/hooks/startContainer", entry).sh("echo ran > /ran");
    lab.create(&b).ok();
    // runc's start returns before the hook has run; the process must not run in any case.
    let output = lab.start(&b.id);
    assert!(output.rc != 0 || !lab.is("hull"), "{output}");
    lab.eventually("the end", || lab.status(&b.id) == "stopped");
    assert_eq!(b.read("/ran"), "");
    Ok(())
}

fn failing_hook_is_named_with_its_number(lab: &Lab) -> TestResult {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let b = hook(lab, hook(lab, lab.bundle(), kind, "true"), kind, "exit 3");
        lab.create(&b).fails(&format!("error running {kind} hook #1:"));
    }
    Ok(())
}

fn failing_hook_shows_its_stderr(lab: &Lab) -> TestResult {
    let b = hook(lab, lab.bundle(), "createRuntime", "echo my-complaint >&2; exit 3");
    lab.create(&b).fails("my-complaint");
    Ok(())
}

fn start_container_hook_is_held_to_rlimits_and_the_filter(lab: &Lab) -> TestResult {
    let text = "ulimit -n > /limit; mkdir /made; grep Seccomp: /proc/self/status >> /limit; true";
    let inside = json!({"path": "/bin/sh", "args": ["sh", "-c", text]});
    let denied = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    });
    let b = lab
        .bundle()
        .push("/hooks/startContainer", inside)
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}]))
        .set("/linux/seccomp", denied)
        .args(&["/bin/true"]);
    lab.run(&b).ok();
    assert_eq!(b.read("/limit").split_whitespace().collect::<Vec<_>>(), ["77", "Seccomp:", "2"]);
    assert!(!b.dir.join("rootfs/made").exists(), "the filter denies mkdir");
    Ok(())
}

fn failing_start_container_hook_shows_its_output(lab: &Lab) -> TestResult {
    let failing = |text: &str| {
        let inside = json!({"path": "/bin/sh", "args": ["sh", "-c", text]});
        lab.bundle().push("/hooks/startContainer", inside).args(&["/bin/true"])
    };
    let b = failing("echo my-complaint >&2; exit 3");
    lab.run(&b).fails("error running startContainer hook #0: exit status 3, output: my-complaint");
    let b = failing("echo my-complaint >&2; exit 3");
    lab.create(&b).ok();
    lab.start(&b.id).fails("error running startContainer hook #0: exit status 3, output: my-complaint");
    let missing = lab.bundle().push("/hooks/startContainer", json!({"path": "/no/such/hook"}));
    lab.create(&missing).ok();
    lab.start(&missing.id).fails("exec /no/such/hook: no such file or directory");
    Ok(())
}

fn a_failing_hook_shows_its_own_output_only(lab: &Lab) -> TestResult {
    let b = hook(lab, lab.bundle(), "createRuntime", "echo all-is-well");
    let b = hook(lab, b, "createRuntime", "echo my-complaint >&2; exit 3");
    let output = lab.create(&b);
    assert!(output.err().contains("my-complaint") && !output.err().contains("all-is-well"), "{output}");
    Ok(())
}

fn failing_poststart_hook_is_a_warning(lab: &Lab) -> TestResult {
    let b = hook(lab, lab.bundle(), "poststart", "exit 3").waits();
    lab.create(&b).ok();
    lab.start(&b.id).ok();
    assert_eq!(lab.status(&b.id), "running");
    Ok(())
}

fn failing_poststop_hook_is_a_warning(lab: &Lab) -> TestResult {
    let b = hook(lab, lab.bundle(), "poststop", "exit 3");
    lab.create(&b).ok();
    lab.rt(&["delete", "--force", &b.id]).ok();
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn a_hook_that_is_missing_fails_create(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/hooks/createRuntime", json!({"path": "/no/such/hook"}));
    lab.create(&b).fails("/no/such/hook");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn hook_timeout_ends_the_hook(lab: &Lab) -> TestResult {
    let mut entry = script(lab, "exec sleep 50");
    entry["timeout"] = json!(1);
    let output = lab.create(&lab.bundle().push("/hooks/createRuntime", entry));
    assert!(output.rc > 0, "{output}");
    assert!(output.took < Duration::from_secs(10), "{output}");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn hooks_after_a_failing_one_do_not_run(lab: &Lab) -> TestResult {
    let file = lab.dir.join("ran");
    let b = hook(lab, lab.bundle(), "createRuntime", "exit 3");
    let b = hook(lab, b, "createRuntime", &format!("touch {}", file.display()));
    assert!(lab.create(&b).rc > 0);
    assert!(!file.exists());
    Ok(())
}

fn prestart_hook_runs_in_the_namespaces_of_the_runtime(lab: &Lab) -> TestResult {
    let file = lab.dir.join("out");
    let b = hook(
        lab,
        lab.bundle(),
        "prestart",
        &format!("(readlink /proc/self/ns/mnt; readlink /proc/self/ns/net) > {}", file.display()),
    );
    lab.run(&b).ok();
    let wanted =
        ["mnt", "net"].map(|n| fs::read_link(format!("/proc/self/ns/{n}")).map(|p| p.display().to_string()));
    let wanted: Result<Vec<String>, _> = wanted.into_iter().collect();
    assert_eq!(fs::read_to_string(file)?.lines().collect::<Vec<_>>(), wanted?);
    Ok(())
}

/// What docker's libnetwork-setkey relies on.
fn create_runtime_hook_sees_the_network_namespace_before_pivot(lab: &Lab) -> TestResult {
    for kind in ["prestart", "createRuntime"] {
        let (net, root) = (lab.dir.join(format!("{kind}-net")), lab.dir.join(format!("{kind}-root")));
        let text = format!(
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > {}; ls -d /proc/$pid/root{} > {}",
            net.display(),
            lab.dir.display(),
            root.display()
        );
        lab.run(&reading_hook(lab, lab.bundle(), kind, &text)).ok();
        let seen = fs::read_to_string(&net)?;
        let host = fs::read_link("/proc/self/ns/net")?.display().to_string();
        assert!(seen.starts_with("net:[") && seen.trim() != host, "{kind}: {seen:?}");
        assert!(!fs::read_to_string(&root)?.is_empty(), "{kind}: the root was already changed");
    }
    Ok(())
}

fn create_container_hook_runs_in_the_mount_namespace(lab: &Lab) -> TestResult {
    let file = lab.dir.join("out");
    let b = hook(
        lab,
        lab.bundle(),
        "createContainer",
        &format!("readlink /proc/self/ns/mnt > {}", file.display()),
    );
    lab.run(&b).ok();
    let seen = fs::read_to_string(file)?;
    let host = fs::read_link("/proc/self/ns/mnt")?.display().to_string();
    assert!(seen.starts_with("mnt:[") && seen.trim() != host, "{seen}");
    Ok(())
}

fn start_container_hook_runs_inside_the_root(lab: &Lab) -> TestResult {
    let entry =
        json!({"path": "/bin/sh", "args": ["sh", "-c", "hostname > /by-the-hook"], "env": ["PATH=/bin"]});
    let b = lab.bundle().push("/hooks/startContainer", entry).args(&["/bin/cat", "/by-the-hook"]);
    assert_eq!(lab.printed(&b), "box");
    Ok(())
}

fn poststop_runs_once_at_delete(lab: &Lab) -> TestResult {
    let file = lab.dir.join("count");
    let b = hook(lab, lab.bundle(), "poststop", &format!("echo once >> {}", file.display()));
    lab.up(&b);
    lab.wait_status(&b.id, "stopped");
    assert!(!file.exists());
    lab.rt(&["delete", &b.id]).ok();
    assert_eq!(fs::read_to_string(file)?, "once\n");
    Ok(())
}

fn poststop_runs_when_create_fails(lab: &Lab) -> TestResult {
    let file = lab.dir.join("count");
    let b = hook(lab, lab.bundle(), "createRuntime", "exit 1");
    let b = hook(lab, b, "poststop", &format!("echo once >> {}", file.display()));
    assert!(lab.create(&b).rc > 0);
    assert_eq!(fs::read_to_string(file).unwrap_or_default(), "once\n");
    Ok(())
}

fn a_relative_hook_path_is_refused(lab: &Lab) -> TestResult {
    let b = lab.bundle().push("/hooks/createRuntime", json!({"path": "bin/true"}));
    let output = lab.create(&b);
    assert!(output.rc > 0, "{output}");
    Ok(())
}

/// runtime.md#state: for hooks in the container's namespaces the pid as the container sees it.
fn hooks_inside_are_told_the_pid_as_the_container_sees_it(lab: &Lab) -> TestResult {
    let dir = lab.new_dir("told");
    let b = lab.bundle().mount("bind", &dir, "/told", &["bind", "rw"]);
    let inside = json!({"path": "/bin/sh", "args": ["sh", "-c", "cat > /told/startContainer"]});
    let b = b.push("/hooks/startContainer", inside);
    let b = reading_hook(lab, b, "createContainer", &format!("cat > {}/createContainer", dir.display()));
    lab.run(&b).ok();
    for kind in ["createContainer", "startContainer"] {
        let told: Value = serde_json::from_str(&fs::read_to_string(dir.join(kind))?)?;
        assert_eq!(told["pid"], 1, "{kind}: {told}");
    }
    Ok(())
}

/// Working directory, umask, ignored and blocked signals, descriptors, environment.
fn hooks_of_every_kind_run_in_the_same_surroundings(lab: &Lab) -> TestResult {
    const KINDS: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let dir = lab.new_dir("seen");
    let mut b = lab.bundle().mount("bind", &dir, "/seen", &["bind", "rw"]).waits();
    for kind in KINDS {
        let (shell, to) = match kind {
            "startContainer" => (json!("/bin/busybox"), "/seen".to_owned()),
            _ => (json!(lab.busybox()), dir.display().to_string()),
        };
        let text = format!(
            "busybox cat > /dev/null; (pwd; umask; busybox env; \
             busybox grep -E '^Sig(Ign|Blk)' /proc/self/status; busybox ls /proc/self/fd) > {to}/{kind}"
        );
        let text = text.replace("busybox ", &format!("{} ", shell.as_str().unwrap_or_default()));
        b = b.push(
            &format!("/hooks/{kind}"),
            json!({"path": shell, "args": ["busybox", "sh", "-c", text], "env": ["A=b"]}),
        );
    }
    let call = |words: &[&str]| lab.call(words).cwd("/").redirect(lab, "7</etc 8</etc");
    b.write();
    lab.remember(&b.id);
    call(&["create", "--bundle", &b.dir.to_string_lossy(), &b.id]).go().ok();
    call(&["start", &b.id]).go().ok();
    call(&["delete", "--force", &b.id]).go().ok();
    let seen = |kind: &str| fs::read_to_string(dir.join(kind)).unwrap_or_default();
    let bundle = b.dir.display().to_string();
    for kind in KINDS {
        let wanted = if kind == "startContainer" { "/" } else { bundle.as_str() };
        let text = seen(kind);
        let (cwd, rest) = text.split_once('\n').unwrap_or_default();
        assert_eq!(cwd, wanted, "{kind}: {text}");
        let first = seen("prestart");
        let rest = rest.replace(&format!("PWD={cwd}\n"), "");
        let reference = first.split_once('\n').unwrap_or_default().1.replace(&format!("PWD={bundle}\n"), "");
        assert_eq!(rest, reference, "{kind} and prestart");
        assert!(rest.starts_with("0022\n"), "{kind}: {text}");
    }
    Ok(())
}
