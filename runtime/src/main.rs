//! The `hull` command.

use hull_sys::arena::Arena;

#[global_allocator]
static HEAP: Arena = Arena::new();

fn main() {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    std::process::exit(hull::cli::main(&words));
}
