//! Owns `linux.resources.memory` as writes: v1's limit and memory+swap pair, v2's `memory.max` and `memory.swap.max`.
//! It may not look at current usage; where that matters it plans a check or a second try.
//! `plan::cgroup::limits` calls it.

use oci_spec::runtime::LinuxMemory;

use super::limits::{Limits, Place};
use super::{InForce, UsageCheck, Version, When};
use crate::error::{Error, ErrorKind, Field, Result};

const MEMORY: Field = Field::named("linux.resources.memory");
/// Limits below this are set when the set-up is done: building a container (page tables, mounts, network
/// namespace) is charged to it and takes some hundred KiB, hooks more.
const TIGHT_BYTES: i64 = 16 << 20;

/// `config-linux.md#memory`. Zero and absent mean unset, -1 means no limit.
pub(super) fn memory(memory: &LinuxMemory, limits: &mut Limits) -> Result<()> {
    ignored(memory, limits);
    let mut asked = Asked {
        limit: set(memory.limit()),
        swap: set(memory.swap()),
        reservation: set(memory.reservation()),
    };
    asked.keep(limits.now.unwrap_or_default());
    asked.check()?;
    let disable_oom_killer = memory.disable_oom_killer() == Some(true);
    let any = asked.limit.or(asked.swap).or(asked.reservation);
    if any.is_none() && !disable_oom_killer && memory.swappiness().is_none() {
        return Ok(());
    }
    if !asked.limited() && limits.find("memory", "memory").is_none() {
        return only_hints(memory, limits);
    }
    let place = limits.need("memory", "memory", &asked.field())?;
    match place.version {
        Version::V1 => v1(&asked, memory, place, limits),
        Version::V2 => {
            v2(&asked, memory, place, limits);
            Ok(())
        }
    }
}

/// What was asked for; `None` is unset.
struct Asked {
    limit: Option<i64>,
    swap: Option<i64>,
    reservation: Option<i64>,
}

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

impl Asked {
    /// A limit of memory has one of memory and swap with it: of two that are in force, an update that names one
    /// keeps the other.
    fn keep(&mut self, now: InForce) {
        let limits = |value: &i64| *value > 0;
        match (self.limit.filter(limits), self.swap.filter(limits)) {
            (Some(_), None) if self.swap.is_none() => self.swap = now.memory_swap.filter(limits),
            (None, Some(_)) if self.limit.is_none() => self.limit = now.memory.filter(limits),
            _ => {}
        }
    }

    fn check(&self) -> Result<()> {
        for (name, value) in [("limit", self.limit), ("swap", self.swap), ("reservation", self.reservation)] {
            if let Some(value) = value.filter(|value| *value < -1) {
                let text = format!("invalid memory value: {value}");
                return Err(Error::new(ErrorKind::MemoryLimit, text).field(MEMORY.member(name)));
            }
        }
        let swap = |text: &str| Err(Error::new(ErrorKind::MemorySwap, text).field(MEMORY.member("swap")));
        match (self.limit, self.swap) {
            (_, None | Some(-1)) | (Some(-1), _) => Ok(()),
            (None, Some(_)) => swap("unable to set swap limit without memory limit"),
            (Some(limit), Some(both)) if both < limit => swap("memory+swap limit should be >= memory limit"),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    /// The first field that asks for a real limit.
    fn field(&self) -> Field {
        let names = [(self.limit, "limit"), (self.swap, "swap"), (self.reservation, "reservation")];
        let first = names.iter().find(|(value, _)| value.is_some_and(|value| value > 0));
        first.map_or(MEMORY, |(_, name)| MEMORY.member(name))
    }

    fn limited(&self) -> bool {
        [self.limit, self.swap, self.reservation].iter().flatten().any(|value| *value > 0)
    }

    fn when(&self) -> When {
        match self.limit {
            Some(0..TIGHT_BYTES) => When::AfterSetup,
            _ => When::BeforeStart,
        }
    }
}

/// v1. Memory+swap may never be below memory, so the order depends on whether they rise or fall: the limit
/// goes first, and once more after memory+swap if the kernel refused it.
fn v1(asked: &Asked, memory: &LinuxMemory, place: Place, limits: &mut Limits) -> Result<()> {
    let write =
        |file, value: i64, name| place.write("memory", file, value, &MEMORY.member(name)).when(asked.when());
    if let Some(limit) = asked.limit {
        let write = write("memory.limit_in_bytes", limit, "limit");
        let swap_follows = asked.swap.is_some() || limit == -1;
        limits.push(if swap_follows { write.again_when_invalid() } else { write });
    }
    match (asked.limit, asked.swap) {
        // No limit on memory alone means no limit on both.
        (Some(-1), None) => {
            limits.push(write("memory.memsw.limit_in_bytes", -1, "limit").skip_missing());
        }
        (_, Some(-1)) => limits.push(write("memory.memsw.limit_in_bytes", -1, "swap").skip_missing()),
        (_, Some(swap)) => limits.push(write("memory.memsw.limit_in_bytes", swap, "swap")),
        (_, None) => {}
    }
    if let Some(reservation) = asked.reservation {
        limits.push(write("memory.soft_limit_in_bytes", reservation, "reservation"));
    }
    let oom_killer = memory.disable_oom_killer().filter(|disable| *disable || limits.now.is_some());
    if let Some(disable) = oom_killer {
        let field = MEMORY.member("disableOOMKiller");
        limits.push(place.write("memory", "memory.oom_control", u8::from(disable), &field));
    }
    if let Some(swappiness) = memory.swappiness() {
        let field = MEMORY.member("swappiness");
        if swappiness > 100 {
            let text = format!("invalid memory swappiness value: {swappiness} (valid range is 0-100)");
            return Err(Error::new(ErrorKind::MemorySwappiness, text).field(field));
        }
        limits.push(place.write("memory", "memory.swappiness", swappiness, &field));
    }
    Ok(())
}

fn v2(asked: &Asked, memory: &LinuxMemory, place: Place, limits: &mut Limits) {
    let write = |file, value: String, name| {
        place.write("memory", file, value, &MEMORY.member(name)).when(asked.when())
    };
    // Otherwise the kernel would end processes of a container that uses more. (One that is full of caches uses
    // all it may: its limit is no news.)
    let lower = |limit| limits.now.is_some_and(|now| now.memory.is_none_or(|was| was < 0 || limit < was));
    let lowers = asked.limit.is_some_and(|limit| limit > 0 && lower(limit));
    if memory.check_before_update().unwrap_or(lowers) {
        let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let (limit, memory_swap) = (positive(asked.limit), positive(asked.swap));
        limits.check = Some(UsageCheck { dir: place.dir, limit, memory_swap });
    }
    // Swap before memory: a falling memory limit must find the swap room it is allowed.
    if let Some(swap) = v2_swap(asked.limit, asked.swap) {
        let unlimited_or_off = swap <= 0;
        let write = write("memory.swap.max", max_or(swap), "swap");
        limits.push(if unlimited_or_off { write.skip_missing() } else { write });
    }
    if let Some(limit) = asked.limit {
        limits.push(write("memory.max", max_or(limit), "limit"));
    }
    if let Some(reservation) = asked.reservation {
        limits.push(write("memory.low", max_or(reservation), "reservation"));
    }
    not_on_v2(memory, limits);
}

/// The spec's swap is memory and swap together, v2's is swap alone. `None` writes nothing: an empty string
/// would be read as 0.
fn v2_swap(limit: Option<i64>, swap: Option<i64>) -> Option<i64> {
    match (limit, swap) {
        (Some(-1), None) | (_, Some(-1)) => Some(-1),
        (_, None) => None,
        (Some(-1) | None, Some(both)) => Some(both),
        (Some(limit), Some(both)) => Some(both - limit),
    }
}

fn max_or(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

fn ignored(memory: &LinuxMemory, limits: &mut Limits) {
    for (name, value) in [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())] {
        if value.is_some_and(|value| value != 0) {
            limits.ignored(
                MEMORY.member(name),
                "kernel memory settings are ignored: the kernel no longer has them",
            );
        }
    }
    if memory.use_hierarchy() == Some(false) {
        limits.ignored(MEMORY.member("useHierarchy"), "memory is always accounted hierarchically");
    }
}

fn not_on_v2(memory: &LinuxMemory, limits: &mut Limits) {
    if memory.disable_oom_killer() == Some(true) {
        limits.ignored(MEMORY.member("disableOOMKiller"), "cgroup v2 cannot disable the OOM killer");
    }
    if memory.swappiness().is_some() {
        limits.ignored(MEMORY.member("swappiness"), "cgroup v2 has no per-cgroup swappiness");
    }
}

/// No controller, and nothing asked that limits memory: say what is left out, and go on.
fn only_hints(memory: &LinuxMemory, limits: &mut Limits) -> Result<()> {
    let why = "no memory controller is mounted";
    if memory.disable_oom_killer() == Some(true) {
        limits.ignored(MEMORY.member("disableOOMKiller"), why);
    }
    if memory.swappiness().is_some() {
        limits.ignored(MEMORY.member("swappiness"), why);
    }
    Ok(())
}
