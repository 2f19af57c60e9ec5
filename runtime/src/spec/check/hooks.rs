//! The rules on `hooks`.
//! It does not look for the programs: they may come to be later. `check` calls it.

use oci_spec::runtime::{Hook, Hooks};

use super::at::At;
use super::refuse;
use crate::error::{ErrorKind, Result};

pub(super) fn check(hooks: Option<&Hooks>) -> Result<()> {
    let Some(hooks) = hooks else { return Ok(()) };
    let lists = [
        ("hooks.prestart", hooks.prestart()),
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
    ];
    for (name, list) in lists {
        for (index, hook) in list.iter().flatten().enumerate() {
            check_hook(hook, At::Named(name).index(index))?;
        }
    }
    Ok(())
}

fn check_hook(hook: &Hook, at: At<'_>) -> Result<()> {
    let path = hook.path();
    if path.as_os_str().is_empty() {
        return Err(refuse(ErrorKind::HookPath, at.member("path"), "hook path must not be empty"));
    }
    if !path.is_absolute() {
        return Err(refuse(
            ErrorKind::HookPath,
            at.member("path"),
            format!("hook path {} must be absolute", path.display()),
        ));
    }
    if let Some(timeout) = hook.timeout()
        && timeout <= 0
    {
        let message = format!("hook timeout must be greater than zero, is {timeout}");
        return Err(
            refuse(ErrorKind::HookTimeout, at.member("timeout"), message).hint("remove it for no timeout")
        );
    }
    Ok(())
}
