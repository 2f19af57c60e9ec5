//! How the end of a process is told: when everything it has written has been read, and of init after all others'.

use std::rc::Rc;

use hull_proto::events;

use super::Shim;
use crate::container::{Container, Phase, Process};
use crate::{bundle, log, time};

impl Shim {
    /// Waits for the end of a process and tells it.
    pub(super) fn watch(self: &Rc<Self>, container: &Rc<Container>, process: &Rc<Process>) {
        let (shim, container, process) = (Rc::clone(self), Rc::clone(container), Rc::clone(process));
        let Some(handle) = process.handle().cloned() else { return };
        tokio::task::spawn_local(async move {
            let exit = handle.wait().await;
            shim.reaper.forget(handle.pid);
            log::debug(&format!("{} {} ended: {}", container.id, process.exec_id, exit.status));
            if process.is_init() {
                // Should this shim be gone when the daemon asks, the `delete` form finds it here.
                bundle::save_exit(&container.bundle, exit);
            }
            if process.has_ended(exit) {
                shim.settle(&container, &process);
            }
        });
    }

    /// Tells the end of a process, once what it has written has been read: some daemons stop to read when they
    /// are told. The waits for that are beside each other.
    pub(super) fn settle(self: &Rc<Self>, container: &Rc<Container>, process: &Rc<Process>) {
        let (shim, container, process) = (Rc::clone(self), Rc::clone(container), Rc::clone(process));
        tokio::task::spawn_local(async move {
            if process.is_init() && container.shares_pids {
                shim.kill_rest(&container);
            }
            // A daemon that is away reads when it comes back, and must find the process stopped then: containerd
            // 1.6 loses an exit that it is told while it takes the container in.
            if let Some(streams) = process.streams.get() {
                tokio::select! {
                    () = streams.taken() => {}
                    () = shim.disconnected() => {}
                }
            }
            if process.is_init() {
                container.init_settled.set(true);
            } else {
                shim.tell_exit(&container, &process);
            }
            shim.tell_init_exit(&container);
        });
    }

    /// Init's end is told after all others'.
    fn tell_init_exit(&self, container: &Container) {
        if !container.init_settled.get() || container.has_running_execs() {
            return;
        }
        if let Some(watch) = container.oom.take() {
            watch.look();
        }
        self.tell_exit(container, &container.init);
    }

    /// Once.
    fn tell_exit(&self, container: &Container, process: &Process) {
        let (Some(exit), Phase::Created | Phase::Running) = (process.end(), process.phase()) else { return };
        let id = if process.is_init() { &container.id } else { &process.exec_id };
        self.outbox.publish(&events::TaskExit {
            container_id: container.id.clone(),
            id: id.clone(),
            pid: process.pid().unsigned_abs(),
            exit_status: exit.status,
            exited_at: time::stamp(exit.at),
            ..Default::default()
        });
        process.stop();
    }

    /// Without a pid namespace of its own the container's other processes outlive init.
    fn kill_rest(&self, container: &Rc<Container>) {
        let container = Rc::clone(container);
        tokio::task::spawn_local(async move {
            for exec in container.execs() {
                if let Ok(handle) = exec.check_kill() {
                    // One that has just ended is as well.
                    let _gone = handle.signal(libc::SIGKILL).is_ok();
                }
            }
            if let Err(error) = container.runtime.kill(libc::SIGKILL.unsigned_abs(), true).await {
                log::debug(&format!("kill the remaining processes of {}: {error}", container.id));
            }
        });
    }
}
