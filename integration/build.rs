//! Generates the messages of the CRI that the tests use.

fn main() {
    println!("cargo::rerun-if-changed=protos");
    protobuf_codegen::Codegen::new()
        .pure()
        .include("protos")
        .input("protos/cri.proto")
        .customize(protobuf_codegen::Customize::default().lite_runtime(true))
        .cargo_out_dir("protos")
        .run_from_script();
}
