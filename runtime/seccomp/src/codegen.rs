//! Owns the shape of the program: a range tree over the numbers of each machine, argument checks as leaves.
//! It decides no verdict: what it writes answers exactly as the ranges and checks say.
//! `plan` calls it with the machines in the order they are to be asked.

use oci_spec::runtime::LinuxSeccompOperator as Op;

use super::bpf::{self, ARCH, Assembler, JEQ, JGE, JGT, JSET, Label, NR, SockFilter};
use super::profile::Condition;
use super::verdicts::{Case, Check, Range, Ranges, Verdict};

/// A machine's audit architecture and what happens to its calls.
pub(super) type Machine = (u32, Ranges);

/// Writes the program: which machine, which number, which arguments. A machine that is not listed is
/// killed (the thread), libseccomp's answer, which neither runc nor crun changes.
pub(super) fn generate(machines: &[Machine], checks: &[Check], default: u32) -> Vec<SockFilter> {
    let mut code = Codegen { asm: Assembler::default(), checks, written: vec![None; checks.len()], default };
    let mut next = code.asm.ret(libc::SECCOMP_RET_KILL_THREAD);
    // From the end to the beginning: the first machine comes out first.
    for (arch, ranges) in machines.iter().rev() {
        let tree = code.tree(ranges.as_slice(), u32::MAX);
        let numbers = code.asm.load(NR, tree);
        next = code.asm.branch(JEQ, *arch, numbers, next);
    }
    code.asm.load(ARCH, next);
    code.asm.finish()
}

struct Codegen<'a> {
    asm: Assembler,
    checks: &'a [Check],
    /// The nearest copy of each check.
    written: Vec<Option<Label>>,
    default: u32,
}

/// At most so many single numbers are told apart one after the other before a tree is split: each costs
/// one instruction this way and two as a range of its own.
const LINEAR: usize = 3;

impl Codegen<'_> {
    /// Code for `A` (a number known to be within `ranges`, which end at `last`).
    fn tree(&mut self, ranges: &[Range], last: u32) -> Label {
        if let Some(base) = linear(ranges, last) {
            return self.chain(ranges, base);
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let [middle, ..] = right else { return self.asm.ret(self.default) };
        let above = self.tree(right, last);
        let below = self.tree(left, middle.first - 1);
        self.asm.branch(JGE, middle.first, above, below)
    }

    /// Tells single numbers apart from `base`, which all others have.
    fn chain(&mut self, ranges: &[Range], base: Verdict) -> Label {
        // Leaves first: between the tests nothing may stand.
        let mut otherwise = self.leaf(base);
        let mut singles = [(0, otherwise); LINEAR];
        let mut count = 0;
        for (slot, range) in singles.iter_mut().zip(ranges.iter().rev().filter(|r| r.verdict != base)) {
            *slot = (range.first, self.leaf(range.verdict));
            count += 1;
        }
        for (nr, leaf) in &singles[..count] {
            otherwise = self.asm.branch(JEQ, *nr, *leaf, otherwise);
        }
        otherwise
    }

    fn leaf(&mut self, verdict: Verdict) -> Label {
        match verdict {
            Verdict::Return(value) => self.asm.ret(value),
            Verdict::Check(index) => {
                if let Some(label) = self.written[index] {
                    // Far or near: a trampoline is shorter than a copy.
                    return label;
                }
                let label = self.check(&self.checks[index]);
                self.written[index] = Some(label);
                label
            }
        }
    }

    /// The cases of a check, one falling through to the next; neighbours that look at the same words
    /// share the loads.
    fn check(&mut self, check: &Check) -> Label {
        let mut next = self.asm.ret(self.default);
        let cases: Vec<(&Case, Shape)> =
            check.cases.iter().map(|case| (case, Shape::of(case, check.argument_mask))).collect();
        for group in cases.chunk_by(|a, b| a.1.shares_loads(&b.1)).rev() {
            next = match group {
                [(_, Shape::Word(word)), ..] => self.words(group, word.offset, next),
                [(_, Shape::Equal { low, high }), ..] => {
                    let equal = self.words(group, low.offset, next);
                    let compare = self.asm.branch(JEQ, high.value, equal, next);
                    self.asm.load(high.offset, compare)
                }
                [(case, Shape::Several), ..] => self.several(case, check.argument_mask, next),
                [] => next,
            };
        }
        next
    }

    /// Tests one word against case after case.
    fn words(&mut self, group: &[(&Case, Shape)], offset: u32, next: Label) -> Label {
        let mut otherwise = next;
        for (i, (case, shape)) in group.iter().enumerate().rev() {
            let (Shape::Word(word) | Shape::Equal { low: word, .. }) = shape else { continue };
            if word.needs_and() && i + 1 < group.len() {
                otherwise = self.asm.load(offset, otherwise);
            }
            let matched = self.asm.ret(case.action);
            otherwise = self.word(word, matched, otherwise);
        }
        self.asm.load(offset, otherwise)
    }

    /// A case by itself: all its conditions, one after the other.
    fn several(&mut self, case: &Case, argument_mask: u64, no: Label) -> Label {
        let mut yes = self.asm.ret(case.action);
        for condition in case.conditions.iter().rev() {
            yes = match Word::only(condition, argument_mask) {
                Some(word) => self.load_and_test(&word, yes, no),
                None => self.wide(condition, yes, no),
            };
        }
        yes
    }

    /// A comparison of 64 bits by their halves.
    fn wide(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let (low, high) = (Word::low(condition), Word::high(condition));
        match condition.op {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => {
                let low = self.load_and_test(&low, yes, no);
                self.load_and_test(&high, low, no)
            }
            Op::ScmpCmpNe => {
                let low = self.load_and_test(&low, yes, no);
                self.load_and_test(&high, yes, low)
            }
            Op::ScmpCmpGt | Op::ScmpCmpGe => self.greater(&low, &high, yes, no),
            Op::ScmpCmpLe | Op::ScmpCmpLt => self.greater(&low, &high, no, yes),
        }
    }

    /// Greater by the high half, or equal there and decided by the low half, whose test this is: the
    /// operator's own, or the one it negates with `yes` and `no` exchanged.
    fn greater(&mut self, low: &Word, high: &Word, yes: Label, no: Label) -> Label {
        let code = if matches!(low.op, Op::ScmpCmpGt | Op::ScmpCmpLe) { JGT } else { JGE };
        let test = self.asm.branch(code, low.value, yes, no);
        let low = self.asm.load(low.offset, test);
        let high_test = if high.value == 0 {
            self.asm.branch(JEQ, 0, low, yes)
        } else {
            let equal = self.asm.branch(JEQ, high.value, low, no);
            self.asm.branch(JGT, high.value, yes, equal)
        };
        self.asm.load(high.offset, high_test)
    }

    fn load_and_test(&mut self, word: &Word, yes: Label, no: Label) -> Label {
        let test = self.word(word, yes, no);
        self.asm.load(word.offset, test)
    }

    /// Tests `A`, which holds the word; only a mask of several bits changes it.
    fn word(&mut self, word: &Word, yes: Label, no: Label) -> Label {
        let Word { value, mask, .. } = *word;
        let asm = &mut self.asm;
        match word.op {
            Op::ScmpCmpEq => asm.branch(JEQ, value, yes, no),
            Op::ScmpCmpNe => asm.branch(JEQ, value, no, yes),
            Op::ScmpCmpGt => asm.branch(JGT, value, yes, no),
            Op::ScmpCmpLe => asm.branch(JGT, value, no, yes),
            Op::ScmpCmpGe => asm.branch(JGE, value, yes, no),
            Op::ScmpCmpLt => asm.branch(JGE, value, no, yes),
            Op::ScmpCmpMaskedEq if mask == u32::MAX => asm.branch(JEQ, value, yes, no),
            Op::ScmpCmpMaskedEq if value == 0 => asm.branch(JSET, mask, no, yes),
            Op::ScmpCmpMaskedEq if mask.is_power_of_two() => asm.branch(JSET, mask, yes, no),
            Op::ScmpCmpMaskedEq => {
                let test = asm.branch(JEQ, value, yes, no);
                asm.and(mask, test)
            }
        }
    }
}

/// The verdict of all ranges but at most [`LINEAR`] single numbers, if there is one.
fn linear(ranges: &[Range], last: u32) -> Option<Verdict> {
    if ranges.len() > 2 * LINEAR + 1 {
        return None;
    }
    let ends = ranges.iter().skip(1).map(|next| next.first - 1).chain([last]);
    let single = |(range, end): &(&Range, u32)| range.first == *end;
    let base = ranges
        .iter()
        .zip(ends.clone())
        .find(|r| !single(r))
        .map_or_else(|| ranges.first().map(|range| range.verdict), |(range, _)| Some(range.verdict))?;
    let mut others = ranges.iter().zip(ends).filter(|(range, _)| range.verdict != base);
    (others.clone().count() <= LINEAR && others.all(|r| single(&r))).then_some(base)
}

/// Half of an argument and what it is compared with.
#[derive(Clone, Copy, Debug)]
struct Word {
    offset: u32,
    op: Op,
    value: u32,
    mask: u32,
}

impl Word {
    fn low(condition: &Condition) -> Self {
        let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let Condition { arg, op, value, mask } = *condition;
        Self { offset: bpf::low(arg), op, value: half(value), mask: half(mask) }
    }

    fn high(condition: &Condition) -> Self {
        let half = |value: u64| u32::try_from(value >> 32).unwrap_or(u32::MAX);
        let Condition { arg, op, value, mask } = *condition;
        Self { offset: bpf::high(arg), op, value: half(value), mask: half(mask) }
    }

    /// The one half that decides, if one does.
    fn only(condition: &Condition, argument_mask: u64) -> Option<Self> {
        let (low, high) = (Self::low(condition), Self::high(condition));
        if argument_mask == u64::from(u32::MAX) || high.mask == 0 {
            Some(low)
        } else {
            (low.mask == 0).then_some(high)
        }
    }

    /// Whether the test destroys `A`; see [`Codegen::word`].
    fn needs_and(&self) -> bool {
        self.op == Op::ScmpCmpMaskedEq
            && self.mask != u32::MAX
            && self.value != 0
            && !self.mask.is_power_of_two()
    }
}

/// What a case looks at.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One word.
    Word(Word),
    /// All 64 bits of one argument, for equality.
    Equal { low: Word, high: Word },
    /// Anything else.
    Several,
}

impl Shape {
    fn of(case: &Case, argument_mask: u64) -> Self {
        let [condition] = case.conditions.as_slice() else { return Self::Several };
        match Word::only(condition, argument_mask) {
            Some(word) => Self::Word(word),
            None if condition.op == Op::ScmpCmpEq => {
                Self::Equal { low: Word::low(condition), high: Word::high(condition) }
            }
            None => Self::Several,
        }
    }

    fn shares_loads(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Word(a), Self::Word(b)) => a.offset == b.offset,
            (Self::Equal { high: a, .. }, Self::Equal { high: b, .. }) => {
                (a.offset, a.value) == (b.offset, b.value)
            }
            _ => false,
        }
    }
}
