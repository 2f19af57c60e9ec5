//! How a container is made: its rootfs, its streams, its init by the runtime, and what is undone when one of
//! them fails.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use hull_proto::{events, task, types};
use protobuf::MessageField;

use super::{KILL_LIMIT, Shim};
use crate::container::{Container, Process, Traits};
use crate::error::{Error, Result};
use crate::io::console::ConsoleSocket;
use crate::io::{Ends, Owner, Stdio, Streams};
use crate::options::Options;
use crate::runtime::Runtime;
use crate::{bundle, log, mounts, oom, spawn, stats};

impl Shim {
    /// Makes a container.
    pub async fn create(
        self: Rc<Self>,
        request: task::CreateTaskRequest,
    ) -> Result<task::CreateTaskResponse> {
        bundle::check_id(&request.id)?;
        self.was_used.set(true);
        let taken = self.containers.borrow().contains_key(&request.id)
            || !self.making.borrow_mut().insert(request.id.clone());
        if taken {
            return Err(Error::exists(format!("task {}: already exists", request.id)));
        }
        let made = self.make(&request).await;
        self.making.borrow_mut().remove(&request.id);
        let container = made?;
        let pid = container.init.pid();
        self.containers.borrow_mut().insert(request.id.clone(), Rc::clone(&container));
        self.outbox.publish(&events::TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(events::TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..Default::default()
            }),
            checkpoint: request.checkpoint,
            pid: pid.unsigned_abs(),
            ..Default::default()
        });
        // Only now: its exit is told after this.
        if container.init.handle().is_some() {
            self.watch(&container, &container.init);
        }
        Ok(task::CreateTaskResponse { pid: pid.unsigned_abs(), ..Default::default() })
    }

    async fn make(&self, request: &task::CreateTaskRequest) -> Result<Rc<Container>> {
        let bundle = PathBuf::from(&request.bundle);
        let options = match request.options.as_ref() {
            Some(any) => Options::from_any(any)?,
            None => Options::default(),
        };
        options.save(&bundle)?;
        let host = self.sandbox.borrow().as_ref().and_then(|sandbox| sandbox.host());
        let runtime = Runtime::new(&options, &self.namespace, &bundle, &request.id, &self.reaper).from(host);
        bundle::write(&bundle.join("runtime"), runtime.binary().to_string_lossy().as_bytes())?;
        let traits = Traits {
            io_owner: (options.io_uid, options.io_gid),
            checkpoint: request.checkpoint.clone(),
            shares_pids: bundle::shares_pids(&bundle)?,
        };
        let rootfs = bundle.join("rootfs");
        mount(&request.rootfs, &rootfs)?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let init = Process::new("", stdio, Vec::new());
        let container = Rc::new(Container::new(&request.id, bundle, runtime, init, traits));
        let made = if container.checkpoint.is_empty() { self.make_init(&container).await } else { Ok(()) };
        match made {
            Ok(()) => Ok(container),
            Err(error) => {
                if let Some(streams) = container.init.streams.get() {
                    streams.close().await;
                }
                if !request.rootfs.is_empty()
                    && let Err(left) = mounts::unmount_all(&rootfs)
                {
                    log::warning(&format!(
                        "create of {} was rolled back except for its rootfs: {left}",
                        container.id
                    ));
                }
                Err(error)
            }
        }
    }

    pub(super) async fn make_init(&self, container: &Rc<Container>) -> Result<()> {
        let init = &container.init;
        let pid_file = container.bundle.join("init.pid");
        let (ends, console) = self.open(container, init).await?;
        let path = console.as_ref().map(ConsoleSocket::path);
        let runtime = &container.runtime;
        let handle = {
            // Until its number is known, init may be an orphan that has ended.
            let _hold = self.reaper.hold();
            if container.checkpoint.is_empty() {
                runtime.create(ends, &pid_file, path).await?;
            } else {
                let work = container.bundle.join("work");
                runtime.restore(ends, &pid_file, path, Path::new(&container.checkpoint), &work).await?;
            }
            self.adopt(&pid_file)?
        };
        let attached = attach(init, console).await;
        init.made(handle);
        if let Err(error) = attached {
            self.undo(container).await;
            return Err(error);
        }
        match stats::Cgroup::of(init.pid()) {
            Ok(cgroup) => self.watch_memory(container, cgroup),
            Err(error) => log::warning(&format!("cgroup of {}: {error}", container.id)),
        }
        Ok(())
    }

    /// Takes a container back that was made and cannot be used.
    async fn undo(&self, container: &Container) {
        if let Err(left) = container.runtime.delete(true).await {
            log::warning(&format!("delete {}: {left}", container.id));
        }
        if let Some(handle) = container.init.handle() {
            let _gone = tokio::time::timeout(KILL_LIMIT, handle.wait()).await.is_ok();
            self.reaper.forget(handle.pid);
        }
    }

    pub(super) async fn open(
        &self,
        container: &Container,
        process: &Process,
    ) -> Result<(Ends, Option<ConsoleSocket>)> {
        let (uid, gid) = container.io_owner;
        let (namespace, id) = (self.namespace.clone(), container.id.clone());
        let owner = Owner { namespace, container: id, uid, gid };
        let (ends, streams) = Streams::open(&process.stdio, &owner).await?;
        let _first = process.streams.set(streams).is_ok();
        let console = process.stdio.terminal.then(ConsoleSocket::bind).transpose()?;
        Ok((ends, console))
    }

    pub(super) fn adopt(&self, pid_file: &Path) -> Result<Rc<spawn::Process>> {
        let text = std::fs::read_to_string(pid_file);
        let text = text.map_err(|why| Error::failed(format!("read {}", pid_file.display()), why))?;
        let pid =
            text.trim().parse().map_err(|why| Error::failed(format!("read {}", pid_file.display()), why))?;
        self.reaper.keep(pid);
        spawn::Process::adopt(pid).map(Rc::new)
    }

    fn watch_memory(&self, container: &Container, cgroup: stats::Cgroup) {
        let (outbox, id) = (Rc::clone(&self.outbox), container.id.clone());
        let report = move || {
            outbox.publish(&events::TaskOOM { container_id: id.clone(), ..Default::default() });
        };
        match oom::Watch::start(&cgroup, report) {
            Ok(watch) => drop(container.oom.replace(Some(watch))),
            Err(error) => log::warning(&format!("watch the memory of {}: {error}", container.id)),
        }
        let _first = container.cgroup.set(cgroup).is_ok();
    }
}

pub(super) async fn attach(process: &Process, console: Option<ConsoleSocket>) -> Result<()> {
    let master: Option<OwnedFd> = match console {
        Some(console) => Some(console.receive().await?),
        None => None,
    };
    process.streams.get().map_or(Ok(()), |streams| streams.start(master))
}

fn mount(list: &[types::Mount], rootfs: &Path) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    bundle::make_dir(rootfs, 0o711)?;
    mounts::mount_all(list, rootfs)
}
