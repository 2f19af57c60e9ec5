//! One entry of the test table, and how a test ends. A test is a plain function; its name is the behaviour.

use crate::lab::{Runtime, Shim};
use crate::{Engine, Lab, View};
use std::fmt;

/// Why a test stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// The host lacks something the test needs.
    Skip(String),
    /// The behaviour is wrong, or the test could not find out.
    Fail(String),
}

/// What a test returns; a panic counts as `Stop::Fail`.
pub type TestResult = Result<(), Stop>;

impl<E: fmt::Display> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(error.to_string())
    }
}

/// Leaves the test with the reason it cannot run here: `return skip("no cgroup v2")`.
pub fn skip<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Skip(reason.into()))
}

/// One behaviour.
#[derive(Debug)]
pub struct Test {
    /// The file it is in; with `name` what FILTER is matched against.
    pub group: &'static str,
    /// The behaviour, as the function is called.
    pub name: &'static str,
    /// The body.
    pub run: fn(&Lab) -> TestResult,
    /// Runtimes and shims known to fail it: the beginning of "KIND VERSION", and the line of the specification or of docs/.
    pub breaks_on: &'static [(&'static str, &'static str)],
    /// Runs for this kind of runtime only.
    pub only: Option<&'static str>,
    /// The host it wants to see.
    pub view: Option<View>,
    /// Seconds after which it is killed and has failed.
    pub limit_s: u64,
    /// It wants to see what the runtime cannot do yet: that is no reason to count it as a skip.
    pub expects_refusals: bool,
    /// The container engine it calls, which is started once for all tests that name it.
    pub engine: Option<Engine>,
}

impl Test {
    /// A test without conditions.
    pub const fn new(group: &'static str, name: &'static str, run: fn(&Lab) -> TestResult) -> Self {
        Self {
            group,
            name,
            run,
            breaks_on: &[],
            only: None,
            view: None,
            limit_s: 60,
            expects_refusals: false,
            engine: None,
        }
    }

    /// Names runtimes that break a line of the specification or of docs/, and the line.
    #[must_use]
    pub const fn breaks_on(mut self, known: &'static [(&'static str, &'static str)]) -> Self {
        self.breaks_on = known;
        self
    }

    /// Restricts it to one kind of runtime.
    #[must_use]
    pub const fn only(mut self, kind: &'static str) -> Self {
        self.only = Some(kind);
        self
    }

    /// Runs it in a private mount namespace in which the host looks like this.
    #[must_use]
    pub const fn view(mut self, view: View) -> Self {
        self.view = Some(view);
        self
    }

    /// Another time limit than 60 s.
    #[must_use]
    pub const fn limit_s(mut self, seconds: u64) -> Self {
        self.limit_s = seconds;
        self
    }

    /// It fails like any other when the runtime has said that something is not yet supported.
    #[must_use]
    pub const fn expects_refusals(mut self) -> Self {
        self.expects_refusals = true;
        self
    }

    /// Gives it this container engine, which calls the runtime under test.
    #[must_use]
    pub const fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Why it does not run on this runtime, with this shim, if so. Tests of the shim are in files named shim_*.
    pub fn excluded(&self, runtime: &Runtime, shim: Option<&Shim>, try_known: bool) -> Option<String> {
        let of_shim = self.group.contains("::shim_");
        if of_shim && shim.is_none() {
            return Some("no shim beside the runtime; SHIM names another".into());
        }
        if let Some(only) = self.only.filter(|only| *only != runtime.kind) {
            return Some(format!("only for {only}"));
        }
        if try_known {
            return None;
        }
        let mut subjects = vec![format!("{} {}", runtime.kind, runtime.version)];
        subjects.extend(shim.filter(|_| of_shim).map(Shim::full));
        let is_known = |prefix: &str| subjects.iter().any(|subject| subject.starts_with(prefix));
        let known = self.breaks_on.iter().find(|(prefix, _)| is_known(prefix))?;
        Some(format!("known on {}: {}", known.0, known.1))
    }
}

/// The table of a file: function names, each with optional conditions, after those that all of them have.
/// `tests! { one, two.only("hull"), three.view(View::V2).limit_s(90) }`
/// `tests! { each.engine(Engine::Docker); one, two.only("hull") }`
#[macro_export]
macro_rules! tests {
    (each $(. $every:ident ( $($with:tt)* ))+ ; $($name:ident $(. $cond:ident ( $($arg:tt)* ))* ),* $(,)?) => {
        const fn each(test: $crate::Test) -> $crate::Test {
            test $( .$every($($with)*) )+
        }
        /// The tests of this file.
        pub(crate) const TESTS: &[$crate::Test] = &[
            $( each($crate::Test::new(module_path!(), stringify!($name), $name)) $( .$cond($($arg)*) )* ),*
        ];
    };
    ($($name:ident $(. $cond:ident ( $($arg:tt)* ))* ),* $(,)?) => {
        /// The tests of this file.
        pub(crate) const TESTS: &[$crate::Test] = &[
            $( $crate::Test::new(module_path!(), stringify!($name), $name) $( .$cond($($arg)*) )* ),*
        ];
    };
}
