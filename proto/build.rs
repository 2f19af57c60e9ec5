//! Generates the messages and services of `protos/` with pure Rust generators.

use std::path::Path;

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> std::io::Result<()> {
    let dir = Path::new("protos");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    println!("cargo::rerun-if-changed=protos");
    let mut inputs: Vec<_> = dir
        .read_dir()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    inputs.sort();
    Codegen::new()
        .inputs(&inputs)
        .include(dir)
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Default::default() })
        // Without reflection: nobody here looks at a message but by its fields.
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true).lite_runtime(true))
        .run()?;
    add_services(&out)
}

/// The generator lists the messages' modules; the services' are beside them.
fn add_services(out: &Path) -> std::io::Result<()> {
    let list = out.join("mod.rs");
    let mut text = std::fs::read_to_string(&list)?;
    for name in ["forward", "sandbox", "task"] {
        text.push_str(&format!("pub mod {name}_ttrpc;\n"));
    }
    std::fs::write(list, text)
}
