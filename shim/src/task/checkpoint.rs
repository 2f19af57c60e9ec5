//! What a checkpoint's options are as words for the runtime.

use std::ffi::OsString;
use std::path::Path;

use hull_proto::runc_options;

/// The words after `checkpoint`.
pub(super) fn words(path: &str, bundle: &Path, options: &runc_options::CheckpointOptions) -> Vec<OsString> {
    let image = if options.image_path.is_empty() { path } else { &options.image_path };
    let work = bundle.join("criu-work").into_os_string();
    let work = if options.work_path.is_empty() { work } else { options.work_path.clone().into() };
    let mut words = vec!["--image-path".into(), image.into(), "--work-path".into(), work];
    let switches = [
        (!options.exit, "--leave-running"),
        (options.open_tcp, "--tcp-established"),
        (options.external_unix_sockets, "--ext-unix-sk"),
        (options.terminal, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ];
    words.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, switch)| switch.into()));
    for namespace in &options.empty_namespaces {
        words.extend(["--empty-ns".into(), namespace.into()]);
    }
    if !options.cgroups_mode.is_empty() {
        words.extend(["--manage-cgroups-mode".into(), (&options.cgroups_mode).into()]);
    }
    if !options.parent_path.is_empty() {
        words.extend(["--parent-path".into(), (&options.parent_path).into()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_leaves_the_container_running_unless_told_otherwise() {
        let words = |options| {
            let words = super::words("/image", Path::new("/b"), &options);
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let plain = words(runc_options::CheckpointOptions::default());
        assert_eq!(plain, "--image-path /image --work-path /b/criu-work --leave-running");
        let ends = words(runc_options::CheckpointOptions {
            exit: true,
            open_tcp: true,
            empty_namespaces: vec!["network".to_owned()],
            ..Default::default()
        });
        assert_eq!(ends, "--image-path /image --work-path /b/criu-work --tcp-established --empty-ns network");
    }
}
