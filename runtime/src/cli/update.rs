//! `hull update`: other limits for a container that is there.

use super::Global;
use super::flags::{Flag, Parsed, Verb};
use crate::container::update::{Limits, Resources};
use crate::error::{Error, ErrorKind, Result};

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
    let warnings = match parsed.value("resources") {
        // Before the lock: what is read may come late, or never.
        Some(path) => global.runtime.update_from(&id, &Resources::read(path)?)?,
        None => global.runtime.update(&id, &limits(parsed)?)?,
    };
    global.log.warnings(&warnings);
    Ok(0)
}

/// The limits that the flags name.
fn limits(parsed: &Parsed) -> Result<Limits> {
    for name in ["l3-cache-schema", "mem-bw-schema"] {
        if parsed.value(name).is_some() {
            let text = format!("--{name}: Intel RDT is not supported");
            return Err(Error::new(ErrorKind::Usage, text));
        }
    }
    Ok(Limits {
        memory: bytes(parsed, "memory")?,
        memory_swap: bytes(parsed, "memory-swap")?,
        memory_reservation: bytes(parsed, "memory-reservation")?,
        kernel_memory: bytes(parsed, "kernel-memory")?,
        kernel_memory_tcp: bytes(parsed, "kernel-memory-tcp")?,
        cpu_quota: number(parsed, "cpu-quota")?,
        cpu_period: number(parsed, "cpu-period")?,
        cpu_burst: number(parsed, "cpu-burst")?,
        cpu_shares: number(parsed, "cpu-share")?,
        cpu_idle: number(parsed, "cpu-idle")?,
        cpu_rt_period: number(parsed, "cpu-rt-period")?,
        cpu_rt_runtime: number(parsed, "cpu-rt-runtime")?,
        cpuset_cpus: parsed.value("cpuset-cpus").map(str::to_owned),
        cpuset_mems: parsed.value("cpuset-mems").map(str::to_owned),
        pids: number(parsed, "pids-limit")?,
        block_io_weight: number(parsed, "blkio-weight")?,
    })
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
