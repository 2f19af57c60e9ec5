//! The command line of a shim, in the syntax of Go's `flag` package, which is what daemons write: `-x v`,
//! `-x=v`, `--x`. Reads words only.

use std::path::PathBuf;

/// What the process was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make or find the server of a group, and print its address.
    Start,
    /// Clean up after a container whose server is gone, or has just been told to go.
    Delete,
    /// Be the server.
    Serve,
    /// Print what this shim is, for the daemon.
    Info,
    /// Print the version, for people.
    Version,
    /// Print the flags.
    Help,
}

/// The words of one call.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Log at debug.
    pub debug: bool,
    /// The daemon's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// Where to serve; daemons do not give it.
    pub socket: String,
    /// The bundle; else the working directory.
    pub bundle: PathBuf,
    /// The daemon's gRPC address.
    pub address: String,
}

const HELP: &str = "\
containerd-shim-hull-v1: the containerd shim for hull; started by containerd

usage: containerd-shim-hull-v1 -namespace NS -id ID -address ADDRESS [FLAG...] start|delete
       containerd-shim-hull-v1 -info | -v

  -namespace NS         containerd namespace of the container
  -id ID                ID of the container
  -bundle DIR           bundle of the container (default: the working directory)
  -address ADDRESS      containerd's gRPC socket
  -publish-binary PATH  accepted; events go to containerd's ttrpc socket
  -socket PATH          the server's socket (default: derived from address, namespace and group)
  -debug-socket PATH    accepted, has no effect
  -debug                also log debug messages
  -info                 print the runtime information as protobuf
  -v, -version          print the version
";

/// The text of `-help`.
pub fn help() -> &'static str {
    HELP
}

/// Reads the words after the program's name.
///
/// # Errors
/// A sentence: an unknown flag, a missing value, a missing namespace.
pub fn parse(words: &[String]) -> Result<(Action, Flags), String> {
    let mut flags = Flags::default();
    let mut asked = None;
    let mut rest = words.iter();
    let mut verb = "";
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|f| !f.is_empty())
        else {
            verb = word;
            break;
        };
        let (name, given) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let on = given.is_none_or(|value| matches!(value, "true" | "1" | "t" | "T" | "TRUE" | "True"));
        match name {
            "debug" => flags.debug = on,
            "v" | "version" if on => asked = Some(Action::Version),
            "info" if on => asked = asked.or(Some(Action::Info)),
            "v" | "version" | "info" => {}
            "h" | "help" => return Ok((Action::Help, flags)),
            "namespace" | "id" | "socket" | "debug-socket" | "bundle" | "address" | "publish-binary" => {
                let value = given.map(str::to_owned).or_else(|| rest.next().cloned());
                let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                match name {
                    "namespace" => flags.namespace = value,
                    "id" => flags.id = value,
                    "socket" => flags.socket = value,
                    "bundle" => flags.bundle = value.into(),
                    "address" => flags.address = value,
                    // Of the others only the word is needed.
                    _ => {}
                }
            }
            _ => return Err(format!("flag provided but not defined: -{name}")),
        }
    }
    let action = match (asked, verb) {
        (Some(asked), _) => return Ok((asked, flags)),
        (None, "start") => Action::Start,
        (None, "delete") => Action::Delete,
        (None, "") => Action::Serve,
        (None, other) => return Err(format!("unknown action {other:?}: must be start or delete")),
    };
    if flags.namespace.is_empty() {
        return Err("shim namespace cannot be empty".to_owned());
    }
    // It becomes a directory's name.
    if flags.namespace.starts_with('.') || flags.namespace.contains('/') {
        return Err(format!("shim namespace {:?} is not a valid name", flags.namespace));
    }
    Ok((action, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Action, Flags), String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_taken_in_every_form_of_go() {
        let (action, flags) = parsed("-namespace ns --id=c1 -address=/a --debug -bundle /b start").unwrap();
        assert_eq!(action, Action::Start);
        assert_eq!((flags.namespace.as_str(), flags.id.as_str(), flags.address.as_str()), ("ns", "c1", "/a"));
        assert!(flags.debug);
        assert_eq!(flags.bundle, PathBuf::from("/b"));
    }

    #[test]
    fn without_an_action_it_serves() {
        assert_eq!(parsed("-namespace ns -id c -address /a").unwrap().0, Action::Serve);
    }

    #[test]
    fn version_and_info_need_no_namespace() {
        assert_eq!(parsed("-v").unwrap().0, Action::Version);
        assert_eq!(parsed("--version").unwrap().0, Action::Version);
        assert_eq!(parsed("-info").unwrap().0, Action::Info);
    }

    #[test]
    fn what_is_unknown_or_missing_is_refused() {
        for line in [
            "-namespace ../x start",
            "-namespace a/b start",
            "-nope x start",
            "-id c start",
            "-namespace ns restart",
            "-namespace",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
