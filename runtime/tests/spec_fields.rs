//! Holds three lists together: the loader's table of fields, `docs/spec.md`, and what oci-spec can represent. A field
//! that one of them gains or loses fails here. It reads files of this repository only. `cargo test` calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hull::spec;
use oci_spec::runtime::Spec;
use serde_json::Value;

const STATUSES: [&str; 4] = ["done", "refused", "ignored", "later"];

/// Sections whose insides the table does not list.
const OTHER_PLATFORMS: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// Fields of the spec that a map's keys hang on: their own names are the user's.
const MAPS: [&str; 6] = [
    "annotations",
    "linux.sysctl",
    "linux.netDevices",
    "linux.timeOffsets",
    "linux.resources.rdma",
    "linux.resources.unified",
];

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn everything() -> Value {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/everything.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Every path of a value in the table's notation.
fn paths(value: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    walk(value, "", &mut out);
    out
}

fn walk(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        _ if OTHER_PLATFORMS.contains(&at) => {}
        Value::Object(object) if MAPS.contains(&at) => {
            for value in object.values() {
                walk(value, &format!("{at}{{}}"), out);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                out.insert(path.clone());
                walk(value, &path, out);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| walk(value, &format!("{at}[]"), out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The rows of docs/spec.md: path, status, reason.
fn documented() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(repository().join("docs/spec.md")).unwrap();
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
            let [path, status, reason, ..] = cells[..] else { panic!("a row needs three cells: {line}") };
            Some((path.trim_end_matches('`').to_owned(), status.to_owned(), reason.to_owned()))
        })
        .collect()
}

#[test]
fn every_field_of_the_table_is_documented_and_every_row_is_a_field() {
    let table: BTreeSet<String> = spec::field_paths().into_iter().collect();
    let rows = documented();
    let docs: BTreeSet<String> = rows.iter().map(|(path, ..)| path.clone()).collect();
    assert_eq!(docs.len(), rows.len(), "a field has two rows");
    assert_eq!(
        table.difference(&docs).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "without a row in docs/spec.md"
    );
    assert_eq!(
        docs.difference(&table).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "rows of fields that do not exist"
    );
}

#[test]
fn every_row_has_a_status_and_what_is_not_done_a_reason() {
    for (path, status, reason) in documented() {
        assert!(STATUSES.contains(&status.as_str()), "{path}: {status:?}");
        assert!(status == "done" || !reason.is_empty(), "{path} is {status} without a reason");
    }
}

#[test]
fn the_file_with_everything_has_every_field_and_loads() {
    let value = everything();
    let table: BTreeSet<String> = spec::field_paths().into_iter().collect();
    assert_eq!(paths(&value), table);
    let loaded = spec::parse(serde_json::to_vec(&value).unwrap(), "everything.json").unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.source.unknown_fields(), []);
}

#[test]
fn oci_spec_keeps_every_field_and_has_none_that_is_not_documented() {
    let value = everything();
    let spec: Spec = serde_json::from_value(value.clone()).unwrap();
    let kept = serde_json::to_value(&spec).unwrap();
    let docs: BTreeSet<String> = documented().into_iter().map(|(path, ..)| path).collect();
    let kept_paths = paths(&kept);
    let undocumented: Vec<_> = kept_paths.difference(&docs).collect();
    assert_eq!(undocumented, Vec::<&String>::new(), "oci-spec has fields without a row in docs/spec.md");
    let lost: Vec<String> = paths(&value).difference(&kept_paths).cloned().collect();
    assert_eq!(lost, ["freebsd"], "fields that oci-spec drops");
    for path in ["process", "root", "mounts", "hooks", "annotations", "linux", "hostname", "domainname"] {
        assert_eq!(kept[path], value[path], "{path} changed on its way through oci-spec");
    }
}
