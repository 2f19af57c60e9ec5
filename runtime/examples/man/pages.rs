//! The manual pages and the bash completion as text. What flags and verbs there are comes from the table
//! in `hull::cli`; what stands here is only what a table cannot say.

use std::fmt::Write as _;

use hull::cli;
use hull::cli::flags::{Flag, Verb};

/// Every page: file name and text, `hull.8` first.
pub(crate) fn all() -> Vec<(String, String)> {
    let of = |verb: &Verb| (format!("hull-{}.8", verb.name), page(verb));
    std::iter::once(("hull.8".to_owned(), overview())).chain(cli::verbs().map(of)).collect()
}

/// What a verb does beyond its one line, for people who call it by hand or from a program.
fn description(verb: &str) -> &'static [&'static str] {
    match verb {
        "create" => &[
            "Reads config.json from the bundle, creates the cgroup, the namespaces and the mounts, and leaves \
             a process in them that waits for hull-start(8). When the command exits with 0, everything is set \
             up except that the program has not been started: the pid file is complete, the console has been \
             sent, and the ID is in use.",
            "When it fails, nothing of the container is left behind.",
        ],
        "start" => &[
            "Tells the waiting process of a created container to execute its program. The command returns once \
             the program is running, so a program that cannot be executed is an error here. startContainer \
             hooks run before the program, poststart hooks after it; a poststart hook that fails is a warning.",
        ],
        "run" => &[
            "Does the same as hull-create(8) and hull-start(8), waits for the container to exit, and deletes it \
             as hull-delete(8) does. Signals and terminal input are forwarded to it. With --detach the command \
             returns once the program is running.",
        ],
        "exec" => &[
            "Runs an additional process in the namespaces and the cgroup of a container, with the container's \
             seccomp filter. User, capabilities and environment are those of the container, changed as the \
             options say; with --process the whole process is read from a file.",
            "A paused container is an error unless --ignore-paused is given.",
            "An unprivileged user can run processes in containers they created, once these have been started.",
        ],
        "state" => &[
            "The status is creating, created, running, paused or stopped. It is determined on every call and \
             never stored. The pid is 0 once the container has stopped.",
        ],
        "list" => &[
            "A state root that does not exist gives an empty list, unless it was set with --root. Containers \
             whose record cannot be read are left out and named in a warning.",
        ],
        "ps" => &[
            "The table is printed by ps(1) on the host, which must be installed; options for ps may follow the \
             ID (default: -ef). PIDs are those of the host.",
        ],
        "kill" => &[
            "SIGNAL is a number or a name with or without SIG, including RTMIN+3 and RTMAX-1. KILL also ends a \
             paused container.",
        ],
        "pause" => &["Returns once all processes in the container are frozen, or fails after 10 seconds."],
        "resume" => &["It is an error if the container is not paused."],
        "update" => &[
            "Limits that are not named keep their values. Either all limits are changed, or none. FILE contains \
             an object like linux.resources in config.json; device rules in it must be those of the container.",
            "Memory and swap are limited together: when only one of the two limits is given, the other stays as \
             it is, and --memory-swap must not be below --memory. On cgroup v2, a limit below the current usage \
             makes the kernel reclaim caches first, and is refused if that is not enough.",
        ],
        "delete" => &[
            "A running container is an error unless --force is given; a created container that has not been \
             started is killed. All processes left in the cgroup are killed, the cgroup and the record are \
             removed, and poststop hooks run. The command exits with 0 only if nothing is left.",
        ],
        "spec" => &[
            "Does not overwrite an existing file. The configuration runs sh with a terminal in the root file \
             system rootfs, in the same directory.",
        ],
        "plan" => &[
            "Prints one line for each thing that create would do, in order, with the field of config.json that \
             asks for it. Nothing on the host is changed. With --json, prints a list of objects.",
        ],
        "features" => &[
            "Prints the features document of the OCI runtime specification, which engines read to find out \
             what they can use. Only what works is listed.",
        ],
        _ => &[],
    }
}

fn exit_status(verb: &str) -> &'static str {
    match verb {
        "run" => {
            "The exit status of the program, or 128 plus the signal number if a signal killed it; 1 on an error."
        }
        "exec" => {
            "The exit status of the program, or 128 plus the signal number if a signal killed it; 255 on an error."
        }
        _ => "0 on success, 1 on an error.",
    }
}

fn page(verb: &Verb) -> String {
    let mut text = heading(&format!("HULL-{}", verb.name.to_uppercase()));
    section(&mut text, "NAME");
    line(&mut text, &format!("{} \\- {}", roff(&format!("hull-{}", verb.name)), roff(verb.about)));
    section(&mut text, "SYNOPSIS");
    let options = if verb.flags.iter().all(|flag| flag.hidden) { "" } else { " [options]" };
    let call = format!("[global options] {}{options} {}", verb.name, verb.arguments);
    line(&mut text, &format!(".B hull\n{}", roff(call.trim_end())));
    section(&mut text, "DESCRIPTION");
    for (index, paragraph) in description(verb.name).iter().enumerate() {
        if index > 0 {
            line(&mut text, ".PP");
        }
        line(&mut text, &roff(paragraph));
    }
    if !options.is_empty() {
        section(&mut text, "OPTIONS");
        flags(&mut text, verb.flags);
    }
    section(&mut text, "EXIT STATUS");
    line(&mut text, &roff(exit_status(verb.name)));
    section(&mut text, "SEE ALSO");
    line(&mut text, ".BR hull (8)");
    text
}

fn overview() -> String {
    let mut text = heading("HULL");
    section(&mut text, "NAME");
    line(&mut text, "hull \\- run containers from OCI bundles");
    section(&mut text, "SYNOPSIS");
    line(&mut text, &format!(".B hull\n{}", roff("[global options] command [options] [arguments]")));
    section(&mut text, "DESCRIPTION");
    line(
        &mut text,
        &roff(
            "hull is a low-level container runtime. It creates a container from an OCI bundle, which is a directory \
             with a root file system and a config.json, and exits. Its command line is compatible with runc, \
             so container engines can use it in place of runc.",
        ),
    );
    section(&mut text, "COMMANDS");
    for verb in cli::verbs() {
        line(
            &mut text,
            &format!(".TP\n.BR {} (8)\n{}", roff(&format!("hull-{}", verb.name)), roff(verb.about)),
        );
    }
    section(&mut text, "OPTIONS");
    line(&mut text, "Global options are given before the command.");
    flags(&mut text, cli::global_flags());
    section(&mut text, "ERRORS");
    for paragraph in [
        "An error is up to three lines on stderr: what failed, with the field of config.json that caused it; a \
         hint; and the position in the file. With --log the error is also appended to the log file as one \
         line. With --log-format json this line is an object with the keys level, msg, time and code, and \
         with field and hint if there are any.",
        "Something that can be done only in part causes a warning, which is logged after the command has \
         succeeded. With --strict it is an error, before anything is done.",
    ] {
        line(&mut text, &format!(".PP\n{}", roff(paragraph)));
    }
    section(&mut text, "EXIT STATUS");
    line(
        &mut text,
        &roff(
            "0 on success, 1 on an error, 3 for an unknown command. run and exec return the exit status of the \
             program; exec returns 255 if the program could not be run.",
        ),
    );
    section(&mut text, "ENVIRONMENT");
    for (name, meaning) in [
        ("XDG_RUNTIME_DIR", "For an unprivileged user, the state root is its subdirectory hull."),
        (
            "LISTEN_FDS",
            "Number of file descriptors, starting with 3, to pass to the program (sd_listen_fds(3)).",
        ),
        (
            "NOTIFY_SOCKET",
            "Socket to which readiness notifications of the program are forwarded (sd_notify(3)).",
        ),
    ] {
        line(&mut text, &format!(".TP\n.B {}\n{}", roff(name), roff(meaning)));
    }
    section(&mut text, "FILES");
    line(
        &mut text,
        &format!(
            ".TP\n.I {}\n{}",
            roff("/run/hull"),
            "The default state root, with a directory for each container."
        ),
    );
    section(&mut text, "SEE ALSO");
    let pages: Vec<String> =
        cli::verbs().map(|verb| format!(".BR {} (8)", roff(&format!("hull-{}", verb.name)))).collect();
    line(&mut text, &pages.join(",\n"));
    text
}

fn heading(title: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".\\\" Written by `cargo run -p hull --example man`; do not edit.\n.TH {} 8 \"\" \"hull {version}\" \"hull\"\n",
        roff(title)
    )
}

fn section(text: &mut String, title: &str) {
    line(text, &format!(".SH {title}"));
}

fn line(text: &mut String, words: &str) {
    text.push_str(words);
    text.push('\n');
}

fn flags(text: &mut String, flags: &[Flag]) {
    for flag in shown(flags) {
        let mut names = format!("\\fB{}\\fR", roff(&format!("--{}", flag.long)));
        if let Some(short) = flag.short {
            let short = roff(&format!("-{short}"));
            // Writing to a String cannot fail.
            let _written = write!(names, ", \\fB{short}\\fR").is_ok();
        }
        if let Some(value) = flag.value {
            let _written = write!(names, " \\fI{}\\fR", roff(value)).is_ok();
        }
        line(text, &format!(".TP\n{names}\n{}", roff(flag.help)));
    }
}

fn shown(flags: &[Flag]) -> impl Iterator<Item = &Flag> {
    flags.iter().filter(|flag| !flag.hidden)
}

/// Text that roff prints as it stands: hyphens that can be copied, no escapes, no requests.
fn roff(text: &str) -> String {
    let plain = text.replace('\\', "\\e").replace('-', "\\-");
    if plain.starts_with(['.', '\'']) { format!("\\&{plain}") } else { plain }
}

/// The completion for bash.
pub(crate) fn bash() -> String {
    let names: Vec<&str> = cli::verbs().map(|verb| verb.name).collect();
    let mut cases = String::new();
    for verb in cli::verbs() {
        let ids = verb.arguments.starts_with("ID") && !matches!(verb.name, "create" | "run");
        let argument = match verb.name {
            _ if ids => "ids",
            "plan" => "dirs",
            _ => "none",
        };
        let _written =
            writeln!(cases, "\t{}) flags='{}' argument={argument} ;;", verb.name, words(verb.flags)).is_ok();
    }
    let all = || cli::verbs().flat_map(|verb| verb.flags).chain(cli::global_flags());
    TEMPLATE
        .replace("@VERBS@", &names.join(" "))
        .replace("@GLOBAL@", &words(cli::global_flags()))
        .replace("@CASES@", cases.trim_end_matches('\n'))
        .replace("@FILES@", &with_value(all(), &["FILE", "PATH"]))
        .replace("@DIRS@", &with_value(all(), &["DIR"]))
        .replace("@VALUES@", &with_value(all(), &[]))
}

fn words(flags: &[Flag]) -> String {
    let names = |flag: &Flag| {
        let short = flag.short.map(|short| format!(" -{short}")).unwrap_or_default();
        format!("--{}{short}", flag.long)
    };
    shown(flags).map(names).collect::<Vec<_>>().join(" ")
}

/// The long names of the flags whose value is called one of `kinds`, or something else when there is none,
/// as a pattern of `case`.
fn with_value<'a>(flags: impl Iterator<Item = &'a Flag>, kinds: &[&str]) -> String {
    const KNOWN: [&str; 3] = ["FILE", "PATH", "DIR"];
    let wanted =
        |value: &str| if kinds.is_empty() { !KNOWN.contains(&value) } else { kinds.contains(&value) };
    let mut names: Vec<String> = flags
        .filter(|flag| !flag.hidden && flag.value.is_some_and(wanted))
        .map(|flag| format!("--{}", flag.long))
        .collect();
    names.sort();
    names.dedup();
    names.join(" | ")
}

const TEMPLATE: &str = r#"# bash completion of hull. Written by `cargo run -p hull --example man`; do not edit.

_hull() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local i verb='' places=0 root=() flags argument
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		[ "${COMP_WORDS[i]}" != --root ] || root=(--root "${COMP_WORDS[i + 1]}")
		case ${COMP_WORDS[i]} in
		@FILES@ | @DIRS@ | @VALUES@) ((i++)) ;;
		-*) ;;
		*) if [ -n "$verb" ]; then ((++places)); else verb=${COMP_WORDS[i]}; fi ;;
		esac
	done
	case $before in
	@FILES@)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	@DIRS@)
		mapfile -t COMPREPLY < <(compgen -d -- "$word")
		return
		;;
	@VALUES@) return ;;
	esac
	case $verb in
	'') flags='@GLOBAL@' argument=verbs ;;
@CASES@
	*) return ;;
	esac
	[ "$places" = 0 ] || argument=none
	[ "$verb$places" != kill1 ] || argument=signals
	case $word in -*) argument=flags ;; esac
	case $argument in
	flags) mapfile -t COMPREPLY < <(compgen -W "$flags --help" -- "$word") ;;
	verbs) mapfile -t COMPREPLY < <(compgen -W '@VERBS@' -- "$word") ;;
	ids) mapfile -t COMPREPLY < <(compgen -W "$(hull "${root[@]}" list --quiet 2>/dev/null)" -- "$word") ;;
	signals) mapfile -t COMPREPLY < <(compgen -A signal -- "$word") ;;
	dirs) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
	esac
}
complete -F _hull hull
"#;
