//! Owns the profile as rules: `linux.seccomp.syscalls` with names looked up and values checked.
//! It knows no architecture's numbers and writes no instruction.
//! `plan` makes a `Profile`, `verdicts` asks it which rules a name has.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use crate::error::{Error, ErrorKind, Result};
use crate::names::{self, NameId};

/// One comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) arg: u8,
    pub(super) op: LinuxSeccompOperator,
    /// What the argument is compared with; for `SCMP_CMP_MASKED_EQ` after masking.
    pub(super) value: u64,
    /// The bits of the argument that count.
    pub(super) mask: u64,
}

/// What to do when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// A `SECCOMP_RET_*` value with its data.
    pub(super) action: u32,
    /// By argument, none twice; empty means always.
    pub(super) conditions: Vec<Condition>,
    /// The element of `linux.seccomp.syscalls` it came from.
    pub(super) element: usize,
}

/// `linux.seccomp`, checked.
#[derive(Debug)]
pub(super) struct Profile {
    /// What happens to a call that no rule matches.
    pub(super) default: u32,
    /// Names known to some architecture, counted as often as they stand there.
    pub(super) names: usize,
    pub(super) warnings: Vec<Error>,
    /// In the profile's order.
    pub(super) rules: Vec<Rule>,
    /// Indices into `rules`, grouped by name, ascending within one.
    uses: Vec<u32>,
    /// Where each name's group starts in `uses`; one longer than the names.
    starts: Vec<u32>,
    /// Named anywhere, be it only in a rule that says the default.
    mentioned: Vec<bool>,
}

impl Profile {
    /// Checks a profile. Rules that say what the default says are left out, as runc leaves them out.
    pub(super) fn read(seccomp: &LinuxSeccomp) -> Result<Self> {
        let default =
            action(seccomp.default_action(), seccomp.default_errno_ret(), || "defaultErrnoRet".to_owned())?;
        let mut warnings: Vec<Error> =
            errno_unused(seccomp.default_action(), seccomp.default_errno_ret(), || {
                "defaultErrnoRet".to_owned()
            })
            .into_iter()
            .collect();

        let (mut rules, mut pairs) = (Vec::new(), Vec::with_capacity(512));
        let (mut mentioned, mut names, mut unknown) = (vec![false; names::COUNT], 0, Vec::new());
        for (element, call) in seccomp.syscalls().iter().flatten().enumerate() {
            let field = || format!("syscalls[{element}]");
            let action = action(call.action(), call.errno_ret(), || format!("{}.errnoRet", field()))?;
            warnings
                .extend(errno_unused(call.action(), call.errno_ret(), || format!("{}.errnoRet", field())));
            let first = rules.len();
            alternatives(call, &field, |conditions| rules.push(Rule { action, conditions, element }))?;
            if action == default {
                rules.truncate(first);
            }
            for (i, name) in call.names().iter().enumerate() {
                let Some(id) = names::lookup(name) else {
                    if name.is_empty() {
                        return Err(Error::new(ErrorKind::Names, "an empty string is not a system call")
                            .field(format!("{}.names[{i}]", field())));
                    }
                    unknown.push(name.as_str());
                    continue;
                };
                names += 1;
                mentioned[usize::from(id.0)] = true;
                pairs.extend((first..rules.len()).map(|rule| (id, rule)));
            }
        }
        warnings.extend(unknown_names(unknown));
        let (uses, starts) = group(&pairs);
        Ok(Self { default, names, warnings, rules, uses, starts, mentioned })
    }

    /// The rules of a name, as ascending indices into `rules`.
    pub(super) fn uses(&self, name: NameId) -> &[u32] {
        let name = usize::from(name.0);
        &self.uses[self.starts[name] as usize..self.starts[name + 1] as usize]
    }

    /// Whether the profile has a name at all.
    pub(super) fn mentions(&self, name: NameId) -> bool {
        self.mentioned[usize::from(name.0)]
    }
}

/// Sorts (name, rule) pairs by name with one counting pass: what `Profile` keeps of them.
fn group(pairs: &[(NameId, usize)]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; names::COUNT + 1];
    for (name, _) in pairs {
        starts[usize::from(name.0) + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut next = starts.clone();
    let mut uses = vec![0; pairs.len()];
    for (name, rule) in pairs {
        let slot = &mut next[usize::from(name.0)];
        uses[*slot as usize] = u32::try_from(*rule).unwrap_or(u32::MAX);
        *slot += 1;
    }
    (uses, starts)
}

/// Hands out the conjunctions that a rule's `args` mean, one at least.
///
/// All conditions must hold together, except when an argument is named twice: then any one of all of
/// them is enough. That is libcontainer's reading since before arguments were ANDed, and profiles
/// (CRI-O's, for `clone`) rely on it.
fn alternatives(
    call: &LinuxSyscall,
    field: &impl Fn() -> String,
    mut found: impl FnMut(Vec<Condition>),
) -> Result<()> {
    let mut all = Vec::new();
    let mut twice = false;
    for (i, arg) in call.args().iter().flatten().enumerate() {
        let condition = condition(arg, || format!("{}.args[{i}]", field()))?;
        twice |= all.iter().any(|c: &Condition| c.arg == condition.arg);
        all.push(condition);
    }
    if twice {
        all.into_iter().for_each(|condition| found(vec![condition]));
    } else {
        all.sort_by_key(|c| c.arg);
        found(all);
    }
    Ok(())
}

fn condition(arg: &LinuxSeccompArg, field: impl Fn() -> String) -> Result<Condition> {
    let Some(index) = u8::try_from(arg.index()).ok().filter(|i| *i < 6) else {
        let message = format!("a system call has no argument {}: arguments are numbered 0 to 5", arg.index());
        return Err(Error::new(ErrorKind::Arg, message).field(format!("{}.index", field())));
    };
    let op = arg.op();
    Ok(match op {
        // `value` is the mask and `valueTwo` the value, as libseccomp's datum_a and datum_b.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (mask, value) = (arg.value(), arg.value_two().unwrap_or_default());
            Condition { arg: index, op, value: value & mask, mask }
        }
        LinuxSeccompOperator::ScmpCmpNe
        | LinuxSeccompOperator::ScmpCmpLt
        | LinuxSeccompOperator::ScmpCmpLe
        | LinuxSeccompOperator::ScmpCmpEq
        | LinuxSeccompOperator::ScmpCmpGe
        | LinuxSeccompOperator::ScmpCmpGt => Condition { arg: index, op, value: arg.value(), mask: u64::MAX },
    })
}

/// The kernel's return value for an action; EPERM where an errno is wanted and none is given.
fn action(action: LinuxSeccompAction, errno: Option<u32>, field: impl Fn() -> String) -> Result<u32> {
    let largest = match action {
        // MAX_ERRNO: the kernel would silently return 4095 for anything above.
        LinuxSeccompAction::ScmpActErrno => 4095,
        LinuxSeccompAction::ScmpActTrace => libc::SECCOMP_RET_DATA,
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillThread
        | LinuxSeccompAction::ScmpActKillProcess
        | LinuxSeccompAction::ScmpActTrap
        | LinuxSeccompAction::ScmpActNotify
        | LinuxSeccompAction::ScmpActLog
        | LinuxSeccompAction::ScmpActAllow => return Ok(action.as_u32(None)),
    };
    match errno {
        Some(errno) if errno > largest => {
            let message = format!("errno {errno} is out of range for {action}: at most {largest}");
            Err(Error::new(ErrorKind::Errno, message).field(field()))
        }
        errno => Ok(action.as_u32(errno)),
    }
}

/// The spec has us refuse an errno on an action that has none. runc and crun do not, and profiles exist
/// whose default action was changed to `SCMP_ACT_LOG` and nothing else, so it is a warning here.
fn errno_unused(action: LinuxSeccompAction, errno: Option<u32>, field: impl Fn() -> String) -> Option<Error> {
    let takes = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    errno.filter(|_| !takes).map(|errno| {
        Error::new(ErrorKind::ErrnoUnused, format!("errno {errno} has no effect with {action}"))
            .field(field())
    })
}

/// One warning for all of them: a profile made for a newer libseccomp names dozens.
fn unknown_names(mut unknown: Vec<&str>) -> Option<Error> {
    unknown.sort_unstable();
    unknown.dedup();
    (!unknown.is_empty()).then(|| {
        let message = format!("no architecture has these system calls: {}", unknown.join(", "));
        Error::new(ErrorKind::UnknownNames, message).field("syscalls".to_owned())
    })
}
