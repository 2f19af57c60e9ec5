//! Writes the manual pages and the shell completion from the table of verbs and flags:
//! `cargo run -p hull --example man -- docs/man docs/completion`. `tests/docs.rs` holds the committed
//! files to what this writes.
#![allow(clippy::print_stderr, reason = "a tool for the command line")]

mod pages;

use std::path::Path;

fn main() {
    let dirs: Vec<String> = std::env::args().skip(1).collect();
    let [man, completion] = &dirs[..] else {
        eprintln!("usage: man MAN_DIR COMPLETION_DIR");
        std::process::exit(2);
    };
    let completion_file = [("hull.bash".to_owned(), pages::bash())];
    for (dir, files) in [(man, &pages::all()[..]), (completion, &completion_file)] {
        for (name, text) in files {
            let path = Path::new(dir).join(name);
            if let Err(error) = std::fs::write(&path, text) {
                eprintln!("write {}: {error}", path.display());
                std::process::exit(1);
            }
        }
    }
}
