//! The `containerd-shim-hull-v1` command.

fn main() -> std::process::ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    hull_shim::run(&words)
}
