//! The config.json that `hull spec` writes: the same container as `runc spec` describes, because scripts edit it.
//! It may not write the file or ask who runs it. `cli/spec` calls it.

/// The text for a caller with root's rights: tabs, a newline at the end.
pub fn root() -> String {
    String::new()
}

/// The text for `--rootless`: a user namespace that maps `uid` and `gid` to root, no network namespace of its own,
/// the host's /sys read-only, no cgroup limits.
pub fn rootless(uid: u32, gid: u32) -> String {
    let _ = (uid, gid);
    String::new()
}
