//! Owns the unit tests of the seccomp compiler: verdicts by interpreter, errors and listings by text.
//! It touches no kernel and no library; `tests/oracle.rs` has the comparison with libseccomp.
//! `cargo test` runs it.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::*;

#[path = "../tests/common/bpf_machine.rs"]
mod bpf_machine;

use bpf_machine::{Call, Run, run};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

/// A profile with rules and `SCMP_ACT_ERRNO` for the rest, on x86-64.
fn rules(syscalls: Value) -> LinuxSeccomp {
    profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls}))
}

fn compiled(seccomp: &LinuxSeccomp) -> Compiled {
    compile(seccomp, Native::X86_64, KNOWN_FLAGS).unwrap()
}

fn refused(seccomp: &LinuxSeccomp) -> (ErrorKind, String) {
    let error = compile(seccomp, Native::X86_64, KNOWN_FLAGS).unwrap_err();
    (error.kind, error.to_string())
}

fn ask(plan: &Compiled, arch: u32, nr: u32, args: &[u64]) -> Run {
    let program: Vec<_> = plan.filter.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    let mut call = Call { nr, arch, args: [0; 6] };
    call.args[..args.len()].copy_from_slice(args);
    run(&program, &call)
}

/// The verdict on an x86-64 call.
fn verdict(plan: &Compiled, nr: u32, args: &[u64]) -> u32 {
    ask(plan, AUDIT_ARCH_X86_64, nr, args).verdict
}

fn arg(index: u32, op: &str, value: u64, value_two: u64) -> Value {
    json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": value_two})
}

#[test]
fn a_small_profile_reads_as_written() {
    let plan = compiled(&rules(json!([
        {"names": ["read", "write", "close", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "EQ", 0, 0)]},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "EQ", 8, 0)]},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "MASKED_EQ", 0x7e02_0000, 0)]},
    ])));
    assert_eq!(plan.summary(), "seccomp: 1 architecture, 6 names, 23 instructions, default ERRNO(1)");
    assert_eq!(Listing(&plan.filter.program).to_string(), LISTING);
}

/// Read with the profile above: numbers by halves, `personality` and `clone` where their numbers are, and
/// what is above `personality` (135), x32 and -1 at the end.
const LISTING: &str = "   0: ld arch
   1: jeq 0xc000003e 2 22
   2: ld nr
   3: jge 0x87 9 4
   4: jge 0x4 6 5
   5: jeq 0x2 21 16
   6: jeq 0x38 7 21
   7: ld arg0.low
   8: jset 0x7e020000 21 16
   9: jge 0x80000000 18 10
  10: jge 0x88 17 11
  11: ld arg0.high
  12: jeq 0x0 13 21
  13: ld arg0.low
  14: jeq 0x8 16 15
  15: jeq 0x0 16 21
  16: ret ALLOW
  17: jge 0x40000000 22 19
  18: jge 0xc0000000 20 19
  19: ret ERRNO(38)
  20: jeq 0xffffffff 21 22
  21: ret ERRNO(1)
  22: ret KILL
";

#[test]
fn all_operators_compare_64_bits() {
    const V: u64 = 0x1_0000_0005;
    for (op, value_two, matching, other) in [
        ("NE", 0, [5, 4, V + 1, 5 << 32], [V; 4]),
        ("LT", 0, [0, V - 1, 0xffff_ffff, 5], [V, V + 1, 0x2_0000_0000, u64::MAX]),
        ("LE", 0, [0, V, 0xffff_ffff, 0x1_0000_0000], [V + 1, 0x2_0000_0000, u64::MAX, 0x1_ffff_ffff]),
        ("EQ", 0, [V; 4], [5, 0x1_0000_0004, 0x3_0000_0005, 0]),
        ("GE", 0, [V, V + 1, 0x2_0000_0000, u64::MAX], [0, V - 1, 0xffff_ffff, 5]),
        ("GT", 0, [V + 1, 0x2_0000_0000, u64::MAX, 0x1_ffff_ffff], [V, 0, 0xffff_ffff, 5]),
        ("MASKED_EQ", 4, [4, 6, 0xfe, 0x2_0000_0004], [5, 0, 1, 0x1_0000_0004]),
    ] {
        let plan = compiled(&rules(json!([
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(2, op, V, value_two)]},
            {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
        ])));
        for value in matching {
            assert_eq!(verdict(&plan, 0, &[0, 0, value]), ALLOW, "{value:#x} {op}");
        }
        for value in other {
            assert_eq!(verdict(&plan, 0, &[0, 0, value]), EPERM, "{value:#x} {op}");
        }
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let plan = compiled(&rules(json!([{
        "names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [arg(3, "LT", 10, 0), arg(0, "EQ", 1, 0)],
    }])));
    assert_eq!(verdict(&plan, 1, &[1, 0, 0, 9]), ALLOW);
    assert_eq!(verdict(&plan, 1, &[1, 0, 0, 10]), EPERM);
    assert_eq!(verdict(&plan, 1, &[2, 0, 0, 9]), EPERM);
}

#[test]
fn an_argument_named_twice_makes_any_condition_enough() {
    let plan = compiled(&rules(json!([{
        "names": ["write"], "action": "SCMP_ACT_ALLOW",
        "args": [arg(0, "EQ", 1, 0), arg(1, "EQ", 7, 0), arg(0, "EQ", 2, 0)],
    }])));
    for (args, expected) in [([1, 0], ALLOW), ([2, 0], ALLOW), ([0, 7], ALLOW), ([0, 0], EPERM)] {
        assert_eq!(verdict(&plan, 1, &args), expected, "{args:?}");
    }
}

#[test]
fn a_rule_without_arguments_decides_alone() {
    let plan = compiled(&rules(json!([
        {"names": ["write"], "action": "SCMP_ACT_TRAP", "args": [arg(0, "EQ", 1, 0)]},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_LOG"},
    ])));
    assert_eq!(verdict(&plan, 1, &[1]), ALLOW);
}

#[test]
fn a_rule_that_says_the_default_is_left_out_but_its_names_are_known() {
    let plan = compiled(&rules(json!([
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "EQ", 1, 0)]},
        {"names": ["read", "mount_setattr"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ])));
    assert_eq!(verdict(&plan, 0, &[1]), ALLOW);
    assert_eq!(verdict(&plan, 442, &[]), EPERM);
    assert_eq!(verdict(&plan, 443, &[]), ENOSYS);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    for (action, newer) in [
        ("SCMP_ACT_ERRNO", ENOSYS),
        ("SCMP_ACT_KILL", ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", ENOSYS),
        ("SCMP_ACT_TRAP", ENOSYS),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
    ] {
        let plan = compiled(&profile(json!({
            "defaultAction": action,
            "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}],
        })));
        assert_eq!(verdict(&plan, 435, &[]), 0x0005_0007, "{action}");
        assert_eq!(verdict(&plan, 436, &[]), newer, "{action}");
    }
}

#[test]
fn arms_private_calls_do_not_make_a_profile_new() {
    let plan = compile(
        &profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_ARM"],
            "syscalls": [{"names": ["read", "clone3", "set_tls"], "action": "SCMP_ACT_ALLOW"}],
        })),
        Native::Aarch64,
        KNOWN_FLAGS,
    )
    .unwrap();
    let on_arm = |nr| ask(&plan, AUDIT_ARCH_ARM, nr, &[]).verdict;
    assert_eq!([3, 4, 435, 436].map(on_arm), [ALLOW, EPERM, ALLOW, ENOSYS]);
    assert_eq!([0xf_0002, 0xf_0005].map(on_arm), [EPERM, ALLOW]);
    assert_eq!([63, 436].map(|nr| ask(&plan, AUDIT_ARCH_AARCH64, nr, &[]).verdict), [ALLOW, ENOSYS]);
}

#[test]
fn an_architecture_that_is_not_listed_is_killed() {
    let plan = compiled(&profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_MIPS", "SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    })));
    assert_eq!(plan.architectures, 1);
    for arch in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, AUDIT_ARCH_AARCH64] {
        assert_eq!(ask(&plan, arch, 3, &[]).verdict, KILL);
    }
    assert_eq!(verdict(&plan, 0x4000_0000, &[]), KILL, "x32");
    assert_eq!(verdict(&plan, u32::MAX, &[]), EPERM, "a call a tracer skips");
}

#[test]
fn sockets_of_i386_go_through_socketcall_too() {
    let plan = compiled(&profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket", "shmget"], "action": "SCMP_ACT_ALLOW"}],
    })));
    let on_x86 = |nr, first| ask(&plan, AUDIT_ARCH_I386, nr, &[first]).verdict;
    assert_eq!([on_x86(359, 0), on_x86(395, 0)], [ALLOW, ALLOW]);
    assert_eq!([on_x86(102, 1), on_x86(102, 2)], [ALLOW, EPERM]);
    assert_eq!([on_x86(117, 23), on_x86(117, 24)], [ALLOW, EPERM]);
}

#[test]
fn flags_are_those_given_or_spec_allow() {
    let with = |flags: Value| {
        let mut json = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        if !flags.is_null() {
            json["flags"] = flags;
        }
        profile(json)
    };
    let flags = |json, kernel| compile(&with(json), Native::X86_64, kernel).map(|plan| plan.filter.flags);
    assert_eq!(flags(Value::Null, KNOWN_FLAGS), Ok(FLAG_SPEC_ALLOW));
    assert_eq!(flags(Value::Null, FLAG_LOG), Ok(0), "a kernel without it");
    assert_eq!(flags(json!([]), KNOWN_FLAGS), Ok(0));
    let all =
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(flags(all.clone(), KNOWN_FLAGS), Ok(FLAG_LOG | FLAG_TSYNC | FLAG_SPEC_ALLOW));
    let error = flags(all, FLAG_LOG).unwrap_err().to_string();
    assert_eq!(error, "flags[1]: the kernel does not support SECCOMP_FILTER_FLAG_TSYNC");
    let error = flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), KNOWN_FLAGS).unwrap_err();
    assert_eq!((error.kind, error.field.as_str()), (ErrorKind::Flag, "flags[0]"));
}

#[test]
fn notify_is_refused_by_name() {
    let notify = |names: Value| rules(json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]));
    assert_eq!(
        refused(&notify(json!(["read", "write"]))),
        (ErrorKind::Notify, "syscalls[0]: SCMP_ACT_NOTIFY cannot be used for the write syscall".to_owned())
    );
    assert_eq!(refused(&notify(json!(["mkdir"]))).0, ErrorKind::NotifyUnsupported);
    let (_, message) = refused(&profile(json!({"defaultAction": "SCMP_ACT_NOTIFY"})));
    assert_eq!(message, "defaultAction: SCMP_ACT_NOTIFY cannot be used as default action");
}

#[test]
fn values_out_of_range_name_their_field() {
    let cases = [
        (
            json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}]),
            "syscalls[0].errnoRet: errno 4096 is out of range for SCMP_ACT_ERRNO: at most 4095",
        ),
        (
            json!([{"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536}]),
            "syscalls[0].errnoRet: errno 65536 is out of range for SCMP_ACT_TRACE: at most 65535",
        ),
        (
            json!([
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "EQ", 0, 0), arg(6, "EQ", 0, 0)]},
            ]),
            "syscalls[1].args[1].index: a system call has no argument 6: arguments are numbered 0 to 5",
        ),
        (
            json!([{"names": ["read", ""], "action": "SCMP_ACT_ALLOW"}]),
            "syscalls[0].names[1]: an empty string is not a system call",
        ),
        (
            json!([
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "EQ", 0, 0)]},
                {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [arg(0, "EQ", 0, 0)]},
            ]),
            "syscalls[1]: read has two rules with the same conditions and different actions: \
             ALLOW and TRAP",
        ),
    ];
    for (syscalls, message) in cases {
        assert_eq!(refused(&rules(syscalls)).1, message);
    }
}

#[test]
fn what_is_ignored_is_a_warning() {
    let plan = compiled(&rules(json!([
        {"names": ["tuxedo", "read", "abacus"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["tuxedo", "s390_sthyi"], "action": "SCMP_ACT_LOG", "errnoRet": 1},
    ])));
    let warnings: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "syscalls[1].errnoRet: errno 1 has no effect with SCMP_ACT_LOG",
            "syscalls: no architecture has these system calls: abacus, tuxedo",
        ]
    );
}

#[test]
fn a_profile_larger_than_the_kernel_takes_is_refused() {
    let many: Vec<Value> = (0..1500)
        .map(|i| {
            let args = [arg(0, "GT", (i << 32) | 1, 0), arg(1, "NE", i << 33, 0)];
            json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args})
        })
        .collect();
    let (code, message) = refused(&rules(json!(many)));
    assert_eq!(code, ErrorKind::TooLarge, "{message}");
}

#[test]
fn bytes_round_trip() {
    let program = compiled(&rules(json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]))).filter.program;
    let bytes = to_bytes(&program);
    assert_eq!(bytes.len(), 8 * program.len());
    assert_eq!(from_bytes(&bytes), Ok(program));
    assert_eq!(from_bytes(&bytes[1..]).unwrap_err().kind, ErrorKind::Bytes);
    assert_eq!(from_bytes(&[]).unwrap_err().kind, ErrorKind::Bytes);
    assert_eq!(from_bytes(&vec![0; 8 * (MAX_INSTRUCTIONS + 1)]).unwrap_err().kind, ErrorKind::Bytes);
}

#[test]
fn dockers_profile_stays_small_and_shallow() {
    let json = include_str!("../tests/data/seccomp-docker-20.10.json");
    let plan = compiled(&serde_json::from_str(json).unwrap());
    assert_eq!(plan.warnings, []);
    assert!(plan.filter.program.len() <= 280, "{}", plan.summary());
    for nr in 0..450 {
        let run = ask(&plan, AUDIT_ARCH_X86_64, nr, &[8]);
        assert!(run.steps <= 18, "{run:?} for call {nr}");
    }
}
