//! The sandbox service: a pod whose namespaces are the shim's own, without a process that only waits.

use hull_integration::task::{Daemon, Refusal, Stdio, Task, WAITS, is_gone, kill_process, refused};
use hull_integration::{Lab, Stop, TestResult, tests};
use hull_proto::pod_config::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
};
use hull_proto::sandbox::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
    StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use ttrpc::Code;

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
const NO_SANDBOX: &[(&str, &str)] = &[("containerd-shim-runc-v2", "docs/shim.md, Sandboxes: it serves none")];

tests! {
    a_pod_has_namespaces_and_no_process_of_its_own.breaks_on(NO_SANDBOX),
    a_container_joins_the_pod.breaks_on(NO_SANDBOX),
    the_runtime_is_started_from_the_namespaces_of_the_host.breaks_on(NO_SANDBOX),
    a_pod_that_is_stopped_is_not_ready_and_its_waiters_know.breaks_on(NO_SANDBOX),
    a_pod_answers_to_its_own_name.breaks_on(NO_SANDBOX),
    a_parameter_of_the_host_is_refused.breaks_on(NO_SANDBOX),
    a_parameter_of_the_pod_is_set.breaks_on(NO_SANDBOX),
    a_pod_of_the_node_s_namespaces_has_no_others.breaks_on(NO_SANDBOX),
    a_shared_pid_namespace_is_refused.breaks_on(NO_SANDBOX),
    with_a_lost_pod_go_its_containers.breaks_on(NO_SANDBOX),
}

/// A shim for a sandbox: its bundle has no config.json.
fn pod<'d>(daemon: &'d Daemon<'d>) -> Result<Task<'d>, Stop> {
    let bundle = daemon.bundle();
    daemon.prepare(&bundle)?;
    fs::remove_file(bundle.dir.join("config.json"))?;
    let asked = daemon.ask(daemon.command(&bundle).arg("start"), &[])?.ok();
    let started = daemon.read_answer(&asked)?;
    daemon.attach(bundle, started)
}

fn config(edit: impl FnOnce(&mut LinuxPodSandboxConfig)) -> PodSandboxConfig {
    let asked = NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..Default::default() };
    let security =
        LinuxSandboxSecurityContext { namespace_options: MessageField::some(asked), ..Default::default() };
    let mut linux =
        LinuxPodSandboxConfig { security_context: MessageField::some(security), ..Default::default() };
    edit(&mut linux);
    PodSandboxConfig { hostname: "the-pod".into(), linux: MessageField::some(linux), ..Default::default() }
}

fn ask_create(task: &Task, config: &PodSandboxConfig) -> Result<CreateSandboxResponse, Refusal> {
    let value = config.write_to_bytes().expect("protobuf");
    let options = Any { type_url: "runtime.v1.PodSandboxConfig".into(), value, ..Default::default() };
    let request = CreateSandboxRequest {
        sandbox_id: task.id.clone(),
        bundle_path: task.bundle.dir.to_string_lossy().into_owned(),
        options: MessageField::some(options),
        ..Default::default()
    };
    task.client.under(SERVICE).ask("CreateSandbox", &request).get()
}

fn create(task: &Task) -> Result<(), Stop> {
    ask_create(task, &config(|_| {}))?;
    Ok(())
}

fn start(task: &Task) -> Result<i32, Stop> {
    let request = StartSandboxRequest { sandbox_id: task.id.clone(), ..Default::default() };
    let started = task.client.under(SERVICE).ask::<StartSandboxResponse>("StartSandbox", &request).get()?;
    assert!(started.created_at.is_some());
    Ok(i32::try_from(started.pid).unwrap_or(0))
}

fn state(task: &Task) -> Result<String, Stop> {
    let request = SandboxStatusRequest { sandbox_id: task.id.clone(), ..Default::default() };
    Ok(task.client.under(SERVICE).ask::<SandboxStatusResponse>("SandboxStatus", &request).get()?.state)
}

/// The end of a pod: its shim goes.
fn shut_down(daemon: &Daemon, task: &Task) -> TestResult {
    let pid = task.shim_pid();
    let request = ShutdownSandboxRequest { sandbox_id: task.id.clone(), ..Default::default() };
    // The connection may close before the answer.
    task.client.under(SERVICE).ask::<ShutdownSandboxResponse>("ShutdownSandbox", &request).get().ok();
    daemon.lab.eventually("the end of the shim", || is_gone(pid));
    daemon.end()
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default()
}

fn own(kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default()
}

fn a_pod_has_namespaces_and_no_process_of_its_own(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = pod(&daemon)?;
    create(&task)?;
    assert_eq!(state(&task)?, "SANDBOX_NOTREADY");
    let pid = start(&task)?;
    assert_eq!(pid, task.shim_pid());
    assert_eq!(state(&task)?, "SANDBOX_READY");
    for kind in ["ipc", "uts"] {
        assert_ne!(namespace(pid, kind), own(kind), "{kind}");
    }
    // None was given, so the network is the host's.
    assert_eq!(namespace(pid, "net"), own("net"));
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    assert_eq!(children.unwrap_or_default(), "");
    let platform = task.client.under(SERVICE).ask::<PlatformResponse>("Platform", &PlatformRequest::new());
    assert_eq!(platform.get()?.platform.os, "linux");
    let metrics = SandboxMetricsRequest { sandbox_id: task.id.clone(), ..Default::default() };
    let metrics = task.client.under(SERVICE).ask::<SandboxMetricsResponse>("SandboxMetrics", &metrics);
    assert!(metrics.get()?.metrics.data.type_url.starts_with("io.containerd.cgroups."));
    shut_down(&daemon, &task)
}

/// A container of the pod that prints what `script` does.
fn print(daemon: &Daemon, pod: &Task, pid: i32, script: &str) -> Result<String, Stop> {
    let path = |kind: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{kind}")});
    let namespaces = json!([{"type": "mount"}, {"type": "pid"}, path("ipc"), path("uts"), path("network")]);
    let namespaces =
        serde_json::from_str::<serde_json::Value>(&namespaces.to_string().replace("ns/network", "ns/net"));
    let member = daemon.member(&pod.bundle).sh(script).set("/linux/namespaces", namespaces.expect("JSON"));
    let member = member.set("/hostname", json!(null));
    let task = daemon.task(member)?;
    assert_eq!(task.shim_pid(), pid, "one shim for the pod");
    let out = daemon.dir.join("printed");
    task.up(&Stdio::to(format!("file://{}", out.display())))?;
    assert_eq!(task.wait("").get()?.exit_status, 0);
    task.delete("")?;
    let printed = fs::read_to_string(&out).unwrap_or_default();
    fs::remove_file(out).ok();
    Ok(printed.trim().to_owned())
}

fn a_container_joins_the_pod(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = pod(&daemon)?;
    create(&pod)?;
    let pid = start(&pod)?;
    let script = "hostname; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts";
    let expected =
        format!("the-pod\n{}\n{}", namespace(pid, "ipc").display(), namespace(pid, "uts").display());
    // Whatever the shim does meanwhile: it never leaves its namespaces.
    for _ in 0..10 {
        assert_eq!(print(&daemon, &pod, pid, script)?, expected);
    }
    shut_down(&daemon, &pod)
}

fn the_runtime_is_started_from_the_namespaces_of_the_host(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = pod(&daemon)?;
    create(&pod)?;
    start(&pod)?;
    let seen = daemon.dir.join("seen");
    let wrapper = format!("readlink /proc/self/ns/uts >> {}", seen.display());
    let wrapper = daemon.wrapper(&wrapper)?;
    let member = daemon.task(daemon.member(&pod.bundle).sh("exit 0"))?;
    let options = daemon.options(|options| options.binary_name = wrapper.to_string_lossy().into_owned());
    member.create_with(&Stdio::default(), |request| request.options = Some(options).into())?;
    member.start("")?;
    member.wait("").get()?;
    member.delete("")?;
    let host = own("uts").to_string_lossy().into_owned();
    let seen = fs::read_to_string(seen).unwrap_or_default();
    assert!(!seen.is_empty() && seen.lines().all(|line| line == host), "{seen}, not {host}");
    shut_down(&daemon, &pod)
}

fn a_pod_that_is_stopped_is_not_ready_and_its_waiters_know(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = pod(&daemon)?;
    create(&task)?;
    start(&task)?;
    let client = task.client.under(SERVICE);
    let wait = WaitSandboxRequest { sandbox_id: task.id.clone(), ..Default::default() };
    let waiting = client.ask::<WaitSandboxResponse>("WaitSandbox", &wait);
    assert!(waiting.within(Duration::from_millis(300)).is_none());
    let stop = StopSandboxRequest { sandbox_id: task.id.clone(), ..Default::default() };
    client.ask::<StopSandboxResponse>("StopSandbox", &stop).get()?;
    assert!(waiting.get()?.exited_at.is_some());
    assert_eq!(state(&task)?, "SANDBOX_NOTREADY");
    client.ask::<StopSandboxResponse>("StopSandbox", &stop).get()?;
    shut_down(&daemon, &task)
}

fn a_pod_answers_to_its_own_name(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = pod(&daemon)?;
    let client = task.client.under(SERVICE);
    let ping = |id: &str| {
        let request = PingRequest { sandbox_id: id.to_owned(), ..Default::default() };
        client.ask::<PingResponse>("PingSandbox", &request).get()
    };
    refused(ping(&task.id), Code::NOT_FOUND, "");
    create(&task)?;
    ping(&task.id)?;
    refused(ping("another"), Code::NOT_FOUND, "");
    let again = CreateSandboxRequest { sandbox_id: task.id.clone(), ..Default::default() };
    refused(client.ask::<CreateSandboxResponse>("CreateSandbox", &again).get(), Code::ALREADY_EXISTS, "");
    shut_down(&daemon, &task)
}

fn a_parameter_of_the_host_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let before = fs::read_to_string("/proc/sys/kernel/panic").unwrap_or_default();
    let task = pod(&daemon)?;
    let sysctls = [("kernel.panic".to_owned(), "77".to_owned())];
    ask_create(&task, &config(|linux| linux.sysctls.extend(sysctls)))?;
    let request = StartSandboxRequest { sandbox_id: task.id.clone(), ..Default::default() };
    let started = task.client.under(SERVICE).ask::<StartSandboxResponse>("StartSandbox", &request).get();
    refused(started, Code::INVALID_ARGUMENT, "kernel.panic");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/panic").unwrap_or_default(), before);
    let pid = task.shim_pid();
    assert_eq!(namespace(pid, "uts"), own("uts"), "a pod that failed is undone");
    shut_down(&daemon, &task)
}

fn a_parameter_of_the_pod_is_set(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = pod(&daemon)?;
    let sysctls = [("kernel.shmmni".to_owned(), "77".to_owned())];
    ask_create(&pod, &config(|linux| linux.sysctls.extend(sysctls)))?;
    let pid = start(&pod)?;
    assert_eq!(print(&daemon, &pod, pid, "cat /proc/sys/kernel/shmmni")?, "77");
    shut_down(&daemon, &pod)
}

fn a_pod_of_the_node_s_namespaces_has_no_others(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = pod(&daemon)?;
    let node = |linux: &mut LinuxPodSandboxConfig| {
        let asked = linux.security_context.mut_or_insert_default().namespace_options.mut_or_insert_default();
        (asked.network, asked.ipc) = (NamespaceMode::NODE.into(), NamespaceMode::NODE.into());
    };
    ask_create(&pod, &config(node))?;
    let pid = start(&pod)?;
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(pid, kind), own(kind));
    }
    shut_down(&daemon, &pod)
}

/// The node's own would be joined instead.
fn a_shared_pid_namespace_is_refused(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = pod(&daemon)?;
    let shared = |linux: &mut LinuxPodSandboxConfig| {
        let asked = linux.security_context.mut_or_insert_default().namespace_options.mut_or_insert_default();
        asked.pid = NamespaceMode::POD.into();
    };
    refused(ask_create(&pod, &config(shared)), Code::INVALID_ARGUMENT, "namespace_options.pid");
    create(&pod)?;
    shut_down(&daemon, &pod)
}

fn with_a_lost_pod_go_its_containers(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let pod = pod(&daemon)?;
    create(&pod)?;
    let shim = start(&pod)?;
    let member = daemon.task(daemon.member(&pod.bundle).sh(WAITS))?;
    let init = i32::try_from(member.up(&Stdio::default())?)?;
    // The daemon has nobody to ask about the container any more, and asks about the pod alone.
    assert_eq!(member.shim_pid(), shim);
    kill_process(shim);
    daemon.delete(&pod.bundle)?;
    assert!(is_gone(init));
    assert_eq!(daemon.delete(&member.bundle)?.exit_status, 137);
    daemon.end()
}
