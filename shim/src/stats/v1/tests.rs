use std::path::PathBuf;

use super::*;
use crate::scratch::Scratch;

fn devices() -> Devices {
    Devices(
        "major minor  #blocks  name\n\n   8        0  268435456 sda\n   8       1   1024 sda1\n".to_owned(),
    )
}

fn scratch_with(name: &str, files: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(name);
    for (file, text) in files {
        scratch.file(file, text);
    }
    scratch
}

#[test]
fn no_limit_of_pids_is_zero() {
    let scratch = scratch_with("v1-pids", &[("pids.current", "7\n"), ("pids.max", "max\n")]);
    let stat = pids(scratch.path()).unwrap().unwrap();
    assert_eq!((stat.current, stat.limit), (7, 0));
    scratch.file("pids.max", "100\n");
    assert_eq!(pids(scratch.path()).unwrap().unwrap().limit, 100);
}

#[test]
fn cpu_of_two_hierarchies_is_one_part() {
    let files = [
        ("cpuacct.usage", "8877166486945\n"),
        ("cpuacct.stat", "user 111\nsystem 73\n"),
        ("cpuacct.usage_percpu", "8877 9595 \n"),
    ];
    let acct = scratch_with("v1-cpuacct", &files);
    let stat = "nr_periods 9\nnr_throttled 2\nthrottled_time 5000\nnr_bursts 0\n";
    let bandwidth = scratch_with("v1-cpu", &[("cpu.stat", stat)]);
    let both = cpu(Some(bandwidth.path()), Some(acct.path())).unwrap().unwrap();
    assert_eq!((both.usage.total, both.usage.per_cpu.as_slice()), (8_877_166_486_945, &[8877, 9595][..]));
    assert_eq!((both.usage.user, both.usage.kernel), (1_110_000_000, 730_000_000));
    let throttling = &both.throttling;
    assert_eq!((throttling.periods, throttling.throttled_periods, throttling.throttled_time), (9, 2, 5000));
    let half = cpu(Some(bandwidth.path()), None).unwrap().unwrap();
    assert!(half.usage.is_some());
    assert!(cpu(None, None).unwrap().is_none());
}

#[test]
fn controllers_of_one_hierarchy_are_found_by_each_name() {
    let files = [("cpu.stat", "nr_periods 9\n"), ("cpuacct.usage", "5\n")];
    let scratch = scratch_with("v1-comounted", &files);
    let v1 = vec![("cpu,cpuacct".to_owned(), scratch.path().to_owned())];
    let stat = metrics(&Cgroup { v1, v2: None }).unwrap();
    assert_eq!((stat.cpu.usage.total, stat.cpu.throttling.periods), (5, 9));
}

const MEMORY_STAT: &str = "cache 1\nrss 2\nrss_huge 3\nshmem 99\nmapped_file 4\ndirty 5\nwriteback 6\n\
    workingset_refault_anon 99\nswap 99\npgpgin 7\npgpgout 8\npgfault 9\npgmajfault 10\ninactive_anon 11\n\
    active_anon 12\ninactive_file 13\nactive_file 14\nunevictable 15\n\
    hierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 17\ntotal_cache 18\ntotal_rss 19\n\
    total_rss_huge 20\ntotal_shmem 99\ntotal_mapped_file 21\ntotal_dirty 22\ntotal_writeback 23\n\
    total_pgpgin 24\ntotal_pgpgout 25\ntotal_pgfault 26\ntotal_pgmajfault 27\ntotal_inactive_anon 28\n\
    total_active_anon 29\ntotal_inactive_file 30\ntotal_active_file 31\ntotal_unevictable 32\n";

#[test]
fn every_field_of_memory_stat_is_its_own() {
    let s = memory_stat(MEMORY_STAT);
    let own = [s.cache, s.rss, s.rss_huge, s.mapped_file, s.dirty, s.writeback, s.pg_pg_in, s.pg_pg_out];
    assert_eq!(own, [1, 2, 3, 4, 5, 6, 7, 8]);
    let own = [s.pg_fault, s.pg_maj_fault, s.inactive_anon, s.active_anon, s.inactive_file, s.active_file];
    assert_eq!(own, [9, 10, 11, 12, 13, 14]);
    assert_eq!([s.unevictable, s.hierarchical_swap_limit], [15, 17]);
    assert_eq!(s.hierarchical_memory_limit, 9_223_372_036_854_771_712);
    let all = [s.total_cache, s.total_rss, s.total_rss_huge, s.total_mapped_file, s.total_dirty];
    assert_eq!(all, [18, 19, 20, 21, 22]);
    let all =
        [s.total_writeback, s.total_pg_pg_in, s.total_pg_pg_out, s.total_pg_fault, s.total_pg_maj_fault];
    assert_eq!(all, [23, 24, 25, 26, 27]);
    let all = [s.total_inactive_anon, s.total_active_anon, s.total_inactive_file, s.total_active_file];
    assert_eq!(all, [28, 29, 30, 31]);
    assert_eq!(s.total_unevictable, 32);
}

#[test]
fn memory_has_four_accounts_and_passes_limits_as_read() {
    let files = [
        ("memory.stat", MEMORY_STAT),
        ("memory.usage_in_bytes", "100\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.max_usage_in_bytes", "200\n"),
        ("memory.failcnt", "3\n"),
        ("memory.kmem.usage_in_bytes", "4\n"),
        ("memory.kmem.tcp.usage_in_bytes", "5\n"),
    ];
    let scratch = scratch_with("v1-memory", &files);
    let stat = memory(scratch.path()).unwrap().unwrap();
    let usage = &stat.usage;
    assert_eq!((usage.usage, usage.max, usage.failcnt), (100, 200, 3));
    assert_eq!(usage.limit, 9_223_372_036_854_771_712);
    assert_eq!((stat.kernel.usage, stat.kernel_tcp.usage, stat.total_cache), (4, 5, 18));
    // No account of swap, but the part is there.
    assert_eq!(stat.swap, MessageField::some(MemoryEntry::default()));
}

#[test]
fn oom_control_is_read() {
    let text = "oom_kill_disable 1\nunder_oom 0\noom_kill 4\n";
    let scratch = scratch_with("v1-oom-control", &[("memory.oom_control", text)]);
    let stat = oom_control(scratch.path()).unwrap().unwrap();
    assert_eq!((stat.oom_kill_disable, stat.under_oom, stat.oom_kill), (1, 0, 4));
}

#[test]
fn block_devices_have_names_and_the_sum_is_left_out() {
    let got = block_entries("8:0 Read 10\n8:0 Total 30\n8:16 7\nTotal 37\n", &devices());
    let tuples: Vec<_> =
        got.iter().map(|e| (e.device.as_str(), e.major, e.minor, e.op.as_str(), e.value)).collect();
    let wanted = [("/dev/sda", 8, 0, "Read", 10), ("/dev/sda", 8, 0, "Total", 30), ("", 8, 16, "", 7)];
    assert_eq!(tuples, wanted);
}

#[test]
fn scheduler_that_counted_nothing_gives_way_to_the_throttle() {
    let files = [
        ("blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
        ("blkio.bfq.io_serviced_recursive", "Total 0\n"),
        ("blkio.throttle.io_service_bytes", "8:0 Read 4096\nTotal 4096\n"),
        ("blkio.throttle.io_serviced", "8:0 Read 1\nTotal 1\n"),
    ];
    let scratch = scratch_with("v1-blkio", &files);
    let stat = blkio(scratch.path()).unwrap().unwrap();
    assert_eq!(stat.io_service_bytes_recursive[0].value, 4096);
    assert_eq!(stat.io_serviced_recursive[0].value, 1);
    scratch.file("blkio.throttle.io_service_bytes_recursive", "8:0 Read 8192\n");
    scratch.file("blkio.throttle.io_serviced_recursive", "8:0 Read 2\n");
    assert_eq!(blkio(scratch.path()).unwrap().unwrap().io_service_bytes_recursive[0].value, 8192);
    scratch.file("blkio.bfq.io_service_bytes_recursive", "8:0 Read 5\nTotal 5\n");
    scratch.file("blkio.bfq.time_recursive", "8:0 6\n");
    let stat = blkio(scratch.path()).unwrap().unwrap();
    assert_eq!((stat.io_service_bytes_recursive[0].value, stat.io_time_recursive[0].value), (5, 6));
}

#[test]
fn controllers_without_files_leave_their_parts_out() {
    let scratch = Scratch::new("v1-empty");
    let names = ["pids", "cpu", "cpuacct", "memory", "blkio", "rdma", "hugetlb"];
    let v1: Vec<(String, PathBuf)> = names.map(|name| (name.to_owned(), scratch.path().to_owned())).to_vec();
    assert_eq!(metrics(&Cgroup { v1, v2: None }).unwrap(), Metrics::default());
}

#[test]
fn rdma_has_use_and_limits() {
    let files = [
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=20\n"),
        ("rdma.max", "mlx4_0 hca_handle=max hca_object=2000\n"),
    ];
    let stat = rdma(scratch_with("v1-rdma", &files).path()).unwrap().unwrap();
    assert_eq!((stat.current[0].hca_handles, stat.current[0].hca_objects), (2, 20));
    assert_eq!((stat.limit[0].hca_handles, stat.limit[0].hca_objects), (u32::MAX, 2000));
    assert_eq!(stat.limit[0].device, "mlx4_0");
}

#[test]
fn hugetlb_of_both_versions_fills_one_message() {
    let files = [
        ("hugetlb.2MB.usage_in_bytes", "1\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "2\n"),
        ("hugetlb.2MB.failcnt", "3\n"),
        ("hugetlb.1GB.current", "4\n"),
        ("hugetlb.1GB.events", "max 5\n"),
    ];
    let scratch = scratch_with("v1-hugetlb", &files);
    let old = hugetlb_v1(scratch.path(), "2MB".to_owned()).unwrap().unwrap();
    assert_eq!((old.usage, old.max, old.failcnt, old.pagesize.as_str()), (1, 2, 3, "2MB"));
    let new = hugetlb_v2(scratch.path(), "1GB".to_owned()).unwrap().unwrap();
    assert_eq!((new.usage, new.max, new.failcnt, new.pagesize.as_str()), (4, 0, 5, "1GB"));
    assert_eq!(hugetlb_v1(scratch.path(), "1GB".to_owned()).unwrap(), None);
}

/// Counts time and memory of this very process.
#[test]
fn figures_of_this_process_are_there() {
    let own = Cgroup::of(std::process::id().cast_signed()).unwrap();
    if own.v1.is_empty() {
        println!("skipped: this host has no v1 hierarchy");
        return;
    }
    let stat = metrics(&own).unwrap();
    if own.v1("cpuacct").is_some() {
        assert!(stat.cpu.usage.total > 0 && !stat.cpu.usage.per_cpu.is_empty());
    }
    if own.v1("memory").is_some() {
        assert!(stat.memory.total_rss > 0 && stat.memory.usage.usage > 0 && stat.memory.usage.limit > 0);
        assert!(stat.memory_oom_control.is_some());
    }
}
