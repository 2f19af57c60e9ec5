//! The place of an engine: namespaces of its own, and pid 1 in them. Pid 1 owns the daemons from start to end; it
//! never touches the host, whose mounts, network and processes it cannot see. Called by `main` only.

use super::{Engine, IMAGE, INIT, PAUSE, RUNTIME_NAME, docker_client};
use crate::call::no_input;
use crate::sys::Pidfd;
use crate::{Stop, View, view};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

/// A file of the engine's directory: daemons that died stay away.
pub(super) const HOLD: &str = "hold";

/// In the directory of a place whose tests kill the daemon, one at a time.
pub(super) const LIVE: &str = "live";

/// What the runner said on the command line.
struct Words {
    engine: Engine,
    view: View,
    /// Of the run: busybox and the list of applets.
    shared: PathBuf,
    /// Of the engine.
    dir: PathBuf,
    runtime: PathBuf,
    /// In the name of every cgroup of the engine.
    tag: String,
    /// The shim under test.
    shim: Option<PathBuf>,
}

impl Words {
    fn parse(words: &[String]) -> Option<Self> {
        let [engine, view, shared, dir, runtime, tag, shim @ ..] = words else { return None };
        Some(Self {
            engine: Engine::parse(engine)?,
            view: View::parse(view)?,
            shared: shared.into(),
            dir: dir.into(),
            runtime: runtime.into(),
            tag: tag.clone(),
            shim: shim.first().map(PathBuf::from),
        })
    }
}

/// The keeper: makes the namespaces, starts init in them and ends with it.
pub fn main(words: &[String]) -> i32 {
    let Some(parsed) = Words::parse(words) else { return 64 };
    let made = unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    );
    let started = made.map_err(Stop::from).and_then(|()| {
        let init = Command::new(env::current_exe()?).arg(INIT).args(words).spawn()?;
        fs::write(parsed.dir.join("pid"), init.id().to_string())?;
        Ok(init)
    });
    match started {
        Ok(mut init) => init.wait().ok().and_then(|status| status.code()).unwrap_or(1),
        Err(why) => {
            ready(&parsed.dir, &format!("make namespaces: {why:?}"));
            1
        }
    }
}

/// Pid 1. Its end takes everything in its pid namespace with it.
pub fn init(words: &[String]) -> i32 {
    let Some(words) = Words::parse(words) else { return 64 };
    let mut daemons = Vec::new();
    let up = furnish(&words).and_then(|()| start(&words, &mut daemons));
    let code = match up {
        Ok(()) => {
            ready(&words.dir, "");
            serve(&words.dir.join(HOLD), &mut daemons);
            0
        }
        Err(Stop::Fail(why) | Stop::Skip(why)) => {
            ready(&words.dir, &format!("{why}\n{}", daemons.iter().map(Daemon::tail).collect::<String>()));
            1
        }
    };
    stop(&mut daemons);
    let left = left_behind(&words);
    // Without this file the runner says that init said nothing.
    fs::write(words.dir.join("left"), left.concat()).ok();
    code
}

fn ready(dir: &Path, why: &str) {
    let new = dir.join(".ready");
    // Without the file the runner runs into its time limit.
    fs::write(&new, why).and_then(|()| fs::rename(&new, dir.join("ready"))).ok();
}

/// The mounts and the network of a small host.
fn furnish(words: &Words) -> Result<(), Stop> {
    set_pdeathsig(Signal::SIGKILL)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    view::enter(words.view)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    own_null("/run/null")?;
    // As systemd leaves it; engines that bind with rslave insist.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    let busybox = words.shared.join("busybox");
    succeeds(Command::new(busybox).args(["ifconfig", "lo", "up"]))?;
    let bin = words.dir.join("bin");
    fs::create_dir_all(&bin)?;
    for name in ["iptables", "ip6tables"] {
        // The nft variant wants modules that a small kernel does not have.
        if Path::new("/usr/sbin/xtables-legacy-multi").exists() {
            symlink("/usr/sbin/xtables-legacy-multi", bin.join(name))?;
        }
    }
    // What BuildKit calls.
    symlink(&words.runtime, bin.join("runc"))?;
    if let (true, Some(shim)) = (words.engine.has_shim(), &words.shim) {
        // Copies: a shim may look for its runtime beside its own file. Under the second name it stands in for
        // the shim of the distribution.
        for name in ["containerd-shim-hull-v1", "containerd-shim-runc-v2"] {
            fs::copy(shim, bin.join(name))?;
        }
        fs::copy(&words.runtime, bin.join("hull"))?;
    }
    rootfs(words)?;
    if words.engine.is_cri() && !words.dir.starts_with("/var/lib") {
        // Here the CNI library remembers what it has set up; there is no setting for it.
        mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    }
    if words.engine == Engine::DockerRemap {
        remap_ids(&words.dir)?;
    }
    Ok(())
}

/// A /dev/null of this place: engines pass it on as stdin, and crun 1.8 gives that to the container's user.
fn own_null(node: &str) -> Result<(), Stop> {
    mknod(node, SFlag::S_IFCHR, Mode::empty(), makedev(1, 3))?;
    fs::set_permissions(node, fs::Permissions::from_mode(0o666))?;
    Ok(mount(Some(node), "/dev/null", None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// The image as a tar file.
fn rootfs(words: &Words) -> Result<(), Stop> {
    let (root, busybox) = (words.dir.join("image"), words.shared.join("busybox"));
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for applet in fs::read_to_string(words.shared.join("applets"))?.lines() {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    let tar = Command::new(busybox)
        .arg("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(image_tar(words))
        .arg(".")
        .status()?;
    if tar.success() { Ok(()) } else { Err(Stop::Fail(format!("tar of the image: {tar}"))) }
}

fn image_tar(words: &Words) -> PathBuf {
    words.dir.join("image.tar")
}

/// The image as docker saves one: what `ctr images import` reads.
fn image_archive(words: &Words) -> Result<PathBuf, Stop> {
    let busybox = words.shared.join("busybox");
    let dir = words.dir.join("archive");
    fs::create_dir_all(&dir)?;
    fs::copy(image_tar(words), dir.join("layer.tar"))?;
    let digest = Sha256::digest(fs::read(image_tar(words))?)
        .iter()
        .fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
    // What a sandbox runs is the image's command: nothing, for long. The tests name theirs.
    let command = if words.engine.is_cri() { ["/bin/sleep", "1000000"].as_slice() } else { &["/bin/sh"] };
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE, PAUSE], "Layers": ["layer.tar"]}]);
    fs::write(dir.join("manifest.json"), manifest.to_string())?;
    let archive = words.dir.join("archive.tar");
    succeeds(Command::new(busybox).arg("tar").arg("-C").arg(&dir).arg("-cf").arg(&archive).arg("."))?;
    Ok(archive)
}

/// A user with subordinate ids, in copies that only this mount namespace sees.
fn remap_ids(dir: &Path) -> Result<(), Stop> {
    let entries = [
        ("passwd", "remap:x:990:990::/nonexistent:/bin/false\n"),
        ("group", "remap:x:990:\n"),
        ("subuid", "remap:200000:65536\n"),
        ("subgid", "remap:200000:65536\n"),
    ];
    for (name, line) in entries {
        let (original, copy) = (Path::new("/etc").join(name), dir.join(name));
        let text = fs::read_to_string(&original).unwrap_or_default();
        fs::write(&copy, text + line)?;
        if !original.exists() {
            return Err(Stop::Skip(format!("no {}", original.display())));
        }
        mount(Some(&copy), &original, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

/// A daemon, a child of this process.
struct Daemon {
    argv: Vec<OsString>,
    log: PathBuf,
    path: OsString,
    /// Where its number is written: tests send it signals.
    number: PathBuf,
    /// 0 while it is away.
    pid: i32,
}

impl Daemon {
    fn start(words: &Words, name: &str, argv: Vec<OsString>) -> Result<Self, Stop> {
        let path = search_path(&words.dir);
        let at = |end: &str| words.dir.join(format!("{name}.{end}"));
        let mut daemon = Self { argv, log: at("log"), path, number: at("number"), pid: 0 };
        daemon.spawn()?;
        Ok(daemon)
    }

    fn spawn(&mut self) -> Result<(), Stop> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .env("PATH", &self.path)
            .stdin(no_input())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{}: {e}", self.argv[0].display()))?;
        self.pid = child.id() as i32;
        Ok(fs::write(&self.number, self.pid.to_string())?)
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("--- {}\n{last}\n", self.log.display())
    }
}

/// Where programs are looked for: what the place has for itself first.
pub(super) fn search_path(dir: &Path) -> OsString {
    let mut path = dir.join("bin").into_os_string();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

fn start(words: &Words, daemons: &mut Vec<Daemon>) -> Result<(), Stop> {
    if words.engine == Engine::Podman {
        let prefix = podman(&words.dir, &words.runtime);
        let mut import = Command::new(&prefix[0]);
        return succeeds(import.args(&prefix[1..]).args(import_words()).arg(image_tar(words)).arg(IMAGE));
    }
    let dir = &words.dir;
    let at = |name: &str| dir.join(name).into_os_string();
    fs::write(dir.join("containerd.toml"), containerd_config(words)?)?;
    let argv = vec!["containerd".into(), "-c".into(), at("containerd.toml")];
    daemons.push(Daemon::start(words, "containerd", argv)?);
    if words.engine.is_containerd() {
        await_answer("containerd", || ctr(dir))?;
        let archive = image_archive(words)?;
        let namespace = if words.engine.is_cri() { "k8s.io" } else { "default" };
        return succeeds(ctr(dir).args(["-n", namespace, "images", "import"]).arg(archive));
    }
    let mut argv: Vec<OsString> = vec!["dockerd".into(), "-H".into()];
    let mut socket = OsString::from("unix://");
    socket.push(at("docker.sock"));
    argv.extend([socket, "--containerd".into(), at("containerd.sock"), "--pidfile".into(), at("docker.pid")]);
    argv.extend(["--data-root".into(), at("data"), "--exec-root".into(), at("exec")]);
    let mut runtime = OsString::from(format!("{RUNTIME_NAME}="));
    runtime.push(&words.runtime);
    argv.extend(["--add-runtime".into(), runtime, "--default-runtime".into(), RUNTIME_NAME.into()]);
    argv.push(format!("--cgroup-parent=/{}", words.tag).into());
    match words.engine {
        Engine::DockerRemap => argv.push("--userns-remap=remap".into()),
        Engine::DockerLive | Engine::DockerShim | Engine::DockerShimKilled => {
            argv.push("--live-restore".into());
        }
        Engine::Docker
        | Engine::Podman
        | Engine::Containerd
        | Engine::ContainerdKilled
        | Engine::Cri
        | Engine::CriLive => {}
    }
    daemons.push(Daemon::start(words, "dockerd", argv)?);
    await_answer("dockerd", || docker(dir))?;
    succeeds(docker(dir).args(import_words()).arg(image_tar(words)).arg(IMAGE))
}

/// Version 2, which every containerd since 1.3 reads.
fn containerd_config(words: &Words) -> Result<String, Stop> {
    let dir = &words.dir;
    let at = |name: &str| dir.join(name);
    let disabled = if words.engine.is_cri() { "" } else { "\"io.containerd.grpc.v1.cri\"" };
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{disabled}]\n[grpc]\naddress = {:?}\n",
        at("containerd"),
        at("containerd-state"),
        at("containerd.sock"),
    );
    if !words.engine.is_cri() {
        return Ok(config);
    }
    if words.engine == Engine::CriLive {
        fs::write(at(LIVE), "")?;
    }
    let cni = at("cni");
    fs::create_dir_all(&cni)?;
    let bridge = json!({
        "cniVersion": "0.4.0",
        "name": "hull-test",
        "plugins": [{
            "type": "bridge",
            "bridge": "hulltest0",
            "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": at("cni-ips"), "ranges": [[{"subnet": "10.223.0.0/24"}]]},
        }],
    });
    fs::write(cni.join("10-bridge.conflist"), bridge.to_string())?;
    // As a host without CAP_SYS_RESOURCE needs it: no score below the daemon's own.
    Ok(format!(
        r#"{config}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = {cni:?}
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "hull"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hull]
runtime_type = "io.containerd.hull.v1"
"#
    ))
}

fn import_words() -> [&'static str; 5] {
    ["import", "-c", "CMD [\"/bin/sh\"]", "-c", "ENV PATH=/bin:/usr/bin"]
}

/// The podman command up to its verb.
pub(super) fn podman(dir: &Path, runtime: &Path) -> Vec<OsString> {
    let at = |name: &str| dir.join(name).into_os_string();
    let mut words: Vec<OsString> = vec!["podman".into()];
    words.extend(["--root".into(), at("storage"), "--runroot".into(), at("runroot")]);
    words.extend(["--tmpdir".into(), at("tmp"), "--storage-driver".into(), "overlay".into()]);
    words.extend(["--cgroup-manager".into(), "cgroupfs".into(), "--events-backend".into(), "file".into()]);
    words.extend(["--runtime".into(), runtime.into()]);
    words
}

/// The client of containerd.
pub(super) fn ctr(dir: &Path) -> Command {
    let mut command = Command::new("ctr");
    command.arg("-a").arg(dir.join("containerd.sock")).stdin(no_input());
    command
}

/// The docker client of the engine.
pub(super) fn docker(dir: &Path) -> Command {
    let mut command = Command::new(docker_client());
    command.arg("-H").arg(format!("unix://{}", dir.join("docker.sock").display()));
    command.env("DOCKER_CONFIG", dir.join("client")).stdin(no_input());
    command
}

/// The command, again and again until it succeeds.
fn await_answer(who: &str, client: impl Fn() -> Command) -> Result<(), Stop> {
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let answer = client().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if answer.success() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Stop::Fail(format!("{who} does not answer")));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn succeeds(command: &mut Command) -> Result<(), Stop> {
    let output = command.stdin(no_input()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Stop::Fail(format!("{command:?}: {}: {text}", output.status)))
}

/// Until the runner closes the pipe on stdin: reaps, and starts again what died, as an init system does; while the
/// file `hold` is there what died stays away.
fn serve(hold: &Path, daemons: &mut [Daemon]) {
    loop {
        let stdin = std::io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut fds, PollTimeout::from(20u8)), Ok(1..)) {
            return;
        }
        let ended = reap();
        for daemon in daemons.iter_mut().filter(|d| ended.contains(&d.pid)) {
            daemon.pid = 0;
            // Without the file the test that waits for it says so.
            fs::remove_file(&daemon.number).ok();
        }
        let holds = !daemons.iter().all(|d| d.pid > 0) && is_held(hold);
        for daemon in daemons.iter_mut().filter(|d| d.pid == 0 && !holds) {
            // A daemon that does not come back is seen by the next test that calls it.
            daemon.spawn().ok();
        }
    }
}

/// Not for ever: the test that made the file may have failed.
fn is_held(hold: &Path) -> bool {
    let age = fs::metadata(hold).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age < Duration::from_secs(40))
}

fn reap() -> BTreeSet<i32> {
    let mut ended = BTreeSet::new();
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {
        ended.insert(pid.as_raw());
    }
    ended
}

/// The last one first: TERM, and KILL after a while.
fn stop(daemons: &mut [Daemon]) {
    for daemon in daemons.iter().rev().filter(|d| d.pid > 0) {
        // Our child, and not reaped: the number is its own.
        let Ok(pidfd) = Pidfd::open(daemon.pid) else { continue };
        let since = Instant::now();
        let mut signal = libc::SIGTERM;
        loop {
            pidfd.signal(signal).ok();
            let until = since + Duration::from_secs(if signal == libc::SIGTERM { 15 } else { 20 });
            let mut gone = false;
            while !gone && Instant::now() < until {
                gone = reap().contains(&daemon.pid);
                thread::sleep(Duration::from_millis(5));
            }
            if gone || signal == libc::SIGKILL {
                break;
            }
            signal = libc::SIGKILL;
        }
    }
}

/// What a stopped engine should not have left, after a short grace for shims that are just ending.
fn left_behind(words: &Words) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        reap();
        let left = look(words);
        if left.is_empty() || Instant::now() > until {
            return left;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn look(words: &Words) -> Vec<String> {
    let names = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|e| e.path())
            .filter(|p| !p.file_name().unwrap_or_default().to_string_lossy().starts_with('.'))
    };
    let mut left = Vec::new();
    for process in names("/proc".into()) {
        let pid = process.file_name().unwrap_or_default().to_string_lossy().parse::<i32>().unwrap_or(1);
        let text = fs::read(process.join("cmdline")).unwrap_or_default();
        if pid != 1 && !text.is_empty() {
            left.push(format!("process: {pid} {}\n", String::from_utf8_lossy(&text).replace('\0', " ")));
        }
    }
    let states = ["run/hull", "run/runc", "run/crun", "run/netns", "run/docker/netns", "run/containerd/s"]
        .map(|d| Path::new("/").join(d));
    let exec = words.dir.join("exec");
    let of_docker = ["runtime-under-test/moby", "runtime-runc/moby"].map(|d| exec.join(d));
    let bundles = words.dir.join("containerd-state/io.containerd.runtime.v2.task");
    let of_ctr = [
        PathBuf::from("/run/containerd/runc/default"),
        PathBuf::from("/run/containerd/runc/k8s.io"),
        bundles.join("default"),
        bundles.join("moby"),
        bundles.join("k8s.io"),
    ];
    for state in states.into_iter().chain(of_docker).chain(of_ctr).flat_map(names) {
        left.push(format!("state: {}\n", state.display()));
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points =
        table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|at| Path::new(at).starts_with(&words.dir));
    // Ours; podman's home of all its mounts; dockerd's own network namespace.
    let known = ["passwd", "group", "subuid", "subgid", "storage/overlay", "exec/netns/default"];
    let known = |at: &&str| known.iter().any(|name| at.ends_with(name));
    left.extend(points.filter(|at| !known(at)).map(|at| format!("mount: {at}\n")));
    left
}
