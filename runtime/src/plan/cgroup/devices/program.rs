//! Owns the v2 device program: the exceptions of a policy as a few eBPF instructions.
//! It may not read rules; what it is given is already one default and its exceptions.
//! `plan::cgroup::devices` calls it.
//!
//! Loading costs by conditional jump, because the verifier follows both ways of each: about 5 us, against next
//! to nothing for straight code. So exceptions with the same kind and access share those two tests, and the
//! minors of one major are one look into a bit mask.

use std::collections::BTreeMap;

use hull_sys::bpf::Insn;

use super::{Access, DEVICES_FIELD, Kind, Policy};
use crate::error::{Error, ErrorKind, Result};

/// Device numbers by major; `None` is any.
type Numbers = BTreeMap<Option<i32>, Vec<Option<i32>>>;

// Registers: the context, what is loaded from it, and one to compute in.
const CTX: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const MASK: u8 = 6;

const JA: u8 = 0x05;
const JEQ: u8 = 0x15;
const JGT: u8 = 0x25;
const JSET: u8 = 0x45;
const JNE: u8 = 0x55;

/// `struct bpf_cgroup_dev_ctx` has kind and access in the halves of its first word, then major and minor.
pub(super) fn program(policy: &Policy) -> Result<Vec<Insn>> {
    let mut code = Code::default();
    let groups = groups(policy);
    if !groups.is_empty() {
        code.load(KIND, 0);
        code.push(0xbf, ACCESS | KIND << 4, 0); // mov
        code.push(0x77, ACCESS, 16); // >>
        code.push(0x57, KIND, 0xffff); // &
        code.load(MAJOR, 4);
        code.load(MINOR, 8);
    }
    let hit = code.label();
    for ((kind, access), numbers) in &groups {
        group(&mut code, hit, *kind, Access(*access), numbers, policy.allow_by_default);
    }
    code.answer(policy.allow_by_default);
    code.here(hit);
    if !groups.is_empty() {
        code.answer(!policy.allow_by_default);
    }
    code.finish()
}

fn groups(policy: &Policy) -> BTreeMap<(Kind, u8), Numbers> {
    let mut groups: BTreeMap<(Kind, u8), Numbers> = BTreeMap::new();
    for (what, access) in &policy.exceptions {
        // Device numbers of the kernel have 12 and 20 bits: a larger one never matches.
        let number = |number: Option<u32>| number.map(i32::try_from).transpose();
        if let (Ok(major), Ok(minor)) = (number(what.major), number(what.minor)) {
            let numbers = groups.entry((what.kind, access.0)).or_default();
            numbers.entry(major).or_default().push(minor);
        }
    }
    groups
}

/// The exceptions of one kind and access. With `deny` a hit is any overlap of what is requested with what is
/// denied; else all that is requested has to be allowed by one exception, as on v1.
fn group(code: &mut Code, hit: Label, kind: Kind, access: Access, numbers: &Numbers, deny: bool) {
    let miss = code.label();
    code.jump(JNE, KIND, kind.bpf(), miss);
    if access != Access::ALL && deny {
        let overlap = code.label();
        code.jump(JSET, ACCESS, i32::from(access.0), overlap);
        code.jump(JA, 0, 0, miss);
        code.here(overlap);
    } else if access != Access::ALL {
        code.jump(JSET, ACCESS, i32::from(Access::ALL.0 & !access.0), miss);
    }
    if numbers.get(&None).is_some_and(|minors| minors.contains(&None)) {
        code.jump(JA, 0, 0, hit);
    } else {
        for (major, minors) in numbers {
            let next = code.label();
            one_major(code, hit, next, *major, minors);
            code.here(next);
        }
    }
    code.here(miss);
}

fn one_major(code: &mut Code, hit: Label, next: Label, major: Option<i32>, minors: &[Option<i32>]) {
    if minors.contains(&None) {
        return match major {
            Some(major) => code.jump(JEQ, MAJOR, major, hit),
            None => code.jump(JA, 0, 0, hit),
        };
    }
    if let Some(major) = major {
        code.jump(JNE, MAJOR, major, next);
    }
    let (masked, single): (Vec<i32>, Vec<i32>) = minors.iter().flatten().partition(|minor| **minor < 64);
    // Two minors are two jumps either way.
    let (masked, single) =
        if masked.len() > 2 { (masked, single) } else { (vec![], [masked, single].concat()) };
    for minor in single {
        code.jump(JEQ, MINOR, minor, hit);
    }
    if !masked.is_empty() {
        code.jump(JGT, MINOR, 63, next);
        code.load_wide(MASK, masked.iter().fold(0, |mask, minor| mask | 1 << minor));
        code.push(0x7f, MASK | MINOR << 4, 0); // >>
        code.jump(JSET, MASK, 1, hit);
    }
}

#[derive(Clone, Copy)]
struct Label(usize);

/// Instructions with jumps to places that are not known yet; all jumps go forward.
#[derive(Default)]
struct Code {
    program: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<usize>,
}

impl Code {
    fn push(&mut self, code: u8, regs: u8, imm: i32) {
        self.program.push(Insn { code, regs, off: 0, imm });
    }

    /// `dst = *(u32 *)(ctx + off)`.
    fn load(&mut self, dst: u8, off: i16) {
        self.program.push(Insn { code: 0x61, regs: dst | CTX << 4, off, imm: 0 });
    }

    /// `dst = value`, which takes two instructions.
    fn load_wide(&mut self, dst: u8, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.push(0x18, dst, i32::from_le_bytes([a, b, c, d]));
        self.push(0, 0, i32::from_le_bytes([e, f, g, h]));
    }

    /// `return allow`.
    fn answer(&mut self, allow: bool) {
        self.push(0xb7, 0, i32::from(allow));
        self.push(0x95, 0, 0);
    }

    fn jump(&mut self, code: u8, register: u8, value: i32, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(code, register, value);
    }

    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn here(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = self.program.len();
        }
    }

    /// Distances count from the instruction after the jump.
    fn finish(mut self) -> Result<Vec<Insn>> {
        let too_many = |_| Error::new(ErrorKind::DeviceRule, "too many device rules").field(DEVICES_FIELD);
        for (at, label) in self.jumps {
            let target = self.labels.get(label.0).copied().unwrap_or_default();
            let distance = i16::try_from(target.saturating_sub(at + 1)).map_err(too_many)?;
            if let Some(jump) = self.program.get_mut(at) {
                jump.off = distance;
            }
        }
        Ok(self.program)
    }
}
