//! `linux.seccomp` of an OCI config.json, compiled to the BPF program that seccomp(2) loads: a pure function of the
//! profile, the machine and the flags the kernel knows. No C library, no system call, no unsafe code.
//!
//! ```
//! let profile: oci_spec::runtime::LinuxSeccomp = serde_json::from_str(
//!     r#"{"defaultAction": "SCMP_ACT_ALLOW",
//!         "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}"#,
//! )?;
//! let compiled = hull_seccomp::compile(&profile, hull_seccomp::Native::X86_64, hull_seccomp::KNOWN_FLAGS)?;
//! assert_eq!(compiled.summary(), "seccomp: 1 architecture, 1 name, 10 instructions, default ALLOW");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The verdicts are libseccomp's and runc's, without either's code:
//!
//! | question | answer | source |
//! |---|---|---|
//! | several rules for one call | the first without arguments decides alone, else any that matches | libseccomp |
//! | two of them match and differ | `verdicts::in_order` | libseccomp's order of tests |
//! | an argument named twice in a rule | each condition is a rule of its own | libcontainer |
//! | a rule that says the default | left out, but its names count as known | runc |
//! | a number above all named ones | ENOSYS, unless the default is ALLOW, LOG or TRACE | runc patchbpf |
//! | an architecture not listed | thread killed; the native one is always listed | libseccomp |
//! | arguments on x86, x32, arm | their low 32 bits | libseccomp |
//! | `socket`, `shmget`, .. on x86 | the call itself and its sub-call of socketcall(2), ipc(2) | libseccomp |
//!
//! Where hull differs, on purpose (`tests/oracle.rs` holds it to the rest):
//!
//! * libseccomp merges the rules of one call into one tree and so, when rules of different actions
//!   overlap, may miss a rule that matches or refuse the profile (EEXIST). Here a rule matches when its
//!   conditions do, always; only equal conditions with different actions are refused.
//! * libseccomp writes code for names an architecture lacks, at negative numbers no kernel has. hull
//!   does not.
//! * On x86 runc does not count `socket`, `shmget`, .. as naming their own numbers (337 to 402) and those
//!   of socketcall(2) and ipc(2), and on arm it counts arm's private calls (983041 and on), so that newer
//!   calls never get ENOSYS there. Here the former count and the latter do not.

mod bpf;
mod codegen;
mod error;
mod names;
mod profile;
mod table;
mod verdicts;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

pub use bpf::{Listing, MAX_INSTRUCTIONS, action_name, from_bytes, to_bytes};
use codegen::Machine;
pub use error::{Error, ErrorKind, Result};
pub use libc::sock_filter as SockFilter;
use names::Abi;
use profile::Profile;
use verdicts::Verdicts;

/// The machine whose kernel will run the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// x86-64, with x86 (i386) and x32 when they are listed.
    X86_64,
    /// arm64, with arm when it is listed.
    Aarch64,
}

impl Native {
    /// The machine hull was built for, `None` for one it has no tables of.
    pub const BUILT_FOR: Option<Self> = if cfg!(target_arch = "x86_64") {
        Some(Self::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Aarch64)
    } else {
        None
    };
}

/// What seccomp(2) is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The program, at most [`MAX_INSTRUCTIONS`] long.
    pub program: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` bits.
    pub flags: u32,
}

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What is loaded.
    pub filter: Filter,
    /// Who answers `SCMP_ACT_NOTIFY`.
    pub listener: Option<Listener>,
    /// What was left out or looks mistaken.
    pub warnings: Vec<Error>,
    /// ABIs the program tells apart.
    pub architectures: usize,
    /// System call names the profile lists, those unknown not counted.
    pub names: usize,
    /// The `SECCOMP_RET_*` value of a call no rule matches.
    pub default_action: u32,
}

/// The seccomp agent of `linux.seccomp.listenerPath` and `listenerMetadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// A unix socket on the host.
    pub path: String,
    /// Handed to it as it is.
    pub metadata: String,
}

impl Compiled {
    /// One line for people: `seccomp: 3 architectures, 377 names, 214 instructions, default ERRNO(1)`.
    pub fn summary(&self) -> String {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        format!(
            "seccomp: {}, {}, {}, default {}",
            plural(self.architectures, "architecture"),
            plural(self.names, "name"),
            plural(self.filter.program.len(), "instruction"),
            action_name(self.default_action)
        )
    }
}

// linux/seccomp.h: SECCOMP_FILTER_FLAG_*
const FLAG_TSYNC: u32 = 1 << 0;
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flags of this list, which Linux 5.19 knows all of.
pub const KNOWN_FLAGS: u32 = FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_WAIT_KILLABLE_RECV;

/// Compiles `linux.seccomp` for a machine whose kernel knows the filter flags `kernel_flags`.
///
/// Errors: values out of range, contradicting rules, `SCMP_ACT_NOTIFY` (not yet supported), flags the
/// kernel lacks, and a profile too large for the kernel. Source: `config-linux.md#seccomp`, seccomp(2).
pub fn compile(seccomp: &LinuxSeccomp, native: Native, kernel_flags: u32) -> Result<Compiled> {
    let listener = listener(seccomp)?;
    let flags = filter_flags(seccomp, kernel_flags, listener.is_some())?;
    let profile = Profile::read(seccomp)?;
    let mut verdicts = Verdicts::new(&profile);
    let listed = |arch| seccomp.architectures().iter().flatten().any(|listed| *listed == arch);
    // Listed architectures that this machine cannot run do not occur, and need no code.
    let (machines, architectures) = match native {
        Native::X86_64 => {
            let (x32, x86) = (listed(Arch::ScmpArchX32), listed(Arch::ScmpArchX86));
            let mut machines: Vec<Machine> = vec![(AUDIT_ARCH_X86_64, verdicts.x86_64(x32)?)];
            if x86 {
                machines.push((AUDIT_ARCH_I386, verdicts.single(Abi::X86)?));
            }
            (machines, 1 + usize::from(x32) + usize::from(x86))
        }
        Native::Aarch64 => {
            let mut machines: Vec<Machine> = vec![(AUDIT_ARCH_AARCH64, verdicts.single(Abi::Aarch64)?)];
            if listed(Arch::ScmpArchArm) {
                machines.push((AUDIT_ARCH_ARM, verdicts.single(Abi::Arm)?));
            }
            let architectures = machines.len();
            (machines, architectures)
        }
    };
    let program = codegen::generate(&machines, &verdicts.checks, profile.default);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(verdicts::too_large(program.len()));
    }
    let Profile { default: default_action, names, warnings, .. } = profile;
    Ok(Compiled {
        filter: Filter { program, flags },
        listener,
        warnings,
        architectures,
        names,
        default_action,
    })
}

/// [`compile`] for the machine hull was built for and a kernel that knows every flag (Linux 5.19).
pub fn compile_native(seccomp: &LinuxSeccomp) -> Result<Compiled> {
    let Some(native) = Native::BUILT_FOR else {
        let message = "there is no table of system calls for this machine";
        return Err(Error::new(ErrorKind::Machine, message));
    };
    compile(seccomp, native, KNOWN_FLAGS)
}

/// Refuses a filter under which the program could never be started: what comes between its loading and the
/// program is `execve`, and `capset` where no_new_privs does not let the capabilities go first.
///
/// # Errors
/// The call that is denied.
pub fn check_start(filter: &Filter, no_new_privs: bool) -> Result<()> {
    let (arch, [execve, capset]) = match Native::BUILT_FOR {
        Some(Native::X86_64) => (AUDIT_ARCH_X86_64, [59, 126]),
        Some(Native::Aarch64) => (AUDIT_ARCH_AARCH64, [221, 91]),
        None => return Ok(()),
    };
    let calls = [(true, "execve", execve), (!no_new_privs, "capset", capset)];
    for (_, name, number) in calls.iter().filter(|(needed, ..)| *needed) {
        let answer = bpf::verdict(&filter.program, arch, *number).unwrap_or(libc::SECCOMP_RET_ALLOW);
        let ends = [
            libc::SECCOMP_RET_KILL_PROCESS,
            libc::SECCOMP_RET_KILL_THREAD,
            libc::SECCOMP_RET_TRAP,
            libc::SECCOMP_RET_ERRNO,
        ];
        if ends.contains(&(answer & libc::SECCOMP_RET_ACTION_FULL)) {
            let answer = action_name(answer);
            let message = format!(
                "the container's filter denies {name} ({answer}): the program could never be started"
            );
            return Err(Error::new(ErrorKind::Start, message).hint(if *name == "execve" {
                "allow execve: the filter is loaded before the program runs"
            } else {
                "allow capset, or set process.noNewPrivileges: without it the filter is loaded before capabilities are set"
            }));
        }
    }
    Ok(())
}

// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// The flags of the call. With none given it is `SPEC_ALLOW`, as in runc: before Linux 5.16 a filter
/// without it turns speculative store bypass off for the process, which costs it a good deal.
fn filter_flags(seccomp: &LinuxSeccomp, kernel_flags: u32, listens: bool) -> Result<u32> {
    let Some(given) = seccomp.flags() else { return Ok(FLAG_SPEC_ALLOW & kernel_flags) };
    let mut flags = 0;
    for (i, flag) in given.iter().enumerate() {
        let field = || format!("flags[{i}]");
        let bit = match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FLAG_TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
        };
        if bit & kernel_flags == 0 {
            return Err(
                Error::new(ErrorKind::Flag, format!("the kernel does not support {flag}")).field(field())
            );
        }
        if bit == FLAG_WAIT_KILLABLE_RECV && !listens {
            let message = format!("{flag} has no effect without a SCMP_ACT_NOTIFY rule");
            return Err(Error::new(ErrorKind::Flag, message)
                .field(field())
                .hint("the kernel refuses it with EINVAL; remove the flag"));
        }
        flags |= bit;
    }
    Ok(flags)
}

/// Who answers `SCMP_ACT_NOTIFY`, when a rule says it.
///
/// The filter is loaded before its file descriptor is sent to the agent, with write(2): that call, and
/// hence the default, cannot wait for the agent's answer.
fn listener(seccomp: &LinuxSeccomp) -> Result<Option<Listener>> {
    const NOTIFY: LinuxSeccompAction = LinuxSeccompAction::ScmpActNotify;
    if seccomp.default_action() == NOTIFY {
        return Err(Error::new(ErrorKind::Notify, "SCMP_ACT_NOTIFY cannot be used as default action")
            .field("defaultAction".to_owned()));
    }
    let mut first = None;
    for (i, call) in seccomp.syscalls().iter().flatten().enumerate().filter(|(_, c)| c.action() == NOTIFY) {
        if call.names().iter().any(|name| name == "write") {
            return Err(Error::new(
                ErrorKind::Notify,
                "SCMP_ACT_NOTIFY cannot be used for the write syscall",
            )
            .field(format!("syscalls[{i}]")));
        }
        first.get_or_insert(i);
    }
    match first {
        None => Ok(None),
        Some(i) => Err(Error::new(ErrorKind::NotifyUnsupported, "SCMP_ACT_NOTIFY is not yet supported")
            .field(format!("syscalls[{i}].action"))),
    }
}

#[cfg(test)]
mod tests;
