//! The runtime options of a container: runc's message, or the TOML that other runtime names get, kept in the
//! bundle for the `delete` form. Reads and writes that one file.

use std::io::Read;
use std::path::Path;

use hull_proto::{runc_options, runtime_options};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::error::{Error, Result};

const FILE: &str = "options.json";
/// What a daemon may write to our standard input.
const INPUT_LIMIT: u64 = 10 << 20;

/// What the daemon has written to our standard input.
///
/// # Errors
/// When it cannot be read.
pub fn read_input() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    let read = std::io::stdin().take(INPUT_LIMIT).read_to_end(&mut input);
    read.map_err(|why| Error::failed("read standard input", why))?;
    Ok(input)
}

/// What the daemon's configuration asks of the runtime. Written as JSON in the names of the message, read from
/// TOML in the names of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Move the root instead of `pivot_root`.
    #[serde(alias = "NoPivotRoot", skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    /// Keep the session keyring.
    #[serde(alias = "NoNewKeyring", skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    /// The cgroup of the shim itself.
    #[serde(alias = "ShimCgroup", skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// Owner of the stdio pipes.
    #[serde(alias = "IoUid", skip_serializing_if = "is_default")]
    pub io_uid: u32,
    /// Their group.
    #[serde(alias = "IoGid", skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// The runtime; empty for hull.
    #[serde(alias = "BinaryName", skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// Where the runtime keeps its state, above a directory for each namespace.
    #[serde(alias = "Root", skip_serializing_if = "is_default")]
    pub root: String,
    /// cgroups are systemd's.
    #[serde(alias = "SystemdCgroup", skip_serializing_if = "is_default")]
    pub systemd_cgroup: bool,
    /// Where a checkpoint's image lies.
    #[serde(alias = "CriuImagePath", skip_serializing_if = "is_default")]
    pub criu_image_path: String,
    /// Where CRIU works.
    #[serde(alias = "CriuWorkPath", skip_serializing_if = "is_default")]
    pub criu_work_path: String,
    /// Where the task of a sandbox is served; deprecated, passed back as it came.
    #[serde(alias = "TaskApiAddress", skip_serializing_if = "is_default")]
    pub task_api_address: String,
    /// In which version.
    #[serde(alias = "TaskApiVersion", skip_serializing_if = "is_default")]
    pub task_api_version: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Options {
    /// Those of a request; none when it has none.
    ///
    /// # Errors
    /// A type that is not known, or a value that cannot be read or used.
    pub fn from_any(any: &Any) -> Result<Self> {
        let options = Self::read(any)?;
        // Each call of the runtime has a working directory of its own.
        if !options.root.is_empty() && !options.root.starts_with('/') {
            return Err(Error::invalid(format!(
                "runtime option root {:?} is not an absolute path",
                options.root
            )));
        }
        Ok(options)
    }

    fn read(any: &Any) -> Result<Self> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::invalid(format!("read the runtime options {}: {why}", any.type_url))
        };
        // The type is written with a host in front by some, and without by others.
        match any.type_url.rsplit('/').next().unwrap_or_default() {
            "" if any.value.is_empty() => Ok(Self::default()),
            "containerd.runc.v1.Options" | "containerd.linux.runc.Options" => {
                let options = runc_options::Options::parse_from_bytes(&any.value);
                options.map(Self::from).map_err(|why| unreadable(&why))
            }
            "runtimeoptions.v1.Options" | "cri.runtimeoptions.v1.Options" => {
                let options = runtime_options::Options::parse_from_bytes(&any.value);
                let options = options.map_err(|why| unreadable(&why))?;
                let body = match options.config_body.as_slice() {
                    [] if options.config_path.is_empty() => return Ok(Self::default()),
                    [] => std::fs::read(&options.config_path)
                        .map_err(|why| Error::failed(format!("read {}", options.config_path), why))?,
                    body => body.to_vec(),
                };
                let text = std::str::from_utf8(&body).map_err(|why| unreadable(&why))?;
                toml::from_str(text).map_err(|why| unreadable(&why.message()))
            }
            _ => Err(Error::invalid(format!("unknown type of runtime options: {}", any.type_url))),
        }
    }

    /// Those on standard input; none when it is empty.
    ///
    /// # Errors
    /// As [`Self::from_any`].
    pub fn from_input(input: &[u8]) -> Result<Self> {
        let any = Any::parse_from_bytes(input);
        let any = any.map_err(|why| Error::invalid(format!("read the options on standard input: {why}")))?;
        Self::from_any(&any)
    }

    /// Those that `create` kept in a bundle; none when there are none.
    pub fn load(bundle: &Path) -> Self {
        let text = std::fs::read(bundle.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps them in the bundle.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|why| Error::failed("write the options", why))?;
        bundle::write(&dir.join(FILE), &text)
    }
}

impl From<runc_options::Options> for Options {
    fn from(from: runc_options::Options) -> Self {
        Self {
            no_pivot_root: from.no_pivot_root,
            no_new_keyring: from.no_new_keyring,
            shim_cgroup: from.shim_cgroup,
            io_uid: from.io_uid,
            io_gid: from.io_gid,
            binary_name: from.binary_name,
            root: from.root,
            systemd_cgroup: from.systemd_cgroup,
            criu_image_path: from.criu_image_path,
            criu_work_path: from.criu_work_path,
            task_api_address: from.task_api_address,
            task_api_version: from.task_api_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(url: &str, message: &impl Message) -> Any {
        Any { type_url: url.to_owned(), value: message.write_to_bytes().unwrap(), ..Any::default() }
    }

    #[test]
    fn the_host_in_a_type_does_not_matter() {
        let message = runc_options::Options { binary_name: "/x".to_owned(), io_uid: 5, ..Default::default() };
        for url in ["containerd.runc.v1.Options", "type.googleapis.com/containerd.runc.v1.Options"] {
            let options = Options::from_any(&any(url, &message)).unwrap();
            assert_eq!((options.binary_name.as_str(), options.io_uid), ("/x", 5));
        }
    }

    #[test]
    fn toml_in_the_names_of_the_configuration_is_read() {
        let body = b"BinaryName = \"/opt/hull\"\nSystemdCgroup = true\nRoot = \"/r\"\nIoGid = 7\nOther = 1\n";
        let message = runtime_options::Options { config_body: body.to_vec(), ..Default::default() };
        let options = Options::from_any(&any("runtimeoptions.v1.Options", &message)).unwrap();
        assert_eq!((options.binary_name.as_str(), options.root.as_str()), ("/opt/hull", "/r"));
        assert!(options.systemd_cgroup);
        assert_eq!(options.io_gid, 7);
    }

    #[test]
    fn a_relative_root_is_refused() {
        for (root, fits) in [("/r", true), ("", true), ("r", false), ("--debug", false), ("../r", false)] {
            let message = runc_options::Options { root: root.to_owned(), ..Default::default() };
            let options = Options::from_any(&any("containerd.runc.v1.Options", &message));
            assert_eq!(options.is_ok(), fits, "{root}");
        }
    }

    #[test]
    fn no_options_are_the_defaults_and_foreign_ones_are_refused() {
        assert_eq!(Options::from_any(&Any::default()).unwrap(), Options::default());
        let foreign = Any { type_url: "io.example.Options".to_owned(), ..Any::default() };
        assert!(Options::from_any(&foreign).unwrap_err().message.contains("io.example.Options"));
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let options = Options { root: "/r".to_owned(), systemd_cgroup: true, ..Options::default() };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(text, r#"{"root":"/r","systemd_cgroup":true}"#);
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    }
}
