//! The hooks of a container, ready to be executed. Pure; `launch::hooks` runs them.

use std::ffi::CString;

use oci_spec::runtime::{Hook, Hooks};

use super::path::{HostPath, c_string};
use crate::error::{Field, Result};

/// One hook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookPlan {
    /// The program.
    pub path: HostPath,
    /// Its arguments, its own name first.
    pub args: Vec<CString>,
    /// Its whole environment.
    pub env: Vec<CString>,
    /// How long it may take in seconds.
    pub timeout_s: Option<u32>,
    /// The config field.
    pub field: Field,
}

/// The hooks of the six kinds, each in the order of the spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HooksPlan {
    /// In the runtime's namespaces, once the container's exist. Deprecated; dockerd lives by it.
    pub prestart: Vec<HookPlan>,
    /// In the runtime's namespaces, after `prestart`.
    pub create_runtime: Vec<HookPlan>,
    /// In the container's namespaces, before its root changes.
    pub create_container: Vec<HookPlan>,
    /// In the container, right before the program.
    pub start_container: Vec<HookPlan>,
    /// In the runtime's namespaces, once the program runs.
    pub poststart: Vec<HookPlan>,
    /// In the runtime's namespaces, after the container is deleted.
    pub poststop: Vec<HookPlan>,
}

/// Computes the hooks.
pub fn plan(hooks: Option<&Hooks>) -> Result<HooksPlan> {
    let Some(hooks) = hooks else { return Ok(HooksPlan::default()) };
    #[allow(deprecated, reason = "dockerd still writes prestart hooks")]
    let prestart = hooks.prestart();
    Ok(HooksPlan {
        prestart: plan_list("prestart", prestart)?,
        create_runtime: plan_list("createRuntime", hooks.create_runtime())?,
        create_container: plan_list("createContainer", hooks.create_container())?,
        start_container: plan_list("startContainer", hooks.start_container())?,
        poststart: plan_list("poststart", hooks.poststart())?,
        poststop: plan_list("poststop", hooks.poststop())?,
    })
}

/// The hooks of one kind; also used by `delete`, which has only the saved list.
pub fn plan_list(kind: &str, list: &Option<Vec<Hook>>) -> Result<Vec<HookPlan>> {
    let list_field = format!("hooks.{kind}");
    list.iter()
        .flatten()
        .enumerate()
        .map(|(index, hook)| plan_hook(hook, Field::item(&list_field, index)))
        .collect()
}

fn plan_hook(hook: &Hook, field: Field) -> Result<HookPlan> {
    let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
        list.iter().flatten().map(|text| c_string(text)).collect()
    };
    let path =
        HostPath::new(hook.path().to_string_lossy()).map_err(|error| error.field(field.member("path")))?;
    let mut args = strings(hook.args())?;
    if args.is_empty() {
        args.push(path.as_c_str().into());
    }
    let timeout_s = hook.timeout().and_then(|seconds| u32::try_from(seconds).ok());
    Ok(HookPlan { path, args, env: strings(hook.env())?, timeout_s, field })
}
