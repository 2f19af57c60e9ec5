//! Owns what happens to each system call number: rules become verdicts, numbers become ranges.
//! It follows libseccomp where rules of one call meet, and writes no instruction.
//! `plan` asks it for the ranges of a machine, `codegen` turns them into a program.

use std::cmp::Reverse;

use oci_spec::runtime::LinuxSeccompOperator as Op;

use super::bpf::{MAX_INSTRUCTIONS, action_name};
use super::names::{self, Abi, NameId};
use super::profile::{Condition, Profile, Rule};
use crate::error::{Error, ErrorKind, Result};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This `SECCOMP_RET_*` value.
    Return(u32),
    /// It depends on the arguments: an index into [`Verdicts::checks`].
    Check(usize),
}

/// Cases to try in order; the profile's default when none matches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) cases: Vec<Case>,
    /// The bits of an argument that count on this ABI.
    pub(super) argument_mask: u64,
}

/// An action and the conditions that must all hold for it; there is one at least.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) action: u32,
    pub(super) conditions: Vec<Condition>,
}

/// The numbers from `first` to the next range's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) verdict: Verdict,
}

/// All numbers of one audit architecture, from 0 on, neighbours never alike.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Range>);

impl Ranges {
    /// From `first` on it is `verdict`; callers go upwards.
    fn since(&mut self, first: u32, verdict: Verdict) {
        if self.0.last().is_some_and(|last| last.first == first) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.verdict != verdict) {
            self.0.push(Range { first, verdict });
        }
    }

    pub(super) fn as_slice(&self) -> &[Range] {
        &self.0
    }
}

const X32_BIT: u32 = 1 << 30;
/// arm's private calls (`set_tls`, `cacheflush`) start here, far above every other.
const ARM_PRIVATE: u32 = 0xf_0000;

/// A profile's verdicts, with the argument checks shared by all machines.
#[derive(Debug)]
pub(super) struct Verdicts<'a> {
    profile: &'a Profile,
    pub(super) checks: Vec<Check>,
    /// What a call gets whose number is beyond all the profile names, when that differs from the default.
    newer: Option<Verdict>,
}

/// A rule, by index, that is about a call; through which sub-call of it, if so.
type Use = (u32, Option<u32>);

impl<'a> Verdicts<'a> {
    /// Verdicts of a profile.
    ///
    /// A call newer than the profile answers ENOSYS, so that a libc falls back to what the profile's
    /// author knew: runc's rule (`libcontainer/seccomp/patchbpf`). Where the default lets calls
    /// through, and for a tracer, which shall see them, it stays the default.
    pub(super) fn new(profile: &'a Profile) -> Self {
        let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        let through = matches!(
            profile.default & libc::SECCOMP_RET_ACTION_FULL,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        );
        Self { profile, checks: Vec::new(), newer: (!through).then_some(Verdict::Return(enosys)) }
    }

    fn default(&self) -> Verdict {
        Verdict::Return(self.profile.default)
    }

    /// The numbers of a machine that has one ABI only.
    pub(super) fn single(&mut self, abi: Abi) -> Result<Ranges> {
        let mut ranges = Ranges::default();
        self.fill(&mut ranges, abi, 0)?;
        Ok(ranges)
    }

    /// The numbers of x86-64's audit architecture, which x32 shares.
    ///
    /// Numbers with bit 31 set belong to whom bit 30 says; no kernel has them. Without x32 they and
    /// x32's get libseccomp's answer to a foreign architecture, but -1, which is what a tracer leaves
    /// behind to skip a call, gets the default.
    pub(super) fn x86_64(&mut self, x32: bool) -> Result<Ranges> {
        const KILL: Verdict = Verdict::Return(libc::SECCOMP_RET_KILL_THREAD);
        let mut ranges = Ranges::default();
        let above = self.fill(&mut ranges, Abi::X86_64, 0)?;
        if x32 {
            ranges.since(X32_BIT, self.default());
            let above_x32 = self.fill(&mut ranges, Abi::X32, X32_BIT)?;
            ranges.since(1 << 31, above.unwrap_or(self.default()));
            ranges.since(3 << 30, above_x32.unwrap_or(self.default()));
        } else {
            ranges.since(X32_BIT, KILL);
            ranges.since(1 << 31, above.unwrap_or(KILL));
            ranges.since(3 << 30, KILL);
            ranges.since(u32::MAX, self.default());
        }
        Ok(ranges)
    }

    /// Appends an ABI's numbers and returns what holds above the largest that is named, if that is
    /// not the default.
    fn fill(&mut self, ranges: &mut Ranges, abi: Abi, base: u32) -> Result<Option<Verdict>> {
        ranges.since(base, self.default());
        let mut largest = base;
        for same in abi.numbers().chunk_by(|a, b| a.0 == b.0) {
            let Some((nr, _)) = same.first().copied() else { continue };
            if same.iter().any(|(_, name)| self.mentions(abi, NameId(*name))) {
                if abi == Abi::Arm && nr >= ARM_PRIVATE && largest < ARM_PRIVATE {
                    self.above(ranges, largest, base);
                    ranges.since(ARM_PRIVATE, self.default());
                }
                largest = nr;
            }
            if let Some(verdict) = self.verdict(abi, same)? {
                ranges.since(nr, verdict);
                ranges.since(nr + 1, self.default());
            }
        }
        if abi == Abi::Arm && largest >= ARM_PRIVATE {
            return Ok(None);
        }
        Ok(self.above(ranges, largest, base))
    }

    /// Whether the profile has a name, or one that is called through it.
    fn mentions(&self, abi: Abi, name: NameId) -> bool {
        self.profile.mentions(name)
            || abi.multiplexed(name).iter().any(|(call, _)| self.profile.mentions(NameId(*call)))
    }

    /// Everything above `largest` is newer. runc counts a profile that names nothing, or only number 0,
    /// as one that knows no call of this ABI, and leaves it alone.
    fn above(&self, ranges: &mut Ranges, largest: u32, base: u32) -> Option<Verdict> {
        let newer = self.newer.filter(|_| largest != base)?;
        ranges.since(largest + 1, newer);
        Some(newer)
    }

    /// The verdict on a number with these names, `None` when no rule is about it.
    fn verdict(&mut self, abi: Abi, same: &[(u32, u16)]) -> Result<Option<Verdict>> {
        if let Some(verdict) = self.plain(abi, same) {
            return Ok(verdict);
        }
        let mut uses: Vec<Use> = Vec::new();
        for (_, name) in same {
            let name = NameId(*name);
            uses.extend(self.profile.uses(name).iter().map(|rule| (*rule, None)));
            for (call, value) in abi.multiplexed(name) {
                uses.extend(self.profile.uses(NameId(*call)).iter().map(|rule| (*rule, Some(*value))));
            }
        }
        uses.sort_unstable();
        match same {
            [(_, name), ..] if !uses.is_empty() => self.decide(abi, &uses, NameId(*name)).map(Some),
            _ => Ok(None),
        }
    }

    /// The verdict where it is plain, as it is for nearly all numbers: one name, one rule at most, and no
    /// conditions.
    fn plain(&self, abi: Abi, same: &[(u32, u16)]) -> Option<Option<Verdict>> {
        let [(_, name)] = same else { return None };
        let name = NameId(*name);
        match self.profile.uses(name) {
            _ if !abi.multiplexed(name).is_empty() => None,
            [] => Some(None),
            [rule] => {
                let Rule { action, conditions, .. } = &self.profile.rules[*rule as usize];
                conditions.is_empty().then_some(Some(Verdict::Return(*action)))
            }
            _ => None,
        }
    }

    /// What several rules of one call say together, in libseccomp's way: the first without conditions
    /// decides alone; else all are tried as [`in_order`] has them.
    fn decide(&mut self, abi: Abi, uses: &[Use], name: NameId) -> Result<Verdict> {
        let argument_mask = abi.argument_mask();
        let mut rules = Vec::new();
        for (rule, subcall) in uses {
            let rule = &self.profile.rules[*rule as usize];
            let conditions = narrow(&rule.conditions, argument_mask, *subcall);
            if conditions.is_empty() {
                return Ok(Verdict::Return(rule.action));
            }
            rules.push(Rule { conditions, ..*rule });
        }
        if rules.len() > MAX_INSTRUCTIONS {
            return Err(too_large(rules.len()));
        }
        let check = Check { cases: without_repeats(in_order(rules), names::name(name))?, argument_mask };
        let index = self.checks.iter().position(|known| *known == check);
        Ok(Verdict::Check(index.unwrap_or_else(|| {
            self.checks.push(check);
            self.checks.len() - 1
        })))
    }
}

/// The conditions as they count on an ABI; those that always hold are gone.
///
/// A call made through socketcall(2) or ipc(2) has its arguments in memory, where no filter sees them.
/// As in libseccomp the sub-call's number takes the place of a condition on the first argument and the
/// others stay, though what they compare is a pointer.
fn narrow(conditions: &[Condition], argument_mask: u64, subcall: Option<u32>) -> Vec<Condition> {
    let call =
        subcall.map(|nr| Condition { arg: 0, op: Op::ScmpCmpEq, value: nr.into(), mask: argument_mask });
    let own = conditions.iter().filter(|c| subcall.is_none() || c.arg != 0).map(|c| Condition {
        value: c.value & argument_mask,
        mask: c.mask & argument_mask,
        ..*c
    });
    call.into_iter().chain(own).filter(|c| c.mask != 0).collect()
}

/// The rules in the order they are tried, as libseccomp arranges them. It matters only when two can match
/// and their actions differ: later arguments come before earlier ones, equalities before upper bounds
/// before lower bounds, tight before wide, what was said first before what was said later; and of rules
/// that start alike the one with fewer conditions comes first.
fn in_order(rules: Vec<Rule>) -> Vec<Rule> {
    let mut ranked: Vec<(Vec<Rank>, Rule)> = Vec::with_capacity(rules.len());
    for (age, rule) in rules.into_iter().enumerate() {
        let mut rank = Vec::with_capacity(rule.conditions.len());
        for (depth, condition) in rule.conditions.iter().enumerate() {
            // A condition is as old as the first rule that starts alike up to it.
            let alike = |other: &Rule| other.conditions.get(..=depth) == rule.conditions.get(..=depth);
            let first = ranked.iter().find(|(_, other)| alike(other)).and_then(|(rank, _)| rank.get(depth));
            rank.push(Rank::of(condition, first.map_or(age, |rank| rank.age)));
        }
        ranked.push((rank, rule));
    }
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().map(|(_, rule)| rule).collect()
}

/// Where a condition stands among others; see [`in_order`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    arg: Reverse<u8>,
    class: u8,
    tightness: Reverse<u64>,
    age: usize,
}

impl Rank {
    fn of(condition: &Condition, age: usize) -> Self {
        let Condition { arg, op, value, .. } = *condition;
        let (class, tightness) = match op {
            Op::ScmpCmpEq | Op::ScmpCmpNe | Op::ScmpCmpMaskedEq => (0, value),
            Op::ScmpCmpLt | Op::ScmpCmpLe => (1, !value),
            Op::ScmpCmpGe | Op::ScmpCmpGt => (2, value),
        };
        Self { arg: Reverse(arg), class, tightness: Reverse(tightness), age }
    }
}

/// Drops rules that say again what one before says; the rules are in order, so twins are neighbours.
/// Two that differ in the action alone contradict each other; libseccomp refuses them (EEXIST), and so
/// runc does not start the container either.
fn without_repeats(rules: Vec<Rule>, name: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::with_capacity(rules.len());
    for Rule { action, conditions, element } in rules {
        match cases.last().filter(|last| last.conditions == conditions) {
            None => cases.push(Case { action, conditions }),
            Some(twin) if twin.action == action => {}
            Some(twin) => {
                let message = format!(
                    "{name} has two rules with the same conditions and different actions: {} and {}",
                    action_name(twin.action),
                    action_name(action)
                );
                return Err(Error::new(ErrorKind::Conflict, message).field(format!("syscalls[{element}]")));
            }
        }
    }
    Ok(cases)
}

/// The profile needs a program longer than the kernel takes.
pub(super) fn too_large(instructions: usize) -> Error {
    let message = format!(
        "the profile needs at least {instructions} instructions, and the kernel accepts at most {MAX_INSTRUCTIONS}"
    );
    Error::new(ErrorKind::TooLarge, message)
}
