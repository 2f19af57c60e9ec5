//! Finds the place of a field in the text of a JSON file, and the field at a place.
//! It decides nothing and never fails on broken JSON: it goes as far as it can. Only error paths call it.

use crate::error::{Field, Location};

/// One step from a value to one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The place of `field`'s value, or of its nearest parent that exists; `None` for a text that is no object.
pub(super) fn locate(bytes: &[u8], root: &str, field: &Field) -> Option<Location> {
    let mut steps = steps(field.as_str());
    for (at, name) in root.split('.').filter(|s| !s.is_empty()).enumerate() {
        if steps.get(at) != Some(&Step::Key(name.to_owned())) {
            steps.truncate(at);
            break;
        }
    }
    let skip = root.split('.').filter(|s| !s.is_empty()).count().min(steps.len());
    let mut walker = Walker { bytes, at: 0 };
    walker.space();
    let mut place = walker.at;
    for step in steps.iter().skip(skip) {
        if !walker.enter(step) {
            break;
        }
        place = walker.at;
    }
    (place < bytes.len()).then(|| location(bytes, place))
}

/// Line and column of a byte, from 1, without a file name.
pub(super) fn location(bytes: &[u8], at: usize) -> Location {
    let before = bytes.get(..at).unwrap_or(bytes);
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    Location { file: String::new(), line, column: before.len() - line_start + 1 }
}

/// The byte at a line and column as serde counts them.
pub(super) fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let line_start = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .nth(line.wrapping_sub(2))
        .map_or(0, |(newline, _)| newline + 1);
    let line_start = if line < 2 { 0 } else { line_start };
    (line_start + column.saturating_sub(1)).min(bytes.len())
}

/// Splits `linux.sysctl["net.x"]` and `mounts[7].source` into steps; what cannot be read ends the path.
fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        let (step, after) = if let Some(inner) = rest.strip_prefix("[\"") {
            quoted(inner)
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (digits, after) = inner.split_once(']').unwrap_or((inner, ""));
            (digits.parse().ok().map(Step::Index), after)
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            ((!name.is_empty()).then(|| Step::Key(name.to_owned())), after)
        };
        let Some(step) = step else { break };
        steps.push(step);
        rest = after;
    }
    steps
}

/// Reads a key in Rust's `{:?}` form up to `"]`.
fn quoted(text: &str) -> (Option<Step>, &str) {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let after = text.get(at + 1..).unwrap_or_default();
                return (Some(Step::Key(key)), after.strip_prefix(']').unwrap_or(after));
            }
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => key.push('\n'),
                Some('r') => key.push('\r'),
                Some('t') => key.push('\t'),
                Some('0') => key.push('\0'),
                Some('u') => {
                    let digits: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}').collect();
                    let code = u32::from_str_radix(digits.trim_start_matches('{'), 16).ok();
                    key.extend(code.and_then(char::from_u32));
                }
                Some(other) => key.push(other),
                None => return (None, ""),
            },
            other => key.push(other),
        }
    }
    (None, "")
}

/// A position in a JSON text; every move goes forward and stops at the end.
struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walker<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Moves over `byte` and the space around it.
    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
            self.space();
        }
        there
    }

    /// Moves from the start of a container to the start of one of its values; stays where it is when there is none.
    fn enter(&mut self, step: &Step) -> bool {
        let start = self.at;
        let found = match step {
            Step::Key(wanted) => self.eat(b'{') && self.member(wanted),
            Step::Index(wanted) => self.eat(b'[') && self.element(*wanted),
        };
        if !found {
            self.at = start;
        }
        found
    }

    fn member(&mut self, wanted: &str) -> bool {
        while self.peek() == Some(b'"') {
            let raw_start = self.at;
            self.value();
            let raw = self.bytes.get(raw_start..self.at).unwrap_or_default();
            let same = serde_json::from_slice::<String>(raw).is_ok_and(|key| key == wanted);
            if !self.eat(b':') {
                return false;
            }
            if same {
                return self.peek().is_some();
            }
            self.value();
            if !self.eat(b',') {
                return false;
            }
        }
        false
    }

    fn element(&mut self, wanted: usize) -> bool {
        for _ in 0..wanted {
            self.value();
            if !self.eat(b',') {
                return false;
            }
        }
        !matches!(self.peek(), None | Some(b']'))
    }

    /// Moves over one value: a string, a scalar, or a container of any depth.
    fn value(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                None => return,
                Some(b'"') => self.string(),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth == 0 => return,
                Some(b'}' | b']') => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\n' | b'\r') if depth > 0 => self.at += 1,
                Some(b',' | b':') => return,
                Some(_) => self.scalar(),
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn scalar(&mut self) {
        while !matches!(
            self.peek(),
            None | Some(b'"' | b'{' | b'[' | b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r')
        ) {
            self.at += 1;
        }
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => return,
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }
}

/// The field whose text holds the byte `at`: the innermost value, or the key's value when `at` is in a key. `None`
/// at the top level.
pub(super) fn field_at(bytes: &[u8], root: &str, at: usize) -> Option<Field> {
    let mut path: Vec<Step> = Vec::new();
    let mut walker = Walker { bytes, at: 0 };
    // A key that was read waits here for its colon.
    let mut key: Option<String> = None;
    while walker.at <= at {
        let start = walker.at;
        match walker.peek() {
            None => break,
            Some(b'"') => {
                walker.string();
                let raw = bytes.get(start..walker.at).unwrap_or_default();
                key = serde_json::from_slice(raw).ok();
                let in_this_string = walker.at > at;
                if in_this_string && is_key(bytes, walker.at) {
                    set_last(&mut path, key.take());
                }
            }
            Some(b':') => {
                set_last(&mut path, key.take());
                walker.at += 1;
            }
            Some(b'{') => {
                path.push(Step::Key(String::new()));
                walker.at += 1;
            }
            Some(b'[') => {
                path.push(Step::Index(0));
                walker.at += 1;
            }
            Some(b'}' | b']') => {
                path.pop();
                walker.at += 1;
            }
            Some(b',') => {
                match path.last_mut() {
                    Some(Step::Index(index)) => *index += 1,
                    Some(Step::Key(name)) => name.clear(),
                    None => {}
                }
                walker.at += 1;
            }
            Some(_) => walker.at += 1,
        }
    }
    render(root, &path)
}

/// After a string that ends before `at`: does a colon follow?
fn is_key(bytes: &[u8], at: usize) -> bool {
    let mut walker = Walker { bytes, at };
    walker.space();
    walker.peek() == Some(b':')
}

fn set_last(path: &mut [Step], key: Option<String>) {
    if let (Some(Step::Key(name)), Some(key)) = (path.last_mut(), key) {
        *name = key;
    }
}

fn render(root: &str, path: &[Step]) -> Option<Field> {
    let mut field: Option<Field> = None;
    for name in root.split('.').filter(|s| !s.is_empty()) {
        field = Some(child(field.as_ref(), name));
    }
    for step in path {
        match (step, &field) {
            (Step::Key(name), _) if name.is_empty() => break,
            (Step::Key(name), _) => field = Some(child(field.as_ref(), name)),
            (Step::Index(index), Some(list)) => field = Some(list.index(*index)),
            (Step::Index(_), None) => return None,
        }
    }
    field
}

/// The field `name` below `parent`; names that are no words are written as map entries.
pub(super) fn child(parent: Option<&Field>, name: &str) -> Field {
    let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match (parent, is_word) {
        (Some(parent), true) => parent.member(name),
        (Some(parent), false) => Field::entry(parent.as_str(), name),
        (None, true) => Field::owned(name.to_owned()),
        (None, false) => Field::entry("", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"process\": {\n    \"args\": [\"a\\\"]\", \"b\"],\n    \"user\": {}\n  },\n  \
        \"linux\": {\"sysctl\": {\"net.\\u0078\": \"1\", \"y\": [1, [2, 3]]}}\n}\n";

    fn place(field: &str) -> (usize, usize) {
        let at = locate(TEXT.as_bytes(), "", &Field::owned(field.to_owned())).unwrap();
        (at.line, at.column)
    }

    #[test]
    fn a_field_stands_where_its_value_begins() {
        assert_eq!(place("process"), (2, 14));
        assert_eq!(place("process.args"), (3, 13));
        assert_eq!(place("process.args[1]"), (3, 22));
        assert_eq!(place("process.user"), (4, 13));
        assert_eq!(place("linux.sysctl[\"net.x\"]"), (6, 38));
        assert_eq!(place("linux.sysctl.y[1][1]"), (6, 56));
    }

    #[test]
    fn a_field_that_is_missing_stands_where_its_nearest_parent_does() {
        assert_eq!(place("process.user.uid"), (4, 13));
        assert_eq!(place("process.args[2]"), (3, 13));
        assert_eq!(place("process.args.x"), (3, 13));
        assert_eq!(place("nothing.here"), (1, 1));
    }

    #[test]
    fn a_text_without_a_value_has_no_places() {
        assert_eq!(locate(b"", "", &Field::named("a")), None);
        assert_eq!(locate(b" \n", "", &Field::named("a")), None);
        for broken in ["{", "{\"a\"", "{\"a\":", "{\"a\":}", "[[[", "\"", "{\"a\": \"\\"] {
            assert!(locate(broken.as_bytes(), "", &Field::named("a.b[3]")).is_some(), "{broken}");
        }
    }

    #[test]
    fn the_root_of_a_part_of_a_config_is_not_in_its_text() {
        let at = locate(b"{\"args\": 1}", "process", &Field::named("process.args")).unwrap();
        assert_eq!((at.line, at.column), (1, 10));
        let at = locate(b"{\"args\": 1}", "process", &Field::named("linux.args")).unwrap();
        assert_eq!((at.line, at.column), (1, 1));
    }

    #[test]
    fn every_field_is_found_again_at_its_place() {
        for field in [
            "process",
            "process.args",
            "process.args[1]",
            "process.user",
            "linux.sysctl[\"net.x\"]",
            "linux.sysctl.y[1][1]",
        ] {
            let (line, column) = place(field);
            let at = offset(TEXT.as_bytes(), line, column);
            let found = field_at(TEXT.as_bytes(), "", at).unwrap();
            assert!(found.as_str().starts_with(field), "{field}: {found}");
        }
        assert_eq!(field_at(b"{\"a\": {\"b\"", "", 7).unwrap().as_str(), "a");
        assert_eq!(field_at(b"{\"a\": 1}", "process", 2).unwrap().as_str(), "process.a");
    }

    #[test]
    fn offset_undoes_location() {
        for at in 0..TEXT.len() {
            let place = location(TEXT.as_bytes(), at);
            assert_eq!(offset(TEXT.as_bytes(), place.line, place.column), at);
        }
    }
}
