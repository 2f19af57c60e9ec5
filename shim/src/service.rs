//! The ttrpc side of the task service: hands each request to `task` on the event loop and its answer back. It
//! decides nothing. Registered under the names of task v2 and v3, whose messages are the same.

use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use hull_proto::{sandbox, sandbox_ttrpc, task, task_ttrpc};
use protobuf::MessageField;
use protobuf::well_known_types::empty::Empty;
use tokio::sync::{mpsc, oneshot};
use ttrpc::asynchronous::{Service, TtrpcContext};

use crate::error::{Error, Result};
use crate::log;
use crate::sandbox::{Sandbox, missing, platform};
use crate::task::Shim;

/// Something to be done on the event loop.
pub type Job = Box<dyn FnOnce(Rc<Shim>) + Send>;

/// Both task services, by name.
pub fn services(jobs: &mpsc::UnboundedSender<Job>) -> HashMap<String, Service> {
    let service: Arc<dyn task_ttrpc::Task + Send + Sync> = Arc::new(Tasks(Loop { jobs: jobs.clone() }));
    let former = task_ttrpc::create_task(Arc::clone(&service));
    let former = former.into_values().map(|service| ("containerd.task.v2.Task".to_owned(), service));
    let pods = sandbox_ttrpc::create_sandbox(Arc::new(Sandboxes(Loop { jobs: jobs.clone() })));
    task_ttrpc::create_task(service).into_iter().chain(former).chain(pods).collect()
}

struct Tasks(Loop);

struct Sandboxes(Loop);

/// The way to the event loop.
struct Loop {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Loop {
    /// Runs `work` on the event loop and waits for its answer. A caller that goes away does not stop it.
    async fn run<R, W, F>(&self, work: W) -> ttrpc::Result<R>
    where
        R: Send + 'static,
        W: FnOnce(Rc<Shim>) -> F + Send + 'static,
        F: Future<Output = Result<R>> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |shim| {
            tokio::task::spawn_local(async move {
                // The caller may be gone.
                let _heard = answer.send(work(shim).await).is_ok();
            });
        });
        self.hear(job, answered).await
    }

    /// As [`Self::run`], for work that ends with its caller.
    async fn run_for_caller<R, W, F>(&self, work: W) -> ttrpc::Result<R>
    where
        R: Send + 'static,
        W: FnOnce(Rc<Shim>) -> F + Send + 'static,
        F: Future<Output = Result<R>> + 'static,
    {
        let (mut answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |shim| {
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = answer.closed() => {}
                    done = work(shim) => {
                        let _heard = answer.send(done).is_ok();
                    }
                }
            });
        });
        self.hear(job, answered).await
    }

    async fn hear<R>(&self, job: Job, answered: oneshot::Receiver<Result<R>>) -> ttrpc::Result<R> {
        let over = |()| Error::other("the shim is shutting down");
        self.jobs.send(job).map_err(|_over| over(()))?;
        let answer = answered.await.map_err(|_over| over(()))?;
        answer.map_err(|error| {
            log::debug(&format!("answer: {error}"));
            error.into()
        })
    }
}

fn call(name: &str, id: &str, exec_id: &str) {
    let space = if exec_id.is_empty() { "" } else { " " };
    log::debug(&format!("{name} {id}{space}{exec_id}"));
}

#[async_trait]
impl task_ttrpc::Task for Tasks {
    async fn create(
        &self,
        _context: &TtrpcContext,
        request: task::CreateTaskRequest,
    ) -> ttrpc::Result<task::CreateTaskResponse> {
        call("create", &request.id, "");
        self.0.run(|shim| shim.create(request)).await
    }

    async fn start(
        &self,
        _context: &TtrpcContext,
        request: task::StartRequest,
    ) -> ttrpc::Result<task::StartResponse> {
        call("start", &request.id, &request.exec_id);
        self.0.run(|shim| shim.start(request)).await
    }

    async fn delete(
        &self,
        _context: &TtrpcContext,
        request: task::DeleteRequest,
    ) -> ttrpc::Result<task::DeleteResponse> {
        call("delete", &request.id, &request.exec_id);
        self.0.run(|shim| shim.delete(request)).await
    }

    async fn exec(&self, _context: &TtrpcContext, request: task::ExecProcessRequest) -> ttrpc::Result<Empty> {
        call("exec", &request.id, &request.exec_id);
        self.0.run(|shim| shim.exec(request)).await.map(empty)
    }

    async fn state(
        &self,
        _context: &TtrpcContext,
        request: task::StateRequest,
    ) -> ttrpc::Result<task::StateResponse> {
        self.0.run(|shim| shim.state(request)).await
    }

    async fn wait(
        &self,
        _context: &TtrpcContext,
        request: task::WaitRequest,
    ) -> ttrpc::Result<task::WaitResponse> {
        call("wait", &request.id, &request.exec_id);
        self.0.run_for_caller(|shim| shim.wait(request)).await
    }

    async fn kill(&self, _context: &TtrpcContext, request: task::KillRequest) -> ttrpc::Result<Empty> {
        call("kill", &request.id, &request.exec_id);
        self.0.run(|shim| shim.kill(request)).await.map(empty)
    }

    async fn pids(
        &self,
        _context: &TtrpcContext,
        request: task::PidsRequest,
    ) -> ttrpc::Result<task::PidsResponse> {
        self.0.run(|shim| shim.pids(request)).await
    }

    async fn pause(&self, _context: &TtrpcContext, request: task::PauseRequest) -> ttrpc::Result<Empty> {
        call("pause", &request.id, "");
        self.0.run(|shim| shim.pause(request)).await.map(empty)
    }

    async fn resume(&self, _context: &TtrpcContext, request: task::ResumeRequest) -> ttrpc::Result<Empty> {
        call("resume", &request.id, "");
        self.0.run(|shim| shim.resume(request)).await.map(empty)
    }

    async fn resize_pty(
        &self,
        _context: &TtrpcContext,
        request: task::ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.run(|shim| shim.resize(request)).await.map(empty)
    }

    async fn close_io(&self, _context: &TtrpcContext, request: task::CloseIORequest) -> ttrpc::Result<Empty> {
        call("close input of", &request.id, &request.exec_id);
        self.0.run(|shim| shim.close_io(request)).await.map(empty)
    }

    async fn update(
        &self,
        _context: &TtrpcContext,
        request: task::UpdateTaskRequest,
    ) -> ttrpc::Result<Empty> {
        call("update", &request.id, "");
        self.0.run(|shim| shim.update(request)).await.map(empty)
    }

    async fn checkpoint(
        &self,
        _context: &TtrpcContext,
        request: task::CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        call("checkpoint", &request.id, "");
        self.0.run(|shim| shim.checkpoint(request)).await.map(empty)
    }

    async fn stats(
        &self,
        _context: &TtrpcContext,
        request: task::StatsRequest,
    ) -> ttrpc::Result<task::StatsResponse> {
        self.0.run(|shim| shim.stats(request)).await
    }

    async fn connect(
        &self,
        _context: &TtrpcContext,
        request: task::ConnectRequest,
    ) -> ttrpc::Result<task::ConnectResponse> {
        self.0.run(|shim| shim.connect(request)).await
    }

    async fn shutdown(
        &self,
        _context: &TtrpcContext,
        request: task::ShutdownRequest,
    ) -> ttrpc::Result<Empty> {
        call("shutdown", &request.id, "");
        self.0.run(|shim| shim.shutdown(request)).await.map(empty)
    }
}

fn empty(_unit: ()) -> Empty {
    Empty::new()
}

/// The sandbox of this shim, by its name.
fn find(shim: &Shim, id: &str) -> Result<Rc<Sandbox>> {
    let found = shim.sandbox.borrow().clone().ok_or_else(|| missing(id))?;
    found.check(id)?;
    Ok(found)
}

#[async_trait]
impl sandbox_ttrpc::Sandbox for Sandboxes {
    async fn create_sandbox(
        &self,
        _context: &TtrpcContext,
        request: sandbox::CreateSandboxRequest,
    ) -> ttrpc::Result<sandbox::CreateSandboxResponse> {
        call("create sandbox", &request.sandbox_id, "");
        let create = |shim: Rc<Shim>| async move {
            let mut kept = shim.sandbox.borrow_mut();
            if kept.is_some() {
                return Err(Error::exists(format!("sandbox {}: already exists", request.sandbox_id)));
            }
            *kept = Some(Rc::new(Sandbox::new(request)?));
            Ok(sandbox::CreateSandboxResponse::new())
        };
        self.0.run(create).await
    }

    async fn start_sandbox(
        &self,
        _context: &TtrpcContext,
        request: sandbox::StartSandboxRequest,
    ) -> ttrpc::Result<sandbox::StartSandboxResponse> {
        call("start sandbox", &request.sandbox_id, "");
        self.0.run(|shim| async move { find(&shim, &request.sandbox_id)?.start() }).await
    }

    async fn platform(
        &self,
        _context: &TtrpcContext,
        _request: sandbox::PlatformRequest,
    ) -> ttrpc::Result<sandbox::PlatformResponse> {
        let platform = MessageField::some(platform());
        Ok(sandbox::PlatformResponse { platform, ..Default::default() })
    }

    async fn stop_sandbox(
        &self,
        _context: &TtrpcContext,
        request: sandbox::StopSandboxRequest,
    ) -> ttrpc::Result<sandbox::StopSandboxResponse> {
        call("stop sandbox", &request.sandbox_id, "");
        let stop = |shim: Rc<Shim>| async move {
            find(&shim, &request.sandbox_id)?.stop();
            Ok(sandbox::StopSandboxResponse::new())
        };
        self.0.run(stop).await
    }

    async fn wait_sandbox(
        &self,
        _context: &TtrpcContext,
        request: sandbox::WaitSandboxRequest,
    ) -> ttrpc::Result<sandbox::WaitSandboxResponse> {
        let wait = |shim: Rc<Shim>| async move { Ok(find(&shim, &request.sandbox_id)?.stopped().await) };
        self.0.run_for_caller(wait).await
    }

    async fn sandbox_status(
        &self,
        _context: &TtrpcContext,
        request: sandbox::SandboxStatusRequest,
    ) -> ttrpc::Result<sandbox::SandboxStatusResponse> {
        self.0
            .run(move |shim| async move { Ok(find(&shim, &request.sandbox_id)?.status(request.verbose)) })
            .await
    }

    async fn ping_sandbox(
        &self,
        _context: &TtrpcContext,
        request: sandbox::PingRequest,
    ) -> ttrpc::Result<sandbox::PingResponse> {
        let ping = |shim: Rc<Shim>| async move { find(&shim, &request.sandbox_id).map(drop) };
        self.0.run(ping).await.map(|()| sandbox::PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _context: &TtrpcContext,
        request: sandbox::ShutdownSandboxRequest,
    ) -> ttrpc::Result<sandbox::ShutdownSandboxResponse> {
        call("shut down sandbox", &request.sandbox_id, "");
        let shutdown = |shim: Rc<Shim>| async move {
            find(&shim, &request.sandbox_id)?.stop();
            if shim.is_empty() {
                shim.end();
            }
            Ok(sandbox::ShutdownSandboxResponse::new())
        };
        self.0.run(shutdown).await
    }

    async fn sandbox_metrics(
        &self,
        _context: &TtrpcContext,
        request: sandbox::SandboxMetricsRequest,
    ) -> ttrpc::Result<sandbox::SandboxMetricsResponse> {
        let metrics = |shim: Rc<Shim>| async move { find(&shim, &request.sandbox_id)?.metrics() };
        let metrics = self.0.run(metrics).await?;
        Ok(sandbox::SandboxMetricsResponse { metrics: MessageField::some(metrics), ..Default::default() })
    }
}
