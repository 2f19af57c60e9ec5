#!/usr/bin/env python3
"""Writes runtime/seccomp/src/table.rs: system call names and their numbers per ABI.

Sources, all facts of the kernel's ABI:
  * the uapi headers of the five ABIs (Debian: linux-libc-dev, linux-libc-dev-arm64-cross,
    linux-libc-dev-armhf-cross), read through the C preprocessor;
  * NEWER below, for calls newer than those headers (numbers from 424 on are common to all);
  * MULTIPLEXED, the sub-call numbers of socketcall(2) and ipc(2) (linux/net.h, linux/ipc.h);
  * FOREIGN, names that only other architectures have, so that a profile naming them is not
    said to be mistyped.

Run from the top of the tree: hack/syscalls.py. The result is checked in.
"""
import os
import re
import subprocess
import textwrap

OUT = "runtime/seccomp/src/table.rs"
NATIVE = "/usr/include/x86_64-linux-gnu"
ABIS = {
    "x86_64": ([NATIVE, "/usr/include"], "asm/unistd_64.h"),
    "x32": ([NATIVE, "/usr/include"], "asm/unistd_x32.h"),
    "x86": ([NATIVE, "/usr/include"], "asm/unistd_32.h"),
    "aarch64": (["/usr/aarch64-linux-gnu/include"], "asm/unistd.h"),
    "arm": (["/usr/arm-linux-gnueabihf/include"], "asm/unistd.h"),
}
X32_BIT = 0x40000000
# x86's "64" and arm's gaps are those of arch/*/tools/syscall.tbl.
ALL = ("x86_64", "x32", "x86", "aarch64", "arm")
NEWER = [
    ("uretprobe", 335, ("x86_64",)),  # 6.11
    ("uprobe", 336, ("x86_64",)),  # 6.18
    ("cachestat", 451, ALL),  # 6.5
    ("fchmodat2", 452, ALL),  # 6.6
    ("map_shadow_stack", 453, ("x86_64", "x86", "aarch64", "arm")),  # 6.6
    ("futex_wake", 454, ALL),  # 6.7
    ("futex_wait", 455, ALL),  # 6.7
    ("futex_requeue", 456, ALL),  # 6.7
    ("statmount", 457, ALL),  # 6.8
    ("listmount", 458, ALL),  # 6.8
    ("lsm_get_self_attr", 459, ALL),  # 6.8
    ("lsm_set_self_attr", 460, ALL),  # 6.8
    ("lsm_list_modules", 461, ALL),  # 6.8
    ("mseal", 462, ALL),  # 6.10
    ("setxattrat", 463, ALL),  # 6.13
    ("getxattrat", 464, ALL),  # 6.13
    ("listxattrat", 465, ALL),  # 6.13
    ("removexattrat", 466, ALL),  # 6.13
    ("open_tree_attr", 467, ALL),  # 6.15
    ("file_getattr", 468, ALL),  # 6.17
    ("file_setattr", 469, ALL),  # 6.17
    ("listns", 470, ALL),  # 6.19
]
ARM_PRIVATE = {"breakpoint": 1, "cacheflush": 2, "usr26": 3, "usr32": 4, "set_tls": 5, "get_tls": 6}
# A second name libseccomp knows for the same call.
ALIASES = {"arm": {"arm_sync_file_range": "sync_file_range2"}}
SOCKETCALL = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom "
    "shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
).split()
IPC = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4,
    "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
    "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}
FOREIGN = """
cachectl multiplexer pciconfig_iobase pciconfig_read pciconfig_write riscv_flush_icache riscv_hwprobe rtas
s390_guarded_storage s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr s390_sthyi spu_create spu_run
subpage_prot swapcontext switch_endian sync_file_range2 syscall sysmips timerfd
""".split()


def header(dirs, name):
    """Every __NR_ macro of a header as name -> number."""
    cmd = ["cc", "-E", "-dM", "-nostdinc", "-D__ARM_EABI__", *(f"-isystem{d}" for d in dirs), "-include", name, "-x", "c", os.devnull]
    text = subprocess.run(cmd, check=True, capture_output=True, text=True).stdout
    macros = {"__X32_SYSCALL_BIT": str(X32_BIT), **dict(re.findall(r"^#define (__\w+) (.+)$", text, re.M))}

    def value(expr):
        expr = re.sub(r"__\w+", lambda m: str(value(macros[m.group(0)])), expr)
        return int(eval(expr, {"__builtins__": {}}))  # sums of integers, from our own headers

    skip = {"SYSCALL_MASK", "syscalls", "arch_specific_syscall", "OABI_SYSCALL_BASE", "SYSCALL_BASE"}
    found = {}
    for macro, expr in macros.items():
        if macro.startswith("__NR_") and macro[5:] not in skip:
            found[macro[5:]] = value(expr)
    return found


def wrapped(items):
    """The items as comma-separated source lines."""
    return textwrap.wrap(", ".join(items) + ",", 104, initial_indent="    ", subsequent_indent="    ")


def main():
    numbers = {abi: header(*where) for abi, where in ABIS.items()}
    for name, nr, abis in NEWER:
        for abi in abis:
            numbers[abi][name] = nr | (X32_BIT if abi == "x32" else 0)
    for name, nr in ARM_PRIVATE.items():
        numbers["arm"][name] = 0xF0000 + nr
    for abi, pairs in ALIASES.items():
        for alias, name in pairs.items():
            numbers[abi].setdefault(alias, numbers[abi][name])

    names = set(FOREIGN) | set(SOCKETCALL) | set(IPC)
    for table in numbers.values():
        names |= set(table)
    names = sorted(names)
    index = {name: i for i, name in enumerate(names)}

    lines = [
        "//! Owns the names of system calls and their numbers on each ABI, written by hack/syscalls.py.",
        "//! It holds nothing but constants and is not edited by hand.",
        "//! Only `names` reads it.",
        "",
        "/// Every known name, in byte order; `names::NameId` is an index into it.",
        "#[rustfmt::skip]",
        "pub(super) static NAMES: &[&str] = &[",
        *wrapped(f'"{name}"' for name in names),
        "];",
    ]
    docs = {"x86_64": "x86-64", "x32": "x32, with its bit 30", "x86": "i386", "aarch64": "arm64", "arm": "arm (EABI)"}
    for abi in ALL:
        pairs = sorted((nr, index[name]) for name, nr in numbers[abi].items())
        lines += [
            "",
            f"/// {docs[abi]}: (number, index into `NAMES`), by number.",
            "#[rustfmt::skip]",
            f"pub(super) static {abi.upper()}: &[(u32, u16)] = &[",
            *wrapped(f"({nr}, {i})" for nr, i in pairs),
            "];",
        ]
    for via, calls in (("socketcall", {name: i + 1 for i, name in enumerate(SOCKETCALL)}), ("ipc", IPC)):
        lines += [
            "",
            f"/// i386: (index into `NAMES`, sub-call number of {via}(2)).",
            "#[rustfmt::skip]",
            f"pub(super) static X86_{via.upper()}: &[(u16, u32)] = &[",
            *wrapped(f"({index[name]}, {call})" for name, call in calls.items()),
            "];",
        ]
    with open(OUT, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
