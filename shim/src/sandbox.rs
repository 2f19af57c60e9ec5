//! The sandbox service: a pod whose namespaces are this shim's own. No pause process and no pause image: the
//! shim enters the pod's network namespace, makes its IPC and UTS namespaces, and is the process by whose
//! number the daemon names them. The runtime is started from the host's namespaces all the same. Called by
//! `service`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use hull_proto::{sandbox, types};
use hull_sys::namespace;
use protobuf::MessageField;
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::{bundle, log, stats, time};

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
    bundle: PathBuf,
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

    /// Does `work` in these namespaces. What it starts stays in them.
    ///
    /// # Errors
    /// Those of `work`, and those of going there and back.
    pub fn run<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let pod = Self::here()?;
        self.enter()?;
        let done = work();
        pod.enter()?;
        done
    }
}

impl Sandbox {
    /// What a request describes; nothing is made.
    pub fn new(request: sandbox::CreateSandboxRequest) -> Self {
        Self {
            id: request.sandbox_id,
            bundle: request.bundle_path.into(),
            netns: request.netns_path,
            phase: Cell::new(Phase::Created),
            changed: Notify::new(),
            host: RefCell::default(),
        }
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
        let kinds = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        namespace::unshare(kinds.cast_unsigned().into())
            .map_err(|why| Error::failed("make the pod's namespaces", why.desc()))?;
        let pod = bundle::pod(&self.bundle);
        if !pod.hostname.is_empty() {
            let name = CString::new(pod.hostname).unwrap_or_default();
            namespace::set_hostname(name.as_bytes())
                .map_err(|why| Error::failed("set the pod's host name", why.desc()))?;
        }
        pod.sysctl.iter().try_for_each(|(name, value)| set_sysctl(name, value))
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

    /// What it looks like.
    pub fn status(&self) -> sandbox::SandboxStatusResponse {
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
            info: std::collections::HashMap::new(),
            created_at: stamp(since),
            exited_at: stamp(at),
            ..Default::default()
        }
    }

    /// What the shim's own cgroup uses: a pod without a pause process has no other.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn metrics(&self) -> Result<types::Metric> {
        let own =
            i32::try_from(std::process::id()).map_err(|why| Error::failed("find our own cgroup", why))?;
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

/// What belongs to the namespaces of a pod in its config.json.
#[derive(Debug, Default)]
pub struct Pod {
    /// Its name in the UTS namespace.
    pub hostname: String,
    /// Kernel parameters of its namespaces.
    pub sysctl: BTreeMap<String, String>,
}

/// Of the kernel parameters only those that are a namespace's own; the others would be the host's.
fn set_sysctl(name: &str, value: &str) -> Result<()> {
    const OWN: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if !(name.starts_with("net.") || name.starts_with("fs.mqueue.") || OWN.contains(&name)) {
        return Err(Error::invalid(format!("linux.sysctl[{name:?}] is not a pod's own")));
    }
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    if name.contains("..") || name.contains('/') {
        return Err(Error::invalid(format!("linux.sysctl[{name:?}] is not a kernel parameter")));
    }
    std::fs::write(&path, value).map_err(|why| Error::failed(format!("write {}", path.display()), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Sandbox {
        Sandbox::new(sandbox::CreateSandboxRequest { sandbox_id: "pod".to_owned(), ..Default::default() })
    }

    #[test]
    fn a_sandbox_answers_to_its_own_name() {
        assert!(sandbox().check("pod").is_ok());
        assert_eq!(sandbox().check("other").unwrap_err().code, ttrpc::Code::NOT_FOUND);
    }

    #[test]
    fn a_stopped_sandbox_is_not_ready_and_does_not_start() {
        let one = sandbox();
        assert_eq!(one.status().state, NOT_READY);
        one.stop();
        assert_eq!(one.status().state, NOT_READY);
        assert!(one.status().exited_at.is_some());
        assert_eq!(one.start().unwrap_err().code, ttrpc::Code::FAILED_PRECONDITION);
    }

    #[test]
    fn a_parameter_of_the_host_is_refused() {
        for name in ["kernel.panic", "vm.swappiness", "net.../../kernel/panic", "net/ipv4"] {
            assert!(set_sysctl(name, "1").is_err(), "{name}");
        }
    }
}
