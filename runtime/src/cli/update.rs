//! `hull update`: other limits for a container that is there.

use std::fs::File;
use std::os::fd::AsFd;

use hull_cgroup::Hierarchies;
use hull_sys::open::{self, How};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Field, Result, io_words};
use crate::plan::cgroup::{InForce, plan_update};
use crate::spec::{self, ContainerId, state::Status};
use crate::state::Record;

pub(super) const VERB: Verb = Verb {
    name: "update",
    arguments: "ID",
    count: (1, 1),
    about: "change the resource limits of a container",
    flags: FLAGS,
    trailing: false,
};

const FLAGS: &[Flag] = &[
    Flag::value(
        "resources",
        "FILE",
        "read the limits from FILE (- for standard input) and ignore all other flags",
    )
    .short('r'),
    Flag::value("memory", "BYTES", "memory limit; suffixes k, m, g, t; -1 for no limit"),
    Flag::value("memory-swap", "BYTES", "limit of memory plus swap; -1 for no limit"),
    Flag::value(
        "memory-reservation",
        "BYTES",
        "memory to protect from reclaim when the host runs low (soft limit on cgroup v1)",
    ),
    Flag::value("cpu-quota", "USEC", "CPU time in each period; -1 for no limit"),
    Flag::value("cpu-period", "USEC", "length of the period for --cpu-quota"),
    Flag::value("cpu-burst", "USEC", "unused CPU time that may be accumulated"),
    Flag::value("cpu-share", "N", "CPU shares relative to other containers (default: 1024)"),
    Flag::value("cpu-idle", "0|1", "1 to run only when no other process needs the CPU"),
    Flag::value("cpu-rt-period", "USEC", "length of the period for --cpu-rt-runtime"),
    Flag::value("cpu-rt-runtime", "USEC", "CPU time for real-time processes in each period"),
    Flag::value("cpuset-cpus", "LIST", "CPUs to run on, for example 0-2,7"),
    Flag::value("cpuset-mems", "LIST", "NUMA memory nodes to use"),
    Flag::value("pids-limit", "N", "maximum number of processes; -1 for no limit"),
    Flag::value("blkio-weight", "N", "weight for block I/O, 10 to 1000"),
    Flag::value("kernel-memory", "BYTES", "ignored").hidden(),
    Flag::value("kernel-memory-tcp", "BYTES", "ignored").hidden(),
    Flag::value("l3-cache-schema", "TEXT", "not supported").hidden(),
    Flag::value("mem-bw-schema", "TEXT", "not supported").hidden(),
];

pub(super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let id = super::id(parsed)?;
    // Before the lock: what is read may come late, or never.
    let Some(path) = parsed.value("resources") else { return update(global, &id, &resources(parsed)?) };
    let (file, name) = match path {
        "-" => (std::io::stdin().as_fd().try_clone_to_owned().map(File::from), "standard input"),
        path => (open_now(path), path),
    };
    let file = file.map_err(|why| {
        let why = io_words(&why);
        Error::new(ErrorKind::ResourcesMissing, format!("open {name}: {why}"))
    })?;
    let loaded = spec::load_resources(file, name)?;
    global.accept(&loaded.warnings)?;
    global.log.warnings(&loaded.warnings);
    update(global, &id, &loaded.spec).map_err(|error| loaded.source.point(error))
}

fn open_now(path: &str) -> std::io::Result<File> {
    let name = std::ffi::CString::new(path)?;
    Ok(File::from(open::on_host(None, &name, How::READ_NOW)?))
}

fn update(global: &Global, id: &ContainerId, resources: &LinuxResources) -> Result<i32> {
    let state = global.root.open(id)?.lock()?;
    let record = state.dir().load()?;
    if matches!(state.dir().status(&record), Status::Stopped | Status::Creating) {
        return Err(Error::new(ErrorKind::ContainerNotRunning, "container not running"));
    }
    same_devices(&record, resources)?;
    let cgroup = Cgroup::open(&record.cgroup)?;
    let facts = Hierarchies::of_self()?;
    let pids_zero_is_unset = !spec::check::is_since(&record.oci_version, (1, 3));
    let now = InForce { pids_zero_is_unset, ..cgroup.in_force() };
    let plan = plan_update(resources, record.cgroup.dirs.clone(), &facts, now)?;
    global.accept(&plan.warnings)?;
    for write in &plan.writes {
        global.log.debug(format_args!("{write}"));
    }
    cgroup.apply_all(&plan)?;
    global.log.warnings(&plan.warnings);
    Ok(0)
}

/// Device rules stay as they were made, with what GPU tools have added since; callers that hand over all resources
/// (containerd's CRI) name the same ones.
fn same_devices(record: &Record, resources: &LinuxResources) -> Result<()> {
    let Some(asked) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) else { return Ok(()) };
    let made = super::bundle::config_of(record).ok();
    let made = made.as_ref().and_then(|config| config.spec.linux().as_ref()?.resources().as_ref());
    if made.and_then(|made| made.devices().as_ref()) == Some(asked) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::UpdateDevices, "device rules of a container cannot be changed")
        .hint("leave them out, or create the container again")
        .field(Field::named("linux.resources.devices")))
}

/// The limits that the flags name.
fn resources(parsed: &Parsed) -> Result<LinuxResources> {
    for name in ["l3-cache-schema", "mem-bw-schema"] {
        if parsed.value(name).is_some() {
            return Err(Error::new(ErrorKind::Usage, format!("--{name}: Intel RDT is not supported")));
        }
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(bytes(parsed, "memory")?).set_swap(bytes(parsed, "memory-swap")?);
    memory.set_reservation(bytes(parsed, "memory-reservation")?);
    memory.set_kernel(bytes(parsed, "kernel-memory")?).set_kernel_tcp(bytes(parsed, "kernel-memory-tcp")?);
    let mut cpu = LinuxCpu::default();
    cpu.set_quota(number(parsed, "cpu-quota")?).set_period(number(parsed, "cpu-period")?);
    cpu.set_burst(number(parsed, "cpu-burst")?).set_shares(number(parsed, "cpu-share")?);
    cpu.set_idle(number(parsed, "cpu-idle")?);
    cpu.set_realtime_period(number(parsed, "cpu-rt-period")?);
    cpu.set_realtime_runtime(number(parsed, "cpu-rt-runtime")?);
    cpu.set_cpus(parsed.value("cpuset-cpus").map(str::to_owned));
    cpu.set_mems(parsed.value("cpuset-mems").map(str::to_owned));
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_devices(None);
    if let Some(limit) = number(parsed, "pids-limit")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = number(parsed, "blkio-weight")? {
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(Some(weight));
        resources.set_block_io(Some(block_io));
    }
    Ok(resources)
}

fn number<N: std::str::FromStr>(parsed: &Parsed, name: &str) -> Result<Option<N>> {
    let parse = |text: &str| text.parse().map_err(|_not_a_number| invalid(name, text));
    parsed.value(name).map(parse).transpose()
}

fn bytes(parsed: &Parsed, name: &str) -> Result<Option<i64>> {
    let parse = |text: &str| size(text).ok_or_else(|| invalid(name, text));
    parsed.value(name).map(parse).transpose()
}

fn invalid(name: &str, text: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("invalid value {text:?} for --{name}"))
}

/// A number of bytes, its unit a power of 1024: `64m`, `1.5GiB`, `-1`.
fn size(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(end);
    let power = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let digits = digits.trim_end();
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(1 << (10 * power)).filter(|bytes| *bytes >= -1);
    }
    let (whole, part) = digits.split_once('.')?;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || part.len() > 9 {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(part.len()).ok()?);
    let value = (whole.parse::<i128>().ok()? * scale + part.parse::<i128>().ok()?) << (10 * power);
    i64::try_from(value / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = [
            ("0", 0),
            ("-1", -1),
            ("4096", 4096),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("1kB", 1 << 10),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("1 t", 1 << 40),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-2", "1x", "1.m", ".5m", "64mm", "9999999p", "1e3", "+-1"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
