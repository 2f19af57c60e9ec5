//! The shim's command line: `start` in the words of each version of the daemon, sockets and their groups, `delete`,
//! `-info`, and what signals to the server do.

use hull_integration::task::{
    Asked, Client, Daemon, Dialect, Exec, Stdio, WAITS, ask, is_gone, kill_process, signal_process,
};
use hull_integration::{Bundle, Lab, Mode, Stop, TestResult, tests};
use hull_proto::bootstrap::BootstrapResult;
use hull_proto::process::Status;
use hull_proto::runc_options::Options;
use hull_proto::runtime_options;
use hull_proto::types::RuntimeInfo;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const GO_1: &str = "containerd-shim-runc-v2 1.";
const DIALECTS: &[(&str, &str)] = &[(GO_1, "docs/shim.md: start answers in the words of every version")];
const MODES: &[(&str, &str)] = &[(GO_1, "docs/shim.md: sockets are of the shim's user alone")];
const UNKNOWN: &[(&str, &str)] = &[(GO_1, "docs/shim.md: delete answers for every container")];
const LOG: &[(&str, &str)] = &[(GO_1, "docs/shim.md: the log never blocks")];
const INFO: &[(&str, &str)] = &[(GO_1, "docs/shim.md: -info (needs 1.7)")];
const OWN_NAME: &[(&str, &str)] = &[(GO_1, "docs/shim.md: options of a runtime with a name of its own")];
const STATUS: &[(&str, &str)] = &[(GO_1, "docs/shim.md: delete tells the exit status where it is known")];
const SIGNALS: &[(&str, &str)] =
    &[(GO_1, "docs/shim.md: KILL and signals of a broken program end a shim, no others")];
const CONNECTIONS: &[(&str, &str)] =
    &[(GO_1, "docs/shim.md: connections that stop, or are too many, are closed")];
const RACE: &[(&str, &str)] = &[(GO_1, "docs/shim.md: of shims that start at once one serves the group")];

tests! {
    start_answers_1_6,
    start_answers_1_7,
    start_answers_2_3.breaks_on(DIALECTS),
    options_of_an_old_daemon_are_no_bootstrap_message,
    options_that_look_like_a_bootstrap_message_are_none.breaks_on(DIALECTS),
    start_leaves_the_terminal_and_the_streams_of_the_daemon,
    start_twice_gives_one_shim,
    a_start_right_after_shutdown_gets_another_shim,
    containers_of_a_group_share_a_shim,
    the_annotation_of_the_shim_comes_before_that_of_kubernetes,
    shims_that_start_at_once_are_one.breaks_on(RACE),
    a_dead_socket_is_replaced,
    the_socket_is_named_as_every_shim_names_it,
    the_socket_is_for_the_user_of_the_shim_alone.breaks_on(MODES),
    the_directory_of_sockets_can_be_named.breaks_on(DIALECTS),
    the_server_works_in_the_bundle_in_a_group_of_its_own,
    the_server_is_more_likely_to_be_killed_than_its_daemon,
    the_server_goes_to_the_cgroup_of_the_options,
    flags_are_read_as_go_reads_them,
    start_with_a_config_that_cannot_be_read_leaves_nothing,
    start_that_cannot_write_its_address_leaves_nothing,
    version_is_printed,
    info_tells_the_runtime.breaks_on(INFO),
    a_log_nobody_reads_does_not_block.breaks_on(LOG),
    options_of_a_name_of_its_own.breaks_on(OWN_NAME),
    the_root_of_the_runtime_can_be_named,
    the_flags_of_the_options_reach_the_runtime,
    delete_of_an_unknown_container_answers.breaks_on(UNKNOWN),
    delete_ends_what_a_killed_shim_has_left,
    delete_of_one_of_a_group_leaves_the_others,
    delete_tells_the_exit_status_that_is_known.breaks_on(STATUS),
    signals_do_not_end_the_container,
    signals_do_not_end_a_shim_with_a_container.breaks_on(SIGNALS),
    a_connection_that_stops_within_a_message_is_closed.breaks_on(CONNECTIONS),
    connections_are_counted.breaks_on(CONNECTIONS),
    a_restarted_daemon_finds_its_containers,
}

/// A daemon that starts shims in these words.
fn speaking(lab: &Lab, dialect: Dialect) -> Result<Daemon<'_>, Stop> {
    let mut daemon = lab.daemon()?;
    daemon.dialect = dialect;
    Ok(daemon)
}

fn runs_a_container(daemon: &Daemon<'_>, bundle: Bundle, asked: &Asked) -> TestResult {
    let task = daemon.attach(bundle, daemon.read_answer(asked)?)?;
    task.up(&Stdio::default())?;
    assert_eq!(task.wait("").get()?.exit_status, 3);
    assert_eq!(task.delete("")?.exit_status, 3);
    task.retire()?;
    daemon.end()
}

fn start_answers_1_6(lab: &Lab) -> TestResult {
    let daemon = speaking(lab, Dialect::V1_6)?;
    let bundle = daemon.bundle().sh("exit 3");
    let asked = daemon.start(&bundle)?.ok();
    let text = String::from_utf8(asked.out.clone())?;
    assert!(text.starts_with("unix:///") && !text.trim_end().contains(char::is_whitespace), "{text:?}");
    assert_eq!(asked.err, "");
    runs_a_container(&daemon, bundle, &asked)
}

fn start_answers_1_7(lab: &Lab) -> TestResult {
    let daemon = speaking(lab, Dialect::V1_7)?;
    let bundle = daemon.bundle().sh("exit 3");
    let asked = daemon.start(&bundle)?.ok();
    assert_eq!(asked.err, "");
    let started = daemon.read_answer(&asked)?;
    // 1.7 knows no other.
    assert_eq!(started.version, 2);
    runs_a_container(&daemon, bundle, &asked)
}

fn start_answers_2_3(lab: &Lab) -> TestResult {
    let daemon = speaking(lab, Dialect::V2_3)?;
    let bundle = daemon.bundle().sh("exit 3");
    let asked = daemon.start(&bundle)?.ok();
    assert_eq!(asked.err, "");
    let answer = BootstrapResult::parse_from_bytes(&asked.out)?;
    assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
    assert!(answer.address.starts_with("unix:///"), "{}", answer.address);
    runs_a_container(&daemon, bundle, &asked)
}

fn options_of_an_old_daemon_are_no_bootstrap_message(lab: &Lab) -> TestResult {
    let daemon = speaking(lab, Dialect::V1_6)?;
    let bundle = daemon.bundle().sh("exit 3");
    let stdin = daemon.options(|_| {}).write_to_bytes()?;
    let asked = daemon.start_with(&bundle, &stdin, |_| {})?.ok();
    assert!(asked.out.starts_with(b"unix:///") && asked.err.is_empty(), "{asked:?}");
    runs_a_container(&daemon, bundle, &asked)
}

/// An Any decodes as a bootstrap message with the kind as its id: told apart by the flags.
fn options_that_look_like_a_bootstrap_message_are_none(lab: &Lab) -> TestResult {
    let daemon = speaking(lab, Dialect::V1_7)?;
    let bundle = daemon.bundle().sh("exit 3");
    let stdin =
        Any { type_url: bundle.id.clone(), value: b"other".to_vec(), ..Any::default() }.write_to_bytes()?;
    let asked = daemon.start_with(&bundle, &stdin, |_| {})?;
    // It may be refused as options of an unknown kind, but not be answered by a message.
    assert!(asked.rc != 0 || asked.out.starts_with(b"unix:///") || asked.out.starts_with(b"{"), "{asked:?}");
    if asked.rc == 0 { runs_a_container(&daemon, bundle, &asked) } else { daemon.end() }
}

fn start_leaves_the_terminal_and_the_streams_of_the_daemon(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    // `ask` reads to the end of stdout and stderr: the server does not hold them.
    let since = Instant::now();
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    assert!(since.elapsed() < Duration::from_secs(10));
    let shim = task.shim_pid();
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/{shim}/fd/{number}"))?.display().to_string();
        assert!(!target.starts_with("pipe:") && !target.contains("/pts/"), "{number}: {target}");
    }
    let stat = fs::read_to_string(format!("/proc/{shim}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("stat")?.1.split(' ').collect();
    assert_eq!(fields[4], "0", "a terminal");
    daemon.end()
}

fn grouped(daemon: &Daemon<'_>, key: &str, value: &str) -> Bundle {
    daemon.bundle().sh(WAITS).set(&format!("/annotations/{key}"), json!(value))
}

fn start_twice_gives_one_shim(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle().sh(WAITS);
    let task = daemon.task(bundle.clone())?;
    let again = daemon.start(&bundle)?.ok();
    let again = daemon.read_answer(&again)?;
    assert_eq!(again.socket, task.started.socket);
    task.up_waiting()?;
    assert_eq!(daemon.sockets(), std::slice::from_ref(&task.started.socket));
    daemon.end()
}

/// As `docker restart` does: the shim before may still be sending its last events.
fn a_start_right_after_shutdown_gets_another_shim(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle().sh("exit 3");
    let mut former = None;
    for _ in 0..5 {
        let asked = daemon.start(&bundle)?.ok();
        let task = daemon.attach(bundle.clone(), daemon.read_answer(&asked)?)?;
        assert_ne!(former.replace(task.shim_pid()), Some(task.shim_pid()));
        task.up(&Stdio::default())?;
        assert_eq!(task.wait("").get()?.exit_status, 3);
        assert_eq!(task.delete("")?.exit_status, 3);
        task.shutdown()?;
    }
    daemon.delete(&bundle)?;
    daemon.remove_bundle(&bundle);
    daemon.end()
}

fn containers_of_a_group_share_a_shim(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    for key in ["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group"] {
        let (one, other) =
            (daemon.task(grouped(&daemon, key, key))?, daemon.task(grouped(&daemon, key, key))?);
        assert_eq!(one.shim_pid(), other.shim_pid());
        one.up_waiting()?;
        other.up_waiting()?;
        one.kill("", libc::SIGTERM)?;
        assert_eq!(one.wait("").get()?.exit_status, 7);
        assert_eq!(one.delete("")?.exit_status, 7);
        // The other holds the shim.
        one.shutdown()?;
        daemon.delete(&one.bundle)?;
        daemon.remove_bundle(&one.bundle);
        assert_eq!(other.status(""), Status::RUNNING);
        assert_eq!(other.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
        other.kill("", libc::SIGTERM)?;
        other.wait("").get()?;
        other.delete("")?;
        other.event("delete 7");
        other.retire()?;
    }
    daemon.end()
}

fn the_annotation_of_the_shim_comes_before_that_of_kubernetes(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let with_both = |own: &str, pod: &str| {
        grouped(&daemon, "io.containerd.runc.v2.group", own)
            .set("/annotations/io.kubernetes.cri.sandbox-id", json!(pod))
    };
    let one = daemon.task(with_both("a", "x"))?;
    let same = daemon.task(with_both("a", "y"))?;
    let other = daemon.task(with_both("b", "x"))?;
    assert_eq!(one.shim_pid(), same.shim_pid());
    assert_ne!(one.shim_pid(), other.shim_pid());
    daemon.end()
}

fn shims_that_start_at_once_are_one(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let model = daemon.bundle().sh(WAITS);
    for round in 0..5 {
        let key = "/annotations/io.kubernetes.cri.sandbox-id";
        let bundles: Vec<Bundle> =
            (0..4).map(|_| daemon.member(&model).set(key, json!(format!("pod{round}")))).collect();
        // Ready before, so that they start close together.
        let stdins: Vec<Vec<u8>> = bundles
            .iter()
            .map(|bundle| {
                bundle.write();
                match daemon.dialect {
                    Dialect::V2_3 => daemon.bootstrap(bundle).write_to_bytes().expect("a message"),
                    _ => Vec::new(),
                }
            })
            .collect();
        let commands: Vec<Command> = bundles
            .iter()
            .map(|bundle| {
                let mut command = daemon.command(bundle);
                command.arg("start");
                command
            })
            .collect();
        for bundle in &bundles {
            daemon.prepare(bundle)?;
        }
        let threads: Vec<_> = commands
            .into_iter()
            .zip(stdins)
            .map(|(command, stdin)| std::thread::spawn(move || ask(&mut { command }, &stdin)))
            .collect();
        let mut tasks = Vec::new();
        for (thread, bundle) in threads.into_iter().zip(bundles) {
            let asked = thread.join().expect("no panic")?.ok();
            tasks.push(daemon.attach(bundle, daemon.read_answer(&asked)?)?);
        }
        let pids: Vec<i32> = tasks.iter().map(|task| task.shim_pid()).collect();
        assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    }
    daemon.end()
}

fn a_dead_socket_is_replaced(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(grouped(&daemon, "io.kubernetes.cri.sandbox-id", "pod"))?;
    let socket = task.started.socket.clone();
    task.shutdown().ok();
    lab.eventually("no socket", || !socket.exists());
    // As a shim that was killed leaves it: a file nobody listens at.
    drop(UnixListener::bind(&socket)?);
    let other = daemon.task(grouped(&daemon, "io.kubernetes.cri.sandbox-id", "pod"))?;
    assert_eq!(other.started.socket, socket);
    other.up_waiting()?;
    daemon.end()
}

fn the_socket_is_named_as_every_shim_names_it(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(grouped(&daemon, "io.kubernetes.cri.sandbox-id", "pod"))?;
    let text = format!("{}/{}/pod", daemon.address().display(), daemon.namespace);
    let name = Sha256::digest(text).iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
    assert_eq!(task.started.socket, Path::new("/run/containerd/s").join(name));
    daemon.end()
}

fn the_socket_is_for_the_user_of_the_shim_alone(lab: &Lab) -> TestResult {
    let probe = lab.probe()?;
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let socket = fs::metadata(&task.started.socket)?;
    assert!(socket.file_type().is_socket());
    assert_eq!((socket.mode() & 0o7777, socket.uid()), (0o600, 0));
    assert_eq!(fs::metadata("/run/containerd/s")?.mode() & 0o7777, 0o700);
    // Even one who may open it is not heard: the peer must be the same user.
    for dir in ["/run", "/run/containerd", "/run/containerd/s"] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&task.started.socket, fs::Permissions::from_mode(0o666))?;
    let mut other = Command::new(&probe);
    other.args(["as", "1000", "1000"]).arg(lab.busybox()).args(["timeout", "5"]).arg(&probe);
    let output = other.arg("closes").arg(&task.started.socket).output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "closed", "{output:?}");
    task.up_waiting()?;
    daemon.end()
}

fn the_directory_of_sockets_can_be_named(lab: &Lab) -> TestResult {
    let daemon = speaking(lab, Dialect::V2_3)?;
    let bundle = daemon.bundle().sh("exit 3");
    let mut message = daemon.bootstrap(&bundle);
    message.socket_dir = "/run/elsewhere".into();
    let asked = daemon.start_with(&bundle, &message.write_to_bytes()?, |_| {})?.ok();
    let started = daemon.read_answer(&asked)?;
    assert!(started.socket.starts_with("/run/elsewhere"), "{}", started.socket.display());
    assert_eq!(fs::metadata("/run/elsewhere")?.mode() & 0o7777, 0o700);
    runs_a_container(&daemon, bundle, &asked)?;
    assert_eq!(fs::read_dir("/run/elsewhere")?.count(), 0);
    Ok(())
}

fn the_server_works_in_the_bundle_in_a_group_of_its_own(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let shim = task.shim_pid();
    assert_eq!(fs::read_link(format!("/proc/{shim}/cwd"))?, task.bundle.dir);
    let stat = fs::read_to_string(format!("/proc/{shim}/stat"))?;
    let group: i32 = stat.rsplit_once(") ").ok_or("stat")?.1.split(' ').nth(2).ok_or("stat")?.parse()?;
    assert_eq!(group, shim);
    daemon.end()
}

fn the_server_is_more_likely_to_be_killed_than_its_daemon(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    let score = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    let own: i32 = score("self")?.trim().parse()?;
    let its: i32 = score(&task.shim_pid().to_string())?.trim().parse()?;
    assert_eq!(its, (own + 1).min(1000));
    let pid = task.up_waiting()?;
    let container: i32 = score(&pid.to_string())?.trim().parse()?;
    assert!(container <= its, "container {container}, shim {its}");
    daemon.end()
}

fn the_server_goes_to_the_cgroup_of_the_options(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle().sh(WAITS);
    let cgroup = format!("/{}/shim", lab.tag);
    let mounts: Vec<PathBuf> =
        lab.host.v1.iter().map(|(_, at)| at.clone()).chain(lab.host.v2.clone()).collect();
    let dirs: Vec<PathBuf> = mounts.iter().map(|at| at.join(&cgroup[1..])).collect();
    dirs.iter().try_for_each(fs::create_dir_all)?;
    if let Some(cpuset) =
        dirs.iter().find(|dir| dir.join("cpuset.cpus").exists() && lab.host.mode != Mode::V2)
    {
        // An empty one takes no process.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let all =
                fs::read_to_string(cpuset.parent().and_then(Path::parent).ok_or("a parent")?.join(name))?;
            fs::write(cpuset.parent().ok_or("a parent")?.join(name), &all)?;
            fs::write(cpuset.join(name), &all)?;
        }
    }
    let options = daemon.options(|options| options.shim_cgroup.clone_from(&cgroup));
    let stdin = match daemon.dialect {
        Dialect::V2_3 => {
            let mut message = daemon.bootstrap(&bundle);
            message.extensions[0].value = Some(options).into();
            message.write_to_bytes()?
        }
        _ => options.write_to_bytes()?,
    };
    let asked = daemon.start_with(&bundle, &stdin, |_| {})?.ok();
    let task = daemon.attach(bundle, daemon.read_answer(&asked)?)?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", task.shim_pid()))?;
    assert!(text.lines().any(|line| line.ends_with(&cgroup)), "{text}");
    let pid = task.up_waiting()?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    assert!(!text.lines().any(|line| line.ends_with(&cgroup)), "{text}");
    task.kill_and_delete()?;
    task.retire()?;
    dirs.iter().try_for_each(fs::remove_dir)?;
    daemon.end()
}

fn flags_are_read_as_go_reads_them(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle().sh("exit 3");
    daemon.prepare(&bundle)?;
    let stdin = match daemon.dialect {
        Dialect::V2_3 => daemon.bootstrap(&bundle).write_to_bytes()?,
        _ => Vec::new(),
    };
    let with = |words: &[String]| {
        let mut command = Command::new(&daemon.shim);
        let template = daemon.command(&bundle);
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(&bundle.dir).args(words);
        daemon.ask(&mut command, &stdin)
    };
    let address = daemon.address().display().to_string();
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    let refused = with(&words(&["-namespace", "test", "-no-such-flag", "-id", &bundle.id, "start"]))?;
    assert!(refused.rc != 0 && !refused.out.starts_with(b"unix://"), "{refused:?}");
    let refused = with(&words(&["-id", &bundle.id, "-address", &address, "start"]))?;
    assert!(refused.rc != 0 && !refused.out.starts_with(b"unix://"), "{refused:?}");
    let id = format!("--id={}", bundle.id);
    let asked = with(&words(&[
        "--namespace=test",
        "-address",
        &address,
        &id,
        "-debug=false",
        "-publish-binary",
        "/x",
        "start",
    ]))?;
    let asked = asked.ok();
    runs_a_container(&daemon, bundle, &asked)
}

fn start_with_a_config_that_cannot_be_read_leaves_nothing(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle();
    daemon.prepare(&bundle)?;
    fs::write(bundle.dir.join("config.json"), "{")?;
    let mut command = daemon.command(&bundle);
    let asked = daemon.ask(command.arg("start"), &[])?;
    assert!(asked.rc != 0 && (!asked.err.is_empty() || !asked.out.is_empty()), "{asked:?}");
    assert_eq!(daemon.sockets(), Vec::<PathBuf>::new());
    daemon.end()
}

/// As when the daemon that was killed meanwhile comes back and removes the bundle.
fn start_that_cannot_write_its_address_leaves_nothing(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle();
    daemon.prepare(&bundle)?;
    fs::create_dir_all(bundle.dir.join("address/in the way"))?;
    let mut command = daemon.command(&bundle);
    let asked = daemon.ask(command.arg("start"), &[])?;
    assert!(asked.rc != 0 && !asked.err.is_empty(), "{asked:?}");
    // That the server is gone, too, is seen after the end of every test.
    lab.eventually("no socket", || daemon.sockets().is_empty());
    daemon.end()
}

fn version_is_printed(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    for flag in ["-v", "--v", "-version"] {
        let mut command = Command::new(&daemon.shim);
        let asked = daemon.ask(command.arg(flag), &[])?;
        if flag == "-version" && asked.rc != 0 {
            // Old ones know -v alone.
            assert!(daemon.dialect == Dialect::V1_6, "{asked:?}");
            continue;
        }
        assert!(asked.rc == 0 && !asked.out.is_empty(), "{asked:?}");
    }
    daemon.end()
}

fn info_tells_the_runtime(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    for stdin in [Vec::new(), daemon.options(|_| {}).write_to_bytes()?] {
        let mut command = Command::new(&daemon.shim);
        let asked = daemon.ask(command.arg("-info"), &stdin)?.ok();
        let info = RuntimeInfo::parse_from_bytes(&asked.out)?;
        assert!(info.name.starts_with("io.containerd.") && !info.version.version.is_empty(), "{info:?}");
        let features: Value = serde_json::from_slice(&info.features.value)?;
        assert!(features["ociVersionMax"].is_string(), "{features}");
    }
    daemon.end()
}

fn a_log_nobody_reads_does_not_block(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle().sh(WAITS);
    bundle.write();
    // Made, but nobody has it open.
    nix::unistd::mkfifo(&bundle.dir.join("log"), nix::sys::stat::Mode::from_bits_truncate(0o700))?;
    let stdin = match daemon.dialect {
        Dialect::V2_3 => daemon.bootstrap(&bundle).write_to_bytes()?,
        _ => Vec::new(),
    };
    let asked = daemon.start_with(&bundle, &stdin, |command| {
        command.arg("-debug");
    })?;
    let asked = asked.ok();
    let task = daemon.attach(bundle, daemon.read_answer(&asked)?)?;
    task.up_waiting()?;
    for _ in 0..20 {
        task.kill("nobody", 9).expect_err("no such exec");
    }
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    daemon.end()
}

fn options_of_a_name_of_its_own(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    let mark = lab.next_path("called");
    let wrapper = daemon.wrapper(&format!("echo $verb >>{}", mark.display()))?;
    let toml = format!("BinaryName = {wrapper:?}\nRoot = \"/run/other\"\nNoPivotRoot = false\n");
    let options = runtime_options::Options {
        type_url: "containerd.runc.v1.Options".into(),
        config_body: toml.into_bytes(),
        ..runtime_options::Options::default()
    };
    let options = Any {
        type_url: "runtimeoptions.v1.Options".into(),
        value: options.write_to_bytes()?,
        ..Any::default()
    };
    task.create_with(&Stdio::default(), |request| request.options = Some(options).into())?;
    assert!(Path::new("/run/other/test").join(&task.id).exists());
    task.start("")?;
    assert_eq!(task.wait("").get()?.exit_status, 3);
    task.delete("")?;
    let verbs = fs::read_to_string(mark)?;
    assert_eq!(verbs.split_whitespace().take(2).collect::<Vec<_>>(), ["create", "start"]);
    task.retire()?;
    daemon.end()
}

fn the_root_of_the_runtime_can_be_named(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    let options = daemon.options(|options| options.root = "/run/other".into());
    task.create_with(&Stdio::default(), |request| request.options = Some(options).into())?;
    assert!(Path::new("/run/other/test").join(&task.id).exists());
    // A `delete` of a shim that was killed must find it there, too.
    kill_process(task.shim_pid());
    daemon.delete(&task.bundle)?;
    assert!(!Path::new("/run/other/test").join(&task.id).exists());
    daemon.remove_bundle(&task.bundle);
    fs::remove_file(&task.started.socket).ok();
    daemon.end()
}

fn the_flags_of_the_options_reach_the_runtime(lab: &Lab) -> TestResult {
    type Change = fn(&mut Options);
    let daemon = lab.daemon()?;
    let log = lab.next_path("words");
    let script = format!("[ $verb != create ] || echo \"$@\" >{}", log.display());
    let wrapper = daemon.wrapper(&script)?.display().to_string();
    let cases: [(Change, &str, bool); 4] = [
        (|_| {}, "--no-pivot", false),
        (|options| options.no_pivot_root = true, "--no-pivot", true),
        (|options| options.no_new_keyring = true, "--no-new-keyring", true),
        (|options| options.systemd_cgroup = true, "--systemd-cgroup", true),
    ];
    for (change, word, wanted) in cases {
        let task = daemon.task(daemon.bundle().sh(WAITS))?;
        let options = daemon.options(|options| {
            options.binary_name.clone_from(&wrapper);
            change(options);
        });
        // Without systemd its driver cannot succeed: the words count.
        let created = task.create_with(&Stdio::default(), |request| request.options = Some(options).into());
        let words = fs::read_to_string(&log)?;
        assert_eq!(words.split_whitespace().any(|one| one == word), wanted, "{word}: {words}");
        assert!(
            words.contains("--log-format json") && words.contains("--bundle") && words.contains("--pid-file"),
            "{words}"
        );
        assert!(created.is_ok() || word == "--systemd-cgroup" || word == "--no-pivot", "{created:?}");
    }
    daemon.end()
}

fn delete_of_an_unknown_container_answers(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle();
    daemon.prepare(&bundle)?;
    for _ in 0..2 {
        let answer = daemon.delete(&bundle)?;
        assert!(matches!(answer.exit_status, 137 | 255), "{}", answer.exit_status);
    }
    daemon.remove_bundle(&bundle);
    daemon.end()
}

fn delete_ends_what_a_killed_shim_has_left(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let bundle = daemon.bundle().sh(WAITS);
    let elsewhere = lab.next_path("elsewhere");
    fs::rename(bundle.rootfs(), &elsewhere)?;
    fs::create_dir(bundle.rootfs())?;
    let task = daemon.task(bundle)?;
    let rootfs = hull_proto::types::Mount {
        type_: "bind".into(),
        source: elsewhere.display().to_string(),
        options: vec!["rbind".into()],
        ..Default::default()
    };
    let pid = task.create_with(&Stdio::default(), |request| request.rootfs = vec![rootfs])? as i32;
    task.start_waiting()?;
    let exec = task.run(&Exec::sh("e", "sleep 1000"))? as i32;
    kill_process(task.shim_pid());
    // The container lives on until the daemon has it deleted.
    assert!(!is_gone(pid) && !is_gone(exec));
    let answer = daemon.delete(&task.bundle)?;
    assert_eq!((answer.pid as i32, answer.exit_status), (pid, 137));
    assert!(answer.exited_at.seconds > 0);
    lab.eventually("the end of the processes", || is_gone(pid) && is_gone(exec));
    daemon.delete(&task.bundle)?;
    daemon.remove_bundle(&task.bundle);
    // The socket of a killed shim stays until the next one of its name, or is removed by `delete`.
    fs::remove_file(&task.started.socket).ok();
    daemon.end()
}

fn delete_of_one_of_a_group_leaves_the_others(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = |_| daemon.task(grouped(&daemon, "io.kubernetes.cri.sandbox-id", "pod"));
    let tasks = (0..2).map(pod).collect::<Result<Vec<_>, Stop>>()?;
    let pids = tasks.iter().map(|task| task.up_waiting()).collect::<Result<Vec<_>, _>>()?;
    daemon.delete(&tasks[1].bundle)?;
    lab.eventually("the end of one", || is_gone(pids[1] as i32));
    assert!(!is_gone(pids[0] as i32));
    assert_eq!(tasks[0].run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    daemon.end()
}

fn delete_tells_the_exit_status_that_is_known(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 5"))?;
    let pid = task.up(&Stdio::default())?;
    let ended = task.wait("").get()?;
    assert_eq!(ended.exit_status, 5);
    kill_process(task.shim_pid());
    let answer = daemon.delete(&task.bundle)?;
    assert_eq!((answer.pid, answer.exit_status), (pid, 5));
    assert_eq!(answer.exited_at.seconds, ended.exited_at.seconds);
    daemon.remove_bundle(&task.bundle);
    fs::remove_file(&task.started.socket).ok();
    daemon.end()
}

fn signals_do_not_end_the_container(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    for signal in [libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1, libc::SIGINT, libc::SIGTERM] {
        let task = daemon.task(daemon.bundle().sh(WAITS))?;
        let pid = task.up_waiting()? as i32;
        let shim = task.shim_pid();
        signal_process(shim, signal);
        // Whether the shim ended or not: it has handled the signal when it answers or is gone.
        task.connect(&task.id).ok();
        assert!(!is_gone(pid), "signal {signal} to the shim ended the container");
        kill_process(shim);
        daemon.delete(&task.bundle)?;
        lab.eventually("the end of the container", || is_gone(pid));
        daemon.remove_bundle(&task.bundle);
        fs::remove_file(&task.started.socket).ok();
    }
    daemon.end()
}

fn signals_do_not_end_a_shim_with_a_container(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let shim = task.shim_pid();
    let others = [
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ];
    for signal in [libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1, libc::SIGINT, libc::SIGTERM]
        .into_iter()
        .chain(others)
        .chain([libc::SIGSTKFLT, libc::SIGRTMIN(), libc::SIGRTMAX()])
    {
        signal_process(shim, signal);
        assert_eq!(task.shim_pid(), shim);
    }
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    daemon.end()
}

/// Whether the server has closed this connection, within the limit.
fn is_closed(stream: &UnixStream, limit: Duration) -> Result<bool, Stop> {
    stream.set_read_timeout(Some(limit))?;
    match (&*stream).read(&mut [0]) {
        Ok(0) => Ok(true),
        Err(why) if why.kind() == ErrorKind::ConnectionReset => Ok(true),
        Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(false),
        other => Err(format!("the server has answered: {other:?}").into()),
    }
}

fn a_connection_that_stops_within_a_message_is_closed(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let open = || UnixStream::connect(&task.started.socket);
    let (idle, header, body) = (open()?, open()?, open()?);
    (&header).write_all(&[0, 0])?;
    (&body).write_all(&[0, 0, 0, 9, 0, 0, 0, 1, 1, 0, 0x0a])?;
    for stream in [&header, &body] {
        assert!(is_closed(stream, Duration::from_secs(20))?);
    }
    assert!(!is_closed(&idle, Duration::from_millis(100))?, "one between two messages is closed");
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    daemon.end()
}

fn connections_are_counted(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh(WAITS))?;
    task.up_waiting()?;
    let many: Vec<UnixStream> =
        (0..80).map(|_| UnixStream::connect(&task.started.socket)).collect::<Result<_, _>>()?;
    let last = many.last().ok_or("none")?;
    assert!(is_closed(last, Duration::from_secs(5))?, "all 80 are served");
    assert!(!is_closed(&many[0], Duration::from_millis(100))?);
    // The daemon's own is one of them.
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    drop(many);
    lab.eventually("a place for one more", || {
        UnixStream::connect(&task.started.socket)
            .is_ok_and(|one| matches!(is_closed(&one, Duration::from_millis(100)), Ok(false)))
    });
    daemon.end()
}

fn a_restarted_daemon_finds_its_containers(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let mut task = daemon.task(daemon.bundle().sh(WAITS))?;
    let pid = task.up_waiting()?;
    let waiting = task.wait("");
    task.client.close();
    daemon.events.go_away();
    assert!(waiting.get().is_err());
    assert!(Path::new(&task.bundle.dir).join("config.json").exists());
    daemon.events.come_back();
    task.client = Client::connect(&task.started.socket, task.client.service, &daemon.namespace)?;
    assert_eq!(task.connect("nobody")?.task_pid, 0);
    assert_eq!(task.connect(&task.id)?.task_pid, pid);
    assert_eq!(task.pids()?[0].0, pid);
    assert_eq!(task.run_to_end(&Exec::sh("e", "exit 2"))?, 2);
    task.kill("", libc::SIGTERM)?;
    assert_eq!(task.wait("").get()?.exit_status, 7);
    assert_eq!(task.delete("")?.exit_status, 7);
    task.event("delete");
    task.retire()?;
    daemon.end()
}
