//! The command line's grammar: one table of flags for each verb, from which parsing, `--help` and the man
//! pages come. It knows no verb and does nothing. Called by `cli`.

use std::fmt::Write as _;

use crate::error::{Error, ErrorKind, Result};

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its long name, without dashes.
    pub long: &'static str,
    /// Its one-letter name.
    pub short: Option<char>,
    /// What its value is called; `None` for a switch.
    pub value: Option<&'static str>,
    /// What it does, one line.
    pub help: &'static str,
    /// Accepted for the sake of old callers, and not shown.
    pub hidden: bool,
}

impl Flag {
    /// A flag that is on or off.
    pub const fn switch(long: &'static str, help: &'static str) -> Self {
        Self { long, short: None, value: None, help, hidden: false }
    }

    /// A flag with a value.
    pub const fn value(long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { long, short: None, value: Some(value), help, hidden: false }
    }

    /// With a one-letter name.
    pub const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// Accepted, not shown.
    pub const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }
}

/// One verb.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as shown.
    pub arguments: &'static str,
    /// How few and how many arguments it takes.
    pub count: (usize, usize),
    /// What it does, one line.
    pub about: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
    /// What comes after the first argument is passed on, dashes included.
    pub trailing: bool,
}

/// What a command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    flags: Vec<(&'static str, String)>,
    /// The arguments that are no flags.
    pub arguments: Vec<String>,
    /// `--help` was among the flags.
    pub help: bool,
}

impl Parsed {
    /// Whether a switch is on.
    pub fn has(&self, long: &str) -> bool {
        self.flags.iter().rev().find(|(name, _)| *name == long).is_some_and(|(_, value)| value != "false")
    }

    /// The value given last.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values, in order.
    pub fn values(&self, long: &str) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// The value as a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, long: &str) -> Result<Option<u32>> {
        let refused =
            |text: &str| Error::new(ErrorKind::Usage, format!("--{long}: {text:?} is not a number"));
        self.value(long).map(|text| text.parse().map_err(|_not_a_number| refused(text))).transpose()
    }

    /// Argument `index`; empty when there is none, which the count has refused.
    pub fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }
}

/// Reads `words` by a table of flags. With `stop_at_first` the first word that is no flag, and all after
/// it, are arguments.
///
/// # Errors
/// An unknown flag, or one without its value.
pub fn parse(words: &[String], flags: &'static [Flag], stop_at_first: bool) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let unknown = || Error::new(ErrorKind::Usage, format!("flag provided but not defined: {word}"));
        let (flag, inline) = if word == "--" {
            parsed.arguments.extend(words.by_ref().cloned());
            break;
        } else if word == "--help" || word == "-h" || word == "--usage" {
            parsed.help = true;
            continue;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, inline) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
            (flags.iter().find(|flag| flag.long == name).ok_or_else(unknown)?, inline)
        } else if let Some(short) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            // Also `-log x`, as Go's flag package reads it.
            match find_short(flags, short).ok_or_else(unknown)? {
                Short::One(flag, inline) => (flag, inline),
                Short::Several(several) => {
                    parsed.flags.extend(several.iter().map(|flag| (flag.long, "true".to_owned())));
                    continue;
                }
            }
        } else if stop_at_first {
            parsed.arguments.push(word.clone());
            parsed.arguments.extend(words.by_ref().cloned());
            break;
        } else {
            parsed.arguments.push(word.clone());
            continue;
        };
        let missing = || Error::new(ErrorKind::Usage, format!("flag needs an argument: {word}"));
        let value = match (flag.value, inline) {
            (_, Some(value)) => value,
            (Some(_), None) => words.next().cloned().ok_or_else(missing)?,
            (None, None) => "true".to_owned(),
        };
        parsed.flags.push((flag.long, value));
    }
    Ok(parsed)
}

enum Short {
    One(&'static Flag, Option<String>),
    Several(Vec<&'static Flag>),
}

/// `-b x`, `-b=x`, `-bx`, `-it`, `-bundle x`.
fn find_short(flags: &'static [Flag], text: &str) -> Option<Short> {
    let (name, inline) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v.to_owned())));
    let by_letter = |letter| flags.iter().find(|flag| flag.short == Some(letter));
    if let Some(flag) = flags.iter().find(|flag| flag.long == name) {
        return Some(Short::One(flag, inline));
    }
    let mut letters = name.chars();
    let first = by_letter(letters.next()?)?;
    if letters.as_str().is_empty() {
        return Some(Short::One(first, inline));
    }
    if first.value.is_some() {
        return Some(Short::One(first, Some(text.get(1..)?.to_owned())));
    }
    let all: Option<Vec<_>> = name.chars().map(by_letter).collect();
    all.filter(|all| all.iter().all(|flag| flag.value.is_none())).map(Short::Several)
}

/// The lines that explain `flags`.
pub fn explain(flags: &[Flag]) -> String {
    let mut text = String::new();
    for flag in flags.iter().filter(|flag| !flag.hidden) {
        let short = flag.short.map(|letter| format!(", -{letter}")).unwrap_or_default();
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        let left = format!("--{}{short}{value}", flag.long);
        // Writing to a String cannot fail.
        let _written = writeln!(text, "   {left:<34} {}", flag.help).is_ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: &[Flag] = &[
        Flag::value("bundle", "DIR", "").short('b'),
        Flag::switch("tty", "").short('t'),
        Flag::switch("detach", "").short('d'),
    ];

    fn read(words: &[&str], stop: bool) -> Result<Parsed> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), FLAGS, stop)
    }

    #[test]
    fn values_come_in_every_form_callers_use() {
        for words in
            [&["--bundle", "x"][..], &["--bundle=x"], &["-b", "x"], &["-b=x"], &["-bx"], &["-bundle", "x"]]
        {
            assert_eq!(read(words, false).unwrap().value("bundle"), Some("x"));
        }
    }

    #[test]
    fn switches_can_be_bundled_and_switched_off() {
        let parsed = read(&["-td", "--detach=false"], false).unwrap();
        assert!(parsed.has("tty") && !parsed.has("detach"));
    }

    #[test]
    fn what_follows_the_first_argument_is_left_alone_when_asked() {
        let parsed = read(&["-t", "c1", "ls", "-b", "--", "x"], true).unwrap();
        assert_eq!(parsed.arguments, ["c1", "ls", "-b", "--", "x"]);
    }

    #[test]
    fn an_unknown_flag_is_named() {
        assert_eq!(read(&["--nope"], false).unwrap_err().message, "flag provided but not defined: --nope");
    }
}
