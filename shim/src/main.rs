//! The containerd shim.

mod error;
mod io;

fn main() {}
