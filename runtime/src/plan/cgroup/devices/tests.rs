//! The rules, and the program run by an interpreter of the few instructions it is made of.

use hull_sys::bpf::Insn;

use super::program::program;
use super::*;

fn policy_of(rules: &str) -> Result<Policy> {
    let linux: Linux = serde_json::from_str(&format!(r#"{{"resources": {{"devices": {rules}}}}}"#)).unwrap();
    policy(Some(&linux))
}

/// What the program answers for an access of a device.
fn run(program: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_u64; 11];
    let mut at = 0_usize;
    loop {
        let Insn { code, regs, off, imm } = program[at];
        let (dst, src) = (usize::from(regs & 15), usize::from(regs >> 4));
        let value = u64::from(imm.cast_unsigned());
        let mut skip = 0;
        let jump = match code {
            0x18 => {
                registers[dst] = value | u64::from(program[at + 1].imm.cast_unsigned()) << 32;
                skip = 1;
                false
            }
            0x61 => {
                assert_eq!(src, 1);
                registers[dst] = context[usize::try_from(off).unwrap() / 4].into();
                false
            }
            0xbf => {
                registers[dst] = registers[src];
                false
            }
            0xb7 => {
                registers[dst] = value;
                false
            }
            0x77 => {
                registers[dst] >>= imm;
                false
            }
            0x7f => {
                registers[dst] >>= registers[src];
                false
            }
            0x57 => {
                registers[dst] &= value;
                false
            }
            0x05 => true,
            0x15 => registers[dst] == value,
            0x25 => registers[dst] > value,
            0x45 => registers[dst] & value != 0,
            0x55 => registers[dst] != value,
            0x95 => return registers[0] != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += skip;
        at += 1 + if jump { usize::try_from(off).unwrap() } else { 0 };
    }
}

/// What v1's kernel answers (`__devcgroup_check_permission`).
fn v1_answer(policy: &Policy, kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    let hit = policy.exceptions.iter().any(|(what, held)| {
        let same = what.kind == kind
            && what.major.is_none_or(|m| m == major)
            && what.minor.is_none_or(|m| m == minor);
        let access = if policy.allow_by_default { access & held.0 != 0 } else { access & !held.0 == 0 };
        same && access
    });
    policy.allow_by_default != hit
}

fn compare(rules: &str) {
    let policy = policy_of(rules).unwrap();
    let program = program(&policy).unwrap();
    for kind in [Kind::Block, Kind::Char] {
        for access in 1..=7 {
            for major in [0, 1, 5, 8, 9, 10, 136, 4095] {
                for minor in [0, 1, 2, 3, 5, 8, 9, 11, 63, 64, 67, 200] {
                    let got = run(&program, kind.bpf().cast_unsigned(), access.into(), major, minor);
                    let want = v1_answer(&policy, kind, access, major, minor);
                    assert_eq!(got, want, "{rules}: {kind:?} {access} {major}:{minor}");
                }
            }
        }
    }
}

#[test]
fn program_answers_what_v1_answers() {
    compare("[]");
    compare(r#"[{"allow": false, "access": "rwm"}]"#);
    compare(r#"[{"allow": true, "access": "rwm"}]"#);
    compare(
        r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "access": "r"},
            {"allow": true, "type": "b", "minor": 9, "access": "rwm"},
            {"allow": true, "type": "c", "access": "r"}]"#,
    );
    compare(
        r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 63, "access": "rw"},
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
            {"allow": true, "type": "c", "major": 10, "minor": 3, "access": "rw"},
            {"allow": true, "type": "c", "major": 10, "minor": 11, "access": "rw"},
            {"allow": true, "type": "b", "major": 5000000000, "minor": 11, "access": "rw"}]"#
            .replace("5000000000", "4294967295")
            .as_str(),
    );
    compare(
        r#"[{"allow": true, "type": "a", "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"},
            {"allow": false, "type": "b", "major": 9, "access": "rwm"}]"#,
    );
}

#[test]
fn usual_list_is_small() {
    let policy = policy_of(r#"[{"allow": false, "access": "rwm"}]"#).unwrap();
    assert_eq!(
        policy.text(),
        [
            "deny *",
            "allow b *:* m",
            "allow c *:* m",
            "allow c 1:3 rwm",
            "allow c 1:5 rwm",
            "allow c 1:7 rwm",
            "allow c 1:8 rwm",
            "allow c 1:9 rwm",
            "allow c 5:0 rwm",
            "allow c 5:2 rwm",
            "allow c 136:* rwm",
        ]
    );
    let program_of = |policy| program(policy).unwrap();
    let jumps = |insn: &&Insn| insn.code & 7 == 5 && !matches!(insn.code, 0x05 | 0x95);
    assert_eq!(program_of(&policy).iter().filter(jumps).count(), 12);
    let all = policy_of(r#"[{"allow": true, "access": "rwm"}]"#).unwrap();
    assert_eq!(program(&all).unwrap().len(), 2);
}

#[test]
fn later_rule_for_everything_voids_the_ones_before() {
    let rules = r#"[{"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
                    {"allow": false, "type": "a", "access": "rwm"}]"#;
    assert!(!policy_of(rules).unwrap().text().iter().any(|rule| rule.contains("10:200")));
}

#[test]
fn allowed_and_denied_again_is_denied() {
    let rules = r#"[{"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
                    {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "w"}]"#;
    assert!(policy_of(rules).unwrap().text().contains(&"allow c 10:200 rm".to_owned()));
}

#[test]
fn hole_in_a_wildcard_is_refused() {
    let rules = r#"[{"allow": true, "type": "c", "major": 10, "access": "rwm"},
                    {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "w"}]"#;
    let error = policy_of(rules).unwrap_err();
    assert_eq!(
        error.to_string(),
        "linux.resources.devices[1]: requested rule \"c 10:200 w\" not supported by devices cgroup: \
         cannot punch a hole in the wildcard rule \"c 10:* rwm\""
    );
}

#[test]
fn bad_rules_name_their_field() {
    let message = |rules| policy_of(rules).unwrap_err().to_string();
    assert_eq!(
        message(r#"[{"allow": true, "type": "c"}]"#),
        "linux.resources.devices[0].access: device access cannot be empty"
    );
    assert_eq!(
        message(r#"[{"allow": true, "type": "p", "access": "r"}]"#),
        "linux.resources.devices[0].type: invalid cgroup device type \"p\""
    );
    assert!(message(r#"[{"allow": true, "type": "c", "access": "rx"}]"#).contains("invalid device access"));
    assert!(
        message(r#"[{"allow": true, "type": "c", "major": -7, "access": "r"}]"#).contains("out of range")
    );
}

#[test]
fn device_of_the_config_replaces_the_default_at_its_path() {
    let json = r#"{"devices": [{"path": "/dev/null", "type": "c", "major": 42, "minor": 1}]}"#;
    let linux: Linux = serde_json::from_str(json).unwrap();
    let text = policy(Some(&linux)).unwrap().text();
    assert!(!text.contains(&"allow c 1:3 rwm".to_owned()) && text.contains(&"allow c 1:5 rwm".to_owned()));
}
