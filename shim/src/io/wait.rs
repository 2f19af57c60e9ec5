//! A descriptor that can be waited for, also across the other end's leaving and coming back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use hull_sys::signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watch::watch;

/// Between looks at what the kernel will not watch for us.
const PAUSE: Duration = Duration::from_secs(1);

/// Such a descriptor.
#[derive(Debug)]
pub(super) struct Waited {
    fd: Rc<OwnedFd>,
    interest: Interest,
    watch: Option<AsyncFd<Rc<OwnedFd>>>,
}

impl Waited {
    /// The kernel is asked to watch it at the first wait.
    pub(super) fn new(fd: OwnedFd, interest: Interest) -> Self {
        Self { fd: Rc::new(fd), interest, watch: None }
    }

    /// Waits until the kernel has news since the last call; the first call counts what is already there.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => self.watch()?,
        };
        let mut news = watch.ready(self.interest).await?;
        let closed = news.ready().is_read_closed() || news.ready().is_write_closed();
        news.clear_ready();
        // "Closed" is never cleared, but the other end of a FIFO or a terminal can come back: watch anew.
        if !closed {
            self.watch = Some(watch);
        }
        Ok(())
    }

    /// The descriptor itself.
    pub(super) fn fd(&self) -> &Rc<OwnedFd> {
        &self.fd
    }

    fn watch(&self) -> io::Result<AsyncFd<Rc<OwnedFd>>> {
        watch(Rc::clone(&self.fd), self.interest)
    }

    /// The `POLL*` bits of `events`, and those that always count, as they are now.
    pub(super) fn now(&self, events: i16) -> i16 {
        signal::poll([signal::Interest { fd: self.as_fd(), events }], 0).map_or(0, |[bits]| bits)
    }

    /// Waits until one of these `POLL*` bits is up.
    pub(super) async fn until(&mut self, bits: i16) {
        while self.now(bits) & bits == 0 {
            if self.changed().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl AsFd for Waited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    use tokio::time::timeout;

    use super::super::tests::{A_WHILE, Dir, run};
    use super::*;

    #[test]
    fn an_end_that_comes_back_is_no_news_forever() {
        run(async {
            let dir = Dir::new("wait");
            let fifo = dir.fifo("fifo");
            let open = |how: &mut OpenOptions| how.custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
            let mut reader = Waited::new(open(OpenOptions::new().read(true)).into(), Interest::READABLE);
            let writer = open(OpenOptions::new().write(true));
            assert!(timeout(A_WHILE, reader.changed()).await.is_err());
            drop(writer);
            reader.changed().await.unwrap();
            let _writer = open(OpenOptions::new().write(true));
            assert!(timeout(A_WHILE, reader.changed()).await.is_err());
        });
    }
}
