//! Descriptors that the event loop watches.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `fd` for what `interest` says.
#[expect(
    deprecated,
    reason = "what is AsFd is one and the same file while it lives, as the unsafe successor asks for"
)]
pub fn watch<F: AsFd + AsRawFd>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    AsyncFd::with_interest(fd, interest)
}
