//! The rule on `ociVersion`: a config of another major version may mean something else.
//! It reads the one string. `check` calls it first.

use super::refuse;
use crate::error::{ErrorKind, Field, Result, Warning};

/// The newest version of the runtime spec that docs/spec.md covers.
const NEWEST: (u64, u64) = (1, 3);

pub(super) fn check(version: &str, warnings: &mut Vec<Warning>) -> Result<()> {
    let field = Field::named("ociVersion");
    if version.is_empty() {
        return Err(refuse(ErrorKind::OciVersion, field, "ociVersion is missing or empty").hint(
            "set it to the version of the runtime spec that the config follows, for example \"1.2.0\"",
        ));
    }
    let Some((major, minor)) = parse(version) else {
        return Err(refuse(ErrorKind::OciVersion, field, format!("ociVersion {version:?} is not a version"))
            .hint("a version has three numbers, for example \"1.2.0\""));
    };
    if major != NEWEST.0 {
        return Err(refuse(ErrorKind::OciVersion, field, format!("ociVersion {version} is not supported"))
            .hint("hull supports version 1.x of the runtime spec"));
    }
    if minor > NEWEST.1 {
        let message = format!(
            "ociVersion {version} is newer than {}.{}: fields it added are ignored",
            NEWEST.0, NEWEST.1
        );
        warnings.push(refuse(ErrorKind::OciVersionNewer, field, message));
    }
    Ok(())
}

/// The version is this one or newer. A pre-release counts as its release.
#[must_use]
pub fn is_since(version: &str, since: (u64, u64)) -> bool {
    parse(version).is_some_and(|version| version >= since)
}

/// Major and minor of a semantic version 2.0.0 with an optional pre-release and build part.
fn parse(version: &str) -> Option<(u64, u64)> {
    let (core, build) = version.split_once('+').unwrap_or((version, "x"));
    let (core, pre) = core.split_once('-').unwrap_or((core, "x"));
    let mut numbers = core.split('.');
    let (major, minor, _patch) =
        (number(numbers.next()?)?, number(numbers.next()?)?, number(numbers.next()?)?);
    let tail = |part: &str| {
        part.split('.')
            .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    (numbers.next().is_none() && tail(pre) && tail(build)).then_some((major, minor))
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_major_and_minor() {
        let since = |version| is_since(version, (1, 3));
        assert_eq!(
            ["1.0.2-dev", "1.2.9", "1.3.0", "1.3.0-rc.1", "1.4.0"].map(since),
            [false, false, true, true, true]
        );
        assert!(!since("nonsense"));
    }

    #[test]
    fn every_1_x_is_accepted_and_a_newer_one_warns() {
        for version in
            ["1.0.0", "1.0.2-dev", "1.0.0-rc5", "1.1.0+dev", "1.2.1", "1.3.0", "1.0.2-dev.3+build.7"]
        {
            let mut warnings = Vec::new();
            check(version, &mut warnings).unwrap();
            assert_eq!(warnings, [], "{version}");
        }
        let mut warnings = Vec::new();
        check("1.4.0", &mut warnings).unwrap();
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn other_versions_and_no_versions_are_refused_with_a_hint() {
        for version in [
            "", "abc", "1", "1.0", "1.0.0.0", "99.0.0", "9.9.9", "0.6.0", "2.0.0", "01.0.0", "1.0.0-",
            "v1.0.0", "1.0.0 ", "1.x.0", "+1.0.0",
        ] {
            let error = check(version, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::OciVersion, "{version}");
            assert!(error.hint.is_some());
        }
    }
}
