//! What real engines write must load and pass: the fixtures beside this file, and those of the folder
//! HULL_CONFIGS. It runs no container. `cargo test` calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hull::spec;

fn load_and_check(path: &Path) -> Vec<String> {
    let name = path.display().to_string();
    let file = File::open(path).unwrap();
    let (warnings, unknown) = if name.contains("exec-process") {
        let loaded = spec::load_process(file, &name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let checked = spec::check_process(&loaded.spec).unwrap_or_else(|e| panic!("{name}: {e}"));
        ([loaded.warnings, checked].concat(), loaded.source.unknown_fields())
    } else {
        let loaded = spec::load(file, &name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let checked = spec::check(&loaded.spec).unwrap_or_else(|e| panic!("{name}: {e}"));
        ([loaded.warnings, checked].concat(), loaded.source.unknown_fields())
    };
    warnings.into_iter().chain(unknown).map(|w| format!("{name}: {w}")).collect()
}

fn configs(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

#[test]
fn configs_of_docker_podman_and_crio_load_and_pass_without_a_warning() {
    let warnings: Vec<String> = configs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/configs"))
        .iter()
        .flat_map(|p| load_and_check(p))
        .collect();
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn configs_of_a_folder_load_and_pass() {
    let Some(folder) = std::env::var_os("HULL_CONFIGS") else {
        println!("skipped: HULL_CONFIGS names no folder of configs");
        return;
    };
    let files = configs(Path::new(&folder));
    assert!(!files.is_empty(), "{}", Path::new(&folder).display());
    for file in files {
        for warning in load_and_check(&file) {
            println!("warning: {warning}");
        }
    }
}
