//! Capabilities by number: from the spec's names to the kernel's bit sets. Pure; called by `plan::process`.

use oci_spec::runtime::{Capabilities, Capability};

use Capability as C;

/// Every capability in the kernel's order: the index is the number (`linux/capability.h`).
pub const ALL: [Capability; 41] = [
    C::Chown,
    C::DacOverride,
    C::DacReadSearch,
    C::Fowner,
    C::Fsetid,
    C::Kill,
    C::Setgid,
    C::Setuid,
    C::Setpcap,
    C::LinuxImmutable,
    C::NetBindService,
    C::NetBroadcast,
    C::NetAdmin,
    C::NetRaw,
    C::IpcLock,
    C::IpcOwner,
    C::SysModule,
    C::SysRawio,
    C::SysChroot,
    C::SysPtrace,
    C::SysPacct,
    C::SysAdmin,
    C::SysBoot,
    C::SysNice,
    C::SysResource,
    C::SysTime,
    C::SysTtyConfig,
    C::Mknod,
    C::Lease,
    C::AuditWrite,
    C::AuditControl,
    C::Setfcap,
    C::MacOverride,
    C::MacAdmin,
    C::Syslog,
    C::WakeAlarm,
    C::BlockSuspend,
    C::AuditRead,
    C::Perfmon,
    C::Bpf,
    C::CheckpointRestore,
];

/// Number of `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u8 = 21;
/// Number of `CAP_SYS_RESOURCE`.
pub const SYS_RESOURCE: u8 = 24;

/// The number of a capability.
fn number(capability: Capability) -> Option<usize> {
    ALL.iter().position(|known| *known == capability)
}

/// A set of the spec as a bit set.
pub fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().filter_map(|one| number(*one)).fold(0, |bits, number| bits | 1 << number)
}

/// The names in a bit set, in the kernel's order.
pub fn names(bits: u64) -> Vec<String> {
    (0..64_usize)
        .filter(|number| bits >> number & 1 == 1)
        .map(|number| match ALL.get(number) {
            Some(known) => format!("CAP_{known}"),
            None => format!("capability {number}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_words() {
        let all: Vec<String> = ALL.iter().map(|one| format!("CAP_{one}")).collect();
        assert_eq!(all, crate::spec::words::CAPABILITIES);
    }
}
