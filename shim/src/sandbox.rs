//! The sandbox service: a pod whose namespaces are this shim's own. No pause process and no pause image: the
//! shim enters the pod's network namespace, makes its IPC and UTS namespaces, and is the process by whose
//! number the daemon names them. The runtime is started from the host's namespaces all the same. Called by
//! `service`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::SystemTime;

use hull_proto::pod_config::{NamespaceMode, PodSandboxConfig};
use hull_proto::{sandbox, types};
use hull_sys::namespace;
use hull_sys::namespace::{is_ipc_sysctl, is_network_sysctl};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::{log, stats, time};

const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The kinds of namespaces that a pod shares, with their names in `/proc/PID/ns`.
const SHARED: [(&str, i32); 3] =
    [("net", libc::CLONE_NEWNET), ("ipc", libc::CLONE_NEWIPC), ("uts", libc::CLONE_NEWUTS)];

/// Where a sandbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Ready { since: SystemTime },
    Stopped { since: Option<SystemTime>, at: SystemTime },
}

/// The one sandbox of this shim, when it has been made by this service.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    pod: Pod,
    netns: String,
    phase: Cell<Phase>,
    changed: Notify,
    host: RefCell<Option<Rc<Host>>>,
}

/// The namespaces the shim was started in.
#[derive(Debug)]
pub struct Host(Vec<(File, i32)>);

impl Host {
    fn here() -> Result<Self> {
        let open = |(name, kind): (&str, i32)| {
            let path = format!("/proc/self/ns/{name}");
            let file = File::open(&path).map_err(|why| Error::failed(format!("open {path}"), why))?;
            Ok((file, kind))
        };
        SHARED.into_iter().map(open).collect::<Result<_>>().map(Self)
    }

    fn enter(&self) -> Result<()> {
        self.0.iter().try_for_each(|(file, kind)| {
            let entered = namespace::enter(file.as_fd(), kind.cast_unsigned().into());
            entered.map_err(|why| Error::failed("change namespaces", why.desc()))
        })
    }

    /// Has `command` run in these namespaces. We stay in the pod's: its containers join them by our number.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn place(&self, command: &mut Command) -> Result<()> {
        let copy = |(file, kind): &(File, i32)| {
            let file = file.try_clone().map_err(|why| Error::failed("duplicate a descriptor", why))?;
            Ok((file.into(), kind.cast_unsigned().into()))
        };
        namespace::enter_before_exec(command, self.0.iter().map(copy).collect::<Result<_>>()?);
        Ok(())
    }
}

impl Sandbox {
    /// What a request describes; nothing is made.
    ///
    /// # Errors
    /// Options that cannot be read, or that ask for what a pod without a process of its own cannot have.
    pub fn new(request: sandbox::CreateSandboxRequest) -> Result<Self> {
        Ok(Self {
            id: request.sandbox_id,
            pod: request.options.as_ref().map_or_else(|| Ok(Pod::default()), Pod::from_any)?,
            netns: request.netns_path,
            phase: Cell::new(Phase::Created),
            changed: Notify::new(),
            host: RefCell::default(),
        })
    }

    /// The sandbox of this name.
    ///
    /// # Errors
    /// It is another's.
    pub fn check(&self, id: &str) -> Result<()> {
        if id == self.id { Ok(()) } else { Err(missing(id)) }
    }

    /// The namespaces to start the runtime from, once they are not our own.
    pub fn host(&self) -> Option<Rc<Host>> {
        self.host.borrow().clone()
    }

    /// Makes the namespaces.
    ///
    /// # Errors
    /// It has been started before, or the kernel refuses.
    pub fn start(&self) -> Result<sandbox::StartSandboxResponse> {
        if self.phase.get() != Phase::Created {
            return Err(Error::precondition(format!("sandbox {} has been started before", self.id)));
        }
        let host = Host::here()?;
        let made = self.make_namespaces();
        if let Err(error) = made {
            host.enter()?;
            return Err(error);
        }
        self.host.replace(Some(Rc::new(host)));
        let since = SystemTime::now();
        self.phase.set(Phase::Ready { since });
        log::debug(&format!("sandbox {} is ready", self.id));
        Ok(sandbox::StartSandboxResponse {
            pid: std::process::id(),
            created_at: time::stamp(since),
            ..Default::default()
        })
    }

    fn make_namespaces(&self) -> Result<()> {
        if !self.netns.is_empty() {
            let file =
                File::open(&self.netns).map_err(|why| Error::failed(format!("open {}", self.netns), why))?;
            let kind = libc::CLONE_NEWNET.cast_unsigned().into();
            namespace::enter(file.as_fd(), kind)
                .map_err(|why| Error::failed(format!("enter {}", self.netns), why.desc()))?;
        }
        let pod = &self.pod;
        let kinds = [(pod.own_ipc, libc::CLONE_NEWIPC), (pod.own_uts, libc::CLONE_NEWUTS)];
        let kinds = kinds.iter().filter(|(own, _)| *own).fold(0, |all, (_, kind)| all | kind);
        namespace::unshare(kinds.cast_unsigned().into())
            .map_err(|why| Error::failed("create the pod's namespaces", why.desc()))?;
        if pod.own_uts && !pod.hostname.is_empty() {
            namespace::set_hostname(pod.hostname.as_bytes())
                .map_err(|why| Error::failed("set the pod's host name", why.desc()))?;
        }
        let own_net = !self.netns.is_empty();
        pod.sysctls.iter().try_for_each(|(name, value)| pod.set_sysctl(name, value, own_net))
    }

    /// Says that it is over.
    pub fn stop(&self) {
        let at = SystemTime::now();
        match self.phase.get() {
            Phase::Stopped { .. } => return,
            Phase::Created => self.phase.set(Phase::Stopped { since: None, at }),
            Phase::Ready { since } => self.phase.set(Phase::Stopped { since: Some(since), at }),
        }
        self.changed.notify_waiters();
    }

    /// Waits until it is over.
    pub async fn stopped(&self) -> sandbox::WaitSandboxResponse {
        loop {
            let changed = self.changed.notified();
            if let Phase::Stopped { at, .. } = self.phase.get() {
                return sandbox::WaitSandboxResponse { exited_at: time::stamp(at), ..Default::default() };
            }
            changed.await;
        }
    }

    /// What it looks like; with everything, as `crictl inspectp` shows it, when that is asked for.
    pub fn status(&self, everything: bool) -> sandbox::SandboxStatusResponse {
        let (state, since, at) = match self.phase.get() {
            Phase::Created => (NOT_READY, None, None),
            Phase::Ready { since } => (READY, Some(since), None),
            Phase::Stopped { since, at } => (NOT_READY, since, Some(at)),
        };
        let stamp = |moment: Option<SystemTime>| moment.map_or_else(MessageField::none, time::stamp);
        sandbox::SandboxStatusResponse {
            sandbox_id: self.id.clone(),
            pid: std::process::id(),
            state: state.to_owned(),
            info: if everything { self.info() } else { HashMap::new() },
            created_at: stamp(since),
            exited_at: stamp(at),
            ..Default::default()
        }
    }

    /// JSON under the name and with the fields that containerd's own pods have.
    fn info(&self) -> HashMap<String, String> {
        let info = serde_json::json!({
            "pid": std::process::id(),
            "hostname": self.pod.hostname,
            "netns": self.netns,
            "sysctls": self.pod.sysctls,
        });
        HashMap::from([("info".to_owned(), info.to_string())])
    }

    /// What the shim's own cgroup uses: a pod without a pause process has no other.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn metrics(&self) -> Result<types::Metric> {
        let own = i32::try_from(std::process::id())
            .map_err(|why| Error::failed("find the cgroup of the shim", why))?;
        Ok(types::Metric {
            timestamp: time::stamp(SystemTime::now()),
            id: self.id.clone(),
            data: MessageField::some(stats::Cgroup::of(own)?.metrics()?),
            ..Default::default()
        })
    }
}

/// There is no such sandbox.
pub fn missing(id: &str) -> Error {
    Error::not_found(format!("sandbox {id}: not found"))
}

/// The platform of this shim.
pub fn platform() -> types::Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    types::Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), ..Default::default() }
}

/// What a kubelet wants of the pod's namespaces.
#[derive(Debug)]
struct Pod {
    hostname: String,
    /// Kernel parameters, by name.
    sysctls: HashMap<String, String>,
    /// Not the node's.
    own_ipc: bool,
    /// Not the node's: as the network, whose names it goes with.
    own_uts: bool,
}

impl Default for Pod {
    fn default() -> Self {
        Self { hostname: String::new(), sysctls: HashMap::new(), own_ipc: true, own_uts: true }
    }
}

impl Pod {
    /// From the kubelet's own message, which the daemon passes on.
    fn from_any(any: &Any) -> Result<Self> {
        if any.type_url.is_empty() {
            return Ok(Self::default());
        }
        if !any.type_url.ends_with("PodSandboxConfig") {
            return Err(Error::invalid(format!("unknown type of sandbox options: {}", any.type_url)));
        }
        let config = PodSandboxConfig::parse_from_bytes(&any.value)
            .map_err(|why| Error::invalid(format!("read the options of a sandbox: {why}")))?;
        let linux = config.linux.into_option().unwrap_or_default();
        let security = linux.security_context.into_option().unwrap_or_default();
        let Some(asked) = security.namespace_options.into_option() else {
            return Ok(Self { hostname: config.hostname, sysctls: linux.sysctls, ..Self::default() });
        };
        let is = |mode: protobuf::EnumOrUnknown<NamespaceMode>, wanted| mode.enum_value() == Ok(wanted);
        if is(asked.pid, NamespaceMode::POD) {
            return Err(refused("pid: POD", "there is no process that could be PID 1 of a PID namespace"));
        }
        if asked.userns_options.as_ref().is_some_and(|users| is(users.mode, NamespaceMode::POD)) {
            return Err(refused(
                "userns_options",
                "its namespaces would be owned by the user namespace of the node",
            ));
        }
        Ok(Self {
            hostname: config.hostname,
            sysctls: linux.sysctls,
            own_ipc: !is(asked.ipc, NamespaceMode::NODE),
            own_uts: !is(asked.network, NamespaceMode::NODE),
        })
    }

    /// Of the kernel parameters only those of the pod's own namespaces; the others would be the node's.
    fn set_sysctl(&self, name: &str, value: &str, own_net: bool) -> Result<()> {
        if !(self.own_ipc && is_ipc_sysctl(name) || own_net && is_network_sysctl(name)) {
            return Err(Error::invalid(format!("linux.sysctls[{name:?}] is not namespaced")));
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        if name.contains("..") || name.contains('/') {
            return Err(Error::invalid(format!("linux.sysctls[{name:?}] is not a kernel parameter")));
        }
        std::fs::write(&path, value).map_err(|why| Error::failed(format!("write {}", path.display()), why))
    }
}

fn refused(field: &str, why: &str) -> Error {
    let text = format!("namespace_options.{field}: not for a pod without a pause process: {why}");
    Error::invalid(format!("{text}; use sandboxer \"podsandbox\""))
}

#[cfg(test)]
mod tests {
    use hull_proto::pod_config::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, UserNamespace,
    };

    use super::*;

    fn sandbox() -> Sandbox {
        let request = sandbox::CreateSandboxRequest { sandbox_id: "pod".to_owned(), ..Default::default() };
        Sandbox::new(request).unwrap()
    }

    fn pod(edit: impl FnOnce(&mut NamespaceOption)) -> Result<Pod> {
        let mut asked = NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..Default::default() };
        edit(&mut asked);
        let security =
            LinuxSandboxSecurityContext { namespace_options: Some(asked).into(), ..Default::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(security).into(), ..Default::default() };
        let config =
            PodSandboxConfig { hostname: "name".to_owned(), linux: Some(linux).into(), ..Default::default() };
        let value = config.write_to_bytes().unwrap();
        Pod::from_any(&Any { type_url: "runtime.v1.PodSandboxConfig".to_owned(), value, ..Any::default() })
    }

    #[test]
    fn a_pod_of_the_nodes_network_keeps_the_nodes_name() {
        let own = pod(|_| {}).unwrap();
        assert_eq!((own.hostname.as_str(), own.own_ipc, own.own_uts), ("name", true, true));
        let node = pod(|asked| asked.network = NamespaceMode::NODE.into()).unwrap();
        assert_eq!((node.own_ipc, node.own_uts), (true, false));
        let node = pod(|asked| asked.ipc = NamespaceMode::NODE.into()).unwrap();
        assert_eq!((node.own_ipc, node.own_uts), (false, true));
    }

    #[test]
    fn a_pod_without_a_process_shares_no_processes() {
        let error = pod(|asked| asked.pid = NamespaceMode::POD.into()).unwrap_err();
        assert!(error.message.contains("namespace_options.pid"), "{}", error.message);
        let users = UserNamespace { mode: NamespaceMode::POD.into(), ..Default::default() };
        let error = pod(|asked| asked.userns_options = Some(users).into()).unwrap_err();
        assert!(error.message.contains("userns_options"), "{}", error.message);
    }

    #[test]
    fn a_parameter_of_the_nodes_network_is_refused() {
        assert!(pod(|_| {}).unwrap().set_sysctl("net.ipv4.ip_forward", "1", false).is_err());
        let node = pod(|asked| asked.ipc = NamespaceMode::NODE.into()).unwrap();
        assert!(node.set_sysctl("kernel.shmmax", "1", true).is_err());
    }

    #[test]
    fn a_sandbox_answers_to_its_own_name() {
        assert!(sandbox().check("pod").is_ok());
        assert_eq!(sandbox().check("other").unwrap_err().code, ttrpc::Code::NOT_FOUND);
    }

    #[test]
    fn a_stopped_sandbox_is_not_ready_and_does_not_start() {
        let one = sandbox();
        assert_eq!(one.status(false).state, NOT_READY);
        one.stop();
        assert_eq!(one.status(false).state, NOT_READY);
        assert!(one.status(false).exited_at.is_some());
        assert_eq!(one.start().unwrap_err().code, ttrpc::Code::FAILED_PRECONDITION);
    }

    #[test]
    fn a_parameter_of_the_host_is_refused() {
        for name in ["kernel.panic", "vm.swappiness", "net.../../kernel/panic", "net/ipv4"] {
            assert!(Pod::default().set_sysctl(name, "1", true).is_err(), "{name}");
        }
    }
}
