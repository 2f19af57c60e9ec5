//! Mount namespaces in which the host looks like another host. Nothing changes outside of them.

use crate::{Host, Mode, Stop, skip};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;

/// What /sys/fs/cgroup should look like to a test and the runtime it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As it is.
    Host,
    /// Controllers mounted one by one, no cgroup2.
    V1,
    /// cgroup2 alone. Controllers held by v1 are missing from it.
    V2,
}

impl View {
    /// The word of `--view`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "host" => Some(Self::Host),
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            _ => None,
        }
    }

    /// The word of `--view`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Moves the calling thread into the view. Call it before anything else and from a single thread.
pub fn enter(view: View) -> Result<(), Stop> {
    if let Some(why) = missing(view) {
        return skip(why);
    }
    let host = Host::probe();
    match (view, host.mode) {
        (View::V1, Mode::Hybrid) => {
            private_mounts()?;
            let at = host.v2.ok_or("no cgroup2 mount")?;
            Ok(umount2(&at, MntFlags::MNT_DETACH)?)
        }
        (View::V2, Mode::V1 | Mode::Hybrid) => {
            private_mounts()?;
            umount_all_below("/sys/fs/cgroup")?;
            Ok(mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)?)
        }
        _ => Ok(()),
    }
}

/// Why this host cannot show this view.
pub fn missing(view: View) -> Option<String> {
    match (view, Host::probe().mode) {
        (View::V1, Mode::V2) => Some("this host has no cgroup v1".into()),
        (View::V1 | View::V2, Mode::None) => Some("no cgroup mount".into()),
        _ => None,
    }
}

/// A mount namespace of our own that shares nothing with the host.
pub fn private_mounts() -> Result<(), Stop> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare mount namespace: {e}"))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
}

/// The innermost first: mountinfo lists them in the order they were mounted.
fn umount_all_below(top: &str) -> Result<(), Stop> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().rev().filter_map(|l| l.split(' ').nth(4));
    for at in points.filter(|at| *at == top || at.starts_with(&format!("{top}/"))) {
        umount2(at, MntFlags::MNT_DETACH).map_err(|e| format!("umount {at}: {e}"))?;
    }
    Ok(())
}
