//! Holds the documents to the code: what is generated is up to date, what is listed exists, what is linked
//! is there, and nothing grows too long to be read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read its files has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hull::error::ErrorKind;

#[path = "../examples/man/pages.rs"]
mod pages;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files below `dir` whose name ends with `end`.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn manual_pages_and_completion_are_what_the_table_gives() {
    const HINT: &str = "is not up to date: run `make docs`";
    let pages = pages::all();
    for (name, text) in &pages {
        assert!(read(&format!("docs/man/{name}")) == *text, "docs/man/{name} {HINT}");
        assert!(!text.contains(".SH DESCRIPTION\n.SH"), "{name} describes nothing");
    }
    let committed = files(&top().join("docs/man"), ".8").len();
    assert_eq!(committed, pages.len(), "docs/man has pages of verbs that are gone");
    assert!(read("docs/completion/hull.bash") == pages::bash(), "docs/completion/hull.bash {HINT}");
}

#[test]
fn every_kind_of_error_is_made_somewhere() {
    let sources: String = files(&top().join("runtime/src"), ".rs")
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let made: BTreeSet<&str> = sources
        .split("ErrorKind::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default())
        .collect();
    let idle: Vec<_> =
        ErrorKind::ALL.iter().filter(|kind| !made.contains(format!("{kind:?}").as_str())).collect();
    assert!(idle.is_empty(), "nothing makes {idle:?}");
}

#[test]
fn every_error_code_is_in_error_codes_md_and_no_other() {
    let used: BTreeSet<String> = ErrorKind::ALL.iter().map(ToString::to_string).collect();
    let text = read("docs/error-codes.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: Vec<String> = rows.map(|(code, _)| code.to_owned()).collect();
    let set: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), set.len(), "a code stands twice in docs/error-codes.md");
    let missing: Vec<_> = used.difference(&set).collect();
    let gone: Vec<_> = set.difference(&used).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/error-codes.md lacks {missing:?}, has in vain {gone:?}"
    );
}

/// The text without its unit tests.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn folders_depend_on_each_other_as_architecture_md_says() {
    let text = read("docs/architecture.md");
    let (_, table) = text.split_once("## Folders of `runtime/src`").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 10, "{rows:?}");
    for row in rows {
        let name = row[1].trim_matches(['`', '/']);
        let allowed: BTreeSet<String> = row[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let place = top().join("runtime/src").join(name);
        let all = if place.is_dir() { files(&place, ".rs") } else { vec![place] };
        let is_test = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "tests.rs");
        let mut used = BTreeSet::new();
        for file in all.iter().filter(|path| !is_test(path)) {
            let code = code_of(file);
            let modules = code.split("crate::").skip(1).map(|rest| {
                rest.split(|c: char| !c.is_ascii_lowercase() && c != '_')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            });
            used.extend(
                modules.filter(|module| !["error", name.trim_end_matches(".rs")].contains(&module.as_str())),
            );
            let crates = ["hull_cgroup", "hull_seccomp", "hull_sys", "oci_spec"];
            used.extend(
                crates
                    .iter()
                    .filter(|one| code.contains(&format!("{one}::")))
                    .map(|one| one.replace('_', "-")),
            );
        }
        assert_eq!(used, allowed, "{name} uses the former, docs/architecture.md has the latter");
    }
}

#[test]
fn every_message_of_the_channel_is_in_process_tree_md() {
    let source = read("runtime/src/launch/channel.rs");
    let (_, body) = source.split_once("pub enum Message {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let text = read("docs/process-tree.md");
    for name in body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
    {
        let name = name.split(['(', ',']).next().unwrap_or_default();
        assert!(text.contains(&format!("`{name}`")), "docs/process-tree.md does not explain {name}");
    }
}

fn documents() -> Vec<PathBuf> {
    let mut all = files(&top().join("docs"), ".md");
    all.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| top().join(name)));
    all
}

#[test]
fn links_between_documents_lead_somewhere() {
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://");
            let there = file.parent().unwrap().join(target).exists();
            assert!(!is_local || there, "{} links to {target}", file.display());
        }
    }
}

#[test]
fn documents_are_short_enough_to_be_read() {
    for file in documents() {
        let limit = match file.file_name().unwrap().to_str().unwrap() {
            "README.md" => 200,
            // Tables with a row for each field and each code, and nothing more.
            "spec.md" | "error-codes.md" => 320,
            _ => 250,
        };
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < limit, "{} has {lines} lines, the limit is {limit}", file.display());
    }
}
