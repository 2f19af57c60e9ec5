//! How many outputs of a process have not ended yet, and who waits for that. Counts only.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// The outputs of one process.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    open: Cell<usize>,
    ended: Notify,
}

impl Outputs {
    /// One more.
    pub(super) fn add(self: &Rc<Self>) -> Output {
        self.open.set(self.open.get() + 1);
        Output(Rc::clone(self))
    }

    /// Waits until there is none.
    pub(super) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            if self.open.get() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// One output, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Output(Rc<Outputs>);

impl Drop for Output {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            self.0.ended.notify_waiters();
        }
    }
}
