//! Owns classic BPF as seccomp(2) takes it: the instruction, its text and byte forms, and an assembler.
//! It knows no profile, no system call names and no architectures beyond printing them.
//! `codegen` assembles with it; `apply` and `hull plan` take the finished instructions.

use std::fmt;

pub(super) use libc::sock_filter as SockFilter;

use crate::error::{Error, ErrorKind, Result};

/// `BPF_MAXINSNS`: the kernel refuses longer programs.
pub const MAX_INSTRUCTIONS: usize = 4096;

// linux/bpf_common.h; only what a seccomp filter may use and this compiler emits.
pub(super) const LD_ABS: u16 = 0x20;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const JSET: u16 = 0x45;
pub(super) const AND: u16 = 0x54;
pub(super) const RET: u16 = 0x06;

// Offsets in struct seccomp_data; both supported machines are little-endian.
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// The offset of the low 32 bits of an argument.
pub(super) fn low(arg: u8) -> u32 {
    ARGS + 8 * u32::from(arg)
}

/// The offset of the high 32 bits of an argument.
pub(super) fn high(arg: u8) -> u32 {
    low(arg) + 4
}

const INSTRUCTION_BYTES: usize = size_of::<SockFilter>();

/// The program as the kernel's bytes, native endian, for a file or a memfd.
pub fn to_bytes(program: &[SockFilter]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION_BYTES);
    for SockFilter { code, jt, jf, k } in program {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[*jt, *jf]);
        bytes.extend_from_slice(&k.to_ne_bytes());
    }
    bytes
}

/// The program back from [`to_bytes`] (or from `seccomp_export_bpf(3)`).
///
/// Refuses what the kernel would for its length alone; the instructions are the kernel's to check.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<SockFilter>> {
    let (chunks, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
    if !rest.is_empty() || chunks.is_empty() || chunks.len() > MAX_INSTRUCTIONS {
        let len = bytes.len();
        return Err(Error::new(
            ErrorKind::Bytes,
            format!(
                "invalid seccomp program of {len} bytes: must be 1 to {MAX_INSTRUCTIONS} instructions of 8 bytes"
            ),
        ));
    }
    Ok(chunks
        .iter()
        .map(|&[a, b, jt, jf, k0, k1, k2, k3]| SockFilter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect())
}

/// A place in a program under assembly, counted from the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The farthest `jt` and `jf` reach.
const REACH: usize = 255;

/// Assembles a program from its end to its beginning, so that every target of a jump is known when the
/// jump is written. What is out of reach gets a nearer copy (a return) or a trampoline (all else).
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<SockFilter>,
    /// The nearest return of each value.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The program from first instruction to last.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Label(self.reversed.len())
    }

    /// How many instructions the next one would skip to get there.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - to.0
    }

    /// Whether `count` more instructions leave `to` within reach of a conditional jump.
    fn reaches(&self, to: Label, count: usize) -> bool {
        self.distance(to) + count <= REACH
    }

    /// `return value`, shared with an earlier one within reach.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        // The slack lets a caller write a few instructions before it jumps here.
        const SLACK: usize = 8;
        let known = self.returns.iter().position(|(v, _)| *v == value);
        if let Some((_, label)) = known.and_then(|i| self.returns.get(i))
            && self.reaches(*label, SLACK)
        {
            return *label;
        }
        let label = self.push(RET, 0, 0, value);
        match known.and_then(|i| self.returns.get_mut(i)) {
            Some(nearest) => nearest.1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// A label for `to` that a conditional jump reaches when `count` more instructions come between.
    fn near(&mut self, to: Label, count: usize) -> Label {
        if self.reaches(to, count) {
            return to;
        }
        match self.reversed.get(to.0.wrapping_sub(1)) {
            Some(SockFilter { code: RET, k, .. }) => self.ret(*k),
            _ => self.goto(to),
        }
    }

    fn goto(&mut self, to: Label) -> Label {
        // Programs longer than u32 do not come to be: `plan` bounds the rules.
        let skip = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
        self.push(JA, 0, 0, skip)
    }

    /// An instruction that goes on to the next one, which shall be `next`.
    fn then(&mut self, code: u16, k: u32, next: Label) -> Label {
        if self.distance(next) != 0 {
            self.goto(next);
        }
        self.push(code, 0, 0, k)
    }

    /// `A = word at offset of seccomp_data`, then `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.then(LD_ABS, offset, next)
    }

    /// `A &= mask`, then `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.then(AND, mask, next)
    }

    /// `if A <code> k goto yes else goto no`; `code` is one of the `J*` tests.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        // `near` bounds both by REACH, which is u8's.
        let skip = |to: Label| u8::try_from(self.distance(to)).unwrap_or(u8::MAX);
        let (jt, jf) = (skip(yes), skip(no));
        self.push(code, jt, jf, k)
    }
}

/// What a program answers for system call `number` of `arch` with all arguments 0; `None` for a program that the
/// kernel would not take.
pub(super) fn verdict(program: &[SockFilter], arch: u32, number: u32) -> Option<u32> {
    let (mut at, mut a) = (0_usize, 0_u32);
    loop {
        let SockFilter { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let holds = match code {
            RET => return Some(k),
            LD_ABS => {
                a = match k {
                    NR => number,
                    ARCH => arch,
                    _ => 0,
                };
                continue;
            }
            AND => {
                a &= k;
                continue;
            }
            JA => {
                at += usize::try_from(k).ok()?;
                continue;
            }
            JEQ => a == k,
            JGT => a > k,
            JGE => a >= k,
            JSET => a & k != 0,
            _ => return None,
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// The text of a seccomp return value: `ALLOW`, `ERRNO(38)`.
pub fn action_name(value: u32) -> String {
    let (action, data) = (value & libc::SECCOMP_RET_ACTION_FULL, value & libc::SECCOMP_RET_DATA);
    let name = match action {
        libc::SECCOMP_RET_KILL_PROCESS => "KILL_PROCESS",
        libc::SECCOMP_RET_KILL_THREAD => "KILL",
        libc::SECCOMP_RET_TRAP => "TRAP",
        libc::SECCOMP_RET_ERRNO => return format!("ERRNO({data})"),
        libc::SECCOMP_RET_USER_NOTIF => "NOTIFY",
        libc::SECCOMP_RET_TRACE => return format!("TRACE({data})"),
        libc::SECCOMP_RET_LOG => "LOG",
        libc::SECCOMP_RET_ALLOW => "ALLOW",
        _ => return format!("{value:#x}"),
    };
    name.to_owned()
}

/// A program as text, one instruction a line, jumps with their targets' line numbers.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a>(pub &'a [SockFilter]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, SockFilter { code, jt, jf, k }) in self.0.iter().enumerate() {
            let (yes, no) = (line + 1 + usize::from(*jt), line + 1 + usize::from(*jf));
            let test = |name: &str| format!("{name} {k:#x} {yes} {no}");
            let text = match *code {
                LD_ABS => format!("ld {}", word_name(*k)),
                AND => format!("and {k:#x}"),
                RET => format!("ret {}", action_name(*k)),
                JA => format!("ja {}", u64::from(*k) + line as u64 + 1),
                JEQ => test("jeq"),
                JGT => test("jgt"),
                JGE => test("jge"),
                JSET => test("jset"),
                _ => format!("{code:#x} {jt} {jf} {k:#x}"),
            };
            writeln!(f, "{line:4}: {text}")?;
        }
        Ok(())
    }
}

/// What stands at an offset of `struct seccomp_data`.
fn word_name(offset: u32) -> String {
    match offset {
        NR => "nr".to_owned(),
        ARCH => "arch".to_owned(),
        ARGS..64 => {
            let half = if offset.is_multiple_of(8) { "low" } else { "high" };
            format!("arg{}.{half}", (offset - ARGS) / 8)
        }
        _ => format!("[{offset}]"),
    }
}
