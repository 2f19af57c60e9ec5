//! The ttrpc side of the task service: hands each request to `task` on the event loop and its answer back. It
//! decides nothing. Registered under the names of task v2 and v3, whose messages are the same.

use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use hull_proto::{task, task_ttrpc};
use protobuf::well_known_types::empty::Empty;
use tokio::sync::{mpsc, oneshot};
use ttrpc::asynchronous::{Service, TtrpcContext};

use crate::error::{Error, Result};
use crate::log;
use crate::task::Shim;

/// Something to be done on the event loop.
pub type Job = Box<dyn FnOnce(Rc<Shim>) + Send>;

/// Both task services, by name.
pub fn services(jobs: &mpsc::UnboundedSender<Job>) -> HashMap<String, Service> {
    let service: Arc<dyn task_ttrpc::Task + Send + Sync> = Arc::new(Tasks { jobs: jobs.clone() });
    let former = task_ttrpc::create_task(Arc::clone(&service));
    let former = former.into_values().map(|service| ("containerd.task.v2.Task".to_owned(), service));
    task_ttrpc::create_task(service).into_iter().chain(former).collect()
}

struct Tasks {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Tasks {
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
        let over = |()| Error::other("the shim ends");
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
        self.run(|shim| shim.create(request)).await
    }

    async fn start(
        &self,
        _context: &TtrpcContext,
        request: task::StartRequest,
    ) -> ttrpc::Result<task::StartResponse> {
        call("start", &request.id, &request.exec_id);
        self.run(|shim| shim.start(request)).await
    }

    async fn delete(
        &self,
        _context: &TtrpcContext,
        request: task::DeleteRequest,
    ) -> ttrpc::Result<task::DeleteResponse> {
        call("delete", &request.id, &request.exec_id);
        self.run(|shim| shim.delete(request)).await
    }

    async fn exec(&self, _context: &TtrpcContext, request: task::ExecProcessRequest) -> ttrpc::Result<Empty> {
        call("exec", &request.id, &request.exec_id);
        self.run(|shim| shim.exec(request)).await.map(empty)
    }

    async fn state(
        &self,
        _context: &TtrpcContext,
        request: task::StateRequest,
    ) -> ttrpc::Result<task::StateResponse> {
        self.run(|shim| shim.state(request)).await
    }

    async fn wait(
        &self,
        _context: &TtrpcContext,
        request: task::WaitRequest,
    ) -> ttrpc::Result<task::WaitResponse> {
        call("wait", &request.id, &request.exec_id);
        self.run_for_caller(|shim| shim.wait(request)).await
    }

    async fn kill(&self, _context: &TtrpcContext, request: task::KillRequest) -> ttrpc::Result<Empty> {
        call("kill", &request.id, &request.exec_id);
        self.run(|shim| shim.kill(request)).await.map(empty)
    }

    async fn pids(
        &self,
        _context: &TtrpcContext,
        request: task::PidsRequest,
    ) -> ttrpc::Result<task::PidsResponse> {
        self.run(|shim| shim.pids(request)).await
    }

    async fn pause(&self, _context: &TtrpcContext, request: task::PauseRequest) -> ttrpc::Result<Empty> {
        call("pause", &request.id, "");
        self.run(|shim| shim.pause(request)).await.map(empty)
    }

    async fn resume(&self, _context: &TtrpcContext, request: task::ResumeRequest) -> ttrpc::Result<Empty> {
        call("resume", &request.id, "");
        self.run(|shim| shim.resume(request)).await.map(empty)
    }

    async fn resize_pty(
        &self,
        _context: &TtrpcContext,
        request: task::ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        self.run(|shim| shim.resize(request)).await.map(empty)
    }

    async fn close_io(&self, _context: &TtrpcContext, request: task::CloseIORequest) -> ttrpc::Result<Empty> {
        call("close input of", &request.id, &request.exec_id);
        self.run(|shim| shim.close_io(request)).await.map(empty)
    }

    async fn update(
        &self,
        _context: &TtrpcContext,
        request: task::UpdateTaskRequest,
    ) -> ttrpc::Result<Empty> {
        call("update", &request.id, "");
        self.run(|shim| shim.update(request)).await.map(empty)
    }

    async fn checkpoint(
        &self,
        _context: &TtrpcContext,
        request: task::CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        call("checkpoint", &request.id, "");
        self.run(|shim| shim.checkpoint(request)).await.map(empty)
    }

    async fn stats(
        &self,
        _context: &TtrpcContext,
        request: task::StatsRequest,
    ) -> ttrpc::Result<task::StatsResponse> {
        self.run(|shim| shim.stats(request)).await
    }

    async fn connect(
        &self,
        _context: &TtrpcContext,
        request: task::ConnectRequest,
    ) -> ttrpc::Result<task::ConnectResponse> {
        self.run(|shim| shim.connect(request)).await
    }

    async fn shutdown(
        &self,
        _context: &TtrpcContext,
        request: task::ShutdownRequest,
    ) -> ttrpc::Result<Empty> {
        call("shutdown", &request.id, "");
        self.run(|shim| shim.shutdown(request)).await.map(empty)
    }
}

fn empty(_unit: ()) -> Empty {
    Empty::new()
}
