//! The config.json that `hull spec` writes: the same container as `runc spec` describes, because scripts edit it.
//! It may not write the file, ask who runs it or look at the host. `cli/spec` calls it.

const ROOT: &str = include_str!("root.json");
const ROOTLESS: &str = include_str!("rootless.json");
const CGROUP_NAMESPACE: &str = "\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t},\n";
const CGROUP_NAMESPACE_LAST: &str = ",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}";

/// What the template depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Template {
    /// The host has cgroup v2 alone: the container gets a cgroup namespace, as with runc.
    pub unified_cgroups: bool,
    /// `--rootless`: a user namespace where this user is root, the caller's network, the host's /sys read-only, no
    /// cgroup limits.
    pub rootless: Option<User>,
}

/// The effective ids of a caller without root's rights.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

impl Template {
    /// The file's text: tabs, no newline at the end, as runc writes it.
    pub fn text(self) -> String {
        let text = match self.rootless {
            None => ROOT.to_owned(),
            Some(User { uid, gid }) => {
                ROOTLESS.replace("\"UID\"", &uid.to_string()).replace("\"GID\"", &gid.to_string())
            }
        };
        if self.unified_cgroups {
            return text;
        }
        text.replace(CGROUP_NAMESPACE, "").replace(CGROUP_NAMESPACE_LAST, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{check, parse};
    use oci_spec::runtime::{LinuxNamespaceType, Spec};

    fn spec(template: Template) -> Spec {
        let loaded = parse(template.text().into_bytes(), "template").unwrap();
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.source.unknown_fields(), []);
        assert_eq!(check(&loaded.spec).unwrap(), []);
        loaded.spec
    }

    fn kinds(spec: &Spec) -> Vec<LinuxNamespaceType> {
        spec.linux().as_ref().unwrap().namespaces().iter().flatten().map(|ns| ns.typ()).collect()
    }

    #[test]
    fn the_template_is_a_shell_on_a_terminal() {
        let spec = spec(Template::default());
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.terminal(), Some(true));
        assert_eq!(process.args().as_deref().unwrap(), ["sh"]);
        assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    }

    #[test]
    fn a_cgroup_namespace_is_asked_for_on_v2_alone() {
        use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User as UserNs, Uts};
        assert_eq!(kinds(&spec(Template::default())), [Pid, Network, Ipc, Uts, Mount]);
        assert_eq!(
            kinds(&spec(Template { unified_cgroups: true, rootless: None })),
            [Pid, Network, Ipc, Uts, Mount, Cgroup]
        );
        let rootless = Some(User { uid: 1000, gid: 100 });
        assert_eq!(
            kinds(&spec(Template { unified_cgroups: false, rootless })),
            [Pid, Ipc, Uts, Mount, UserNs]
        );
        assert_eq!(
            kinds(&spec(Template { unified_cgroups: true, rootless })),
            [Pid, Ipc, Uts, Mount, Cgroup, UserNs]
        );
    }

    #[test]
    fn rootless_maps_its_user_binds_sys_and_sets_no_limit() {
        let spec = spec(Template { unified_cgroups: false, rootless: Some(User { uid: 1000, gid: 100 }) });
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert_eq!(linux.gid_mappings().as_ref().unwrap()[0].host_id(), 100);
        assert!(linux.resources().is_none());
        let mounts = spec.mounts().as_ref().unwrap();
        let sys = mounts.iter().find(|m| m.destination().as_os_str() == "/sys").unwrap();
        assert_eq!(sys.typ().as_deref(), Some("none"));
        assert!(sys.options().as_ref().unwrap().contains(&"rbind".to_owned()));
        assert!(!mounts.iter().flat_map(|m| m.options().iter().flatten()).any(|o| o.starts_with("gid=")));
    }
}
