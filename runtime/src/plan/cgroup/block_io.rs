//! Owns `linux.resources.blockIO` as writes: weights for BFQ and io.cost, throttles for v1 and `io.max`.
//! It may not know which scheduler runs; each weight names the file to take when BFQ is not there.
//! `plan::cgroup::limits` calls it.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::Version;
use super::limits::{Limits, Place};
use crate::error::{Field, Result};

const BLOCK_IO: Field = Field::named("linux.resources.blockIO");

/// `config-linux.md#block-io`. A weight of zero means unset.
pub(super) fn block_io(block_io: &LinuxBlockIo, limits: &mut Limits) -> Result<()> {
    let Some(field) = first_limit(block_io) else { return Ok(()) };
    let place = limits.need("blkio", "io", &field)?;
    match place.version {
        Version::V1 => v1_weights(block_io, place, limits),
        Version::V2 => v2_weights(block_io, place, limits),
    }
    throttles(block_io, place, limits);
    Ok(())
}

fn weight_devices(block_io: &LinuxBlockIo) -> &[LinuxWeightDevice] {
    block_io.weight_device().as_deref().unwrap_or_default()
}

fn set(weight: Option<u16>) -> Option<u16> {
    weight.filter(|weight| *weight != 0)
}

fn first_limit(block_io: &LinuxBlockIo) -> Option<Field> {
    let weights = [
        ("weight", set(block_io.weight()).is_some()),
        ("leafWeight", set(block_io.leaf_weight()).is_some()),
        ("weightDevice", !weight_devices(block_io).is_empty()),
    ];
    let throttled = throttle_lists(block_io).into_iter().find(|list| !list.devices.is_empty());
    let weighted = weights.iter().find(|(_, given)| *given).map(|(name, _)| *name);
    weighted.or(throttled.map(|list| list.name)).map(|name| BLOCK_IO.member(name))
}

fn v1_weights(block_io: &LinuxBlockIo, place: Place, limits: &mut Limits) {
    if let Some(weight) = set(block_io.weight()) {
        let write = place.write("blkio", "blkio.weight", weight, &BLOCK_IO.member("weight"));
        limits.push(write.or_to("blkio.bfq.weight", weight));
    }
    // Gone since Linux 5.0, with the CFQ scheduler.
    if let Some(weight) = set(block_io.leaf_weight()) {
        let write = place.write("blkio", "blkio.leaf_weight", weight, &BLOCK_IO.member("leafWeight"));
        limits.push(write.skip_missing());
    }
    for (index, device) in weight_devices(block_io).iter().enumerate() {
        let field = BLOCK_IO.member("weightDevice").index(index);
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = set(device.weight()) {
            let value = format!("{number} {weight}");
            let write = place.write("blkio", "blkio.weight_device", &value, &field);
            limits.push(write.or_to("blkio.bfq.weight_device", value));
        }
        if let Some(weight) = set(device.leaf_weight()) {
            let write =
                place.write("blkio", "blkio.leaf_weight_device", format!("{number} {weight}"), &field);
            limits.push(write.skip_missing());
        }
    }
}

fn v2_weights(block_io: &LinuxBlockIo, place: Place, limits: &mut Limits) {
    if let Some(weight) = set(block_io.weight()) {
        let write = place.write("io", "io.bfq.weight", weight, &BLOCK_IO.member("weight"));
        limits.push(write.or_to("io.weight", io_weight(weight)));
    }
    let mut leaf = set(block_io.leaf_weight()).is_some();
    for (index, device) in weight_devices(block_io).iter().enumerate() {
        let field = BLOCK_IO.member("weightDevice").index(index);
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = set(device.weight()) {
            let write = place.write("io", "io.bfq.weight", format!("{number} {weight}"), &field);
            limits.push(write.or_to("io.weight", format!("{number} {}", io_weight(weight))));
        }
        leaf |= set(device.leaf_weight()).is_some();
    }
    if leaf {
        limits.ignored(BLOCK_IO.member("leafWeight"), "cgroup v2 has no leaf weight");
    }
}

/// v1's 10 to 1000 as v2's 1 to 10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

struct Throttle<'a> {
    name: &'static str,
    v1: &'static str,
    v2: &'static str,
    devices: &'a [LinuxThrottleDevice],
}

fn throttle_lists(block_io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        Throttle {
            name: "throttleReadBpsDevice",
            v1: "blkio.throttle.read_bps_device",
            v2: "rbps",
            devices: block_io.throttle_read_bps_device().as_deref().unwrap_or_default(),
        },
        Throttle {
            name: "throttleWriteBpsDevice",
            v1: "blkio.throttle.write_bps_device",
            v2: "wbps",
            devices: block_io.throttle_write_bps_device().as_deref().unwrap_or_default(),
        },
        Throttle {
            name: "throttleReadIOPSDevice",
            v1: "blkio.throttle.read_iops_device",
            v2: "riops",
            devices: block_io.throttle_read_iops_device().as_deref().unwrap_or_default(),
        },
        Throttle {
            name: "throttleWriteIOPSDevice",
            v1: "blkio.throttle.write_iops_device",
            v2: "wiops",
            devices: block_io.throttle_write_iops_device().as_deref().unwrap_or_default(),
        },
    ]
}

fn throttles(block_io: &LinuxBlockIo, place: Place, limits: &mut Limits) {
    for list in throttle_lists(block_io) {
        for (index, device) in list.devices.iter().enumerate() {
            let field = BLOCK_IO.member(list.name).index(index);
            let number = format!("{}:{}", device.major(), device.minor());
            limits.push(match place.version {
                Version::V1 => place.write("blkio", list.v1, format!("{number} {}", device.rate()), &field),
                Version::V2 => {
                    place.write("io", "io.max", format!("{number} {}={}", list.v2, rate(device)), &field)
                }
            });
        }
    }
}

/// v1 takes a throttle away with 0, v2 with `max`.
fn rate(device: &LinuxThrottleDevice) -> String {
    if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() }
}
