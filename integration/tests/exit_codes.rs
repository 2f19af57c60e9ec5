//! The exit codes of `run`, and the words of its errors.

use hull_integration::{Lab, TestResult, tests};

tests! {
    run_returns_0_of_true,
    run_returns_the_code_of_the_process,
    run_returns_128_plus_the_signal,
    run_passes_stdin_and_stdout,
    run_of_a_name_not_in_path_says_so,
    run_of_a_missing_path_says_so,
    run_of_a_directory_says_so.breaks_on(&[("runc 1.1", "docs/errors.md: docker reads `is a directory` (Debian's runc says permission denied)"), ("crun", "docs/errors.md: docker reads `is a directory`")]),
    run_of_a_file_without_x_says_permission_denied.breaks_on(&[("crun", "docs/errors.md: docker and podman read `permission denied`")]),
    path_of_the_container_is_used_to_find_the_program,
    unknown_command_is_3.breaks_on(&[("crun", "docs/errors.md: 3 for a command that does not exist")]),
    unknown_flag_is_1_with_usage_on_stdout.breaks_on(&[("crun", "docs/errors.md: a wrong flag is 1, with the usage on stdout")]),
    a_missing_argument_is_1,
    errors_go_to_stderr_only,
}

fn run_returns_0_of_true(lab: &Lab) -> TestResult {
    let output = lab.run(&lab.bundle()).ok();
    assert_eq!(output.out() + &output.err(), "");
    Ok(())
}

fn run_returns_the_code_of_the_process(lab: &Lab) -> TestResult {
    lab.run(&lab.bundle().args(&["/bin/false"])).rc(1);
    for code in [2, 7, 126, 200, 255] {
        lab.run(&lab.bundle().sh(&format!("exit {code}"))).rc(code);
    }
    Ok(())
}

/// Init cannot kill itself from inside its pid namespace: the signal comes from outside.
fn run_returns_128_plus_the_signal(lab: &Lab) -> TestResult {
    for signal in [9, 15] {
        let b = lab.bundle().sh("echo up; exec sleep 100").without_namespace("pid");
        let running = lab.launch("run", &b, &[]).spawn();
        lab.eventually("the process", || running.printed().contains("up"));
        lab.rt(&["kill", &b.id, &signal.to_string()]).ok();
        running.wait().rc(128 + signal);
    }
    Ok(())
}

fn run_passes_stdin_and_stdout(lab: &Lab) -> TestResult {
    let b = lab.bundle().sh("cat; echo problem >&2");
    let output = lab.launch("run", &b, &[]).stdin("one\ntwo").go().ok();
    assert_eq!((output.out().as_str(), output.err().as_str()), ("one\ntwo", "problem\n"));
    Ok(())
}

fn run_of_a_name_not_in_path_says_so(lab: &Lab) -> TestResult {
    let output = lab.run(&lab.bundle().args(&["nosuchcmd"])).rc(1);
    output.fails("nosuchcmd").fails("not found in $PATH");
    assert!(lab.ids_on_disk().is_empty());
    Ok(())
}

fn run_of_a_missing_path_says_so(lab: &Lab) -> TestResult {
    let output = lab.run(&lab.bundle().args(&["/no/such/cmd"])).rc(1);
    let text = output.err().to_lowercase();
    assert!(text.contains("/no/such/cmd") && text.contains("no such file or directory"), "{output}");
    Ok(())
}

fn run_of_a_directory_says_so(lab: &Lab) -> TestResult {
    lab.run(&lab.bundle().args(&["/etc"])).rc(1).fails("/etc").fails("is a directory");
    Ok(())
}

fn run_of_a_file_without_x_says_permission_denied(lab: &Lab) -> TestResult {
    lab.run(&lab.bundle().args(&["/etc/passwd"])).rc(1).fails("/etc/passwd").fails("permission denied");
    Ok(())
}

fn path_of_the_container_is_used_to_find_the_program(lab: &Lab) -> TestResult {
    let b = lab.bundle().file("/tools/mine", "#!/bin/sh\necho mine\n", 0o755);
    let b = b.args(&["mine"]).set("/process/env", serde_json::json!(["PATH=/nowhere:/tools:/bin"]));
    assert_eq!(lab.printed(&b), "mine");
    Ok(())
}

fn unknown_command_is_3(lab: &Lab) -> TestResult {
    lab.bare(&["frobnicate"]).go().rc(3);
    Ok(())
}

fn unknown_flag_is_1_with_usage_on_stdout(lab: &Lab) -> TestResult {
    let output = lab.rt(&["list", "--frobnicate"]).rc(1);
    assert!(!output.out().is_empty(), "usage on stdout: {output}");
    lab.bare(&["--frobnicate", "list"]).go().rc(1);
    Ok(())
}

fn a_missing_argument_is_1(lab: &Lab) -> TestResult {
    for verb in ["state", "start", "kill", "delete", "create", "run", "pause"] {
        lab.rt(&[verb]).rc(1);
    }
    Ok(())
}

fn errors_go_to_stderr_only(lab: &Lab) -> TestResult {
    let output = lab.rt(&["state", "nobody"]);
    assert!(output.rc > 0 && !output.err().is_empty());
    assert_eq!(output.out(), "");
    Ok(())
}
