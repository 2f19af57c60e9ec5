//! The message of v1 hosts. A controller that is not mounted leaves its part out; inside a part, what the
//! kernel does not have is 0. `Cgroup::metrics` calls it.

use std::path::Path;

use hull_cgroup::Result;
use hull_cgroup::files::{Flat, device_line, number, number_or_zero, page_sizes, parse, rdma_line, text};
use hull_proto::cgroup1::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use protobuf::MessageField;

use super::{Cgroup, part};

/// Nanoseconds of a clock tick in `cpuacct.stat`: `USER_HZ` is 100 on every architecture hull is built for.
const TICK_NS: u64 = 10_000_000;

pub(super) fn metrics(cgroup: &Cgroup) -> Result<Metrics> {
    Ok(Metrics {
        pids: part(cgroup.v1("pids"), pids)?,
        cpu: cpu(cgroup.v1("cpu"), cgroup.v1("cpuacct"))?,
        memory: part(cgroup.v1("memory"), memory)?,
        memory_oom_control: part(cgroup.v1("memory"), oom_control)?,
        blkio: part(cgroup.v1("blkio"), blkio)?,
        rdma: part(cgroup.v1("rdma"), rdma)?,
        hugetlb: hugetlb(cgroup)?,
        ..Metrics::default()
    })
}

fn pids(dir: &Path) -> Result<Option<PidsStat>> {
    let Some(current) = number(dir, "pids.current")? else { return Ok(None) };
    // No limit is 0 here.
    let limit = number(dir, "pids.max")?.filter(|max| *max != u64::MAX).unwrap_or(0);
    Ok(Some(PidsStat { current, limit, ..PidsStat::default() }))
}

/// Of two controllers, which may be one hierarchy. Both parts are there if one is: daemons read them blindly.
fn cpu(cpu: Option<&Path>, cpuacct: Option<&Path>) -> Result<MessageField<CPUStat>> {
    let (usage, throttling) = (part(cpuacct, cpu_usage)?, part(cpu, throttling)?);
    if usage.is_none() && throttling.is_none() {
        return Ok(MessageField::none());
    }
    let usage = MessageField::some(usage.unwrap_or_default());
    let throttling = MessageField::some(throttling.unwrap_or_default());
    Ok(MessageField::some(CPUStat { usage, throttling, ..CPUStat::default() }))
}

fn cpu_usage(dir: &Path) -> Result<Option<CPUUsage>> {
    let Some(total) = number(dir, "cpuacct.usage")? else { return Ok(None) };
    let stat = text(dir, "cpuacct.stat")?.unwrap_or_default();
    let per_cpu = text(dir, "cpuacct.usage_percpu")?.unwrap_or_default();
    let ticks = Flat::new(&stat);
    Ok(Some(CPUUsage {
        total,
        kernel: ticks.get("system").saturating_mul(TICK_NS),
        user: ticks.get("user").saturating_mul(TICK_NS),
        per_cpu: per_cpu.split_whitespace().map(parse).collect(),
        ..CPUUsage::default()
    }))
}

fn throttling(dir: &Path) -> Result<Option<Throttle>> {
    Ok(text(dir, "cpu.stat")?.map(|text| {
        let stat = Flat::new(&text);
        Throttle {
            periods: stat.get("nr_periods"),
            throttled_periods: stat.get("nr_throttled"),
            throttled_time: stat.get("throttled_time"),
            ..Throttle::default()
        }
    }))
}

fn memory(dir: &Path) -> Result<Option<MemoryStat>> {
    let Some(text) = text(dir, "memory.stat")? else { return Ok(None) };
    let entry = |prefix| Ok(MessageField::some(memory_entry(dir, prefix)?));
    Ok(Some(MemoryStat {
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        ..memory_stat(&text)
    }))
}

fn memory_entry(dir: &Path, prefix: &str) -> Result<MemoryEntry> {
    let of = |name| number_or_zero(dir, &format!("{prefix}.{name}"));
    Ok(MemoryEntry {
        limit: of("limit_in_bytes")?,
        usage: of("usage_in_bytes")?,
        max: of("max_usage_in_bytes")?,
        failcnt: of("failcnt")?,
        ..MemoryEntry::default()
    })
}

/// `memory.stat`.
fn memory_stat(text: &str) -> MemoryStat {
    let stat = Flat::new(text);
    MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        ..MemoryStat::default()
    }
}

fn oom_control(dir: &Path) -> Result<Option<MemoryOomControl>> {
    Ok(text(dir, "memory.oom_control")?.map(|text| {
        let control = Flat::new(&text);
        MemoryOomControl {
            oom_kill_disable: control.get("oom_kill_disable"),
            under_oom: control.get("under_oom"),
            oom_kill: control.get("oom_kill"),
            ..MemoryOomControl::default()
        }
    }))
}

/// The figures of CFQ (before Linux 5.0) or else of BFQ, as they tell most; where neither has counted
/// anything, those of the throttle, which knows all devices.
fn blkio(dir: &Path) -> Result<Option<BlkIOStat>> {
    let devices = Devices::read()?;
    for prefix in ["blkio.", "blkio.bfq."] {
        let stat = scheduler(dir, prefix, &devices)?;
        if stat != BlkIOStat::default() {
            return Ok(Some(stat));
        }
    }
    for suffix in ["_recursive", ""] {
        let of = |name| text(dir, &format!("blkio.throttle.{name}{suffix}"));
        if let (Some(bytes), Some(count)) = (of("io_service_bytes")?, of("io_serviced")?) {
            return Ok(Some(BlkIOStat {
                io_service_bytes_recursive: block_entries(&bytes, &devices),
                io_serviced_recursive: block_entries(&count, &devices),
                ..BlkIOStat::default()
            }));
        }
    }
    Ok(None)
}

fn scheduler(dir: &Path, prefix: &str, devices: &Devices) -> Result<BlkIOStat> {
    let of = |name: &str| {
        let text = text(dir, &format!("{prefix}{name}_recursive"))?;
        Ok(block_entries(&text.unwrap_or_default(), devices))
    };
    Ok(BlkIOStat {
        io_service_bytes_recursive: of("io_service_bytes")?,
        io_serviced_recursive: of("io_serviced")?,
        io_queued_recursive: of("io_queued")?,
        io_service_time_recursive: of("io_service_time")?,
        io_wait_time_recursive: of("io_wait_time")?,
        io_merged_recursive: of("io_merged")?,
        io_time_recursive: of("time")?,
        sectors_recursive: of("sectors")?,
        ..BlkIOStat::default()
    })
}

/// `8:0 Read 4096` or `8:0 4096`; the total over all devices has no device and is left out.
fn block_entries(text: &str, devices: &Devices) -> Vec<BlkIOEntry> {
    let entry = |line| {
        let (major, minor, rest) = device_line(line)?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        let device = devices.name(major, minor);
        Some(BlkIOEntry {
            op: op.to_owned(),
            device,
            major,
            minor,
            value: parse(value),
            ..BlkIOEntry::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

/// The host's block devices, from `/proc/partitions`.
struct Devices(String);

impl Devices {
    fn read() -> Result<Self> {
        Ok(Self(text(Path::new("/proc"), "partitions")?.unwrap_or_default()))
    }

    /// `/dev/sda`; empty for one that is not listed.
    fn name(&self, major: u64, minor: u64) -> String {
        let named = self.0.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let numbers = (words.next()?.parse(), words.next()?.parse());
            (numbers == (Ok(major), Ok(minor))).then(|| words.nth(1))?
        });
        named.map(|name| format!("/dev/{name}")).unwrap_or_default()
    }
}

fn rdma(dir: &Path) -> Result<Option<RdmaStat>> {
    let Some(current) = text(dir, "rdma.current")? else { return Ok(None) };
    let limit = text(dir, "rdma.max")?.unwrap_or_default();
    Ok(Some(RdmaStat { current: rdma_entries(&current), limit: rdma_entries(&limit), ..RdmaStat::default() }))
}

fn rdma_entries(text: &str) -> Vec<RdmaEntry> {
    let entry = |(device, hca_handles, hca_objects)| RdmaEntry {
        device,
        hca_handles,
        hca_objects,
        ..RdmaEntry::default()
    };
    text.lines().filter_map(rdma_line).map(entry).collect()
}

/// From v1, or from v2 on hosts that have only this controller there.
fn hugetlb(cgroup: &Cgroup) -> Result<Vec<HugetlbStat>> {
    let of = |size: String| match (cgroup.v1("hugetlb"), &cgroup.v2) {
        (Some(dir), _) => hugetlb_v1(dir, size),
        (None, Some(dir)) => hugetlb_v2(dir, size),
        (None, None) => Ok(None),
    };
    page_sizes().into_iter().filter_map(|size| of(size).transpose()).collect()
}

fn hugetlb_v1(dir: &Path, pagesize: String) -> Result<Option<HugetlbStat>> {
    let of = |name| number(dir, &format!("hugetlb.{pagesize}.{name}"));
    let Some(usage) = of("usage_in_bytes")? else { return Ok(None) };
    let (max, failcnt) = (of("max_usage_in_bytes")?.unwrap_or(0), of("failcnt")?.unwrap_or(0));
    Ok(Some(HugetlbStat { usage, max, failcnt, pagesize, ..HugetlbStat::default() }))
}

/// `max` is the highest usage in this message, which v2 does not keep.
fn hugetlb_v2(dir: &Path, pagesize: String) -> Result<Option<HugetlbStat>> {
    let Some(usage) = number(dir, &format!("hugetlb.{pagesize}.current"))? else { return Ok(None) };
    let events = text(dir, &format!("hugetlb.{pagesize}.events"))?.unwrap_or_default();
    let failcnt = Flat::new(&events).get("max");
    Ok(Some(HugetlbStat { usage, failcnt, pagesize, ..HugetlbStat::default() }))
}

#[cfg(test)]
mod tests;
