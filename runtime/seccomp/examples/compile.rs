//! Compiles the seccomp profile of a file (a config.json, or its `linux.seccomp` alone) and prints the
//! summary, the median time and, with `--list`, the program. It measures and decides nothing.
//! Developers run it: `cargo run --release -p hull-seccomp --example compile -- FILE [--list]`.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use hull_seccomp::{Listing, compile_native};
use oci_spec::runtime::LinuxSeccomp;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("usage: compile FILE [--list]")?;
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let profile: LinuxSeccomp =
        serde_json::from_value(json.pointer("/linux/seccomp").unwrap_or(&json).clone())?;
    let plan = compile_native(&profile)?;
    let mut times: Vec<_> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            let plan = black_box(compile_native(black_box(&profile)));
            let time = start.elapsed();
            drop(plan);
            time
        })
        .collect();
    times.sort_unstable();
    println!("{}", plan.summary());
    println!("compiled in {:.1} us (median of {})", times[500].as_secs_f64() * 1e6, times.len());
    for warning in &plan.warnings {
        println!("warning: {warning}");
    }
    if args.next().is_some_and(|arg| arg == "--list") {
        print!("{}", Listing(&plan.filter.program));
    }
    Ok(())
}
