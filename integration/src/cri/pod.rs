//! Pods and their containers. A pod's cgroups lie below the test's own and its name begins with the test's tag, so
//! that leftovers are found like any other; `end` stops it, removes it, and looks for those of the shim.

use super::client::{Refusal, ask};
use super::proto::{self as p, Nothing, SandboxId};
use crate::cgroup::tagged;
use crate::engine::{Ctr, IMAGE, PAUSE};
use crate::task::short;
use crate::{Lab, Output, Stop};
use protobuf::{Message, MessageField};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// `CONTAINER_RUNNING`.
pub const RUNNING: i32 = 1;
/// `CONTAINER_EXITED`.
pub const EXITED: i32 = 2;
/// Of the container alone, or of the node: modes of a namespace. Of the pod is 0.
const OF_CONTAINER: i32 = 1;
const OF_NODE: i32 = 2;

/// The CRI of the containerd of a test.
#[derive(Debug)]
pub struct Cri<'l> {
    lab: &'l Lab,
    ctr: Ctr<'l>,
    socket: PathBuf,
}

/// How a pod is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// A network namespace of its own, which needs CNI.
    pub own_network: bool,
    /// One pid namespace for all its containers.
    pub one_pid_namespace: bool,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod<'c> {
    cri: &'c Cri<'c>,
    /// The id of its sandbox.
    pub id: String,
    config: p::SandboxConfig,
    shape: Shape,
}

/// A container that was created.
#[derive(Debug)]
pub struct Container<'p> {
    pod: &'p Pod<'p>,
    /// Its id.
    pub id: String,
    /// Its log.
    pub log: PathBuf,
}

impl Lab {
    /// The CRI of this test's engine, once it knows its images.
    pub fn cri(&self) -> Result<Cri<'_>, Stop> {
        let ctr = self.ctr()?;
        if ctr.is_live() {
            // To the end of the process: what removes a test's leftovers calls the daemon, too.
            std::mem::forget(ctr.lock()?);
        }
        let socket = ctr.socket_of_daemon();
        let cri = Cri { lab: self, ctr, socket };
        for image in [IMAGE, PAUSE] {
            self.eventually(&format!("the image {image}"), || cri.knows(image));
        }
        Ok(cri)
    }
}

impl Cri<'_> {
    /// A call of the runtime service.
    pub fn ask<A: Message + Debug>(
        &self,
        method: &str,
        question: &(impl Message + Debug),
    ) -> Result<A, Refusal> {
        let answer = ask(&self.socket, &format!("RuntimeService/{method}"), question);
        let shown = match &answer {
            Ok(answer) => format!("{answer:?}"),
            Err(refusal) => refusal.to_string(),
        };
        Lab::note(&short(&format!("{method} {question:?}")));
        Lab::note(&format!("  -> {}", short(&shown)));
        answer
    }

    fn knows(&self, name: &str) -> bool {
        let question = p::ImageQuestion { image: image(name), ..Default::default() };
        let answer = ask::<p::ImageAnswer>(&self.socket, "ImageService/ImageStatus", &question);
        answer.is_ok_and(|answer| answer.image.is_some())
    }

    /// The daemon answers.
    pub fn answers(&self) -> bool {
        self.ask::<p::VersionAnswer>("Version", &Nothing::new()).is_ok()
    }

    /// The place of the daemon, for what is looked at from outside of the CRI.
    pub fn ctr(&self) -> &Ctr<'_> {
        &self.ctr
    }

    /// A pod.
    #[track_caller]
    pub fn pod(&self, shape: Shape) -> Pod<'_> {
        match self.try_pod(shape) {
            Ok(pod) => pod,
            Err(refusal) => panic!("RunPodSandbox: {refusal}"),
        }
    }

    /// A pod, or why there is none.
    pub fn try_pod(&self, shape: Shape) -> Result<Pod<'_>, Refusal> {
        let name = self.lab.new_id();
        let namespaces = p::NamespaceOption {
            network: if shape.own_network { 0 } else { OF_NODE },
            pid: pid_mode(shape),
            ..Default::default()
        };
        let security =
            p::SandboxSecurity { namespace_options: MessageField::some(namespaces), ..Default::default() };
        let linux = p::LinuxSandbox {
            cgroup_parent: format!("/{}", self.lab.tag),
            security_context: MessageField::some(security),
            ..Default::default()
        };
        let named = p::SandboxName {
            uid: format!("uid-{name}"),
            namespace: "test".into(),
            name: name.clone(),
            ..Default::default()
        };
        let config = p::SandboxConfig {
            metadata: MessageField::some(named),
            hostname: if shape.own_network { "pod".into() } else { String::new() },
            log_directory: self.lab.new_dir("logs").to_string_lossy().into_owned(),
            linux: MessageField::some(linux),
            ..Default::default()
        };
        let run = p::RunSandbox { config: MessageField::some(config.clone()), ..Default::default() };
        let answer: SandboxId = self.ask("RunPodSandbox", &run)?;
        Ok(Pod { cri: self, id: answer.pod_sandbox_id, config, shape })
    }

    /// SIGKILL to containerd, which stays away while `meanwhile` runs.
    #[track_caller]
    pub fn while_away(&self, meanwhile: impl FnOnce()) {
        let back = self.ctr.hold_daemon();
        self.lab.eventually("the daemon's end", || !self.answers());
        meanwhile();
        drop(back);
        self.lab.eventually("the daemon's return", || self.answers());
    }
}

fn pid_mode(shape: Shape) -> i32 {
    if shape.one_pid_namespace { 0 } else { OF_CONTAINER }
}

/// From a verbose status.
#[track_caller]
fn pid_of(info: &HashMap<String, String>) -> i32 {
    let info = info.get("info").cloned().unwrap_or_default();
    let info: Value = serde_json::from_str(&info).expect("JSON in a verbose status");
    info["pid"].as_i64().expect("a pid in a verbose status") as i32
}

fn image(name: &str) -> MessageField<p::Image> {
    MessageField::some(p::Image { image: name.into(), ..Default::default() })
}

impl Pod<'_> {
    /// A container of a shell script, created.
    #[track_caller]
    pub fn create(&self, script: &str, memory: i64) -> Container<'_> {
        self.create_of(&["/bin/sh", "-c", script], memory)
    }

    /// A container of a command line, created; 0 is no limit of memory.
    #[track_caller]
    pub fn create_of(&self, command: &[&str], memory: i64) -> Container<'_> {
        let name = self.cri.lab.next_path("n").file_name().expect("a name").to_string_lossy().into_owned();
        let namespaces = p::NamespaceOption {
            network: if self.shape.own_network { 0 } else { OF_NODE },
            pid: pid_mode(self.shape),
            ..Default::default()
        };
        let security =
            p::ContainerSecurity { namespace_options: MessageField::some(namespaces), ..Default::default() };
        let resources = p::Resources { memory_limit_in_bytes: memory, ..Default::default() };
        let linux = p::LinuxContainer {
            resources: MessageField::some(resources),
            security_context: MessageField::some(security),
            ..Default::default()
        };
        let log = format!("{name}.log");
        let config = p::ContainerConfig {
            metadata: MessageField::some(p::ContainerName { name, ..Default::default() }),
            image: image(IMAGE),
            command: command.iter().map(ToString::to_string).collect(),
            log_path: log.clone(),
            linux: MessageField::some(linux),
            ..Default::default()
        };
        let question = p::CreateContainer {
            pod_sandbox_id: self.id.clone(),
            config: MessageField::some(config),
            sandbox_config: MessageField::some(self.config.clone()),
            ..Default::default()
        };
        let answer: p::ContainerId = self.cri.ask("CreateContainer", &question).expect("CreateContainer");
        let log = Path::new(&self.config.log_directory).join(log);
        Container { pod: self, id: answer.container_id, log }
    }

    /// A container of a shell script, started.
    #[track_caller]
    pub fn up(&self, script: &str) -> Container<'_> {
        let container = self.create(script, 0);
        container.start().expect("StartContainer");
        container
    }

    /// Its status: 0 is ready.
    #[track_caller]
    pub fn status(&self) -> p::SandboxStatus {
        let answer: p::SandboxStatusAnswer =
            self.cri.ask("PodSandboxStatus", &self.asked()).expect("PodSandboxStatus");
        answer.status.unwrap_or_default()
    }

    /// The ids and states of its containers.
    #[track_caller]
    pub fn list(&self) -> Vec<(String, i32)> {
        let filter = p::ContainerFilter { pod_sandbox_id: self.id.clone(), ..Default::default() };
        let question = p::ListContainers { filter: MessageField::some(filter), ..Default::default() };
        let answer: p::Containers = self.cri.ask("ListContainers", &question).expect("ListContainers");
        answer.containers.into_iter().map(|one| (one.id, one.state)).collect()
    }

    fn asked(&self) -> SandboxId {
        SandboxId { pod_sandbox_id: self.id.clone(), ..Default::default() }
    }

    /// StopPodSandbox.
    #[track_caller]
    pub fn stop(&self) {
        self.cri.ask::<Nothing>("StopPodSandbox", &self.asked()).expect("StopPodSandbox");
    }

    /// The shims that serve it or one of its containers.
    pub fn shims(&self) -> BTreeSet<i32> {
        let ids = self.list().into_iter().map(|(id, _)| id).chain([self.id.clone()]);
        ids.flat_map(|id| self.cri.ctr.shims(&id)).collect()
    }

    /// The sockets of shims that its container and its sandbox have for themselves.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let ids = self.list().into_iter().map(|(id, _)| id).chain([self.id.clone()]);
        ids.map(|id| self.cri.socket(&id)).filter(|socket| socket.exists()).collect()
    }

    /// The process of its sandbox, as the place numbers it.
    #[track_caller]
    pub fn sandbox_pid(&self) -> i32 {
        let question =
            p::SandboxStatusQuestion { pod_sandbox_id: self.id.clone(), verbose: true, ..Default::default() };
        let answer: p::SandboxStatusAnswer =
            self.cri.ask("PodSandboxStatus", &question).expect("PodSandboxStatus");
        pid_of(&answer.info)
    }

    /// For a test that has killed the shim: its socket, to which nobody listens.
    #[track_caller]
    pub fn remove_dead_socket(&self) {
        let socket = self.cri.socket(&self.id);
        assert!(UnixStream::connect(&socket).is_err(), "a shim listens at {}", socket.display());
        // A shim may remove it better than we do.
        fs::remove_file(socket).ok();
    }

    /// Stops and removes it. Nothing may be left: process, mount, cgroup, socket, state.
    #[track_caller]
    pub fn end(self) {
        let mut ids: Vec<String> = self.list().into_iter().map(|(id, _)| id).collect();
        ids.push(self.id.clone());
        self.stop();
        // As a kubelet does: containerd 2 may still have the connection of a dead shim.
        let mut refusal = None;
        let removed = self.cri.lab.settles(|| {
            refusal = self.cri.ask::<Nothing>("RemovePodSandbox", &self.asked()).err();
            refusal.is_none()
        });
        assert!(removed, "RemovePodSandbox: {refusal:?}");
        let mut left = Vec::new();
        let settled = self.cri.lab.settles(|| {
            left = ids.iter().flat_map(|id| self.cri.left_of(id)).collect();
            left.is_empty()
        });
        assert!(settled, "left of pod {}: {left:#?}", self.id);
    }
}

impl Cri<'_> {
    /// Where the socket of the shim of a sandbox is, seen from this test.
    fn socket(&self, id: &str) -> PathBuf {
        let text = format!("{}/k8s.io/{id}", self.socket.display());
        let name = Sha256::digest(text).iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
        self.ctr.root().join("run/containerd/s").join(name)
    }

    fn left_of(&self, id: &str) -> Vec<String> {
        let mut left: Vec<String> = self.ctr.shims(id).iter().map(|pid| format!("shim {pid}")).collect();
        let mounts = self.ctr.proc(1, "mountinfo");
        left.extend(mounts.lines().filter(|line| line.contains(id)).map(|line| format!("mount {line}")));
        let cgroups = tagged(&self.lab.tag).into_iter().filter(|cgroup| cgroup.ends_with(id));
        left.extend(cgroups.map(|cgroup| format!("cgroup {}", cgroup.display())));
        let dir = self.socket.with_file_name("");
        let tasks = "io.containerd.runtime.v2.task/k8s.io";
        let paths = [
            self.socket(id),
            self.ctr.root().join("run/containerd/runc/k8s.io").join(id),
            dir.join("containerd").join(tasks).join(id),
            dir.join("containerd-state").join(tasks).join(id),
        ];
        left.extend(paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
        left
    }
}

impl Container<'_> {
    fn cri(&self) -> &Cri<'_> {
        self.pod.cri
    }

    fn asked(&self) -> p::ContainerId {
        p::ContainerId { container_id: self.id.clone(), ..Default::default() }
    }

    /// StartContainer.
    pub fn start(&self) -> Result<(), Refusal> {
        self.cri().ask::<Nothing>("StartContainer", &self.asked()).map(drop)
    }

    /// StopContainer, with the seconds it has before it is killed.
    #[track_caller]
    pub fn stop(&self, grace_s: i64) {
        let question =
            p::StopContainer { container_id: self.id.clone(), timeout: grace_s, ..Default::default() };
        self.cri().ask::<Nothing>("StopContainer", &question).expect("StopContainer");
    }

    /// RemoveContainer.
    #[track_caller]
    pub fn remove(&self) {
        self.cri().ask::<Nothing>("RemoveContainer", &self.asked()).expect("RemoveContainer");
    }

    fn full_status(&self) -> p::ContainerStatusAnswer {
        let question =
            p::ContainerStatusQuestion { container_id: self.id.clone(), verbose: true, ..Default::default() };
        self.cri().ask("ContainerStatus", &question).expect("ContainerStatus")
    }

    /// Its status.
    #[track_caller]
    pub fn status(&self) -> p::ContainerStatus {
        self.full_status().status.unwrap_or_default()
    }

    /// Its init, as the place numbers it.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        pid_of(&self.full_status().info)
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        self.cri().lab.eventually("the end of the container", || self.status().state == EXITED);
        self.status().exit_code
    }

    /// ExecSync of a shell script: the exit code, and what it printed.
    pub fn exec(&self, script: &str, limit_s: i64) -> Result<(i32, String, String), Refusal> {
        let question = p::ExecSync {
            container_id: self.id.clone(),
            cmd: ["/bin/sh", "-c", script].map(String::from).into(),
            timeout: limit_s,
            ..Default::default()
        };
        let answer: p::ExecSyncAnswer = self.cri().ask("ExecSync", &question)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((answer.exit_code, text(answer.stdout), text(answer.stderr)))
    }

    /// What a script printed that must end with 0.
    #[track_caller]
    pub fn inside(&self, script: &str) -> String {
        let (code, out, err) = self.exec(script, 20).expect("ExecSync");
        assert!(code == 0, "exit code {code}: {out} {err}");
        out.trim().to_owned()
    }

    /// Nanoseconds of cpu time and bytes of memory.
    #[track_caller]
    pub fn stats(&self) -> (u64, u64) {
        let answer: p::StatsAnswer = self.cri().ask("ContainerStats", &self.asked()).expect("ContainerStats");
        let stats = answer.stats.unwrap_or_default();
        (
            stats.cpu.usage_core_nano_seconds.as_ref().map_or(0, |count| count.value),
            stats.memory.working_set_bytes.as_ref().map_or(0, |count| count.value),
        )
    }

    /// UpdateContainerResources: another limit of memory.
    pub fn set_memory(&self, bytes: i64) -> Result<(), Refusal> {
        let resources = p::Resources { memory_limit_in_bytes: bytes, ..Default::default() };
        let question = p::UpdateResources {
            container_id: self.id.clone(),
            linux: MessageField::some(resources),
            ..Default::default()
        };
        self.cri().ask::<Nothing>("UpdateContainerResources", &question).map(drop)
    }

    /// ReopenContainerLog.
    #[track_caller]
    pub fn reopen_log(&self) {
        self.cri().ask::<Nothing>("ReopenContainerLog", &self.asked()).expect("ReopenContainerLog");
    }

    /// The lines of its log of this stream, without times and tags.
    pub fn logged(&self, stream: &str) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let of_stream = |line: &str| {
            let mut words = line.splitn(4, ' ').skip(1);
            (words.next()? == stream).then(|| words.nth(1).unwrap_or_default().to_owned())
        };
        text.lines().filter_map(of_stream).collect()
    }

    /// A program of the host in the place of the daemon.
    pub fn near(&self, words: &[&str]) -> Output {
        self.cri().ctr.near(words).go()
    }
}

/// Removes every pod of a test; those it found.
pub(crate) fn remove_pods(socket: &Path, tag: &str) -> Result<Vec<String>, Stop> {
    let all: p::Sandboxes = ask(socket, "RuntimeService/ListPodSandbox", &Nothing::new())?;
    let of_test = |pod: &p::Sandbox| pod.metadata.name.starts_with(&format!("{tag}c"));
    let ids: Vec<String> = all.items.into_iter().filter(of_test).map(|pod| pod.id).collect();
    for id in &ids {
        let asked = SandboxId { pod_sandbox_id: id.clone(), ..Default::default() };
        ask::<Nothing>(socket, "RuntimeService/StopPodSandbox", &asked)?;
        ask::<Nothing>(socket, "RuntimeService/RemovePodSandbox", &asked)?;
    }
    Ok(ids)
}
