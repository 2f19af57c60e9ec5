//! Owns the small parts of `linux.resources` as writes: pids, huge pages, RDMA, network, and `unified`.
//! It may not touch cpu, memory, block I/O or devices, which have files of their own.
//! `plan::cgroup::limits` calls it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxRdma};

use super::limits::{Limits, Place};
use super::{Version, Write};
use crate::error::{Error, ErrorKind, Field, Result};

const PIDS: Field = Field::named("linux.resources.pids.limit");
const HUGEPAGES: &str = "linux.resources.hugepageLimits";
const RDMA: &str = "linux.resources.rdma";
const NETWORK: Field = Field::named("linux.resources.network");
const UNIFIED: &str = "linux.resources.unified";
/// Controllers of v2 up to Linux 6.18; any other prefix of a `unified` key is left to the kernel.
const CONTROLLERS: [&str; 9] = ["cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma"];

/// `config-linux.md#pids`. Negative is no limit; 0 is 1, as in runc, because systemd refuses 0. In a config
/// older than 1.3.0 a 0 is left alone.
pub(super) fn pids(pids: LinuxPids, limits: &mut Limits) -> Result<()> {
    let limit = pids.limit();
    if limit == 0 && limits.pids_zero_is_unset {
        return Ok(());
    }
    if limit < 0 && limits.find("pids", "pids").is_none() {
        return Ok(());
    }
    let place = limits.need("pids", "pids", &PIDS)?;
    let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
    // The set-up needs processes of its own beside the container's first.
    limits.push(place.write("pids", "pids.max", value, &PIDS).after_setup());
    Ok(())
}

/// `config-linux.md#huge-page-limits`.
pub(super) fn hugetlb(pages: &[LinuxHugepageLimit], limits: &mut Limits) -> Result<()> {
    for (index, page) in pages.iter().enumerate() {
        let field = Field::item(HUGEPAGES, index);
        let size = page_size(page.page_size(), &field)?;
        let place = limits.need("hugetlb", "hugetlb", &field)?;
        let (plain, reserved, value) = match place.version {
            Version::V1 => ("limit_in_bytes", "rsvd.limit_in_bytes", page.limit().to_string()),
            Version::V2 if page.limit() < 0 => ("max", "rsvd.max", "max".to_owned()),
            Version::V2 => ("max", "rsvd.max", page.limit().to_string()),
        };
        let field = field.member("limit");
        limits.push(place.write("hugetlb", format!("hugetlb.{size}.{plain}"), &value, &field));
        // Reservations are limited apart since Linux 5.7.
        let write = place.write("hugetlb", format!("hugetlb.{size}.{reserved}"), value, &field);
        limits.push(write.skip_missing());
    }
    Ok(())
}

/// The spec's form, which is also part of the file's name: `2MB`.
fn page_size<'a>(size: &'a str, field: &Field) -> Result<&'a str> {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if digits && !number.starts_with('0') {
        return Ok(size);
    }
    let text = format!("invalid hugepage size \"{size}\" (expected a number and KB, MB or GB)");
    Err(Error::new(ErrorKind::HugepageSize, text).field(field.member("pageSize")))
}

/// `config-linux.md#rdma`, in the order of the device names.
pub(super) fn rdma(devices: &HashMap<String, LinuxRdma>, limits: &mut Limits) -> Result<()> {
    let devices: BTreeMap<_, _> = devices.iter().collect();
    for (name, device) in devices {
        let field = Field::entry(RDMA, name);
        let place = limits.need("rdma", "rdma", &field)?;
        let handles = device.hca_handles().map(|count| format!(" hca_handle={count}"));
        let objects = device.hca_objects().map(|count| format!(" hca_object={count}"));
        if handles.is_none() && objects.is_none() {
            continue;
        }
        let value = format!("{name}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default());
        limits.push(place.write("rdma", "rdma.max", value, &field));
    }
    Ok(())
}

/// `config-linux.md#network`: v1 only.
pub(super) fn network(network: &LinuxNetwork, limits: &mut Limits) -> Result<()> {
    let why = "cgroup v2 has no network classes or priorities";
    let on_v2 = |limits: &Limits, name| limits.unified_mode() && limits.find(name, name).is_none();
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let field = NETWORK.member("classID");
        if on_v2(limits, "net_cls") {
            limits.ignored(field, why);
        } else {
            let place = limits.need("net_cls", "net_cls", &field)?;
            limits.push(place.write("net_cls", "net_cls.classid", class, &field));
        }
    }
    for (index, priority) in network.priorities().iter().flatten().enumerate() {
        let field = NETWORK.member("priorities").index(index);
        if on_v2(limits, "net_prio") {
            limits.ignored(field, why);
            continue;
        }
        let place = limits.need("net_prio", "net_prio", &field)?;
        let value = format!("{} {}", priority.name(), priority.priority());
        limits.push(place.write("net_prio", "net_prio.ifpriomap", value, &field));
    }
    Ok(())
}

/// `config-linux.md#unified`, in the order of the file names, one write per line.
pub(super) fn unified(files: &HashMap<String, String>, limits: &mut Limits) -> Result<()> {
    let files: BTreeMap<_, _> = files.iter().collect();
    for (file, value) in files {
        let field = Field::entry(UNIFIED, file);
        let Some(place) = limits.unified().filter(|_| limits.unified_mode()) else {
            let text = "invalid configuration: cannot use unified on cgroup v1";
            return Err(Error::new(ErrorKind::UnifiedOnV1, text).field(field));
        };
        let controller = unified_file(file, &field, limits)?;
        for line in value.split('\n').filter(|line| !line.is_empty()) {
            limits.push(unified_write(place, controller, file, line, &field));
        }
    }
    Ok(())
}

/// The controller of a file that `unified` may name.
fn unified_file<'a>(file: &'a str, field: &Field, limits: &Limits) -> Result<&'a str> {
    let refuse = |text| Err(Error::new(ErrorKind::UnifiedFile, text).field(field.clone()));
    if file.contains('/') {
        return refuse(format!("unified resource \"{file}\" must be a file name (no slashes)"));
    }
    let Some((controller, _)) = file.split_once('.') else {
        return refuse(format!("unified resource \"{file}\" must be in the form CONTROLLER.PARAMETER"));
    };
    if CONTROLLERS.contains(&controller) && limits.find(controller, controller).is_none() {
        let text = format!("controller \"{controller}\" not available");
        return refuse(format!("unified resource \"{file}\" can't be set: {text}"));
    }
    Ok(controller)
}

fn unified_write(place: Place, controller: &str, file: &str, line: &str, field: &Field) -> Write {
    let write = place.write("unified", file.to_owned(), line, field);
    let write = Write { controller: Cow::Owned(controller.to_owned()), ..write };
    match file {
        "pids.max" | "memory.max" | "memory.high" | "cpu.max" => write.after_setup(),
        _ => write,
    }
}
