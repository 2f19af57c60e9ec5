//! Owns what a system call is called and which number it has on which ABI.
//! It decides nothing and holds no state: everything here is a constant.
//! `profile` looks names up, `verdicts` walks the numbers.

use super::table;

/// A known name: an index into the sorted list of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameId(pub(super) u16);

/// How many names are known.
pub(super) const COUNT: usize = table::NAMES.len();

/// A way to enter the kernel that has its own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    /// Shares x86-64's audit architecture; its numbers have bit 30 set.
    X32,
    X86,
    Aarch64,
    Arm,
}

impl Abi {
    /// (number, name) by number; a number has more than one name now and then.
    pub(super) fn numbers(self) -> &'static [(u32, u16)] {
        match self {
            Self::X86_64 => table::X86_64,
            Self::X32 => table::X32,
            Self::X86 => table::X86,
            Self::Aarch64 => table::AARCH64,
            Self::Arm => table::ARM,
        }
    }

    /// The bits of an argument that count. x32 compares 32, as libseccomp does.
    pub(super) fn argument_mask(self) -> u64 {
        match self {
            Self::X86_64 | Self::Aarch64 => u64::MAX,
            Self::X32 | Self::X86 | Self::Arm => u32::MAX.into(),
        }
    }

    /// The calls that reach the kernel through `name`'s first argument as well: (call, value).
    pub(super) fn multiplexed(self, name: NameId) -> &'static [(u16, u32)] {
        if self != Self::X86 {
            &[]
        } else if Some(name) == SOCKETCALL {
            table::X86_SOCKETCALL
        } else if Some(name) == IPC {
            table::X86_IPC
        } else {
            &[]
        }
    }
}

/// The name of an id.
pub(super) fn name(id: NameId) -> &'static str {
    table::NAMES[usize::from(id.0)]
}

/// The id of a name, `None` when no architecture knows it.
pub(super) const fn lookup(name: &str) -> Option<NameId> {
    let mut slot = hash(name.as_bytes());
    while let Some(id) = present(INDEX[slot]) {
        if same(table::NAMES[id as usize].as_bytes(), name.as_bytes()) {
            return Some(NameId(id));
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

const SOCKETCALL: Option<NameId> = lookup("socketcall");
const IPC: Option<NameId> = lookup("ipc");

/// Slots of the hash index: a power of two, at most half full.
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;
const _: () = assert!(COUNT * 2 <= SLOTS);

/// An open-addressing hash index over the names, built by the compiler: a profile names hundreds of
/// calls, and this finds each in one or two comparisons.
static INDEX: [u16; SLOTS] = build_index();

const fn build_index() -> [u16; SLOTS] {
    let mut index = [EMPTY; SLOTS];
    let mut id: u16 = 0;
    while (id as usize) < COUNT {
        let mut slot = hash(table::NAMES[id as usize].as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = id;
        id += 1;
    }
    index
}

const fn present(entry: u16) -> Option<u16> {
    if entry == EMPTY { None } else { Some(entry) }
}

/// FNV-1a, folded to a slot.
const fn hash(bytes: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % SLOTS
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        for (id, name) in table::NAMES.iter().enumerate() {
            assert_eq!(lookup(name).map(|n| usize::from(n.0)), Some(id), "{name}");
        }
        for unknown in ["", "Read", "reads", "rea", "tuxcal", "no_such_call"] {
            assert_eq!(lookup(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn names_and_numbers_are_sorted() {
        assert!(table::NAMES.is_sorted());
        for abi in [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm] {
            assert!(abi.numbers().is_sorted(), "{abi:?}");
        }
    }

    #[test]
    fn numbers_from_424_on_are_common() {
        let number = |abi: Abi, name: &str| {
            let id = lookup(name)?;
            abi.numbers().iter().find(|(_, n)| *n == id.0).map(|(nr, _)| *nr)
        };
        for (name, nr) in [("pidfd_send_signal", 424), ("mount_setattr", 442), ("file_setattr", 469)] {
            for abi in [Abi::X86_64, Abi::X86, Abi::Aarch64, Abi::Arm] {
                assert_eq!(number(abi, name), Some(nr), "{name} on {abi:?}");
            }
            assert_eq!(number(Abi::X32, name), Some(nr | 1 << 30), "{name} on x32");
        }
    }
}
