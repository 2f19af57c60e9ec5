//! This binary as a program inside the container (`/bin/probe`): what busybox cannot do.
//!
//! | words | what it does |
//! |---|---|
//! | `syscall N [ARG..]` | the raw call; prints `ok VALUE` or `errno N` |
//! | `notify TEXT` | sends TEXT to $NOTIFY_SOCKET |
//! | `fork N` | N children that sleep; prints how many could be made |
//! | `fds` | prints its open descriptors above 2 |
//! | `as UID GID PROGRAM [ARG..]` | on the host: becomes that program as that user |
//! | `deny RULES PROGRAM [ARG..]` | on the host: becomes that program, to which some system calls are denied: `sys::Denial` |
//! | `without CAP PROGRAM [ARG..]` | on the host: becomes that program without the capability of this number |
//! | `lock` | takes the lock (flock(2)) of what is its standard input, which outlives it where others have that open |
//! | `closes SOCKET` | connects and asks; prints `closed` when the other side closes, `answered` when it answers |
//! | `watch CANARY` | looks at every new process until /stop exists: `watcher` |
//! | `eat MIB` | touches that much memory, then prints `ate` |

use crate::sys;
use nix::fcntl::{Flock, FlockArg};
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs the words; the exit code.
pub fn main(words: &[String]) -> i32 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["syscall", number, args @ ..] => syscall(number, args),
        ["notify", text] => notify(text),
        ["fork", count] => fork(count.parse().unwrap_or(1)),
        ["fds"] => fds(),
        ["as", uid, gid, program, args @ ..] => become_user(uid, gid, program, args),
        ["deny", rules, program, args @ ..] => deny(rules, program, args),
        ["without", number, program, args @ ..] => without(number, program, args),
        ["lock"] => lock(),
        ["closes", socket] => closes(socket),
        ["watch", canary] => crate::watcher::watch(canary),
        ["eat", mib] => eat(mib.parse().unwrap_or(1)),
        _ => {
            eprintln!("probe: what is {words:?}?");
            64
        }
    }
}

fn syscall(number: &str, words: &[&str]) -> i32 {
    let mut args = [0; 6];
    for (slot, word) in args.iter_mut().zip(words) {
        *slot = word.parse().unwrap_or(0);
    }
    match sys::raw(number.parse().unwrap_or(-1), args) {
        Ok(value) => println!("ok {value}"),
        Err(errno) => println!("errno {errno}"),
    }
    0
}

fn notify(text: &str) -> i32 {
    let path = env::var("NOTIFY_SOCKET").unwrap_or_default();
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(text.as_bytes(), &path));
    match sent {
        Ok(_) => 0,
        Err(error) => {
            println!("send to {path}: {error}");
            1
        }
    }
}

fn fork(count: usize) -> i32 {
    let mut children = Vec::new();
    for _ in 0..count {
        match Command::new("/bin/sleep").arg("30").spawn() {
            Ok(child) => children.push(child),
            Err(_) => break,
        }
    }
    println!("{}", children.len());
    for mut child in children {
        // Already gone is as good as killed.
        child.kill().ok();
        child.wait().ok();
    }
    0
}

fn fds() -> i32 {
    let mut open: Vec<(i32, String)> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).map(|p| p.display().to_string()).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
        // The listing's own descriptor shows up too.
        if number > 2 && !target.starts_with("/proc/") {
            open.push((number, target));
        }
    }
    open.sort();
    open.iter().for_each(|(number, target)| println!("{number} {target}"));
    0
}

fn become_user(uid: &str, gid: &str, program: &str, args: &[&str]) -> i32 {
    let id = |word: &str| word.parse().unwrap_or(65534);
    // Supplementary groups are dropped with a change of uid by root.
    failed(program, &Command::new(program).args(args).uid(id(uid)).gid(id(gid)).exec())
}

fn failed(what: &str, error: &std::io::Error) -> i32 {
    eprintln!("probe: {what}: {error}");
    127
}

fn deny(rules: &str, program: &str, args: &[&str]) -> i32 {
    let Some(rules) = rules.split(',').map(sys::Denial::parse).collect::<Option<Vec<_>>>() else {
        eprintln!("probe: what is {rules:?}?");
        return 64;
    };
    match sys::deny(&rules) {
        Ok(()) => failed(program, &Command::new(program).args(args).exec()),
        Err(error) => failed("seccomp", &error),
    }
}

fn without(number: &str, program: &str, args: &[&str]) -> i32 {
    // With the next program it is gone from all sets.
    match sys::drop_capability(number.parse().unwrap_or(u32::MAX)) {
        Ok(()) => failed(program, &Command::new(program).args(args).exec()),
        Err(error) => failed("drop a capability", &error),
    }
}

fn lock() -> i32 {
    let input = std::io::stdin().as_fd().try_clone_to_owned().map(fs::File::from);
    let locked = input.and_then(|input| {
        Flock::lock(input, FlockArg::LockExclusive).map_err(|(_, errno)| std::io::Error::from(errno))
    });
    match locked {
        Ok(kept) => {
            std::mem::forget(kept);
            0
        }
        Err(error) => failed("lock", &error),
    }
}

fn closes(path: &str) -> i32 {
    let asked = UnixStream::connect(path).and_then(|mut socket| {
        // A frame of ttrpc: ten bytes of header and an empty request.
        socket.write_all(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 0]).and_then(|()| socket.read(&mut [0; 64]))
    });
    match asked {
        Ok(0) => println!("closed"),
        Ok(_) => println!("answered"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => println!("denied"),
        // Closed before the request, or under it.
        Err(_) => println!("closed"),
    }
    0
}

fn eat(mib: usize) -> i32 {
    let mut all = Vec::new();
    for _ in 0..mib {
        let mut block = vec![1u8; 1 << 20];
        block[0] = mib as u8;
        all.push(block);
    }
    println!("ate {}", all.iter().map(|b| usize::from(b[4096])).sum::<usize>());
    0
}
