//! One pass over the bytes of a JSON file for what serde does not refuse: deep nesting, `\u0000`, a key given twice,
//! and shapes serde would take for something else (a list where the spec has an object). It judges valid JSON only;
//! broken JSON passes through here and is refused by the parser. `load` calls it on every file, so it must be cheap.

use std::borrow::Cow;

use super::load::{MAX_DEPTH, MAX_VALUES};

/// Up to this many keys of one object are compared pairwise; more are sorted when the object ends.
const FEW_KEYS: usize = 16;

/// What a file may not contain, with the byte offset where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A bracket that opens level `MAX_DEPTH + 1`.
    Depth(usize),
    /// Value `MAX_VALUES + 1`.
    Many(usize),
    /// The escape `\u0000`.
    Nul(usize),
    /// A key that its object already has; the offset is inside the key.
    Duplicate(usize),
}

/// What the pass found out about a file without a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// A value may have another type than its place asks for, and serde may not mind: look closely.
    pub(super) odd: bool,
}

/// A container that is open.
#[derive(Clone, Copy, Default)]
struct Frame {
    /// Its first key in `Scan::keys`.
    keys: usize,
    is_list: bool,
    /// A list of capabilities: its words need to be looked at.
    capabilities: bool,
    /// A list of words: an object in it is odd.
    words: bool,
    /// Its keys are compared when it ends: there are many, or one has an escape.
    deferred: bool,
}

/// A string's content, by offset.
#[derive(Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
    escaped: bool,
}

struct Scan<'a> {
    bytes: &'a [u8],
    frames: [Frame; MAX_DEPTH],
    depth: usize,
    keys: Vec<Span>,
    /// The string read last: a key once a colon follows.
    last: Span,
    /// A colon was read and its value was not.
    after_colon: bool,
    found: Found,
}

/// Looks at the whole file once; 1 to 2 ns a byte.
pub(super) fn scan(bytes: &[u8]) -> Result<Found, Refusal> {
    let mut scan = Scan {
        bytes,
        frames: [Frame::default(); MAX_DEPTH],
        depth: 0,
        keys: Vec::with_capacity(64),
        last: Span::default(),
        after_colon: false,
        found: Found::default(),
    };
    let (mut at, mut values) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        // Each value begins its object or list, or follows a comma.
        values += usize::from(matches!(byte, b',' | b'{' | b'['));
        if values > MAX_VALUES {
            return Err(Refusal::Many(at));
        }
        match byte {
            b'"' => at = scan.string(at + 1)?,
            b':' => scan.key()?,
            b'{' => scan.open(at, false)?,
            b'[' => scan.open(at, true)?,
            b'}' | b']' => scan.close()?,
            b',' => scan.after_colon = false,
            _ => {}
        }
        at += 1;
    }
    Ok(scan.found)
}

impl Scan<'_> {
    /// Reads a string from its first byte to its closing quote, whose offset is the answer.
    fn string(&mut self, start: usize) -> Result<usize, Refusal> {
        let mut at = plain_end(self.bytes, start);
        let mut escaped = false;
        while self.bytes.get(at) == Some(&b'\\') {
            escaped = true;
            if self.bytes.get(at + 1..at + 6) == Some(b"u0000") {
                return Err(Refusal::Nul(at));
            }
            at = plain_end(self.bytes, at + 2);
        }
        self.last = Span { start, end: at, escaped };
        if self.frame().capabilities {
            self.found.odd |= !is_plain_capability(self.text(self.last));
        }
        Ok(at)
    }

    fn frame(&self) -> Frame {
        self.depth.checked_sub(1).and_then(|top| self.frames.get(top)).copied().unwrap_or_default()
    }

    fn text(&self, span: Span) -> &[u8] {
        self.bytes.get(span.start..span.end).unwrap_or_default()
    }

    fn open(&mut self, at: usize, is_list: bool) -> Result<(), Refusal> {
        let parent = self.frame();
        let key = if self.after_colon { self.text(self.last) } else { b"" };
        let odd = match (self.after_colon, is_list) {
            (true, true) => !holds_list(key),
            (true, false) => !holds_object(key),
            (false, true) => parent.is_list,
            (false, false) => parent.words,
        };
        let frame = Frame {
            keys: self.keys.len(),
            is_list,
            capabilities: is_list && holds_capabilities(key),
            words: is_list && matches!(key, b"architectures" | b"flags"),
            deferred: false,
        };
        self.found.odd |= odd;
        self.after_colon = false;
        *self.frames.get_mut(self.depth).ok_or(Refusal::Depth(at))? = frame;
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refusal> {
        let frame = self.frame();
        self.depth = self.depth.saturating_sub(1);
        self.after_colon = false;
        if frame.deferred {
            self.compare_all(frame.keys)?;
        }
        self.keys.truncate(frame.keys);
        Ok(())
    }

    /// The string before this colon is a key of the open object.
    fn key(&mut self) -> Result<(), Refusal> {
        self.after_colon = true;
        let frame = self.frame();
        let new = self.last;
        let siblings = self.keys.get(frame.keys..).unwrap_or_default();
        if frame.deferred || new.escaped || siblings.len() >= FEW_KEYS {
            if let Some(frame) = self.depth.checked_sub(1).and_then(|top| self.frames.get_mut(top)) {
                frame.deferred = true;
            }
        } else if siblings.iter().any(|old| self.text(*old) == self.text(new)) {
            return Err(Refusal::Duplicate(new.start));
        }
        self.keys.push(new);
        Ok(())
    }

    /// Compares the keys from `first` on, as a reader sees them: without escapes.
    fn compare_all(&self, first: usize) -> Result<(), Refusal> {
        let siblings = self.keys.get(first..).unwrap_or_default();
        let mut keys: Vec<(Cow<'_, [u8]>, usize)> =
            siblings.iter().map(|span| (unescaped(self.text(*span), span.escaped), span.start)).collect();
        keys.sort_unstable();
        let twice = keys.windows(2).find_map(|pair| match pair {
            [(a, _), (b, at)] if a == b => Some(*at),
            _ => None,
        });
        twice.map_or(Ok(()), |at| Err(Refusal::Duplicate(at)))
    }
}

/// The offset of the next quote or backslash, or the end. Eight bytes at a time: `word - 0x01…` borrows into the high
/// bit of a byte that is zero, and a byte is zero where it was equal.
fn plain_end(bytes: &[u8], start: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const QUOTES: u64 = ONES * 0x22;
    const BACKSLASHES: u64 = ONES * 0x5c;
    let mut at = start;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let (quote, backslash) = (word ^ QUOTES, word ^ BACKSLASHES);
        let hits = ((quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash)) & HIGH;
        if hits != 0 {
            // The lowest hit is exact: a borrow only disturbs bytes above a real one.
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\')) {
        at += 1;
    }
    at.min(bytes.len())
}

/// A string's content as a reader sees it; a broken escape stays as it is, the parser refuses it.
fn unescaped(raw: &[u8], escaped: bool) -> Cow<'_, [u8]> {
    if !escaped {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_bytes()))
}

fn holds_capabilities(key: &[u8]) -> bool {
    matches!(key, b"bounding" | b"effective" | b"inheritable" | b"permitted" | b"ambient")
}

/// Written the way the spec writes them. oci-spec also takes `chown` and `CAP_CAP_CHOWN`, which runc drops: a
/// program that reads the config before us must see the same capabilities as we do.
fn is_plain_capability(word: &[u8]) -> bool {
    word.strip_prefix(b"CAP_").is_some_and(|name| {
        !name.starts_with(b"CAP_") && name.iter().all(|b| b.is_ascii_uppercase() || *b == b'_')
    })
}

/// Keys that hold a list wherever the spec has them. serde would read a list in place of an object by position.
fn holds_list(key: &[u8]) -> bool {
    matches!(
        key,
        b"names"
            | b"args"
            | b"options"
            | b"mounts"
            | b"env"
            | b"additionalGids"
            | b"bounding"
            | b"effective"
            | b"inheritable"
            | b"permitted"
            | b"ambient"
            | b"rlimits"
            | b"flags"
            | b"prestart"
            | b"createRuntime"
            | b"createContainer"
            | b"startContainer"
            | b"poststart"
            | b"poststop"
            | b"uidMappings"
            | b"gidMappings"
            | b"namespaces"
            | b"devices"
            | b"architectures"
            | b"syscalls"
            | b"maskedPaths"
            | b"readonlyPaths"
            | b"hugepageLimits"
            | b"weightDevice"
            | b"throttleReadBpsDevice"
            | b"throttleWriteBpsDevice"
            | b"throttleReadIOPSDevice"
            | b"throttleWriteIOPSDevice"
            | b"priorities"
            | b"schemata"
    )
}

/// Keys that hold an object wherever the spec has them. serde would read `{"SCMP_ACT_ALLOW": null}` as the word.
fn holds_object(key: &[u8]) -> bool {
    matches!(
        key,
        b"process"
            | b"user"
            | b"capabilities"
            | b"consoleSize"
            | b"scheduler"
            | b"ioPriority"
            | b"execCPUAffinity"
            | b"root"
            | b"hooks"
            | b"annotations"
            | b"linux"
            | b"resources"
            | b"memory"
            | b"cpu"
            | b"pids"
            | b"blockIO"
            | b"network"
            | b"rdma"
            | b"unified"
            | b"sysctl"
            | b"seccomp"
            | b"intelRdt"
            | b"memoryPolicy"
            | b"personality"
            | b"timeOffsets"
            | b"netDevices"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(json: &str) -> bool {
        scan(json.as_bytes()).unwrap().odd
    }

    #[test]
    fn nesting_is_counted_outside_strings_only() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(scan(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(scan(deep(MAX_DEPTH + 1).as_bytes()), Err(Refusal::Depth(MAX_DEPTH)));
        assert!(scan(format!("[\"{}\"]", "[".repeat(1000)).as_bytes()).is_ok());
        assert!(scan(format!("[\"{}\",{}", "]".repeat(1000), deep(MAX_DEPTH)).as_bytes()).is_err());
    }

    #[test]
    fn escaped_nul_is_found_and_an_escaped_backslash_before_it_is_not_one() {
        assert_eq!(scan(br#"["a\u0000b"]"#), Err(Refusal::Nul(3)));
        assert!(scan(br#"["a\\u0000b"]"#).is_ok());
        assert_eq!(scan(br#"["a\\\u0000b"]"#), Err(Refusal::Nul(5)));
    }

    #[test]
    fn a_key_given_twice_is_found_however_it_is_written() {
        assert_eq!(scan(br#"{"a":1,"b":{"a":2},"a":3}"#), Err(Refusal::Duplicate(20)));
        assert_eq!(scan(br#"{"a":1,"\u0061":2}"#), Err(Refusal::Duplicate(8)));
        assert!(scan(br#"{"a":1,"A":2,"b":[{"a":1},{"a":2}]}"#).is_ok());
        let many: String = (0..100).map(|n| format!("\"k{n}\":0,")).collect();
        assert!(scan(format!("{{{many}\"k\":0}}").as_bytes()).is_ok());
        assert!(scan(format!("{{{many}\"k7\":0}}").as_bytes()).is_err());
    }

    #[test]
    fn a_value_that_serde_would_take_for_another_is_odd() {
        assert!(!odd(r#"{"process":{"args":["a","b"],"user":{"uid":1}},"mounts":[{"options":["ro"]}]}"#));
        assert!(odd(r#"{"user":[1,2]}"#));
        assert!(odd(r#"{"mounts":[["/proc"]]}"#));
        assert!(odd(r#"{"action":{"SCMP_ACT_ALLOW":null}}"#));
        assert!(odd(r#"{"architectures":[{"SCMP_ARCH_X86":null}]}"#));
    }

    #[test]
    fn a_capability_not_spelled_like_the_spec_is_odd() {
        assert!(!odd(r#"{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"]}"#));
        for word in ["chown", "CHOWN", "cap_chown", "CAP_CAP_CHOWN", "CAP_ChOWN", ""] {
            assert!(odd(&format!(r#"{{"bounding":["{word}"]}}"#)), "{word}");
        }
    }

    #[test]
    fn broken_json_does_not_disturb_the_scan() {
        for text in ["", "}", "]]]]", "\"", "\"\\", "{\"a", "\\u0000"] {
            assert!(scan(text.as_bytes()).is_ok(), "{text}");
        }
        assert_eq!(scan(b"::"), Err(Refusal::Duplicate(0)));
    }
}
