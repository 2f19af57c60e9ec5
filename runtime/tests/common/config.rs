//! A good config, changes to it, and what the loader and the rules say of the result.
//! It holds no test. `spec_check.rs` and `spec_check_linux.rs` call it.

use hull::error::{Error, Warning};
use hull::spec;
use serde_json::{Value, json};

/// A config that passes every rule.
pub(crate) fn good() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["A=1", "B="],
            "cwd": "/",
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}],
        },
        "root": {"path": "rootfs"},
        "hostname": "h",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}],
            "resources": {},
        },
    })
}

/// The good config with `value` at `pointer`, whose parent must exist; `Null` removes.
pub(crate) fn with(pointer: &str, value: Value) -> Value {
    let mut config = good();
    set(&mut config, pointer, value);
    config
}

/// Sets, appends (`-`) or removes (`Null`) one value.
pub(crate) fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Object(object) if value.is_null() => {
            object.remove(key);
        }
        Value::Object(object) => {
            object.insert(key.to_owned(), value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => panic!("{parent} is a scalar"),
    }
}

/// What loading and checking say.
pub(crate) fn verdict(config: &Value) -> Result<Vec<Warning>, Error> {
    let loaded = spec::parse(serde_json::to_vec_pretty(config).unwrap(), "config.json")?;
    let checked = spec::check(&loaded.spec).map_err(|error| loaded.source.point(error))?;
    Ok([loaded.warnings, checked].concat())
}

#[track_caller]
pub(crate) fn refused(config: &Value, field: &str, words: &str) {
    let error = verdict(config).expect_err(words);
    assert!(error.message.contains(words), "{words:?} is not in {error}");
    assert_eq!(error.field.as_ref().map(|f| f.as_str()), Some(field), "{error}");
    let at = error.at.expect("a place in the file");
    assert_eq!(at.file, "config.json");
}

#[track_caller]
pub(crate) fn passes(config: &Value) {
    assert_eq!(verdict(config).unwrap(), []);
}

#[track_caller]
pub(crate) fn warned(config: &Value, field: &str, words: &str) {
    let warnings = verdict(config).unwrap();
    assert!(
        warnings
            .iter()
            .any(|w| w.message.contains(words) && w.field.as_ref().is_some_and(|f| f.as_str() == field)),
        "{warnings:?}"
    );
}
