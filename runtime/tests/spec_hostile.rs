//! Files that are no config.json, or that two readers would read differently: each is refused by name, none is slow.
//! It runs no container. `cargo test` calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use hull::error::{Error, ErrorKind};
use hull::spec::{self, Loaded, MAX_BYTES, MAX_DEPTH, MAX_VALUES};

const GOOD: &str = r#"{
  "ociVersion": "1.2.0",
  "process": {"user": {"uid": 7, "gid": 8}, "args": ["sh"], "cwd": "/"},
  "root": {"path": "rootfs"},
  "linux": {"namespaces": [{"type": "mount"}]}
}"#;

fn parse(text: impl AsRef<[u8]>) -> Result<Loaded, Error> {
    spec::parse(text.as_ref().to_vec(), "config.json")
}

/// The good config with `from` replaced by `to`.
fn with(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    GOOD.replace(from, to)
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>, words: &str) -> Error {
    let error = parse(text).expect_err(words);
    assert!(error.to_string().contains(words), "{words:?} is not in {error}");
    assert!(error.at.is_some(), "{error}");
    error
}

fn field(error: &Error) -> &str {
    error.field.as_ref().map_or("", |field| field.as_str())
}

#[test]
fn what_is_no_json_object_is_refused_in_one_line_with_a_place() {
    refused("", "config.json is empty");
    refused(" \n", "config.json is empty");
    refused("[]", "is a list, must be an object");
    refused(r#"["1.0.2", null]"#, "is a list, must be an object");
    refused("7", "is a number, must be an object");
    refused("null", "must be an object");
    refused("\"x\"", "is a string, must be an object");
    refused("// comment\n{}", "begins with a comment");
    refused("\u{feff}{}", "byte order mark");
    refused([0xff, 0xfe, b'{', 0, b'}', 0], "UTF-16");
    refused([0, b'{', 0, b'}'], "UTF-16");
    refused([b'{', 0, b'}', 0], "UTF-16");
    refused("\0", "begins with byte 0x00");
}

#[test]
fn broken_json_is_refused_with_byte_line_and_column() {
    let error = refused("{\n  \"ociVersion\": \"1.2.0\",\n  /* no */ \"process\": {}\n}", "not valid JSON");
    assert_eq!(error.hint.as_deref(), Some("JSON has no comments"));
    let at = error.at.unwrap();
    assert_eq!((at.file.as_str(), at.line, at.column), ("config.json", 3, 3));
    for end in 1..GOOD.len() - 1 {
        let error = refused(&GOOD[..end], "not valid JSON");
        assert_eq!(error.kind, ErrorKind::ConfigSyntax);
        assert!(!error.message.contains('\n') && error.message.contains("byte"), "{error}");
    }
    refused(format!("{GOOD} x"), "trailing characters");
    refused(with("\"sh\"", "\"s\0h\""), "control character");
    refused(with("\"sh\"", "\"s\nh\""), "control character");
    refused(with("\"sh\"", "'sh'"), "not valid JSON");
    refused(with("[\"sh\"]", "[\"sh\",]"), "not valid JSON");
    refused(b"{\"ociVersion\": \"\xff\"}", "not valid JSON");
}

#[test]
fn deep_nesting_is_refused_without_recursion_and_fast() {
    let nested = |levels: usize| format!("{{\"x\": {}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert!(parse(nested(MAX_DEPTH)).is_ok());
    let error = refused(nested(MAX_DEPTH + 1), "nested deeper than 64 levels");
    assert_eq!(field(&error), "x");
    refused(nested(10_000), "nested deeper");
    let million = nested(1_000_000);
    let started = Instant::now();
    refused(&million, "nested deeper");
    refused("{\"x\":".repeat(1_000_000), "nested deeper");
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[test]
fn an_escaped_nul_is_refused_with_the_name_of_its_field() {
    let rows = [
        (with("[\"sh\"]", r#"["s\u0000h"]"#), "process.args[0]"),
        (with("\"rootfs\"", r#""r\u0000""#), "root.path"),
        (with("\"args\"", r#""env": ["A=1", "B=\u0000"], "args""#), "process.env[1]"),
        (with("\"linux\"", r#""mounts": [{"destination": "/\u0000"}], "linux""#), "mounts[0].destination"),
        (with("\"namespaces\"", r#""maskedPaths": ["/a", "/\u0000"], "namespaces""#), "linux.maskedPaths[1]"),
        (with("\"mount\"", r#""mount\u0000""#), "linux.namespaces[0].type"),
        (with("\"root\"", r#""annotations": {"a.b": "\u0000"}, "root""#), "annotations[\"a.b\"]"),
    ];
    for (text, name) in rows {
        let error = refused(text, "contains a NUL byte");
        assert_eq!(field(&error), name);
    }
    assert!(parse(with("[\"sh\"]", r#"["s\\u0000h"]"#)).is_ok());
}

#[test]
fn a_key_given_twice_is_refused_with_its_name() {
    let rows = [
        (with("\"root\"", "\"process\": {}, \"root\""), "process"),
        (with("\"uid\": 7", "\"uid\": 7, \"uid\": 0"), "process.user.uid"),
        (with("\"uid\": 7", r#""uid": 7, "\u0075id": 0"#), "process.user.uid"),
        (
            with("\"namespaces\"", r#""sysctl": {"net.x": "1", "net.x": "2"}, "namespaces""#),
            "linux.sysctl[\"net.x\"]",
        ),
        (with("\"root\"", r#""annotations": {"a": "1", "b": "2", "a": "3"}, "root""#), "annotations.a"),
        (with("\"root\"", r#""unknown": {"a": 1, "a": 2}, "root""#), "unknown.a"),
    ];
    for (text, name) in rows {
        let error = refused(text, "is given twice");
        assert_eq!(field(&error), name);
    }
}

#[test]
fn keys_are_case_sensitive_and_unknown_ones_are_ignored_and_reported_on_request() {
    let text = with("\"root\"", r#""PROCESS": {"args": ["evil"]}, "NONEWPRIVILEGES": true, "root""#);
    let loaded = parse(&text).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.spec.process().as_ref().unwrap().args().as_deref().unwrap(), ["sh"]);
    let unknown = loaded.source.unknown_fields();
    let names: Vec<&str> = unknown.iter().map(field).collect();
    assert_eq!(names, ["NONEWPRIVILEGES", "PROCESS"]);
    assert!(unknown[1].hint.as_deref().unwrap().contains("`process`"));
    assert_eq!(unknown[1].at.as_ref().unwrap().line, 4);
}

#[test]
fn a_value_of_another_type_is_refused_with_its_name_and_what_was_expected() {
    let rows = [
        (with("[\"sh\"]", "\"sh\""), "process.args", "must be a list of strings, is a string", (3, 53)),
        (with("\"sh\"", "1"), "process.args[0]", "must be a string, is a number", (3, 54)),
        (with("{\"uid\": 7, \"gid\": 8}", "[7, 8]"), "process.user", "must be an object, is a list", (3, 23)),
        (with("{\"path\": \"rootfs\"}", "[\"rootfs\"]"), "root", "must be an object, is a list", (4, 11)),
        (with("{\"type\": \"mount\"}", "[\"mount\"]"), "linux.namespaces[0]", "must be an object", (5, 28)),
        (
            with("\"mount\"", "{\"mount\": null}"),
            "linux.namespaces[0].type",
            "must be a string, is an object",
            (5, 37),
        ),
        (with("\"mount\"", "\"foo\""), "linux.namespaces[0].type", "invalid namespace type \"foo\"", (5, 37)),
        (with("\"mount\"", "\"Mount\""), "linux.namespaces[0].type", "invalid namespace type", (5, 37)),
        (with("7", "-1"), "process.user.uid", "from 0 to 4294967295, is -1", (3, 31)),
        (with("7", "1e3"), "process.user.uid", "from 0 to 4294967295, is 1000.0", (3, 31)),
        (with("7", "\"0\""), "process.user.uid", "is a string", (3, 31)),
        (with("7", "18446744073709551616"), "process.user.uid", "from 0 to 4294967295", (3, 31)),
        (
            with("\"/\"", "null, \"terminal\": 1"),
            "process.terminal",
            "must be true or false, is a number",
            (3, 86),
        ),
    ];
    for (text, name, words, place) in rows {
        let error = refused(&text, words);
        assert_eq!(field(&error), name, "{error}");
        let at = error.at.unwrap();
        assert_eq!((at.line, at.column), place, "{text}");
    }
}

#[test]
fn null_counts_as_absent_and_is_reported_where_it_hides_an_id() {
    let loaded = parse(with("7", "null")).unwrap();
    assert_eq!(loaded.spec.process().as_ref().unwrap().user().uid(), 0);
    assert_eq!(field(&loaded.warnings[0]), "process.user.uid");
    let loaded =
        parse(with("\"namespaces\"", "\"devices\": null, \"sysctl\": null, \"namespaces\"")).unwrap();
    assert_eq!(loaded.warnings, []);
}

#[test]
fn sections_of_other_platforms_are_not_read() {
    let text = with(
        "\"root\"",
        r#""windows": {"layerFolders": 7}, "vm": [], "zos": 1, "freebsd": {"x": 1}, "root""#,
    );
    assert!(parse(text).is_ok());
}

#[test]
fn what_go_writes_for_nothing_is_nothing() {
    let text = with("\"args\"", r#""execCPUAffinity": {"initial": "", "final": "0-1, 3"}, "args""#);
    let loaded = parse(text).unwrap();
    let affinity = loaded.spec.process().as_ref().unwrap().exec_cpu_affinity().as_ref().unwrap().clone();
    assert_eq!((affinity.initial(), affinity.cpu_affinity_final().as_deref()), (&None, Some("0-1,3")));
    let text = with("\"args\"", r#""execCPUAffinity": {"initial": "a"}, "args""#);
    let error = refused(text, "a");
    assert_eq!(field(&error), "process.execCPUAffinity.initial");
}

#[test]
fn sixty_thousand_environment_entries_are_no_trouble() {
    let env: Vec<String> = (0..60_000).map(|n| format!("\"V{n}=x\"")).collect();
    let started = Instant::now();
    let loaded = parse(with("\"args\"", &format!("\"env\": [{}], \"args\"", env.join(",")))).unwrap();
    spec::check(&loaded.spec).unwrap();
    println!("60 000 entries: {:?}", started.elapsed());
    assert_eq!(loaded.spec.process().as_ref().unwrap().env().as_ref().unwrap().len(), 60_000);
    let many: Vec<String> = (0..60_000).map(|n| format!("\"k{n}\": \"x\"")).collect();
    let started = Instant::now();
    parse(with("\"root\"", &format!("\"annotations\": {{{}}}, \"root\"", many.join(",")))).unwrap();
    println!("60 000 annotations: {:?}", started.elapsed());
}

fn file(bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("hull-spec-{}-{}", std::process::id(), bytes.len()));
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

#[test]
fn a_file_above_the_limit_is_refused_before_it_is_read() {
    let sparse = file(b"sparse");
    let path = std::env::temp_dir().join(format!("hull-spec-{}-sparse", std::process::id()));
    File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let large = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = spec::load(large, "config.json").unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigTooLarge);
    assert!(error.message.contains("config.json is larger than 8 MiB"));
    assert!(spec::load(sparse, "config.json").is_err());
    let mut filled = GOOD.as_bytes().to_vec();
    filled.resize(MAX_BYTES, b' ');
    assert!(spec::load(file(&filled), "config.json").is_ok());
}

#[test]
fn a_pipe_is_read_like_a_file_and_a_directory_is_not() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(br#"{"memory": {"limit": 1}}"#).unwrap();
    drop(writer);
    let loaded = spec::load_resources(File::from(std::os::fd::OwnedFd::from(reader)), "-").unwrap();
    assert_eq!(loaded.spec.memory().as_ref().unwrap().limit(), Some(1));
    let error = spec::load(File::open("/").unwrap(), "config.json").unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigRead);
    let error = spec::load(file(GOOD.as_bytes()), "c").map(|loaded| loaded.source.bytes().len());
    assert_eq!(error.unwrap(), GOOD.len());
}

#[test]
fn a_process_file_names_its_fields_as_a_config_does() {
    let error = spec::load_process(file(br#"{"args": "x", "cwd": "/"}"#), "p.json").unwrap_err();
    assert_eq!((field(&error), error.at.as_ref().unwrap().column), ("process.args", 10));
    let error = spec::load_process(file(br#"{"args": ["\u0000"], "cwd": "/"}"#), "p.json").unwrap_err();
    assert_eq!(field(&error), "process.args[0]");
    let error = spec::load_resources(file(br#"{"pids": {"limit": "x"}}"#), "-").unwrap_err();
    assert_eq!(field(&error), "linux.resources.pids.limit");
}

#[test]
fn no_text_of_a_config_cut_or_changed_by_a_byte_does_more_than_fail() {
    let text = include_bytes!("data/configs/podman-4.3-default.json");
    for at in (0..text.len()).step_by(41) {
        for byte in [b'"', b'{', b']', b'\\', b':', b',', 0, 0xff, b'9'] {
            let mut changed = text.to_vec();
            changed[at] = byte;
            if let Ok(loaded) = parse(&changed)
                && let Err(error) = spec::check(&loaded.spec)
            {
                assert!(loaded.source.point(error).at.is_some());
            }
        }
    }
}

#[test]
fn millions_of_mistakes_are_told_in_a_few_lines_and_soon() {
    let many = |item: &str| format!("[{}]", vec![item; 300_000].join(","));
    let rows = [
        with("\"args\"", &format!("\"capabilities\": {{\"bounding\": {}}}, \"args\"", many("\"X\""))),
        with("\"root\"", &format!("\"mounts\": {}, \"root\"", many(r#"{"destination":"x"}"#))),
        with("\"root\"", &format!("\"mounts\": {}, \"root\"", many(r#"{"type":null,"uidMappings":7}"#))),
        with("\"namespaces\"", &format!("\"netDevices\": {{{}}}, \"namespaces\"", names(300_000))),
        with("\"mount\"", &format!("\"{}\"", "x".repeat(1 << 20))),
    ];
    for text in rows {
        let started = Instant::now();
        let warnings = match parse(&text) {
            Ok(loaded) => {
                let checked = spec::check(&loaded.spec).unwrap_or_default();
                assert!(loaded.source.unknown_fields().len() <= spec::MAX_WARNINGS + 1);
                [loaded.warnings, checked].concat()
            }
            Err(error) => vec![error],
        };
        assert!(warnings.len() <= 2 * (spec::MAX_WARNINGS + 1), "{}", warnings.len());
        assert!(warnings.iter().all(|warning| warning.message.len() < 1000));
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

fn names(count: usize) -> String {
    (0..count).map(|n| format!("\"e{n}\": {{}}")).collect::<Vec<_>>().join(",")
}

/// What is built of a file is bounded, whether anybody reads it or not.
#[test]
fn more_values_than_anybody_writes_are_refused() {
    let filled = |key: &str, value: &str, count: usize| {
        format!("{{\"ociVersion\":\"1.0.2\",\"{key}\":[{}]}}", vec![value; count].join(","))
    };
    for (key, value) in [("x", "1"), ("x", "{}"), ("mounts", "{}")] {
        let text = filled(key, value, MAX_VALUES + 1);
        let error = spec::parse(text.into_bytes(), "config.json").unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigValues, "{error}");
    }
    let text = filled("x", "1", MAX_VALUES - 10);
    assert!(spec::parse(text.into_bytes(), "config.json").is_ok());
}
