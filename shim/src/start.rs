//! The `start` form: finds the server of the container's group, or makes one, and answers with its address in
//! the dialect of the daemon that asks. It lives for a millisecond or two; the server is this same program,
//! with its socket as standard input.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hull_proto::bootstrap::{BootstrapParams, BootstrapResult};
use hull_sys::process;
use nix::fcntl::{Flock, FlockArg};
use protobuf::Message;
use sha2::{Digest, Sha256};

use crate::bundle;
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::options::{self, Options};

/// Where sockets lie when the daemon does not say.
const SOCKET_DIR: &str = "/run/containerd/s";
/// The version of the task service that a daemon of the new dialect is told.
const VERSION: i32 = 3;
/// `log_level` of a daemon that wants all there is.
const DEBUG: i32 = -4;

/// What a daemon asks for, whatever its dialect.
#[derive(Debug, Default, PartialEq)]
struct Request {
    /// It reads a protobuf answer (containerd 2.3 on), not an address.
    structured: bool,
    grpc_address: String,
    ttrpc_address: String,
    debug: bool,
    options: Options,
    socket_dir: PathBuf,
}

/// The answer for standard output.
///
/// # Errors
/// Why there is no server.
pub fn start(flags: &Flags) -> Result<Vec<u8>> {
    bundle::check_id(&flags.id)?;
    let request = understand(&options::read_input()?, flags)?;
    let dir = match &flags.bundle {
        bundle if bundle.as_os_str().is_empty() => std::env::current_dir(),
        bundle => Ok(bundle.clone()),
    };
    let dir = dir.map_err(|why| Error::failed("find the bundle", why))?;
    let group = bundle::group(&dir)?.unwrap_or_else(|| flags.id.clone());
    let path = socket_path(&request, flags, &group);
    let address = format!("unix://{}", path.display());
    // None when another of the group has made one.
    let socket = listen(&path)?;
    let is_new = socket.is_some();
    let server = socket.map(|socket| spawn_server(flags, &request, &dir, &address, socket));
    let told = match server {
        None => write_address(&dir, &address),
        Some(Err(error)) => Err(error),
        Some(Ok(mut server)) => write_address(&dir, &address).inspect_err(|_unwritten| {
            let _ended = server.kill().and_then(|()| server.wait()).is_ok();
        }),
    };
    if is_new && told.is_err() {
        // It is ours alone: nobody has been told of it.
        let _removed = std::fs::remove_file(&path).is_ok();
    }
    told?;
    answer(&request, &address)
}

/// Daemons from 2.3 on write their parameters; those before write options, or nothing. Each can be read as the
/// other: the parameters are meant only if they name this container.
fn understand(input: &[u8], flags: &Flags) -> Result<Request> {
    let params = BootstrapParams::parse_from_bytes(input).unwrap_or_default();
    if !flags.id.is_empty() && params.instance_id == flags.id && params.namespace == flags.namespace {
        let mut options = Options::default();
        for extension in &params.extensions {
            // Others than ours may follow; of ours there is one.
            if let Some(Ok(found)) = extension.value.as_ref().map(Options::from_any) {
                options = found;
            }
        }
        return Ok(Request {
            structured: true,
            grpc_address: params.containerd_grpc_address,
            ttrpc_address: params.containerd_ttrpc_address,
            debug: params.log_level <= DEBUG,
            options,
            socket_dir: params.socket_dir.into(),
        });
    }
    Ok(Request { options: Options::from_input(input)?, ..Request::default() })
}

/// Named after what a group is, so that its next member finds the server.
fn socket_path(request: &Request, flags: &Flags, group: &str) -> PathBuf {
    if !flags.socket.is_empty() {
        return flags.socket.trim_start_matches("unix://").into();
    }
    let address = if flags.address.is_empty() { &request.grpc_address } else { &flags.address };
    let name = Path::new(address).join(&flags.namespace).join(group);
    let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let dir = &request.socket_dir;
    let dir = if dir.as_os_str().is_empty() { Path::new(SOCKET_DIR) } else { dir };
    dir.join(name)
}

/// A listening socket; `None` when a server listens there already. One start after the other, by a lock on the
/// directory: who finds a dead socket and who has just replaced it must not meet.
fn listen(path: &Path) -> Result<Option<OwnedFd>> {
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("listen on {}", path.display()), why);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
    made.map_err(|why| Error::failed(format!("mkdir {}", dir.display()), why))?;
    let _one_at_a_time = lock(dir)?;
    // Of the file's mode only the owner's bits are left from its first moment on.
    let mask = process::set_umask(0o177);
    let bound = match UnixListener::bind(path) {
        Err(why) if why.kind() == std::io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                process::set_umask(mask);
                return Ok(None);
            }
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        }
        bound => bound,
    };
    process::set_umask(mask);
    bound.map(|listener| Some(listener.into())).map_err(|why| failed(&why))
}

/// Held by whoever looks at a socket of this directory and may replace it.
fn lock(dir: &Path) -> Result<Flock<std::fs::File>> {
    let what = || format!("lock {}", dir.display());
    let file = std::fs::File::open(dir).map_err(|why| Error::failed(what(), why))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, why)| Error::failed(what(), why.desc()))
}

/// Removes the socket of this process, which listens there and will no longer serve.
///
/// # Errors
/// When it cannot be removed.
pub fn withdraw(path: &Path) -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("remove {}", path.display()), why);
    let Some(dir) = path.parent() else { return Ok(()) };
    let _one_at_a_time = lock(dir)?;
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(failed(&why)),
        _ => Ok(()),
    }
}

/// Removes the socket of a server that is gone; one that answers stays.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_dead(path: &Path) -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("remove {}", path.display()), why);
    let Some(dir) = path.parent().filter(|_| path.exists()) else { return Ok(()) };
    let _one_at_a_time = lock(dir)?;
    match UnixStream::connect(path) {
        Err(why) if why.kind() == std::io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|why| failed(&why))
        }
        _ => Ok(()),
    }
}

fn spawn_server(
    flags: &Flags,
    request: &Request,
    dir: &Path,
    address: &str,
    socket: OwnedFd,
) -> Result<Child> {
    if std::env::var_os("SCHED_CORE").is_some() {
        process::new_core_scheduling_group()
            .map_err(|why| Error::failed("create a core scheduling group", why.desc()))?;
    }
    let own = std::env::current_exe().map_err(|why| Error::failed("find the executable of the shim", why))?;
    let mut command = Command::new(own);
    command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", address]);
    if flags.debug || request.debug {
        command.arg("-debug");
    }
    if !request.ttrpc_address.is_empty() {
        command.env("TTRPC_ADDRESS", &request.ttrpc_address);
    }
    command.current_dir(dir).process_group(0);
    command.stdin(Stdio::from(socket)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = command.spawn().map_err(|why| Error::failed("execute the server", why))?;
    let placed = place(server.id(), &request.options);
    if placed.is_err() {
        // It serves nobody yet.
        let _ended = server.kill().and_then(|()| server.wait()).is_ok();
    }
    placed.map(|()| server)
}

/// Moves the server to the cgroup of the options, and lets the kernel's OOM killer prefer it to the daemon.
fn place(pid: u32, options: &Options) -> Result<()> {
    if !options.shim_cgroup.is_empty() {
        enter_cgroup(pid, &options.shim_cgroup)?;
    }
    let parent = std::os::unix::process::parent_id();
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    if let Ok(score) = score.trim().parse::<i32>() {
        // Raising it is always allowed; where it is not, the score of the daemon is good enough.
        let score = (score + 1).min(1000).to_string();
        let _raised = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score).is_ok();
    }
    Ok(())
}

/// In every hierarchy that has it: the cgroup is the administrator's.
fn enter_cgroup(pid: u32, cgroup: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let cgroup = cgroup.trim_start_matches('/');
    let below = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let candidates =
        std::iter::once(root.to_owned()).chain(below.filter(|path| path.join("cgroup.procs").exists()));
    let found: Vec<_> =
        candidates.map(|root| root.join(cgroup).join("cgroup.procs")).filter(|file| file.exists()).collect();
    if found.is_empty() {
        return Err(Error::other(format!("shim cgroup {cgroup} does not exist")));
    }
    for file in found {
        std::fs::write(&file, pid.to_string())
            .map_err(|why| Error::failed(format!("move the shim to {}", file.display()), why))?;
    }
    Ok(())
}

/// Daemons before 2.0 read the address from here when they come back; complete or not at all.
fn write_address(dir: &Path, address: &str) -> Result<()> {
    let (new, file) = (dir.join(".address"), dir.join("address"));
    bundle::write(&new, address.as_bytes())?;
    std::fs::rename(&new, &file).map_err(|why| Error::failed(format!("write {}", file.display()), why))
}

fn answer(request: &Request, address: &str) -> Result<Vec<u8>> {
    if !request.structured {
        return Ok(address.as_bytes().to_vec());
    }
    let result = BootstrapResult {
        version: VERSION,
        address: address.to_owned(),
        protocol: "ttrpc".to_owned(),
        ..BootstrapResult::default()
    };
    result.write_to_bytes().map_err(|why| Error::failed("write the answer", why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::bootstrap::Extension;
    use hull_proto::runc_options;
    use protobuf::MessageField;
    use protobuf::well_known_types::any::Any;

    fn flags() -> Flags {
        Flags {
            id: "c1".to_owned(),
            namespace: "ns".to_owned(),
            address: "/run/containerd/containerd.sock".to_owned(),
            ..Flags::default()
        }
    }

    fn options() -> Any {
        let options = runc_options::Options { binary_name: "/x".to_owned(), ..Default::default() };
        let value = options.write_to_bytes().unwrap();
        Any { type_url: "containerd.runc.v1.Options".to_owned(), value, ..Any::default() }
    }

    #[test]
    fn nothing_and_options_are_the_old_dialect() {
        assert_eq!(understand(b"", &flags()).unwrap(), Request::default());
        let request = understand(&options().write_to_bytes().unwrap(), &flags()).unwrap();
        assert!(!request.structured);
        assert_eq!(request.options.binary_name, "/x");
    }

    #[test]
    fn parameters_that_name_this_container_are_the_new_dialect() {
        let extension = Extension { value: MessageField::some(options()), ..Extension::default() };
        let params = BootstrapParams {
            instance_id: "c1".to_owned(),
            namespace: "ns".to_owned(),
            containerd_ttrpc_address: "/t".to_owned(),
            containerd_grpc_address: "/g".to_owned(),
            log_level: -4,
            socket_dir: "/d".to_owned(),
            extensions: vec![extension],
            ..BootstrapParams::default()
        };
        let request = understand(&params.write_to_bytes().unwrap(), &flags()).unwrap();
        assert!(request.structured && request.debug);
        assert_eq!((request.ttrpc_address.as_str(), request.options.binary_name.as_str()), ("/t", "/x"));
        assert_eq!(socket_path(&request, &flags(), "g").parent().unwrap(), Path::new("/d"));
        let others = BootstrapParams { instance_id: "c2".to_owned(), ..params };
        assert!(understand(&others.write_to_bytes().unwrap(), &flags()).is_err());
    }

    #[test]
    fn a_socket_is_named_after_its_group() {
        let path = |group| socket_path(&Request::default(), &flags(), group);
        assert_eq!(path("g"), path("g"));
        assert_ne!(path("g"), path("h"));
        assert_eq!(path("g").parent().unwrap(), Path::new(SOCKET_DIR));
        assert_eq!(path("g").file_name().unwrap().len(), 64);
    }

    #[test]
    fn each_dialect_has_its_answer() {
        assert_eq!(answer(&Request::default(), "unix:///s").unwrap(), b"unix:///s");
        let structured = Request { structured: true, ..Request::default() };
        let result = BootstrapResult::parse_from_bytes(&answer(&structured, "unix:///s").unwrap()).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_joined() {
        let dir = std::env::temp_dir().join(format!("hull-shim-socket-{}", std::process::id()));
        let path = dir.join("s");
        drop(listen(&path).unwrap().unwrap());
        assert!(path.exists());
        let socket = listen(&path).unwrap().unwrap();
        assert!(listen(&path).unwrap().is_none());
        remove_dead(&path).unwrap();
        assert!(path.exists());
        let mode = |path: &Path| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode(&path), mode(&dir)), (0o600, 0o700));
        drop(socket);
        remove_dead(&path).unwrap();
        assert!(!path.exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
