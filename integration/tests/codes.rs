//! Every code of docs/error-codes.md appears: for each row of its tables a case that makes hull say it in its JSON
//! log, or the reason why nothing here can. A row without a case fails, and so does a case without a row.

use hull_integration::{Bundle, Call, Lab, Stop, TestResult, View, tests};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

mod bundles;
mod cgroups;
mod commands;
mod launches;
mod processes;
mod rules;

tests! {
    each.only("hull").expects_refusals();
    every_row_has_a_case,
    codes_of_the_command_line_and_the_state,
    codes_of_containers_that_do_not_end,
    codes_of_files,
    codes_of_the_rules,
    codes_of_the_launch,
    codes_of_the_process,
    codes_of_cgroups,
    codes_of_cgroup_v1,
    codes_of_cgroup_v2.view(View::V2),
}

/// Rows that no case makes appear, and why.
const NOT_HERE: &[(&str, &str)] =
    &[("seccomp-machine", "only a hull built for another machine than x86-64 and arm64 says it")];

/// What makes a code appear.
type Case = (&'static str, How);

enum How {
    /// `plan --strict` of the bundle so changed, which warnings fail too.
    Plan(fn(Bundle) -> Bundle),
    /// `plan` of a config.json with this text.
    Text(fn() -> Vec<u8>),
    /// `create` of a bundle so changed.
    Create(fn(Bundle) -> Bundle),
    /// Anything else; it answers what was told.
    Act(fn(&Lab) -> Result<Told, Stop>),
}

use How::{Act, Create, Plan, Text};

/// The codes in the log of a call, and the call for a person.
struct Told {
    codes: Vec<String>,
    text: String,
}

/// A call with a log of its own.
struct Logged {
    call: Call,
    log: PathBuf,
}

impl Logged {
    fn new(lab: &Lab, words: &[&str]) -> Self {
        Self::with(lab, &[], words)
    }

    fn with(lab: &Lab, globals: &[&str], words: &[&str]) -> Self {
        let log = lab.next_path("log");
        let name = log.to_string_lossy().into_owned();
        let globals = [&["--log", &name, "--log-format", "json"], globals].concat();
        Self { call: lab.call_globals(&globals, words), log }
    }

    /// `create` or `run` of the bundle. Should it succeed, the container is deleted at the end of the test.
    fn launch(lab: &Lab, verb: &str, b: &Bundle) -> Self {
        Self::launch_with(lab, &[], verb, b, &[])
    }

    fn launch_with(lab: &Lab, globals: &[&str], verb: &str, b: &Bundle, flags: &[&str]) -> Self {
        b.write();
        lab.remember(&b.id);
        let dir = b.dir.to_string_lossy().into_owned();
        let words = [&[verb, "--bundle", &dir], flags, &[&b.id]].concat();
        Self::with(lab, globals, &words)
    }

    fn but(self, change: impl FnOnce(Call) -> Call) -> Self {
        Self { call: change(self.call), ..self }
    }

    /// Behind the probe, which denies some system calls: `NUMBER`, errno.
    fn denied(self, lab: &Lab, call: i64, errno: i32) -> Result<Told, Stop> {
        self.behind(lab, &["deny", &format!("{call}:{errno}")])
    }

    fn behind(self, lab: &Lab, words: &[&str]) -> Result<Told, Stop> {
        let probe = lab.probe()?.to_string_lossy().into_owned();
        self.but(|call| call.through(&[&[&*probe], words].concat())).told()
    }

    /// In a mount namespace of its own that this script has changed.
    fn where_mounts_are(self, lab: &Lab, script: &str) -> Result<Told, Stop> {
        let busybox = lab.busybox().to_string_lossy().into_owned();
        let script = format!("set -e; {script}; exec \"$@\"");
        self.but(|call| call.through(&[&busybox, "unshare", "-m", &busybox, "sh", "-c", &script, "sh"]))
            .told()
    }

    fn told(self) -> Result<Told, Stop> {
        let output = self.call.go();
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        Ok(Told { codes: codes_in(&text), text: format!("{output}") })
    }
}

/// `code` of each line that is an object.
fn codes_in(log: &str) -> Vec<String> {
    let objects = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    objects.filter_map(|object| object["code"].as_str().map(String::from)).collect()
}

/// A bundle over the one root file system of this test.
fn bundle(lab: &Lab) -> Bundle {
    static FIRST: OnceLock<Bundle> = OnceLock::new();
    FIRST.get_or_init(|| lab.bundle()).sibling(lab)
}

/// A running container.
fn up(lab: &Lab) -> Bundle {
    let b = bundle(lab).waits();
    lab.up(&b);
    b
}

/// Every case of a table: what does not appear, and what could not be tried.
fn appear(lab: &Lab, cases: &[Case]) -> TestResult {
    let base = bundle(lab);
    let mut missing = Vec::new();
    for (code, how) in cases {
        match provoke(lab, &base, how) {
            Ok(told) if told.codes.iter().any(|one| one == code) => {}
            Ok(told) => missing.push(format!("{code}: told are {:?}\n{}", told.codes, told.text)),
            Err(Stop::Skip(why)) => lab.say(&format!("    {code}: not tried: {why}")),
            Err(Stop::Fail(why)) => missing.push(format!("{code}: {why}")),
        }
    }
    assert!(missing.is_empty(), "codes that did not appear:\n{}", missing.join("\n"));
    Ok(())
}

fn provoke(lab: &Lab, base: &Bundle, how: &How) -> Result<Told, Stop> {
    match how {
        Plan(change) => {
            let b = change(base.clone());
            b.write();
            Logged::with(lab, &["--strict"], &["plan", &b.dir.to_string_lossy()]).told()
        }
        Text(text) => {
            fs::write(base.dir.join("config.json"), text())?;
            Logged::new(lab, &["plan", &base.dir.to_string_lossy()]).told()
        }
        Create(change) => Logged::launch(lab, "create", &change(bundle(lab))).told(),
        Act(act) => act(lab),
    }
}

fn every_row_has_a_case(lab: &Lab) -> TestResult {
    let document = include_str!("../../docs/error-codes.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rows: BTreeSet<&str> = rows.map(|(code, _)| code).collect();
    let tables = [
        commands::CASES,
        commands::UNENDING,
        bundles::CASES,
        rules::CASES,
        launches::CASES,
        processes::CASES,
        cgroups::CASES,
        cgroups::V1,
        cgroups::V2,
    ];
    let mut cases: BTreeSet<&str> = tables.into_iter().flatten().map(|(code, _)| *code).collect();
    for (code, why) in NOT_HERE {
        lab.say(&format!("    {code}: {why}"));
        assert!(cases.insert(code), "{code} has a case");
    }
    let without: Vec<_> = rows.difference(&cases).collect();
    let gone: Vec<_> = cases.difference(&rows).collect();
    assert!(
        without.is_empty() && gone.is_empty(),
        "rows without a case: {without:?}, cases without a row: {gone:?}"
    );
    Ok(())
}

fn codes_of_the_command_line_and_the_state(lab: &Lab) -> TestResult {
    appear(lab, commands::CASES)
}

fn codes_of_containers_that_do_not_end(lab: &Lab) -> TestResult {
    appear(lab, commands::UNENDING)
}

fn codes_of_files(lab: &Lab) -> TestResult {
    appear(lab, bundles::CASES)
}

fn codes_of_the_rules(lab: &Lab) -> TestResult {
    appear(lab, rules::CASES)
}

fn codes_of_the_launch(lab: &Lab) -> TestResult {
    appear(lab, launches::CASES)
}

fn codes_of_the_process(lab: &Lab) -> TestResult {
    appear(lab, processes::CASES)
}

fn codes_of_cgroups(lab: &Lab) -> TestResult {
    appear(lab, cgroups::CASES)
}

fn codes_of_cgroup_v1(lab: &Lab) -> TestResult {
    lab.needs_v1()?;
    appear(lab, cgroups::V1)
}

fn codes_of_cgroup_v2(lab: &Lab) -> TestResult {
    appear(lab, cgroups::V2)
}
