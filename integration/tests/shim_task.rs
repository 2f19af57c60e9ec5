//! The task service, method by method.

use hull_integration::task::{Exec, Stdio, refused};
use hull_integration::{Lab, TestResult, tests};

tests! {
    a_container_from_create_to_delete,
}

fn a_container_from_create_to_delete(lab: &Lab) -> TestResult {
    let daemon = lab.daemon()?;
    let task = daemon.task(daemon.bundle().sh("exit 3"))?;
    let pid = task.create(&Stdio::default())?;
    assert_eq!(task.start("")?, pid);
    assert_eq!(task.wait("").get()?.exit_status, 3);
    let deleted = task.delete("")?;
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
    assert_eq!(task.event("delete"), ["create", "start", "exit 3", "delete 3"]);
    task.retire()?;
    daemon.end()
}
