//! Owns random seccomp profiles, the calls to try on them, and a naive reading of what a rule says.
//! It shares no code with the compiler; numbers come from libseccomp.
//! `oracle` includes it by path.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;

use crate::bpf_machine::Call;
use crate::libseccomp::Library;

/// splitmix64: small, seeded, the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Abi {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

impl Abi {
    pub(crate) const ALL: [Self; 5] = [Self::X86_64, Self::X32, Self::X86, Self::Aarch64, Self::Arm];

    /// libseccomp's token.
    pub(crate) fn token(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X32 => 0x4000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// What the kernel tells the filter.
    pub(crate) fn audit(self) -> u32 {
        if self == Self::X32 { Self::X86_64.token() } else { self.token() }
    }

    fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X32 => "SCMP_ARCH_X32",
            Self::X86 => "SCMP_ARCH_X86",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    fn argument_mask(self) -> u64 {
        if matches!(self, Self::X86_64 | Self::Aarch64) { u64::MAX } else { 0xffff_ffff }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    X86,
    Arm,
}

/// As in the profile; `op` is libseccomp's number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    pub(crate) arg: u32,
    pub(crate) op: i32,
    pub(crate) value: u64,
    pub(crate) value_two: u64,
}

const OPS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

impl Condition {
    fn holds(&self, args: &[u64; 6], mask: u64) -> bool {
        let arg = args[usize::try_from(self.arg).unwrap()] & mask;
        let value = self.value & mask;
        match self.op {
            1 => arg != value,
            2 => arg < value,
            3 => arg <= value,
            4 => arg == value,
            5 => arg >= value,
            6 => arg > value,
            _ => arg & self.value == self.value & mask & self.value_two,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) action: u32,
    pub(crate) names: Vec<String>,
    pub(crate) args: Vec<Condition>,
}

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) family: Family,
    /// The native one first.
    pub(crate) abis: Vec<Abi>,
    pub(crate) default: u32,
    pub(crate) rules: Vec<Rule>,
}

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const KILL: u32 = 0;
const ACTIONS: [u32; 10] =
    [ALLOW, ALLOW, ALLOW, LOG, ERRNO | 1, ERRNO | 38, TRACE | 7, KILL, 0x8000_0000, 0x0003_0000];

fn action_json(action: u32) -> (&'static str, Option<u32>) {
    match (action & 0xffff_0000, action & 0xffff) {
        (ALLOW, _) => ("SCMP_ACT_ALLOW", None),
        (LOG, _) => ("SCMP_ACT_LOG", None),
        (ERRNO, errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        (TRACE, data) => ("SCMP_ACT_TRACE", Some(data)),
        (0x8000_0000, _) => ("SCMP_ACT_KILL_PROCESS", None),
        (0x0003_0000, _) => ("SCMP_ACT_TRAP", None),
        _ => ("SCMP_ACT_KILL", None),
    }
}

const VALUES: [u64; 14] = [
    0,
    1,
    2,
    5,
    0x10,
    0x7e02_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0xffff_ffff_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// A rule about a call.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) action: u32,
    /// Whether all conditions hold.
    pub(crate) holds: bool,
    /// Whether they would for any arguments.
    pub(crate) always: bool,
}

impl Profile {
    /// Whether a call's architecture is among those listed.
    pub(crate) fn lists(&self, call: &Call) -> bool {
        self.abis.iter().any(|abi| abi.audit() == call.arch)
    }

    /// Small pools make rules meet; one profile in two keeps to one action for each name.
    pub(crate) fn random(rng: &mut Rng, lib: &Library) -> Self {
        let family = if rng.one_in(3) { Family::Arm } else { Family::X86 };
        let (native, others) = match family {
            Family::X86 => (Abi::X86_64, [Abi::X86, Abi::X32].as_slice()),
            Family::Arm => (Abi::Aarch64, [Abi::Arm].as_slice()),
        };
        let mut abis = vec![native];
        abis.extend(others.iter().filter(|_| !rng.one_in(3)));
        let all: Vec<&String> = lib.names.keys().collect();
        // A large one now and then: jumps reach 255 instructions, and programs grow beyond that.
        let large = rng.one_in(50);
        let mut pool: Vec<String> =
            (0..1 + rng.below(if large { 300 } else { 40 })).map(|_| (*rng.pick(&all)).clone()).collect();
        if rng.one_in(2) {
            pool.extend(["socket", "socketcall", "shmget", "ipc", "read", "accept"].map(str::to_owned));
        }
        let default = *rng.pick(&ACTIONS);
        let one_action = rng.one_in(2).then(|| *rng.pick(&ACTIONS));
        let rules = (0..rng.below(if large { 200 } else { 25 }))
            .map(|_| {
                let count = if rng.one_in(3) { 1 + rng.below(30) } else { 1 };
                Rule {
                    action: one_action.unwrap_or(*rng.pick(&ACTIONS)),
                    names: (0..count).map(|_| rng.pick(&pool).clone()).collect(),
                    args: Self::random_args(rng),
                }
            })
            .collect();
        Self { family, abis, default, rules }
    }

    fn random_args(rng: &mut Rng) -> Vec<Condition> {
        let count = *rng.pick(&[0, 0, 1, 1, 1, 2, 3]);
        (0..count)
            .map(|_| {
                // Repeated arguments (any one is enough) stay the exception.
                let arg = u32::try_from(rng.below(6)).unwrap();
                let value = if rng.one_in(6) { rng.next() } else { *rng.pick(&VALUES) };
                let value_two = if rng.one_in(6) { rng.next() } else { *rng.pick(&VALUES) };
                Condition { arg, op: i32::try_from(1 + rng.below(7)).unwrap(), value, value_two }
            })
            .collect()
    }

    /// The profile as config.json has it.
    pub(crate) fn oci(&self) -> LinuxSeccomp {
        let (default, default_errno) = action_json(self.default);
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|rule| {
                let (action, errno) = action_json(rule.action);
                let args: Vec<_> = rule
                    .args
                    .iter()
                    .map(|c| {
                        let op = OPS[usize::try_from(c.op - 1).unwrap()];
                        json!({"index": c.arg, "value": c.value, "valueTwo": c.value_two, "op": op})
                    })
                    .collect();
                json!({"names": rule.names, "action": action, "errnoRet": errno, "args": args})
            })
            .collect();
        let abis: Vec<_> = self.abis.iter().map(|abi| abi.oci()).collect();
        serde_json::from_value(json!({
            "defaultAction": default,
            "defaultErrnoRet": default_errno,
            "architectures": abis,
            "syscalls": rules,
        }))
        .unwrap()
    }

    /// The profile from config.json, for an x86-64 machine, with the names that `lib` knows.
    pub(crate) fn from_oci(seccomp: &LinuxSeccomp, lib: &Library) -> Self {
        let listed =
            |abi: &Abi| seccomp.architectures().iter().flatten().any(|arch| arch.to_string() == abi.oci());
        let mut abis = vec![Abi::X86_64];
        abis.extend([Abi::X86, Abi::X32].iter().filter(|abi| listed(abi)));
        let rules = seccomp.syscalls().iter().flatten().map(|call| Rule {
            action: call.action().as_u32(call.errno_ret()),
            names: call.names().iter().filter(|name| lib.names.contains_key(*name)).cloned().collect(),
            args: call
                .args()
                .iter()
                .flatten()
                .map(|arg| Condition {
                    arg: u32::try_from(arg.index()).unwrap(),
                    op: i32::try_from(OPS.iter().position(|op| *op == arg.op().to_string()).unwrap())
                        .unwrap()
                        + 1,
                    value: arg.value(),
                    value_two: arg.value_two().unwrap_or(0),
                })
                .collect(),
        });
        Self {
            family: Family::X86,
            abis,
            default: seccomp.default_action().as_u32(seccomp.default_errno_ret()),
            rules: rules.collect(),
        }
    }

    /// (action, name, conditions that must all hold), as libcontainer adds them.
    pub(crate) fn single_rules(&self) -> Vec<(u32, &str, Vec<Condition>)> {
        let mut singles = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.action != self.default) {
            let twice =
                rule.args.iter().enumerate().any(|(i, c)| rule.args[..i].iter().any(|d| d.arg == c.arg));
            for name in &rule.names {
                if twice {
                    singles.extend(rule.args.iter().map(|c| (rule.action, name.as_str(), vec![*c])));
                } else {
                    singles.push((rule.action, name, rule.args.clone()));
                }
            }
        }
        singles
    }

    /// The verdicts that the rules about a call allow: what the first rule without conditions says, else
    /// what any that matches says, else the default.
    pub(crate) fn verdicts(&self, about: &[About]) -> Vec<u32> {
        if let Some(about) = about.iter().find(|about| about.always) {
            return vec![about.action];
        }
        let mut actions: Vec<u32> =
            about.iter().filter(|about| about.holds).map(|about| about.action).collect();
        if actions.is_empty() {
            actions.push(self.default);
        }
        actions
    }

    /// The rules about a call, found the slow way: action, name, conditions, whether they hold.
    pub(crate) fn about(&self, lib: &Library, call: &Call) -> Vec<About> {
        let mut found = Vec::new();
        for (action, name, conditions) in self.single_rules() {
            for abi in self.abis.iter().filter(|abi| abi.audit() == call.arch) {
                let mask = abi.argument_mask();
                let own = lib.names.get(name).and_then(|numbers| numbers.get(abi)) == Some(&call.nr);
                let sub = *abi == Abi::X86 && multiplexed(name, call);
                if own || sub {
                    let conditions: Vec<Condition> =
                        conditions.iter().filter(|c| !sub || c.arg != 0).copied().collect();
                    let holds = conditions.iter().all(|c| c.holds(&call.args, mask));
                    let always = !sub && conditions.iter().all(|c| c.op == 7 && c.value & mask == 0);
                    found.push(About { action, holds, always });
                }
            }
        }
        found
    }

    /// The largest number named on each ABI.
    pub(crate) fn newest(&self, lib: &Library) -> BTreeMap<Abi, u32> {
        let mut newest = BTreeMap::new();
        for abi in &self.abis {
            let numbers = self.rules.iter().flat_map(|rule| &rule.names).filter_map(|name| {
                // arm's private calls are no measure of how new a profile is.
                lib.names.get(name)?.get(abi).copied().filter(|nr| *abi != Abi::Arm || *nr < 0xf_0000)
            });
            // socketcall(2) and ipc(2) are named when one of their calls is.
            let through = self
                .rules
                .iter()
                .flat_map(|rule| &rule.names)
                .filter_map(|name| multiplexer(name).filter(|_| *abi == Abi::X86));
            let numbers = numbers.chain(through);
            let base = if *abi == Abi::X32 { 1 << 30 } else { 0 };
            if let Some(largest) = numbers.max().filter(|nr| *nr != base) {
                newest.insert(*abi, largest);
            }
        }
        newest
    }

    /// ENOSYS for a call newer than the profile, as runc's stub answers it.
    pub(crate) fn newer(&self, newest: &BTreeMap<Abi, u32>, call: &Call) -> Option<u32> {
        if matches!(self.default & 0xffff_0000, ALLOW | LOG | TRACE) {
            return None;
        }
        let x32 = call.nr & (1 << 30) != 0;
        let abi = self.abis.iter().find(|abi| match abi {
            Abi::X86_64 => call.arch == abi.audit() && !x32,
            Abi::X32 => call.arch == abi.audit() && x32,
            Abi::X86 | Abi::Aarch64 | Abi::Arm => call.arch == abi.audit(),
        })?;
        let private = *abi == Abi::Arm && call.nr >= 0xf_0000 && self.names_private();
        newest.get(abi).filter(|largest| call.nr > **largest && !private).map(|_| ERRNO | 38)
    }

    fn names_private(&self) -> bool {
        let private = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"];
        self.rules.iter().flat_map(|rule| &rule.names).any(|name| private.contains(&name.as_str()))
    }

    /// Calls near everything the profile mentions, and some far from all.
    pub(crate) fn probes(&self, rng: &mut Rng, lib: &Library, count: usize) -> Vec<Call> {
        let values: Vec<u64> = self
            .rules
            .iter()
            .flat_map(|rule| &rule.args)
            .flat_map(|c| [c.value, c.value_two & c.value, c.value.wrapping_add(1), c.value.wrapping_sub(1)])
            .chain(VALUES)
            .chain(1..25)
            .collect();
        let mentioned: Vec<&String> = self.rules.iter().flat_map(|rule| &rule.names).collect();
        (0..count)
            .map(|_| {
                let abis = if rng.one_in(20) { Abi::ALL.as_slice() } else { &self.abis };
                let abi = *rng.pick(abis);
                let known = (!mentioned.is_empty() && !rng.one_in(4))
                    .then(|| lib.names.get(*rng.pick(&mentioned))?.get(&abi))
                    .flatten();
                let nr = known.copied().unwrap_or_else(|| random_number(rng));
                let args = [(); 6].map(|()| {
                    let value = *rng.pick(&values);
                    if rng.one_in(8) { value ^ (1 << rng.below(64)) } else { value }
                });
                Call { nr, arch: abi.audit(), args }
            })
            .collect()
    }
}

/// Any number but those just below -1, where libseccomp has code for calls that do not exist.
fn random_number(rng: &mut Rng) -> u32 {
    let edge = [0, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, u32::MAX];
    let small = u32::try_from(rng.below(600)).unwrap();
    match rng.below(8) {
        0 => *rng.pick(&edge),
        1 | 2 => small | 0x4000_0000,
        3 => 0xf_0000 + small % 16,
        4 => *rng.pick(&[102, 117]),
        _ => small,
    }
}

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// socketcall's and ipc's sub-calls (linux/net.h, linux/ipc.h).
const SUBCALLS: [(&str, u32, u64); 32] = [
    ("socket", SOCKETCALL, 1),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("listen", SOCKETCALL, 4),
    ("accept", SOCKETCALL, 5),
    ("getsockname", SOCKETCALL, 6),
    ("getpeername", SOCKETCALL, 7),
    ("socketpair", SOCKETCALL, 8),
    ("send", SOCKETCALL, 9),
    ("recv", SOCKETCALL, 10),
    ("sendto", SOCKETCALL, 11),
    ("recvfrom", SOCKETCALL, 12),
    ("shutdown", SOCKETCALL, 13),
    ("setsockopt", SOCKETCALL, 14),
    ("getsockopt", SOCKETCALL, 15),
    ("sendmsg", SOCKETCALL, 16),
    ("recvmsg", SOCKETCALL, 17),
    ("accept4", SOCKETCALL, 18),
    ("recvmmsg", SOCKETCALL, 19),
    ("sendmmsg", SOCKETCALL, 20),
    ("semop", IPC, 1),
    ("semget", IPC, 2),
    ("semctl", IPC, 3),
    ("semtimedop", IPC, 4),
    ("msgsnd", IPC, 11),
    ("msgrcv", IPC, 12),
    ("msgget", IPC, 13),
    ("msgctl", IPC, 14),
    ("shmat", IPC, 21),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shmctl", IPC, 24),
];

/// The i386 call through which `name` goes as well.
fn multiplexer(name: &str) -> Option<u32> {
    SUBCALLS.iter().find(|(call, ..)| *call == name).map(|(_, via, _)| *via)
}

fn multiplexed(name: &str, call: &Call) -> bool {
    SUBCALLS.contains(&(name, call.nr, call.args[0] & 0xffff_ffff))
}
