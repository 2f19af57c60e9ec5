//! The files of a bundle that the shim reads and writes.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::spawn::Exit;

/// Where the exit of init is kept.
const EXIT: &str = "init.exit";

/// Ids become names of files.
///
/// # Errors
/// One that could be another's file.
pub fn check_id(id: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    if id.is_empty() || id.starts_with(['.', '-']) || !id.bytes().all(fits) || id.len() > 128 {
        return Err(Error::invalid(format!(
            "ID {id:?} must consist of letters, digits and _ . + - and must not begin with . or -"
        )));
    }
    Ok(())
}

/// Writes a file that only we can read. What lies there already must be a file: a link would lead to another's, a
/// pipe would not answer.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &[u8]) -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("write {}", path.display()), why);
    let mut options = std::fs::File::options();
    options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let mut file = options.open(path).map_err(|why| failed(&why))?;
    if !file.metadata().map_err(|why| failed(&why))?.is_file() {
        return Err(failed(&"not a regular file"));
    }
    file.set_len(0).and_then(|()| file.write_all(text)).map_err(|why| failed(&why))
}

/// Makes a directory, which may be there already.
///
/// # Errors
/// When it cannot be made.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let made = std::fs::DirBuilder::new().mode(mode).recursive(true).create(path);
    made.map_err(|why| Error::failed(format!("mkdir {}", path.display()), why))
}

/// The parts of config.json that the shim looks at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    annotations: Option<BTreeMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

fn config(bundle: &Path) -> Result<Config> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(|why| Error::failed(format!("read {}", path.display()), why))?;
    serde_json::from_slice(&text).map_err(|why| Error::invalid(format!("read {}: {why}", path.display())))
}

/// Annotations that put several containers into one shim, the first that is there counting.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The group of the bundle's container, unless it is alone. The bundle of a sandbox has no config.json: it is
/// what others are grouped by.
///
/// # Errors
/// A config.json that is there and cannot be read.
pub fn group(bundle: &Path) -> Result<Option<String>> {
    if !bundle.join("config.json").exists() {
        return Ok(None);
    }
    let annotations = config(bundle)?.annotations.unwrap_or_default();
    Ok(group_of(&annotations).cloned())
}

/// The group that these annotations name.
pub fn group_of(annotations: &BTreeMap<String, String>) -> Option<&String> {
    GROUPS.iter().find_map(|name| annotations.get(*name).filter(|group| !group.is_empty()))
}

/// Whether the container's processes are not ended by the kernel when its init ends.
///
/// # Errors
/// A config.json that cannot be read.
pub fn shares_pids(bundle: &Path) -> Result<bool> {
    let is_new = |namespace: &Namespace| namespace.path.as_deref().unwrap_or_default().is_empty();
    let namespaces = config(bundle)?.linux.unwrap_or_default().namespaces.unwrap_or_default();
    Ok(!namespaces.iter().any(|namespace| namespace.kind == "pid" && is_new(namespace)))
}

/// The part of an Exec's process that the request has a word on, as it is written.
#[derive(Deserialize)]
struct Terminal<'a> {
    #[serde(borrow)]
    terminal: Option<&'a RawValue>,
}

/// The process of an Exec, with the request's word on the terminal. All else stays as it is written: what is wrong
/// with it is the runtime's to say.
///
/// # Errors
/// When it is not a JSON object, or has two words on the terminal itself.
pub fn process_json(spec: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let unreadable =
        |why: &dyn std::fmt::Display| Error::invalid(format!("read the process of the exec: {why}"));
    let text = std::str::from_utf8(spec).map_err(|why| unreadable(&why))?;
    let inside = text.trim_start().strip_prefix('{').ok_or_else(|| unreadable(&"not an object"))?;
    let said: Terminal<'_> = serde_json::from_str(text).map_err(|why| unreadable(&why))?;
    let word = terminal.to_string();
    let (before, middle, after) = if let Some(said) = said.terminal {
        // A part of `text`, so the distance is its place.
        let start = said.get().as_ptr().addr() - text.as_ptr().addr();
        (&text[..start], word, &text[start + said.get().len()..])
    } else {
        let comma = if inside.trim_start().starts_with('}') { "" } else { "," };
        (&text[..text.len() - inside.len()], format!("\"terminal\":{word}{comma}"), inside)
    };
    Ok([before, &middle, after].concat().into_bytes())
}

/// Keeps the exit of init for the `delete` form.
pub fn save_exit(bundle: &Path, exit: Exit) {
    let since = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{} {} {}\n", exit.status, since.as_secs(), since.subsec_nanos());
    if let Err(error) = write(&bundle.join(EXIT), text.as_bytes()) {
        crate::log::warning(&error.message);
    }
}

/// The exit of init, if it was seen.
pub fn load_exit(bundle: &Path) -> Option<Exit> {
    let text = std::fs::read_to_string(bundle.join(EXIT)).ok()?;
    let mut numbers = text.split_ascii_whitespace();
    let status = numbers.next()?.parse().ok()?;
    let at = Duration::new(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(Exit { status, at: UNIX_EPOCH + at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(name: &str, config: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("hull-shim-bundle-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.json"), config).unwrap();
        dir
    }

    #[test]
    fn a_group_is_the_first_annotation_that_is_there() {
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        for (name, config, group_is) in [
            ("both", both, Some("g")),
            ("pod", r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#, Some("pod")),
            ("none", r#"{"annotations":{"x":"y"}}"#, None),
            ("null", r#"{"annotations":null,"hostname":null,"linux":null}"#, None),
        ] {
            let dir = bundle(name, config);
            assert_eq!(group(&dir).unwrap().as_deref(), group_is, "{name}");
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn a_config_that_cannot_be_read_is_an_error() {
        let dir = bundle("broken", "{");
        assert!(group(&dir).unwrap_err().message.contains("config.json"));
        std::fs::remove_file(dir.join("config.json")).unwrap();
        assert!(shares_pids(&dir).unwrap_err().message.contains("config.json"));
        assert_eq!(group(&dir).unwrap(), None, "a sandbox");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_pid_namespace_of_its_own_is_a_new_one() {
        for (name, list, shares) in [
            ("own", r#"[{"type":"pid"}]"#, false),
            ("path", r#"[{"type":"pid","path":"/proc/1/ns/pid"}]"#, true),
            ("host", "[]", true),
        ] {
            let dir = bundle(name, &format!(r#"{{"linux":{{"namespaces":{list}}}}}"#));
            assert_eq!(shares_pids(&dir).unwrap(), shares, "{name}");
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn the_request_decides_on_the_terminal() {
        for (said, asked, text) in [
            (r#"{"args":["x"],"terminal":true}"#, false, r#"{"args":["x"],"terminal":false}"#),
            (r#"{ "terminal" : false , "cwd":"/"}"#, true, r#"{ "terminal" : true , "cwd":"/"}"#),
            (r#"{"\u0074erminal":true}"#, false, r#"{"\u0074erminal":false}"#),
            (r#" {"cwd":"/"}"#, true, r#" {"terminal":true,"cwd":"/"}"#),
            ("{ }", false, r#"{"terminal":false }"#),
            (r#"{"cwd":"/","cwd":"/x"}"#, false, r#"{"terminal":false,"cwd":"/","cwd":"/x"}"#),
        ] {
            let made = process_json(said.as_bytes(), asked).unwrap();
            assert_eq!(String::from_utf8(made).unwrap(), text, "{said}");
        }
        for wrong in ["[]", "", "{", r#"{"terminal":true,"terminal":true}"#, r#"{"a":1} x"#, "[{}]"] {
            assert!(process_json(wrong.as_bytes(), true).is_err(), "{wrong}");
        }
        assert!(process_json(b"{\"a\":\"\xff\"}", true).is_err());
    }

    #[test]
    fn only_a_file_is_written() {
        let dir = bundle("write", "{}");
        let (target, link) = (dir.join("target"), dir.join("link"));
        std::fs::write(&target, "host's").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link", "pipe"] {
            assert!(write(&dir.join(name), b"x").is_err(), "{name}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"host's");
        write(&target, b"a").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"a");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_exit_is_read_back() {
        let dir = bundle("exit", "{}");
        assert_eq!(load_exit(&dir), None);
        let exit = Exit { status: 143, at: UNIX_EPOCH + Duration::new(5, 6) };
        save_exit(&dir, exit);
        assert_eq!(load_exit(&dir), Some(exit));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_id_is_a_plain_name() {
        for id in ["a", "A-1_b.c+d"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "-a", "--root=x", "a/b", "a b", &"x".repeat(129)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
