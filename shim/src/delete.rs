//! The `delete` form: what the daemon calls when the server is gone, and once more after every normal end. It
//! kills and removes what is left of the container and says how it ended, as far as anybody knows.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::SystemTime;

use hull_proto::task::DeleteResponse;
use protobuf::Message;

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
    let options = Options::load(&dir);
    let reaper = Rc::new(Reaper::default());
    let runtime = Runtime::new(&options, &flags.namespace, &dir, &flags.id, &reaper);
    let pid = std::fs::read_to_string(dir.join("init.pid")).ok().and_then(|text| text.trim().parse().ok());
    let mut exit = bundle::load_exit(&dir);
    if runtime.knows() {
        let was_alive = exit.is_none();
        force(&runtime)?;
        if was_alive {
            exit = Some(Exit { status: KILLED, at: SystemTime::now() });
        }
    }
    mounts::unmount_all(&dir.join("rootfs"))?;
    if let Ok(address) = std::fs::read_to_string(dir.join("address")) {
        start::remove_dead(Path::new(address.trim().trim_start_matches("unix://")))?;
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

/// The daemon starts us in the bundle; some say where it is, too.
fn find_bundle(flags: &Flags) -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|why| Error::failed("find the bundle", why))?;
    let named = Some(&flags.bundle).filter(|bundle| !bundle.as_os_str().is_empty());
    Ok(named.filter(|bundle| bundle.is_dir()).map_or(here, |bundle| bundle.clone()))
}

fn force(runtime: &Runtime) -> Result<()> {
    let mut command: Command = runtime.deletion();
    let output = command.stderr(Stdio::piped()).output();
    let output = output.map_err(|why| Error::failed("execute the runtime", why))?;
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
