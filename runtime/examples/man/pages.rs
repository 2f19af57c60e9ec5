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
            "Reads config.json from the bundle, makes the cgroup, the namespaces and the mounts, and leaves \
             a process in them that waits for hull-start(8). When it answers 0, everything but the program's \
             start is done: the pid file is complete, the console has been sent, and the id is taken.",
            "When it fails, nothing of the container is left.",
        ],
        "start" => &[
            "Lets a container that waits run its program. It answers once the program runs, so that a program \
             that cannot be executed is an error here. startContainer hooks run before the program, poststart \
             hooks after it; a poststart hook that fails is a warning.",
        ],
        "run" => &[
            "hull-create(8), hull-start(8), a wait for the end and hull-delete(8) in one command. Signals and \
             terminal input are passed on. With --detach it comes back once the program runs.",
        ],
        "exec" => &[
            "Runs one more process in the namespaces and the cgroup of a container, with the container's \
             system call filter. The process is the container's own (user, capabilities, environment) with \
             the changes the options ask for, or the one in the file given with --process.",
            "A container that is paused is refused, unless --ignore-paused is given.",
            "An ordinary user may run processes in the containers they made themselves, once these are started.",
        ],
        "state" => &[
            "The status is creating, created, running, paused or stopped. It is found out at every call and \
             never stored; pid is 0 once the container has stopped.",
        ],
        "list" => &[
            "A state root that does not exist is an empty list, unless it was named with --root. Containers \
             whose record cannot be read are left out and named in a warning.",
        ],
        "ps" => &[
            "The table is that of ps(1) on the host, which must be installed; its options may follow the id \
             (default -ef). The numbers are those of the host's process table.",
        ],
        "kill" => &[
            "SIGNAL is a number or a name with or without SIG; also RTMIN+3 and RTMAX-1. KILL ends a paused \
             container, too.",
        ],
        "pause" => &["Returns once every process of the container stands still, or fails after 10 seconds."],
        "resume" => &["A container that is not paused is an error."],
        "update" => &[
            "What is not named stays as it is. Either all limits change, or none. FILE holds the object that \
             config.json has as linux.resources; its device rules are left out.",
            "Memory and swap are limited together: when one of the two limits is named, the other stays, and \
             --memory-swap may not be below --memory. On cgroup v2 a limit below what is in use makes the \
             kernel free its caches first, and is refused when that is not enough.",
        ],
        "delete" => &[
            "A container that runs is refused, unless --force is given; one that waits for its start is ended. \
             All processes left in its cgroup are killed, the cgroup and the record are removed, and poststop \
             hooks run. The answer 0 means that nothing is left.",
        ],
        "spec" => {
            &["Refuses to replace a file. The configuration runs sh with a terminal in the root file system \
             rootfs beside it."]
        }
        "plan" => &[
            "One line for each thing that create would do, in order, with the field of config.json that asks \
             for it. Nothing on the host is changed. With --json the same as a list of objects.",
        ],
        "features" => {
            &["The features document of the runtime specification: what engines read before they rely on \
             something. Only what works is listed."]
        }
        _ => &[],
    }
}

fn exit_status(verb: &str) -> &'static str {
    match verb {
        "run" => "That of the program, 128 and the number of the signal when it died by one; 1 on an error.",
        "exec" => {
            "That of the program, 128 and the number of the signal when it died by one; 255 on an error."
        }
        _ => "0, or 1 on an error.",
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
            "A low-level container runtime: it makes a container from a bundle, a directory with a root file \
             system and a config.json after the OCI runtime specification, and ends. Container engines call \
             it; its command line is that of runc.",
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
    line(&mut text, "They stand before the command.");
    flags(&mut text, cli::global_flags());
    section(&mut text, "ERRORS");
    for paragraph in [
        "An error is up to three lines on stderr: what failed with the field of config.json it came from, a \
         hint, and the place in the file. With --log the error also goes to that file as one line; with \
         --log-format json the line is an object with the keys level, msg, time and code, and field and hint \
         where there are any.",
        "What is done only in part is a warning, written to the log once the command has succeeded. --strict \
         makes it an error before anything is done.",
    ] {
        line(&mut text, &format!(".PP\n{}", roff(paragraph)));
    }
    section(&mut text, "EXIT STATUS");
    line(
        &mut text,
        &roff(
            "0 on success, 1 on an error, 3 for an unknown command. run and exec answer that of the program; \
             exec answers 255 when the program could not be run.",
        ),
    );
    section(&mut text, "ENVIRONMENT");
    for (name, meaning) in [
        ("XDG_RUNTIME_DIR", "Where the state of an ordinary user's containers lies, in the directory hull."),
        ("LISTEN_FDS", "Descriptors from 3 on that are passed to the program (sd_listen_fds(3))."),
        ("NOTIFY_SOCKET", "Where the program's readiness is passed on to (sd_notify(3))."),
    ] {
        line(&mut text, &format!(".TP\n.B {}\n{}", roff(name), roff(meaning)));
    }
    section(&mut text, "FILES");
    line(
        &mut text,
        &format!(".TP\n.I {}\n{}", roff("/run/hull"), "The state of containers, a directory for each."),
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
