//! The `delete` form: what the daemon calls when the server is gone, and once more after every normal end. It
//! kills and removes what is left of the container and says how it ended, as far as anybody knows. With a sandbox
//! whose server is gone go its containers: the daemon asks for none of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::SystemTime;

use hull_proto::task::DeleteResponse;
use protobuf::Message;
use serde::Deserialize;

use crate::bundle;
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::mounts;
use crate::options::Options;
use crate::reaper::Reaper;
use crate::runtime::Runtime;
use crate::spawn::{Exit, UNKNOWN};
use crate::{start, time};

/// The status of a process that we have killed.
const KILLED: u32 = 128 + libc::SIGKILL.unsigned_abs();

/// The answer for standard output.
///
/// # Errors
/// What is left, and why.
pub fn delete(flags: &Flags) -> Result<Vec<u8>> {
    bundle::check_id(&flags.id)?;
    let dir = find_bundle(flags)?;
    let pid = std::fs::read_to_string(dir.join("init.pid")).ok().and_then(|text| text.trim().parse().ok());
    let exit = remove(&flags.namespace, &flags.id, &dir)?;
    if let Ok(address) = std::fs::read_to_string(dir.join("address")) {
        start::remove_dead(Path::new(address.trim().trim_start_matches("unix://")))?;
    }
    if !dir.join("config.json").exists() {
        for member in members(flags, &dir)? {
            // containerd may have removed the bundle already.
            let has_bundle = member.bundle.is_dir();
            let bundle = if has_bundle { &member.bundle } else { &dir };
            let exit = remove(&flags.namespace, &member.id, bundle)?;
            if let Some(exit) = exit.filter(|_| has_bundle) {
                bundle::save_exit(bundle, exit);
            }
        }
    }
    // A container that never was, or whose end nobody has seen.
    let unseen = Exit { status: if pid.is_some() { UNKNOWN } else { KILLED }, at: SystemTime::now() };
    let exit = exit.unwrap_or(unseen);
    let response = DeleteResponse {
        pid: pid.unwrap_or(0),
        exit_status: exit.status,
        exited_at: time::stamp(exit.at),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().map_err(|why| Error::failed("write the answer", why))
}

/// Kills and removes a container, and undoes its mounts. Answers how it ended, if anybody knows.
fn remove(namespace: &str, id: &str, dir: &Path) -> Result<Option<Exit>> {
    let options = Options::load(dir);
    let reaper = Rc::new(Reaper::default());
    let runtime = Runtime::new(&options, namespace, dir, id, &reaper);
    let mut exit = bundle::load_exit(dir);
    if runtime.knows() {
        force(&runtime)?;
        exit = exit.or_else(|| Some(Exit { status: KILLED, at: SystemTime::now() }));
    }
    mounts::unmount_all(&dir.join("rootfs"))?;
    Ok(exit)
}

/// A container as the runtime lists it.
#[derive(Deserialize)]
struct Member {
    id: String,
    bundle: PathBuf,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The containers of this sandbox.
fn members(flags: &Flags, dir: &Path) -> Result<Vec<Member>> {
    let failed = |why: &str| Error::failed("list the containers of the sandbox", why);
    let reaper = Rc::new(Reaper::default());
    let runtime = Runtime::new(&Options::load(dir), &flags.namespace, dir, &flags.id, &reaper);
    let Some(mut listing) = runtime.listing() else { return Ok(Vec::new()) };
    let output = call(&mut listing)?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let all: Option<Vec<Member>> =
        serde_json::from_slice(&output.stdout).map_err(|why| failed(&why.to_string()))?;
    let is_member = |member: &Member| bundle::group_of(&member.annotations) == Some(&flags.id);
    Ok(all.unwrap_or_default().into_iter().filter(is_member).collect())
}

/// The daemon starts us in the bundle; some say where it is, too.
fn find_bundle(flags: &Flags) -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|why| Error::failed("find the bundle", why))?;
    let named = Some(&flags.bundle).filter(|bundle| !bundle.as_os_str().is_empty());
    Ok(named.filter(|bundle| bundle.is_dir()).map_or(here, |bundle| bundle.clone()))
}

/// A call of the runtime, and what it says.
fn call(command: &mut Command) -> Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().map_err(|why| Error::failed("execute the runtime", why))
}

fn force(runtime: &Runtime) -> Result<()> {
    let output = call(&mut runtime.deletion())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || said.contains("does not exist") {
        return Ok(());
    }
    Err(Error::other(format!("delete the container: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_the_one_that_is_named_and_there() {
        let here = std::env::current_dir().unwrap();
        let flags = |bundle: &str| Flags { bundle: Path::new(bundle).to_owned(), ..Flags::default() };
        assert_eq!(find_bundle(&flags("")).unwrap(), here);
        assert_eq!(find_bundle(&flags("/nowhere/at/all")).unwrap(), here);
        assert_eq!(find_bundle(&flags("/tmp")).unwrap(), Path::new("/tmp"));
    }
}
