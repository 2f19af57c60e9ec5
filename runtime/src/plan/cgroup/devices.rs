//! Owns the device rules: the list of the spec reduced to one default and its exceptions, as v1 writes or as a v2 program.
//! It may not load or attach anything; the program is plain instructions.
//! `plan::cgroup` calls it once, after the limits.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType};

use super::limits::{Limits, Place};
use super::{CgroupRequest, Denied, DeviceProgram, Version};
use crate::error::{Error, ErrorKind, Field, Result};

mod program;

const DEVICES: &str = "linux.resources.devices";
const DEVICES_FIELD: Field = Field::named(DEVICES);

/// Path where there is one, kind, major, minor, access.
type DefaultDevice = (Option<&'static str>, Kind, Option<u32>, Option<u32>, Access);

/// What every container may use, after the rules of the spec, as runc has it: making any node, the devices
/// of the spec's default list, and pseudo-terminals. Not `5:1`: `/dev/console` is a pty slave in a
/// container, and with mknod the real one is the host's console. A device that `linux.devices` puts at
/// the same path loses its line here.
const DEFAULTS: [DefaultDevice; 10] = [
    (None, Kind::Char, None, None, Access::MKNOD),
    (None, Kind::Block, None, None, Access::MKNOD),
    (Some("/dev/null"), Kind::Char, Some(1), Some(3), Access::ALL),
    (Some("/dev/random"), Kind::Char, Some(1), Some(8), Access::ALL),
    (Some("/dev/full"), Kind::Char, Some(1), Some(7), Access::ALL),
    (Some("/dev/tty"), Kind::Char, Some(5), Some(0), Access::ALL),
    (Some("/dev/zero"), Kind::Char, Some(1), Some(5), Access::ALL),
    (Some("/dev/urandom"), Kind::Char, Some(1), Some(9), Access::ALL),
    (None, Kind::Char, Some(136), None, Access::ALL),
    (None, Kind::Char, Some(5), Some(2), Access::ALL),
];

/// `config-linux.md#allowed-device-list`.
pub(super) fn plan(
    linux: Option<&Linux>,
    limits: &mut Limits,
    request: &CgroupRequest<'_>,
) -> Result<Option<DeviceProgram>> {
    let policy = policy(linux)?;
    if request.in_userns {
        return Ok(None);
    }
    let place = limits.find("devices", "devices").or_else(|| limits.unified());
    let Some(place) = place else {
        let text = "no devices cgroup is mounted: device rules cannot be enforced";
        let error = Error::new(ErrorKind::CgroupDevicesMissing, text).field(DEVICES_FIELD);
        return if request.rootless { Ok(None) } else { Err(error) };
    };
    match place.version {
        Version::V1 => {
            v1_writes(&policy, place, limits, request.rootless);
            Ok(None)
        }
        Version::V2 => {
            if let Some(dir) = limits.dirs.get_mut(place.dir) {
                dir.required = true;
            }
            let denied = if request.rootless { Denied::Skip } else { Denied::Fail };
            Ok(Some(DeviceProgram {
                dir: place.dir,
                program: program::program(&policy)?,
                rules: policy.text(),
                denied,
            }))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Self::Block => 'b',
            Self::Char => 'c',
        }
    }

    /// `BPF_DEVCG_DEV_*`.
    fn bpf(self) -> i32 {
        match self {
            Self::Block => 1,
            Self::Char => 2,
        }
    }
}

/// A set of mknod, read and write, with the bits of `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    const MKNOD: Self = Self(1);
    const ALL: Self = Self(7);
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    fn parse(text: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        let bits = text.chars().map(bit).try_fold(0, |all, bit| Some(all | bit?))?;
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Self::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0);
        f.write_str(&set.map(|(letter, _)| *letter).collect::<String>())
    }
}

/// What a rule matches; `None` is `*`. Ordered as the rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    major: Option<u32>,
    minor: Option<u32>,
    kind: Kind,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{}", self.kind.letter(), number(self.major), number(self.minor))
    }
}

/// What v1's device cgroup can hold: a default, and exceptions to it. v2 is given no more than that, so
/// that one config means the same on both.
#[derive(Debug, Default)]
pub(super) struct Policy {
    allow_by_default: bool,
    exceptions: BTreeMap<Match, Access>,
}

impl Policy {
    /// A rule for every device: all rules before it are void.
    fn reset(&mut self, allow: bool) {
        *self = Self { allow_by_default: allow, exceptions: BTreeMap::new() };
    }

    fn rule(&mut self, allow: bool, what: Match, access: Access) -> Result<(), String> {
        if allow == self.allow_by_default {
            return self.remove(what, access);
        }
        let now = self.exceptions.entry(what).or_insert(Access(0));
        now.0 |= access.0;
        Ok(())
    }

    /// Takes an exception back. The kernel would ignore, in silence, a hole in a wider exception.
    fn remove(&mut self, what: Match, access: Access) -> Result<(), String> {
        let wider = [
            Match { major: None, ..what },
            Match { minor: None, ..what },
            Match { major: None, minor: None, ..what },
        ];
        for wide in wider.iter().filter(|wide| **wide != what) {
            if let Some(held) = self.exceptions.get(wide).filter(|held| held.0 & access.0 != 0) {
                return Err(format!("cannot punch a hole in the wildcard rule \"{wide} {held}\""));
            }
        }
        if let Some(held) = self.exceptions.get_mut(&what) {
            held.0 &= !access.0;
            if held.0 == 0 {
                self.exceptions.remove(&what);
            }
        }
        Ok(())
    }

    fn text(&self) -> Vec<String> {
        let word = |allow| if allow { "allow" } else { "deny" };
        let first = format!("{} *", word(self.allow_by_default));
        let rest = self.exceptions.iter();
        let rest = rest.map(|(what, access)| format!("{} {what} {access}", word(!self.allow_by_default)));
        std::iter::once(first).chain(rest).collect()
    }
}

fn policy(linux: Option<&Linux>) -> Result<Policy> {
    // Without any rule everything is denied, as in runc.
    let mut policy = Policy::default();
    let rules = linux.and_then(|linux| linux.resources().as_ref()).and_then(|r| r.devices().as_ref());
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        add(&mut policy, rule, &Field::item(DEVICES, index))?;
    }
    let placed: Vec<_> = linux.iter().flat_map(|linux| linux.devices().iter().flatten()).collect();
    for (path, kind, major, minor, access) in DEFAULTS {
        let replaced = path.is_some_and(|path| placed.iter().any(|d| d.path().as_os_str() == path));
        if !replaced {
            let what = Match { major, minor, kind };
            policy.rule(true, what, access).map_err(|why| unsupported(what, access, &why, DEVICES_FIELD))?;
        }
    }
    Ok(policy)
}

fn add(policy: &mut Policy, rule: &LinuxDeviceCgroup, field: &Field) -> Result<()> {
    let refuse = |text: String, name| Error::new(ErrorKind::DeviceRule, text).field(field.member(name));
    let text = rule.access().as_deref().unwrap_or_default();
    if text.is_empty() {
        return Err(refuse("device access cannot be empty".to_owned(), "access"));
    }
    let access = Access::parse(text)
        .ok_or_else(|| refuse(format!("invalid device access \"{text}\" (expected r, w, m)"), "access"))?;
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => {
            policy.reset(rule.allow());
            return Ok(());
        }
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C => Kind::Char,
        other @ (LinuxDeviceType::U | LinuxDeviceType::P) => {
            let text = format!("invalid cgroup device type \"{}\"", other.as_str());
            return Err(refuse(text, "type"));
        }
    };
    let number = |number: Option<i64>, name| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_out_of_range| refuse(format!("device number {number} is out of range"), name)),
    };
    let what = Match { major: number(rule.major(), "major")?, minor: number(rule.minor(), "minor")?, kind };
    policy.rule(rule.allow(), what, access).map_err(|why| unsupported(what, access, &why, field.clone()))
}

fn unsupported(what: Match, access: Access, why: &str, field: Field) -> Error {
    let text = format!("requested rule \"{what} {access}\" not supported by devices cgroup: {why}");
    Error::new(ErrorKind::DeviceRule, text).field(field)
}

fn v1_writes(policy: &Policy, place: Place, limits: &mut Limits, rootless: bool) {
    let field = DEVICES_FIELD;
    let (default, exception) = match policy.allow_by_default {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    let write = |file, value: String| place.write("devices", file, value, &field).skip_denied(rootless);
    limits.push(write(default, "a *:* rwm".to_owned()));
    for (what, access) in &policy.exceptions {
        limits.push(write(exception, format!("{what} {access}")));
    }
}

#[cfg(test)]
mod tests;
