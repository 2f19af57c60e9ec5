//! What loading costs on top of serde: run with `cargo test --release --test spec_cost -- --ignored --nocapture`.
//! It asserts nothing about time. A person calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use hull::spec;
use oci_spec::runtime::Spec;

/// The fastest of many runs: what the work takes when nothing disturbs it.
fn fastest(mut work: impl FnMut()) -> Duration {
    (0..3000)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .min()
        .unwrap_or_default()
}

#[test]
#[ignore = "a measurement"]
fn load_against_plain_serde() {
    for name in ["docker-20.10-default", "podman-4.3-default", "crio-sandbox"] {
        let path = format!("{}/tests/data/configs/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let pretty = std::fs::read(path).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&pretty).unwrap();
        let compact = serde_json::to_vec(&value).unwrap();
        for (form, bytes) in [("indented", &pretty), ("compact", &compact)] {
            let plain = fastest(|| drop(black_box(serde_json::from_slice::<Spec>(bytes).unwrap())));
            let copy = fastest(|| drop(black_box(bytes.clone())));
            let ours = fastest(|| drop(black_box(spec::parse(bytes.clone(), "config.json").unwrap())));
            let loaded = spec::parse(bytes.clone(), "config.json").unwrap();
            let check = fastest(|| drop(black_box(spec::check(&loaded.spec).unwrap())));
            println!(
                "{name} {form} {} bytes: serde {plain:?}, load {:?}, check {check:?}",
                bytes.len(),
                ours.saturating_sub(copy)
            );
        }
    }
}
