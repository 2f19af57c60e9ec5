//! Owns an interpreter of classic BPF as seccomp runs it, for tests: the judge of what a program answers.
//! It shares no code with the compiler and reads nothing but the program and the call.
//! The unit tests and `oracle` include it by path.

/// What a filter sees: `struct seccomp_data` without the instruction pointer, which no filter here reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) nr: u32,
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        assert!(offset.is_multiple_of(4) && offset < 64, "load at {offset}");
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0,
            _ => {
                let arg = self.args[usize::try_from((offset - 16) / 8).unwrap()];
                let half = if offset.is_multiple_of(8) { arg & 0xffff_ffff } else { arg >> 32 };
                u32::try_from(half).unwrap()
            }
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// A `SECCOMP_RET_*` value.
    pub(crate) verdict: u32,
    /// Instructions run.
    pub(crate) steps: usize,
    /// Whether it looked at the system call number.
    pub(crate) saw_nr: bool,
}

/// (code, jt, jf, k), as in `struct sock_filter`.
pub(crate) type Instruction = (u16, u8, u8, u32);

/// Runs a program.
/// Panics where the kernel's checker would have refused the program.
pub(crate) fn run(program: &[Instruction], call: &Call) -> Run {
    let (mut pc, mut a, mut steps, mut saw_nr) = (0, 0_u32, 0, false);
    let mut scratch = [0_u32; 16];
    loop {
        let (code, jt, jf, k) = program[pc];
        pc += 1;
        steps += 1;
        let mut branch = |holds: bool| pc += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                a = call.word(k);
                saw_nr |= k == 0;
            }
            0x02 => scratch[usize::try_from(k).unwrap()] = a,
            0x60 => a = scratch[usize::try_from(k).unwrap()],
            0x54 => a &= k,
            0x05 => pc += usize::try_from(k).unwrap(),
            0x15 => branch(a == k),
            0x25 => branch(a > k),
            0x35 => branch(a >= k),
            0x45 => branch(a & k != 0),
            0x06 => return Run { verdict: k, steps, saw_nr },
            _ => panic!("instruction {code:#x}"),
        }
    }
}
