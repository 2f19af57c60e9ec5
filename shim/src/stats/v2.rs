//! The message of v2 hosts. A controller that is not enabled leaves its part out; inside a part, what the
//! kernel does not have is 0, and no limit is the largest number. `Cgroup::metrics` calls it.

use std::path::Path;

use hull_cgroup::Result;
use hull_cgroup::files::{Flat, device_line, number, number_or_zero, page_sizes, parse, rdma_line, text};
use hull_proto::cgroup2::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
    RdmaEntry, RdmaStat,
};
use protobuf::MessageField;

use super::part;

pub(super) fn metrics(dir: &Path) -> Result<Metrics> {
    let here = Some(dir);
    Ok(Metrics {
        pids: part(here, pids)?,
        cpu: part(here, cpu)?,
        memory: part(here, memory)?,
        memory_events: part(here, memory_events)?,
        io: part(here, io)?,
        rdma: part(here, rdma)?,
        hugetlb: page_sizes()
            .into_iter()
            .filter_map(|size| hugetlb(dir, size).transpose())
            .collect::<Result<_>>()?,
        ..Metrics::default()
    })
}

fn pids(dir: &Path) -> Result<Option<PidsStat>> {
    let Some(current) = number(dir, "pids.current")? else { return Ok(None) };
    // No limit is 0 here, as on v1 and in dockerd's interface.
    let limit = number(dir, "pids.max")?.filter(|max| *max != u64::MAX).unwrap_or(0);
    Ok(Some(PidsStat { current, limit, ..PidsStat::default() }))
}

fn cpu(dir: &Path) -> Result<Option<CPUStat>> {
    let Some(text) = text(dir, "cpu.stat")? else { return Ok(None) };
    Ok(Some(CPUStat { psi: pressure(dir, "cpu.pressure")?, ..cpu_stat(&text) }))
}

/// `cpu.stat`.
fn cpu_stat(text: &str) -> CPUStat {
    let stat = Flat::new(text);
    CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        ..CPUStat::default()
    }
}

fn memory(dir: &Path) -> Result<Option<MemoryStat>> {
    let Some(text) = text(dir, "memory.stat")? else { return Ok(None) };
    Ok(Some(MemoryStat {
        usage: number_or_zero(dir, "memory.current")?,
        usage_limit: number_or_zero(dir, "memory.max")?,
        max_usage: number_or_zero(dir, "memory.peak")?,
        swap_usage: number_or_zero(dir, "memory.swap.current")?,
        swap_limit: number_or_zero(dir, "memory.swap.max")?,
        swap_max_usage: number_or_zero(dir, "memory.swap.peak")?,
        psi: pressure(dir, "memory.pressure")?,
        ..memory_stat(&text)
    }))
}

/// `memory.stat`.
fn memory_stat(text: &str) -> MemoryStat {
    let stat = Flat::new(text);
    MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: refaults(&stat, "workingset_refault"),
        workingset_activate: refaults(&stat, "workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        ..MemoryStat::default()
    }
}

/// One number until Linux 5.9 split it by what the pages hold.
fn refaults(stat: &Flat<'_>, key: &str) -> u64 {
    stat.get(key) + stat.get(&format!("{key}_anon")) + stat.get(&format!("{key}_file"))
}

fn memory_events(dir: &Path) -> Result<Option<MemoryEvents>> {
    Ok(text(dir, "memory.events")?.map(|text| {
        let events = Flat::new(&text);
        MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            oom_group_kill: events.get("oom_group_kill"),
            ..MemoryEvents::default()
        }
    }))
}

/// Pressure is there without the controller, too.
fn io(dir: &Path) -> Result<Option<IOStat>> {
    let (stat, psi) = (text(dir, "io.stat")?, pressure(dir, "io.pressure")?);
    if stat.is_none() && psi.is_none() {
        return Ok(None);
    }
    let usage = stat.unwrap_or_default().lines().filter_map(io_entry).collect();
    Ok(Some(IOStat { usage, psi, ..IOStat::default() }))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`; a device without figures is left out.
fn io_entry(line: &str) -> Option<IOEntry> {
    let (major, minor, rest) = device_line(line)?;
    let mut entry = IOEntry { major, minor, ..IOEntry::default() };
    let mut any = false;
    for (key, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
        any = true;
        match key {
            "rbytes" => entry.rbytes = parse(value),
            "wbytes" => entry.wbytes = parse(value),
            "rios" => entry.rios = parse(value),
            "wios" => entry.wios = parse(value),
            _ => {}
        }
    }
    any.then_some(entry)
}

fn pressure(dir: &Path, file: &str) -> Result<MessageField<PSIStats>> {
    Ok(MessageField::from_option(text(dir, file)?.map(|text| psi_stats(&text))))
}

/// A `*.pressure` file.
fn psi_stats(text: &str) -> PSIStats {
    let of = |kind: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(name, _)| *name == kind).map(|(_, rest)| psi_data(rest));
        MessageField::from_option(found)
    };
    PSIStats { some: of("some"), full: of("full"), ..PSIStats::default() }
}

fn psi_data(text: &str) -> PSIData {
    let mut data = PSIData::default();
    for (key, value) in text.split(' ').filter_map(|pair| pair.split_once('=')) {
        // The kernel writes numbers.
        let share = || value.parse().unwrap_or(0.0);
        match key {
            "avg10" => data.avg10 = share(),
            "avg60" => data.avg60 = share(),
            "avg300" => data.avg300 = share(),
            "total" => data.total = parse(value),
            _ => {}
        }
    }
    data
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

fn hugetlb(dir: &Path, pagesize: String) -> Result<Option<HugeTlbStat>> {
    let of = |name| format!("hugetlb.{pagesize}.{name}");
    let Some(current) = number(dir, &of("current"))? else { return Ok(None) };
    let max = number_or_zero(dir, &of("max"))?;
    let events = text(dir, &of("events"))?.unwrap_or_default();
    let failcnt = Flat::new(&events).get("max");
    Ok(Some(HugeTlbStat { current, max, pagesize, failcnt, ..HugeTlbStat::default() }))
}

#[cfg(test)]
mod tests;
