//! Owns `linux.resources.cpu` as writes: shares and weight, quota and period, burst, idle, real time, cpusets.
//! It may not know what a parent cgroup allows; values that depend on each other get a second try.
//! `plan::cgroup::limits` calls it.

use oci_spec::runtime::LinuxCpu;

use super::Version;
use super::limits::{Limits, Place};
use crate::error::{Error, ErrorKind, Field, Result};

const CPU: Field = Field::named("linux.resources.cpu");
/// The kernel's bounds of `cpu.shares` (`MIN_SHARES`, `MAX_SHARES`).
const SHARES: std::ops::RangeInclusive<u64> = 2..=1 << 18;
/// The kernel's default of `cpu.max` (`cgroup-v2.rst: cpu.max`), microseconds.
const PERIOD_US: u64 = 100_000;

/// The v2 weight for v1 shares: 1024 is 100, both ends meet both ends. The former linear formula gave a
/// container with 1024 shares a third of the weight of a plain process (runc #4772).
pub(super) fn weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        0x4_0000.. => Some(10_000),
        _ => {
            #[allow(clippy::cast_precision_loss, reason = "below 2^18, exact in an f64")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            let weight = 10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000, whole")]
            let weight = weight as u64;
            Some(weight)
        }
    }
}

/// `config-linux.md#cpu`. Zero shares, quota, period and real-time values mean unset.
pub(super) fn cpu(cpu: &LinuxCpu, limits: &mut Limits) -> Result<()> {
    let Some(field) = first_limit(cpu, limits.now.is_some()) else { return Ok(()) };
    let place = limits.need("cpu", "cpu", &field)?;
    match place.version {
        Version::V1 => v1(cpu, place, limits),
        Version::V2 => {
            v2(cpu, place, limits);
            Ok(())
        }
    }
}

/// The first field that needs the controller. A negative quota alone asks for what is there without it, but in
/// an update takes a quota away.
fn first_limit(cpu: &LinuxCpu, updates: bool) -> Option<Field> {
    let given = [
        ("shares", nonzero(cpu.shares()).is_some()),
        ("quota", cpu.quota().is_some_and(|quota| quota > 0 || updates && quota < 0)),
        ("period", nonzero(cpu.period()).is_some()),
        ("burst", cpu.burst().is_some()),
        ("idle", cpu.idle().is_some()),
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)),
        ("realtimePeriod", nonzero(cpu.realtime_period()).is_some()),
    ];
    given.iter().find(|(_, given)| *given).map(|(name, _)| CPU.member(name))
}

fn nonzero(value: Option<u64>) -> Option<u64> {
    value.filter(|value| *value != 0)
}

fn v1(cpu: &LinuxCpu, place: Place, limits: &mut Limits) -> Result<()> {
    real_time(cpu, place, limits);
    if let Some(shares) = nonzero(cpu.shares()) {
        check_shares(shares)?;
        limits.push(place.write("cpu", "cpu.shares", shares, &CPU.member("shares")));
    }
    // Quota bites the set-up, which would run at the container's pace. Period, burst and quota are bound to
    // each other and to the parent's: refused first, they may pass after the quota.
    if let Some(period) = nonzero(cpu.period()) {
        let write = place.write("cpu", "cpu.cfs_period_us", period, &CPU.member("period"));
        limits.push(write.after_setup().again_when_invalid());
    }
    if let Some(burst) = cpu.burst() {
        let write = place.write("cpu", "cpu.cfs_burst_us", burst, &CPU.member("burst"));
        limits.push(write.after_setup().again_when_invalid().skip_missing());
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        limits.push(place.write("cpu", "cpu.cfs_quota_us", quota, &CPU.member("quota")).after_setup());
    }
    if let Some(idle) = cpu.idle() {
        limits.push(place.write("cpu", "cpu.idle", idle, &CPU.member("idle")));
    }
    Ok(())
}

/// v1 only, and before a process that may already be real-time enters: without bandwidth it could not.
fn real_time(cpu: &LinuxCpu, place: Place, limits: &mut Limits) {
    if let Some(period) = nonzero(cpu.realtime_period()) {
        let write = place.write("cpu", "cpu.rt_period_us", period, &CPU.member("realtimePeriod"));
        limits.push(write.again_when_invalid());
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        limits.push(place.write("cpu", "cpu.rt_runtime_us", runtime, &CPU.member("realtimeRuntime")));
    }
}

/// The kernel would clamp these in silence.
fn check_shares(shares: u64) -> Result<()> {
    let bound = match shares {
        n if n < *SHARES.start() => format!("the minimum allowed cpu-shares is {}", SHARES.start()),
        n if n > *SHARES.end() => format!("the maximum allowed cpu-shares is {}", SHARES.end()),
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::CpuShares, bound).field(CPU.member("shares")))
}

fn v2(cpu: &LinuxCpu, place: Place, limits: &mut Limits) {
    if let Some(idle) = cpu.idle() {
        limits.push(place.write("cpu", "cpu.idle", idle, &CPU.member("idle")));
    }
    if let Some(weight) = cpu.shares().and_then(weight) {
        if cpu.idle() == Some(1) {
            limits.ignored(CPU.member("shares"), "an idle cgroup has no weight");
        } else {
            limits.push(place.write("cpu", "cpu.weight", weight, &CPU.member("shares")));
        }
    }
    if let Some(burst) = cpu.burst() {
        let write = place.write("cpu", "cpu.max.burst", burst, &CPU.member("burst"));
        limits.push(write.after_setup().again_when_invalid().skip_missing());
    }
    let (quota, period) = (cpu.quota().filter(|quota| *quota != 0), nonzero(cpu.period()));
    if quota.is_some() || period.is_some() {
        let field = CPU.member(if quota.is_some() { "quota" } else { "period" });
        // One file has both: an update keeps the one it does not name.
        let now = limits.now.unwrap_or_default();
        let (quota, period) = (quota.or(now.cpu_quota), period.or(now.cpu_period));
        limits.push(place.write("cpu", "cpu.max", max(quota, period), &field).after_setup());
    }
    let real_time = [
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)),
        ("realtimePeriod", nonzero(cpu.realtime_period()).is_some()),
    ];
    for (name, _) in real_time.iter().filter(|(_, given)| *given) {
        limits.ignored(CPU.member(name), "cgroup v2 has no real-time limits");
    }
}

/// The text of `cpu.max`.
fn max(quota: Option<i64>, period: Option<u64>) -> String {
    let period = period.unwrap_or(PERIOD_US);
    match quota {
        Some(quota) if quota > 0 => format!("{quota} {period}"),
        _ => format!("max {period}"),
    }
}

/// `cpus` and `mems`; the files have the same names on v1 and v2.
pub(super) fn cpuset(cpu: &LinuxCpu, limits: &mut Limits) -> Result<()> {
    let sets =
        [("cpus", "cpuset.cpus", cpu.cpus().as_deref()), ("mems", "cpuset.mems", cpu.mems().as_deref())];
    for (name, file, set) in sets {
        let Some(set) = set.filter(|set| !set.is_empty()) else { continue };
        let field = CPU.member(name);
        let place = limits.need("cpuset", "cpuset", &field)?;
        limits.push(place.write("cpuset", file, set, &field));
    }
    Ok(())
}
