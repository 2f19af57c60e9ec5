//! The JSON a container's state is told in: to `state`'s caller and to a hook on its stdin.
//! It may not find anything out: the caller hands every value over. `cli` and `launch` (hooks) call it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::time::Timestamp;

/// Where a container stands in its life (`runtime.md#state`; `paused` is runc's addition).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work: seen by nobody but a hook.
    Creating,
    /// Set up, waiting for `start`.
    Created,
    /// The user's program was started.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Init is gone.
    Stopped,
}

impl Status {
    /// The word callers compare with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `state ID` prints; the order of the members is the order of the keys.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// The `ociVersion` of the bundle.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Host pid of init; 0 when stopped.
    pub pid: u32,
    /// Where it stands.
    pub status: Status,
    /// Absolute path of the bundle.
    pub bundle: &'a str,
    /// Absolute path of the root filesystem.
    pub rootfs: &'a str,
    /// When `create` made it.
    #[serde(serialize_with = "as_text")]
    pub created: Timestamp,
    /// The config's annotations; left out when empty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    /// Always the empty string, as runc prints it for root and for everyone else since 1.0.
    pub owner: &'a str,
}

/// What a hook reads on stdin (`runtime.md#state`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState<'a> {
    /// The `ociVersion` of the bundle.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Where it stands.
    pub status: Status,
    /// Host pid of init; left out when 0 (stopped).
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// Absolute path of the bundle.
    pub bundle: &'a str,
    /// The config's annotations; left out when empty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
const fn is_zero(pid: &u32) -> bool {
    *pid == 0
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

impl State<'_> {
    /// Two spaces of indent and no newline at the end, as runc writes it.
    pub fn to_json(&self) -> String {
        // Strings, numbers and string-keyed maps always serialise; an empty text would be a caller's bug to see.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl HookState<'_> {
    /// One line without a newline.
    pub fn to_json(&self) -> String {
        // As above: this value has no part that can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(annotations: &BTreeMap<String, String>) -> State<'_> {
        State {
            oci_version: "1.2.0",
            id: "c1",
            pid: 42,
            status: Status::Running,
            bundle: "/b",
            rootfs: "/b/rootfs",
            created: Timestamp { secs: 1_709_210_096, nanos: 123_456_789 },
            annotations,
            owner: "",
        }
    }

    #[test]
    fn state_has_runcs_keys_in_runcs_order() {
        let annotations =
            BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let expected = "{\n  \"ociVersion\": \"1.2.0\",\n  \"id\": \"c1\",\n  \"pid\": 42,\n  \"status\": \"running\",\n  \
            \"bundle\": \"/b\",\n  \"rootfs\": \"/b/rootfs\",\n  \"created\": \"2024-02-29T12:34:56.123456789Z\",\n  \
            \"annotations\": {\n    \"a\": \"1\",\n    \"b\": \"2\"\n  },\n  \"owner\": \"\"\n}";
        assert_eq!(state(&annotations).to_json(), expected);
    }

    #[test]
    fn state_without_annotations_leaves_the_key_out() {
        assert!(!state(&BTreeMap::new()).to_json().contains("annotations"));
    }

    #[test]
    fn hook_state_is_one_line_and_a_stopped_one_has_no_pid() {
        let annotations = BTreeMap::new();
        let mut hook = HookState {
            oci_version: "1.3.0",
            id: "c1",
            status: Status::Created,
            pid: 7,
            bundle: "/b",
            annotations: &annotations,
        };
        assert_eq!(
            hook.to_json(),
            r#"{"ociVersion":"1.3.0","id":"c1","status":"created","pid":7,"bundle":"/b"}"#
        );
        hook.status = Status::Stopped;
        hook.pid = 0;
        assert_eq!(hook.to_json(), r#"{"ociVersion":"1.3.0","id":"c1","status":"stopped","bundle":"/b"}"#);
    }
}
