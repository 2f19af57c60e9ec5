//! Holds hull's seccomp compiler to libseccomp: profile after profile, both programs run on the same calls.
//! libseccomp is loaded at run time (dlopen), driven as runc drives it; without it the tests skip.
//! CI and developers run it: `cargo test -p hull-seccomp --test oracle`, with `HULL_TEST_CONFIGS=DIR`
//! also over every config.json of a directory.
//!
//! Not in libseccomp, and so modelled here: ENOSYS for calls newer than the profile (runc's patchbpf).
//! Deliberate differences (see the crate's first page) are classified, counted and bounded, never skipped unseen.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this file is test code, helpers too"
)]

#[path = "common/bpf_machine.rs"]
mod bpf_machine;
#[path = "common/libseccomp.rs"]
mod libseccomp;
#[path = "common/seccomp_model.rs"]
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bpf_machine::{Call, Instruction, Run, run};
use hull_seccomp::{ErrorKind, KNOWN_FLAGS, Native, SockFilter, compile};
use libseccomp::Library;
use model::{Abi, About, Family, Profile, Rng};
use oci_spec::runtime::LinuxSeccomp;

/// How libseccomp's verdict on a call compares with hull's, which the rules allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Same,
    /// Several rules of different actions match, and libseccomp takes another of them.
    OtherRule,
    /// Rules match and libseccomp's tree misses them.
    Missed,
    /// No rule with libseccomp's answer matches.
    Phantom,
    /// libseccomp's program forgets to load the number (2.5.4, some profiles of several ABIs).
    Blind,
}

fn raw(program: &[SockFilter]) -> Vec<Instruction> {
    program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
}

/// libseccomp on a thread of its own: some profiles send 2.5.4 into an endless loop.
struct Oracle {
    lib: Arc<Library>,
    ask: mpsc::Sender<Profile>,
    answer: mpsc::Receiver<Option<Vec<Instruction>>>,
}

impl Oracle {
    fn start(lib: Arc<Library>) -> Self {
        let (ask, asked) = mpsc::channel::<Profile>();
        let (say, answer) = mpsc::channel();
        let library = Arc::clone(&lib);
        std::thread::spawn(move || {
            while let Ok(profile) = asked.recv() {
                if say.send(library.compile(&profile)).is_err() {
                    break;
                }
            }
        });
        Self { lib, ask, answer }
    }

    /// The program, `None` when a rule is refused, an error when there is no answer in time; the thread
    /// is then left to itself and a new one takes its place.
    fn compile(&mut self, profile: &Profile) -> Result<Option<Vec<Instruction>>, mpsc::RecvTimeoutError> {
        self.ask.send(profile.clone()).unwrap();
        let answer = self.answer.recv_timeout(Duration::from_secs(1));
        if answer.is_err() {
            *self = Self::start(Arc::clone(&self.lib));
        }
        answer
    }
}

/// Counts of what came out.
#[derive(Debug, Default)]
struct Tally {
    calls: BTreeMap<Outcome, usize>,
    /// Profiles that both, or only libseccomp, refuse as contradictory.
    refused: [usize; 2],
    /// Profiles libseccomp does not finish.
    hung: usize,
}

impl Tally {
    fn compare(&mut self, oracle: &mut Oracle, profile: &Profile, probes: &[Call]) {
        let native = match profile.family {
            Family::X86 => Native::X86_64,
            Family::Arm => Native::Aarch64,
        };
        let ours = compile(&profile.oci(), native, KNOWN_FLAGS);
        let Ok(theirs) = oracle.compile(profile) else {
            self.hung += 1;
            return;
        };
        let (ours, theirs) = match (ours, theirs) {
            (Ok(ours), Some(theirs)) => (raw(&ours.filter.program), theirs),
            (Ok(_), None) => return self.refused[1] += 1,
            (Err(error), None) => {
                assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
                return self.refused[0] += 1;
            }
            (Err(error), Some(_)) => panic!("only hull refuses: {error}\n{profile:?}"),
        };
        let newest = profile.newest(&oracle.lib);
        for call in probes {
            let newer = profile.newer(&newest, call);
            let about = profile.about(&oracle.lib, call);
            let outcome = judge(profile, call, (run(&ours, call), run(&theirs, call)), newer, &about);
            *self.calls.entry(outcome).or_default() += 1;
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.calls.get(&outcome).copied().unwrap_or_default()
    }
}

/// Judges a call; panics where hull's verdict is not what the rules say.
fn judge(
    profile: &Profile,
    call: &Call,
    (ours, theirs): (Run, Run),
    newer: Option<u32>,
    about: &[About],
) -> Outcome {
    let expected = newer.unwrap_or(theirs.verdict);
    let allowed = newer.map_or_else(|| profile.verdicts(about), |newer| vec![newer]);
    let outcome = if ours.verdict == expected {
        Outcome::Same
    } else if !theirs.saw_nr && profile.lists(call) {
        Outcome::Blind
    } else if allowed.contains(&expected) {
        Outcome::OtherRule
    } else if expected == profile.default {
        Outcome::Missed
    } else {
        Outcome::Phantom
    };
    let by_the_rules = about.is_empty() || allowed.contains(&ours.verdict);
    // One rule alone libseccomp gets right.
    let explained = matches!(outcome, Outcome::Same | Outcome::Blind) || about.len() > 1;
    assert!(
        by_the_rules && explained,
        "hull {:#x}, libseccomp {expected:#x}, rules allow {allowed:x?}: {call:x?}\n\
         default {:#x} on {:?}, rules {about:x?}",
        ours.verdict,
        profile.default,
        profile.abis
    );
    outcome
}

#[test]
fn random_profiles_get_libseccomps_verdicts() {
    let Some(lib) = Library::load() else { return };
    let mut oracle = Oracle::start(Arc::new(lib));
    let mut rng = Rng::new(0x5eed);
    let mut tally = Tally::default();
    for _ in 0..2000 {
        let profile = Profile::random(&mut rng, &oracle.lib);
        let probes = profile.probes(&mut rng, &oracle.lib, 60);
        tally.compare(&mut oracle, &profile, &probes);
    }
    println!("{tally:?}");
    let all: usize = tally.calls.values().sum();
    let tree: usize =
        [Outcome::OtherRule, Outcome::Missed, Outcome::Phantom].map(|o| tally.count(o)).iter().sum();
    // Rules that overlap at random are few, and few of those libseccomp's tree gets wrong.
    assert!(all > 100_000 && tree * 1000 < all, "{tally:?}");
}

/// Every number there is, with arguments the profile speaks of: all verdicts must be libseccomp's.
fn compare_exactly(oracle: &mut Oracle, name: &str, seccomp: &LinuxSeccomp) {
    let profile = Profile::from_oci(seccomp, &oracle.lib);
    let mut rng = Rng::new(1);
    let mut probes = profile.probes(&mut rng, &oracle.lib, 5_000);
    for arch in [Abi::X86_64, Abi::X86, Abi::Arm] {
        for nr in (0..600).chain(0x4000_0000..0x4000_0300) {
            let args = [0x8000_0001, 1, 2, 3, 4, 5];
            probes.push(Call { nr, arch: arch.token(), args });
        }
    }
    let mut tally = Tally::default();
    tally.compare(oracle, &profile, &probes);
    println!("{name}: {tally:?}");
    assert_eq!(tally.count(Outcome::Same), probes.len(), "{name}: {tally:?}");
}

#[test]
fn engines_profiles_get_exactly_libseccomps_verdicts() {
    let Some(lib) = Library::load() else { return };
    let mut oracle = Oracle::start(Arc::new(lib));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let extra = std::env::var_os("HULL_TEST_CONFIGS").map(PathBuf::from);
    for dir in [Some(data), extra].into_iter().flatten() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let seccomp = json.pointer("/linux/seccomp").unwrap_or(&json).clone();
            if seccomp.get("defaultAction").is_some() {
                let seccomp: LinuxSeccomp = serde_json::from_value(seccomp).unwrap();
                compare_exactly(&mut oracle, &path.display().to_string(), &seccomp);
            }
        }
    }
}

/// The kernel's checks of a program, passed by programs of all sizes.
#[test]
fn the_kernel_takes_the_programs() {
    let Some(lib) = Library::load() else { return };
    let mut rng = Rng::new(2);
    let mut longest = 0;
    for _ in 0..400 {
        let profile = Profile::random(&mut rng, &lib);
        let native = if profile.family == Family::X86 { Native::X86_64 } else { Native::Aarch64 };
        let Ok(plan) = compile(&profile.oci(), native, KNOWN_FLAGS) else { continue };
        // The kernel checks all of it and runs the first instruction: allow.
        let mut program = vec![SockFilter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
        program.extend(&plan.filter.program);
        program.truncate(hull_seccomp::MAX_INSTRUCTIONS);
        longest = longest.max(program.len());
        // A thread has filters of its own.
        let errno = std::thread::spawn(move || libseccomp::load(&program)).join().unwrap();
        match errno {
            0 => {}
            libc::EPERM | libc::EACCES | libc::ENOSYS => {
                println!("SKIP: this process may not load seccomp filters (errno {errno})");
                return;
            }
            _ => panic!("seccomp(2): errno {errno}\n{}", hull_seccomp::Listing(&plan.filter.program)),
        }
    }
    println!("longest: {longest} instructions");
    assert!(longest > 500);
}

/// The tables against the library's, name by name.
#[test]
fn numbers_are_libseccomps() {
    let Some(lib) = Library::load() else { return };
    let allow = |name: &str| -> LinuxSeccomp {
        serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_LOG",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
            "syscalls": [{"names": [name], "action": "SCMP_ACT_ALLOW"}],
        }))
        .unwrap()
    };
    assert!(lib.names.len() > 450, "{}", lib.names.len());
    for (name, numbers) in &lib.names {
        for (native, abis) in [
            (Native::X86_64, [Abi::X86_64, Abi::X86, Abi::X32].as_slice()),
            (Native::Aarch64, &[Abi::Aarch64, Abi::Arm]),
        ] {
            let plan = compile(&allow(name), native, KNOWN_FLAGS).unwrap();
            assert_eq!(plan.warnings, [], "{name}");
            for abi in abis {
                let Some(nr) = numbers.get(abi) else { continue };
                let call = Call { nr: *nr, arch: abi.audit(), args: [0; 6] };
                assert_eq!(
                    run(&raw(&plan.filter.program), &call).verdict,
                    0x7fff_0000,
                    "{name} on {abi:?} is {nr}"
                );
            }
        }
    }
}
