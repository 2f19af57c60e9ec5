//! Runs a bundle from a program of one's own, to its end: `cargo run -p hull --example embed -- BUNDLE ID`.
//! A state root of its own keeps its containers apart from those of `hull`.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::error::Error;

use hull::container::announce::Announce;
use hull::{Bundle, ContainerId, Runtime};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(id)) = (args.next(), args.next()) else {
        return Err("usage: embed BUNDLE ID".into());
    };
    let id = ContainerId::parse(&id)?;
    let runtime = Runtime::at(Some("/run/hull-embed".into()))?;

    // Nothing has changed yet when this fails, and the error names the field of config.json.
    let planned = runtime.plan_to_create(&id, &Bundle { dir: &dir, ..Bundle::default() })?;
    println!("a plan of {} mounts", planned.spec.mounts().iter().flatten().count());

    // Without a terminal, and with nobody to be told of the PID.
    let running = runtime.run(&id, &planned, None, &Announce::default(), false)?;
    println!("{}", runtime.look(&id)?.state().to_json());

    // Deletes the container, too.
    let (exit, warnings) = running.wait(false)?;
    warnings.iter().for_each(|warning| println!("warning: {warning}"));
    println!("exits with {}", exit.code());
    Ok(())
}
