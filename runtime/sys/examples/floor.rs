//! The least that a run of `runc spec`'s config can cost: the kernel's part of it and nothing else. No config
//! is read, no path is checked, no record is kept and no failure is undone; names are fixed. `hack/bench`
//! times it beside the runtimes (`docs/decisions/0011-start-of-a-process.md`).
//!
//! Called as `floor run --bundle DIR ID`, so that it can stand in for a runtime.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a measuring tool"
)]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measuring tool"
)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a list of calls whose strings live in this function"
)]

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

const V1: [&str; 9] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd"];
const MASKED: [&str; 9] = [
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "sys/firmware",
];
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const ALLOWED: [&str; 10] = [
    "b *:* m",
    "c *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn check(what: &str, answer: i64) -> i64 {
    assert!(answer >= 0, "{what}: {}", std::io::Error::last_os_error());
    answer
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> bool {
    let (source, target, kind, data) = (c(source), c(target), c(kind), c(data));
    // SAFETY: all four are strings that live during the call.
    unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) == 0 }
}

fn must_mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) {
    assert!(mount(source, target, kind, flags, data), "{target}: {}", std::io::Error::last_os_error());
}

fn main() {
    let words: Vec<_> = std::env::args().collect();
    let bundle = words.iter().position(|word| word == "--bundle").map(|at| words[at + 1].clone()).unwrap();
    let id = words.last().unwrap().clone();
    let unified = !PathBuf::from("/sys/fs/cgroup/memory").exists();
    let dirs: Vec<PathBuf> = if unified {
        vec![PathBuf::from("/sys/fs/cgroup").join(&id)]
    } else {
        V1.iter().map(|name| PathBuf::from("/sys/fs/cgroup").join(name).join(&id)).collect()
    };
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let mut tasks = Vec::new();
    if !unified {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let value = fs::read_to_string(format!("/sys/fs/cgroup/cpuset/{file}")).unwrap();
            fs::write(dirs[3].join(file), value).unwrap();
        }
        fs::write(dirs[4].join("devices.deny"), "a *:* rwm").unwrap();
        let allow = fs::OpenOptions::new().write(true).open(dirs[4].join("devices.allow")).unwrap();
        for rule in ALLOWED {
            std::io::Write::write_all(&mut &allow, rule.as_bytes()).unwrap();
        }
        tasks = dirs
            .iter()
            .map(|dir| fs::OpenOptions::new().write(true).open(dir.join("tasks")).unwrap())
            .collect();
    }
    let cgroup = unified.then(|| fs::File::open(&dirs[0]).unwrap());
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_PIDFD;
    if unified {
        flags |= libc::CLONE_NEWCGROUP;
    }
    let mut pidfd: RawFd = -1;
    let mut args = [0_u64; 11];
    args[0] = u64::from(flags.cast_unsigned()) | cgroup.as_ref().map_or(0, |_| 0x2_0000_0000);
    args[1] = (&raw mut pidfd).addr() as u64;
    args[4] = libc::SIGCHLD as u64;
    args[10] = cgroup.as_ref().map_or(0, |dir| dir.as_raw_fd() as u64);
    // SAFETY: the arguments are those of struct clone_args; without CLONE_VM the child has its own memory.
    let pid = check("clone3", unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), 88) });
    if pid == 0 {
        child(&bundle, &tasks, unified);
    }
    // SAFETY: a plain wait for our own child, with no memory to write to.
    unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    dirs.iter().for_each(|dir| fs::remove_dir(dir).unwrap());
}

fn child(bundle: &str, tasks: &[fs::File], unified: bool) -> ! {
    for file in tasks {
        std::io::Write::write_all(&mut &*file, b"0").unwrap();
    }
    let root = format!("{bundle}/rootfs");
    let plain = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: no memory is involved.
    unsafe { libc::setsid() };
    must_mount("", "/", "", libc::MS_REC | libc::MS_SLAVE, "");
    must_mount(&root, &root, "", libc::MS_BIND | libc::MS_REC, "");
    let at = |path: &str| format!("{root}/{path}");
    for dir in ["proc", "dev", "sys"] {
        fs::create_dir_all(at(dir)).ok();
    }
    must_mount("proc", &at("proc"), "proc", 0, "");
    must_mount("tmpfs", &at("dev"), "tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, "mode=755,size=65536k");
    for dir in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(at(dir)).unwrap();
    }
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    must_mount("devpts", &at("dev/pts"), "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, pts);
    must_mount("shm", &at("dev/shm"), "tmpfs", plain, "mode=1777,size=65536k");
    must_mount("mqueue", &at("dev/mqueue"), "mqueue", plain, "");
    must_mount("sysfs", &at("sys"), "sysfs", plain | libc::MS_RDONLY, "");
    let views = at("sys/fs/cgroup");
    if unified {
        must_mount("cgroup", &views, "cgroup2", plain | libc::MS_RDONLY, "");
    } else {
        must_mount("tmpfs", &views, "tmpfs", plain, "mode=755");
        for name in V1 {
            let view = format!("{views}/{name}");
            fs::create_dir(&view).unwrap();
            must_mount(&format!("/sys/fs/cgroup/{name}"), &view, "", libc::MS_BIND, "");
        }
        must_mount("", &views, "", libc::MS_REMOUNT | libc::MS_BIND | plain | libc::MS_RDONLY, "");
    }
    for (name, major, minor) in DEVICES {
        let path = c(&at(&format!("dev/{name}")));
        // SAFETY: the path lives during the call.
        let made = unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)) };
        check("mknod", made.into());
    }
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        std::os::unix::fs::symlink(target, at(&format!("dev/{name}"))).unwrap();
    }
    for path in MASKED.iter().map(|path| at(path)) {
        if !mount("/dev/null", &path, "", libc::MS_BIND, "") {
            mount("tmpfs", &path, "tmpfs", libc::MS_RDONLY, "");
        }
    }
    for path in READ_ONLY.iter().map(|path| at(path)) {
        if mount(&path, &path, "", libc::MS_BIND | libc::MS_REC, "") {
            mount("", &path, "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, "");
        }
    }
    std::env::set_current_dir(&root).unwrap();
    let (here, top, name, program) = (c("."), c("/"), c("runc"), c("/bin/true"));
    // SAFETY: the strings live during the calls.
    unsafe {
        check("pivot_root", libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()));
        check("umount", libc::umount2(here.as_ptr(), libc::MNT_DETACH).into());
        check("chdir", libc::chdir(top.as_ptr()).into());
        check("sethostname", libc::sethostname(name.as_ptr(), 4).into());
        for capability in (0..=40).filter(|capability| ![5, 10, 29].contains(capability)) {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let header = [0x2008_0522_u32, 0];
        let sets = [0x2000_0420_u32, 0x2000_0420, 0, 0, 0, 0];
        check("capset", libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()));
        let argv = [program.as_ptr(), std::ptr::null()];
        libc::execve(program.as_ptr(), argv.as_ptr(), argv[1..].as_ptr());
    }
    std::process::exit(127)
}
