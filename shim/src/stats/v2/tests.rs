use super::*;
use crate::scratch::Scratch;

fn scratch_with(name: &str, files: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(name);
    for (file, text) in files {
        scratch.file(file, text);
    }
    scratch
}

const PRESSURE: &str = "some avg10=18.12 avg60=30.68 avg300=38.83 total=5020650453\n\
    full avg10=0.50 avg60=0.00 avg300=0.00 total=7\n";

#[test]
fn no_limit_of_pids_is_zero() {
    let scratch = scratch_with("v2-pids", &[("pids.current", "7\n"), ("pids.max", "max\n")]);
    let stat = pids(scratch.path()).unwrap().unwrap();
    assert_eq!((stat.current, stat.limit), (7, 0));
}

#[test]
fn cpu_has_bursts_and_pressure() {
    let text = "usage_usec 1\nuser_usec 2\nsystem_usec 3\ncore_sched.force_idle_usec 99\nnr_periods 4\n\
        nr_throttled 5\nthrottled_usec 6\nnr_bursts 8\nburst_usec 9\n";
    let scratch = scratch_with("v2-cpu", &[("cpu.stat", text), ("cpu.pressure", PRESSURE)]);
    let s = cpu(scratch.path()).unwrap().unwrap();
    let got = [s.usage_usec, s.user_usec, s.system_usec, s.nr_periods, s.nr_throttled, s.throttled_usec];
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
    assert_eq!((s.nr_bursts, s.burst_usec), (8, 9));
    assert_eq!(s.psi.some.total, 5_020_650_453);
}

#[test]
fn pressure_has_its_averages() {
    let psi = psi_stats(PRESSURE);
    let some = &psi.some;
    assert_eq!((some.avg10, some.avg60, some.avg300), (18.12, 30.68, 38.83));
    assert_eq!((psi.full.avg10, psi.full.total), (0.5, 7));
    assert!(psi_stats("some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n").full.is_none());
}

#[test]
fn every_field_of_memory_stat_is_its_own() {
    let names = [
        "anon",
        "file",
        "kernel_stack",
        "slab",
        "sock",
        "shmem",
        "file_mapped",
        "file_dirty",
        "file_writeback",
        "anon_thp",
        "inactive_anon",
        "active_anon",
        "inactive_file",
        "active_file",
        "unevictable",
        "slab_reclaimable",
        "slab_unreclaimable",
        "pgfault",
        "pgmajfault",
        "workingset_refault",
        "workingset_activate",
        "workingset_nodereclaim",
        "pgrefill",
        "pgscan",
        "pgsteal",
        "pgactivate",
        "pgdeactivate",
        "pglazyfree",
        "pglazyfreed",
        "thp_fault_alloc",
        "thp_collapse_alloc",
    ];
    let text: String = names.iter().zip(1..).map(|(name, number)| format!("{name} {number}\n")).collect();
    let s = memory_stat(&text);
    let got = [s.anon, s.file, s.kernel_stack, s.slab, s.sock, s.shmem, s.file_mapped, s.file_dirty];
    assert_eq!(got, [1, 2, 3, 4, 5, 6, 7, 8]);
    let got = [s.file_writeback, s.anon_thp, s.inactive_anon, s.active_anon, s.inactive_file, s.active_file];
    assert_eq!(got, [9, 10, 11, 12, 13, 14]);
    let got = [s.unevictable, s.slab_reclaimable, s.slab_unreclaimable, s.pgfault, s.pgmajfault];
    assert_eq!(got, [15, 16, 17, 18, 19]);
    let got = [s.workingset_refault, s.workingset_activate, s.workingset_nodereclaim, s.pgrefill, s.pgscan];
    assert_eq!(got, [20, 21, 22, 23, 24]);
    let got = [s.pgsteal, s.pgactivate, s.pgdeactivate, s.pglazyfree, s.pglazyfreed, s.thp_fault_alloc];
    assert_eq!(got, [25, 26, 27, 28, 29, 30]);
    assert_eq!(s.thp_collapse_alloc, 31);
}

#[test]
fn refaults_of_newer_kernels_are_added_up() {
    let stat =
        memory_stat("workingset_refault_anon 3\nworkingset_refault_file 4\nworkingset_activate_file 5\n");
    assert_eq!((stat.workingset_refault, stat.workingset_activate), (7, 5));
}

#[test]
fn no_limit_of_memory_is_the_largest_number() {
    let files = [
        ("memory.stat", "anon 1\n"),
        ("memory.current", "100\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "200\n"),
        ("memory.swap.current", "3\n"),
        ("memory.swap.max", "max\n"),
        ("memory.swap.peak", "4\n"),
        ("memory.pressure", PRESSURE),
    ];
    let stat = memory(scratch_with("v2-memory", &files).path()).unwrap().unwrap();
    assert_eq!((stat.usage, stat.usage_limit, stat.max_usage), (100, u64::MAX, 200));
    assert_eq!((stat.swap_usage, stat.swap_limit, stat.swap_max_usage), (3, u64::MAX, 4));
    assert_eq!((stat.anon, stat.psi.full.total), (1, 7));
}

#[test]
fn memory_events_are_read() {
    let text = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n";
    let events =
        memory_events(scratch_with("v2-events", &[("memory.events", text)]).path()).unwrap().unwrap();
    let got = [events.low, events.high, events.max, events.oom, events.oom_kill, events.oom_group_kill];
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn io_of_each_device_and_its_pressure() {
    let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=9 dios=9\n7:0 \n8:16 rbytes=5\n";
    let scratch = scratch_with("v2-io", &[("io.stat", text), ("io.pressure", PRESSURE)]);
    let stat = io(scratch.path()).unwrap().unwrap();
    let got: Vec<_> =
        stat.usage.iter().map(|e| (e.major, e.minor, e.rbytes, e.wbytes, e.rios, e.wios)).collect();
    assert_eq!(got, [(8, 0, 1, 2, 3, 4), (8, 16, 5, 0, 0, 0)]);
    assert_eq!(stat.psi.full.total, 7);
}

#[test]
fn rdma_has_use_and_limits() {
    let files = [
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=20\n"),
        ("rdma.max", "mlx4_0 hca_handle=max hca_object=2000\n"),
    ];
    let stat = rdma(scratch_with("v2-rdma", &files).path()).unwrap().unwrap();
    assert_eq!((stat.current[0].hca_handles, stat.limit[0].hca_handles), (2, u32::MAX));
}

#[test]
fn hugetlb_counts_failures() {
    let files =
        [("hugetlb.2MB.current", "4\n"), ("hugetlb.2MB.max", "max\n"), ("hugetlb.2MB.events", "max 5\n")];
    let scratch = scratch_with("v2-hugetlb", &files);
    let stat = hugetlb(scratch.path(), "2MB".to_owned()).unwrap().unwrap();
    assert_eq!((stat.current, stat.max, stat.failcnt), (4, u64::MAX, 5));
    assert_eq!(hugetlb(scratch.path(), "1GB".to_owned()).unwrap(), None);
}

#[test]
fn figures_of_this_process_are_there() {
    let own = crate::stats::Cgroup::of(std::process::id().cast_signed()).unwrap();
    let Some(dir) = own.v2.filter(|_| own.v1.is_empty()) else {
        println!("skipped: this host has v1 hierarchies");
        return;
    };
    let stat = metrics(&dir).unwrap();
    assert!(stat.cpu.usage_usec > 0);
    if dir.join("memory.stat").exists() {
        assert!(stat.memory.anon > 0 && stat.memory.usage > 0 && stat.memory.usage_limit > 0);
        assert!(stat.memory_events.is_some());
    }
    if dir.join("pids.current").exists() {
        assert!(stat.pids.current > 0);
    }
}

#[test]
fn controllers_without_files_leave_their_parts_out() {
    assert_eq!(metrics(Scratch::new("v2-empty").path()).unwrap(), Metrics::default());
}
