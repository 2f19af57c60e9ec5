//! The rules on `linux.resources` whose breach would name a file outside the cgroup or no file at all.
//! It judges no amounts: what a limit means depends on the host's cgroups. `check` calls it.

use oci_spec::runtime::LinuxResources;

use super::at::At;
use super::{devices, refuse};
use crate::error::{ErrorKind, Field, Result};

pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    let at = At::Named("linux.resources");
    let rules = at.member("devices");
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        devices::rule(rule, rules.index(index))?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        if !is_page_size(size) {
            let limits = at.member("hugepageLimits");
            let limit = limits.index(index);
            let field = limit.member("pageSize");
            return Err(refuse(
                ErrorKind::HugepageSize,
                field,
                format!("page size {size:?} must have the form 64KB, 2MB or 1GB"),
            ));
        }
        if limit.limit() < 0 {
            let limits = at.member("hugepageLimits");
            let message = format!("{} is not a number of bytes", limit.limit());
            return Err(refuse(ErrorKind::HugepageLimit, limits.index(index).member("limit"), message)
                .hint("to set no limit for a page size, remove its entry"));
        }
    }
    let least = [
        ("pids.limit", resources.pids().as_ref().map(|pids| pids.limit())),
        ("cpu.quota", resources.cpu().as_ref().and_then(|cpu| cpu.quota())),
    ];
    for (name, value) in least {
        if let Some(value) = value.filter(|value| *value < -1) {
            let message = format!("{value} is less than -1, which means no limit");
            return Err(refuse(ErrorKind::LimitNegative, at.member(name), message));
        }
    }
    let mut files: Vec<_> = resources.unified().iter().flat_map(|map| map.keys()).collect();
    files.sort();
    for file in files {
        // cgroup-v2.rst names files `controller.name`; runc's words.
        if file.contains('/') {
            let message = format!("unified resource {file:?} must be a file name (no slashes)");
            return Err(refuse(
                ErrorKind::UnifiedKey,
                Field::entry("linux.resources.unified", file),
                message,
            ));
        }
        if !file.contains('.')
            || file.starts_with('.')
            || file.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
        {
            let message = format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
            return Err(refuse(
                ErrorKind::UnifiedKey,
                Field::entry("linux.resources.unified", file),
                message,
            ));
        }
    }
    words(resources, at)
}

/// Names that are written into a cgroup file as one word of a line.
fn words(resources: &LinuxResources, at: At<'_>) -> Result<()> {
    let is_word = |name: &str| {
        !name.is_empty() && !name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
    };
    let mut adapters: Vec<_> = resources.rdma().iter().flat_map(|map| map.keys()).collect();
    adapters.sort();
    if let Some(bad) = adapters.into_iter().find(|name| !is_word(name)) {
        return Err(refuse(
            ErrorKind::RdmaDevice,
            Field::entry("linux.resources.rdma", bad),
            format!("{bad:?} is not a device name"),
        ));
    }
    let interfaces = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
    for (index, priority) in interfaces.into_iter().flatten().enumerate() {
        if !is_word(priority.name()) {
            let list = at.member("network.priorities");
            let item = list.index(index);
            let field = item.member("name");
            return Err(refuse(
                ErrorKind::NetDeviceName,
                field,
                format!("invalid network device name {:?}", priority.name()),
            ));
        }
    }
    Ok(())
}

/// `^[1-9][0-9]*[KMG]B$` (schema/config-linux.json).
fn is_page_size(size: &str) -> bool {
    let digits = size.strip_suffix('B').and_then(|rest| rest.strip_suffix(['K', 'M', 'G']));
    digits.is_some_and(|digits| {
        !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
    })
}
