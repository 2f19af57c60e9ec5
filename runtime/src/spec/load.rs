//! Reads config.json once, parses it once, and keeps the bytes so that a later error can say where its field stands.
//! It may not open, stat or write anything but the file it is given, which may be anything: a pipe is polled. `cli` calls it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use hull_sys::signal::{self, Interest};
use oci_spec::runtime::{LinuxDeviceType, LinuxResources, Process, Spec};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::scan::{Found, Refusal, scan};
use super::shape::{self, Shape};
use super::warnings::Warnings;
use super::{fit, span};
use crate::error::{Error, ErrorKind, Field, Location, Result, Warning, io_words, words};

/// The largest file read; engines write 3 to 20 KiB.
pub const MAX_BYTES: usize = 8 << 20;

/// The most values read, keys with theirs counted once: what is built of them stays below 64 MB. A privileged
/// container of an engine has about 2,000.
pub const MAX_VALUES: usize = 1 << 16;

/// The deepest nesting read; the spec needs 8.
pub const MAX_DEPTH: usize = 64;

/// A parsed file, what was dropped from it, and its text.
#[derive(Clone, Debug)]
pub struct Loaded<T = Spec> {
    /// What the file says, in oci-spec's types.
    pub spec: T,
    /// What was dropped or changed; `--strict` makes each an error.
    pub warnings: Vec<Warning>,
    /// The text, for locations.
    pub source: Source,
}

/// The text of a loaded file and the name a user knows it by.
#[derive(Clone, Debug)]
pub struct Source {
    file: String,
    bytes: Vec<u8>,
    document: &'static Document,
}

/// A kind of file: where its text hangs in config.json, and its fields.
#[derive(Debug)]
struct Document {
    root: &'static str,
    shape: Shape,
}

static CONFIG: Document = Document { root: "", shape: shape::CONFIG };
static PROCESS: Document = Document { root: "process", shape: shape::PROCESS };
static RESOURCES: Document = Document { root: "linux.resources", shape: shape::RESOURCES };

/// Reads a config.json; `file_name` is what errors call it.
pub fn load(file: File, file_name: &str) -> Result<Loaded<Spec>> {
    parse(read(file, file_name)?, file_name)
}

/// Reads the process.json of `exec --process`; fields are named `process.args` as in a config.json.
pub fn load_process(file: File, file_name: &str) -> Result<Loaded<Process>> {
    let loaded = parse_document(read(file, file_name)?, file_name, &PROCESS)?;
    require_of_process(Some(&loaded.spec), &loaded.source)?;
    Ok(loaded)
}

/// Reads the resources of `update --resources`; fields are named `linux.resources.memory` as in a config.json.
pub fn load_resources(file: File, file_name: &str) -> Result<Loaded<LinuxResources>> {
    let loaded = parse_document(read(file, file_name)?, file_name, &RESOURCES)?;
    require_of_resources(Some(&loaded.spec), &loaded.source)?;
    Ok(loaded)
}

/// Parses the text of a config.json that was read elsewhere.
pub fn parse(bytes: Vec<u8>, file_name: &str) -> Result<Loaded<Spec>> {
    let mut loaded = parse_document::<Spec>(bytes, file_name, &CONFIG)?;
    root_destinations(&mut loaded);
    let linux = loaded.spec.linux().as_ref();
    let devices = linux.iter().flat_map(|linux| linux.devices().iter().flatten()).enumerate();
    let numbers =
        devices.filter(|(_, device)| device.typ() != LinuxDeviceType::P).flat_map(|(index, device)| {
            let zero = [("major", device.major()), ("minor", device.minor())];
            zero.into_iter().filter(|(_, number)| *number == 0).map(move |(name, _)| (index, name))
        });
    loaded.source.require_in("linux.devices", numbers)?;
    require_of_process(loaded.spec.process().as_ref(), &loaded.source)?;
    require_of_resources(linux.and_then(|linux| linux.resources().as_ref()), &loaded.source)?;
    Ok(loaded)
}

/// What oci-spec has a value for when the file has none, and the spec does not.
fn require_of_process(process: Option<&Process>, source: &Source) -> Result<()> {
    match process.and_then(|process| process.io_priority().as_ref()) {
        Some(_) => source.require(&Field::named("process.ioPriority"), "class"),
        None => Ok(()),
    }
}

fn require_of_resources(resources: Option<&LinuxResources>, source: &Source) -> Result<()> {
    let limits = resources.iter().flat_map(|all| all.hugepage_limits().iter().flatten()).enumerate();
    let unset = limits.filter(|(_, limit)| limit.limit() == 0).map(|(index, _)| (index, "limit"));
    source.require_in("linux.resources.hugepageLimits", unset)
}

/// The line and column of `field` in the text of a config.json, or of its nearest parent that exists; the file's name
/// is empty.
pub fn locate(bytes: &[u8], field: &Field) -> Option<Location> {
    span::locate(bytes, "", field)
}

impl Source {
    /// Where a field of this file stands, or its nearest parent that exists.
    pub fn locate(&self, field: &Field) -> Option<Location> {
        let at = span::locate(&self.bytes, self.document.root, field)?;
        Some(Location { file: self.file.clone(), ..at })
    }

    /// Refuses the first object of the list `list` that has no key of the name given with its index.
    fn require_in(&self, list: &str, wanted: impl Iterator<Item = (usize, &'static str)>) -> Result<()> {
        let mut wanted = wanted.peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        // Parsed once more, as what it is: there may be many.
        let value: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        let below = list.strip_prefix(self.document.root).unwrap_or(list).trim_start_matches('.');
        let items = value.pointer(&format!("/{}", below.replace('.', "/")));
        let has = |(index, name): &(usize, &str)| {
            items.and_then(|items| items.get(index)).is_some_and(|item| item.get(name).is_some())
        };
        match wanted.find(|one| !has(one)) {
            Some((index, name)) => Err(self.missing(Field::item(list, index).member(name))),
            None => Ok(()),
        }
    }

    /// Refuses an object of the file that has no key `name`.
    fn require(&self, object: &Field, name: &str) -> Result<()> {
        let field = object.member(name);
        // Of a key that is not there the place is its object's.
        if self.locate(&field) == self.locate(object) { Err(self.missing(field)) } else { Ok(()) }
    }

    fn missing(&self, field: Field) -> Error {
        let error = Error::new(ErrorKind::ConfigFieldMissing, "is required by the spec but missing");
        self.point(error.field(field))
    }

    /// Adds the place of its field to an error that has none.
    #[must_use]
    pub fn point(&self, mut error: Error) -> Error {
        if error.at.is_none() {
            error.at = error.field.as_ref().and_then(|field| self.locate(field));
        }
        error
    }

    /// Every key that the spec does not have, for `hull plan`; parses the text again.
    pub fn unknown_fields(&self) -> Vec<Warning> {
        let value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        fit::unknown(&value, &self.document.shape, self.document.root).tell(self)
    }

    /// The file's name as the caller gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's text, unchanged.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The place of a byte.
    fn at(&self, byte: usize) -> Location {
        Location { file: self.file.clone(), ..span::location(&self.bytes, byte) }
    }
}

/// Reads the whole file; a regular one with a single `read`.
fn read(mut file: File, file_name: &str) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::ConfigRead, format!("read {file_name}: {e}"));
    let too_large = || {
        let limit = MAX_BYTES >> 20;
        Error::new(ErrorKind::ConfigTooLarge, format!("{file_name} is larger than {limit} MiB"))
            .hint("a config.json is usually a few dozen KiB: is this the right file?")
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return read_stream(&file, file_name)?.ok_or_else(too_large);
    }
    let size = usize::try_from(meta.len()).ok().filter(|size| *size <= MAX_BYTES).ok_or_else(too_large)?;
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// How long a pipe may say nothing.
const SILENCE_MS: i32 = 10_000;

/// Reads a pipe (`--resources -`, `<(...)`) to its end; `None` when it is too large. One that does not answer is
/// not waited for.
fn read_stream(mut file: &File, file_name: &str) -> Result<Option<Vec<u8>>> {
    let failed = |why: String| Error::new(ErrorKind::ConfigRead, format!("read {file_name}: {why}"));
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    // A fifo that nobody has opened for writing is at its end, which only a read tells.
    let mut may_read = hull_sys::fs::is_nonblocking(file.as_fd());
    loop {
        if !may_read {
            let watched = [Interest { fd: file.as_fd(), events: libc::POLLIN }];
            let [came] = signal::poll(watched, SILENCE_MS).map_err(|errno| failed(words(errno)))?;
            if came == 0 {
                return Err(failed(format!("no data for {} s", SILENCE_MS / 1000)));
            }
        }
        may_read = false;
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(failed(io_words(&e))),
        }
        if bytes.len() > MAX_BYTES {
            return Ok(None);
        }
    }
}

fn parse_document<T: DeserializeOwned>(
    bytes: Vec<u8>,
    file_name: &str,
    document: &'static Document,
) -> Result<Loaded<T>> {
    let source = Source { file: file_name.to_owned(), bytes, document };
    check_text(&source)?;
    let Found { odd } = scan(&source.bytes).map_err(|refusal| refused(&source, refusal))?;
    match serde_json::from_slice(&source.bytes) {
        Ok(spec) if !odd => Ok(Loaded { spec, warnings: Vec::new(), source }),
        Ok(_) => look_closely(source, None),
        Err(e) => look_closely(source, Some(e)),
    }
}

/// Refuses what is not the text of a JSON object, before anyone reads it as something else.
fn check_text(source: &Source) -> Result<()> {
    let file = &source.file;
    let start = source.bytes.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    let text = start.and_then(|start| source.bytes.get(start..)).unwrap_or_default();
    let found = match text {
        [] => "is empty".to_owned(),
        [b'{', 0, ..] | [0, b'{', ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            "is UTF-16, must be UTF-8".to_owned()
        }
        [0xef, 0xbb, 0xbf, ..] => "begins with a byte order mark, which JSON does not allow".to_owned(),
        [b'{', ..] => return Ok(()),
        [b'[', ..] => "is a list, must be an object".to_owned(),
        [b'"', ..] => "is a string, must be an object".to_owned(),
        [b'/', ..] => "begins with a comment, which JSON does not allow".to_owned(),
        [b'0'..=b'9' | b'-', ..] => "is a number, must be an object".to_owned(),
        [b't' | b'f' | b'n', ..] => "must be an object".to_owned(),
        [other, ..] => format!("is not JSON: it begins with byte {other:#04x}"),
    };
    Err(Error::new(ErrorKind::ConfigSyntax, format!("{file} {found}")).at(source.at(start.unwrap_or(0))))
}

fn refused(source: &Source, refusal: Refusal) -> Error {
    // The scan takes any text for JSON; what is broken should be called broken. Too deep a text is not read again.
    if !matches!(refusal, Refusal::Depth(_))
        && let Err(e) = serde_json::from_slice::<IgnoredAny>(&source.bytes)
    {
        return syntax_error(source, &e);
    }
    let (kind, message, byte) = match refusal {
        Refusal::Depth(at) => {
            (ErrorKind::ConfigDepth, format!("is nested deeper than {MAX_DEPTH} levels"), at)
        }
        Refusal::Many(at) => (ErrorKind::ConfigValues, format!("has more than {MAX_VALUES} values"), at),
        Refusal::Nul(at) => (ErrorKind::ConfigNul, "contains a NUL byte (\\u0000)".to_owned(), at),
        Refusal::Duplicate(at) => (ErrorKind::ConfigDuplicate, "is given twice".to_owned(), at),
    };
    let error = Error::new(kind, message).at(source.at(byte));
    let field = match refusal {
        // 64 levels make a long name: the outermost says enough.
        Refusal::Depth(_) | Refusal::Many(_) => span::field_at(&source.bytes, source.document.root, byte)
            .and_then(|field| {
                field.as_str().split(['.', '[']).next().map(|top| Field::owned(top.to_owned()))
            }),
        Refusal::Nul(_) | Refusal::Duplicate(_) => span::field_at(&source.bytes, source.document.root, byte),
    };
    match field {
        Some(field) => error.field(field),
        None => Error { message: format!("{} {}", source.file, error.message), ..error },
    }
}

/// The second reading, for a file that serde refused or that may mean something else than serde read: value by value
/// along the spec's own table.
fn look_closely<T: DeserializeOwned>(
    source: Source,
    refusal: Option<serde_json::Error>,
) -> Result<Loaded<T>> {
    let mut value: Value = serde_json::from_slice(&source.bytes).map_err(|e| syntax_error(&source, &e))?;
    let document = source.document;
    let warnings =
        fit::fit(&mut value, &document.shape, document.root).map_err(|error| source.point(error))?;
    let warnings = warnings.tell(&source);
    match serde_json::from_value(value) {
        Ok(spec) => Ok(Loaded { spec, warnings, source }),
        Err(e) => Err(type_error(&source, refusal.as_ref().unwrap_or(&e))),
    }
}

/// serde's sentence without its ` at line 1 column 2`.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

fn syntax_error(source: &Source, error: &serde_json::Error) -> Error {
    let byte = span::offset(&source.bytes, error.line(), error.column());
    let near =
        source.bytes.get(byte.saturating_sub(1)..(byte + 1).min(source.bytes.len())).unwrap_or_default();
    let file = &source.file;
    let refused = Error::new(
        ErrorKind::ConfigSyntax,
        format!("{file} is not valid JSON: {} (byte {byte})", sentence(error)),
    );
    let refused = refused.at(source.at(byte.min(source.bytes.len().saturating_sub(1))));
    match near {
        _ if error.is_eof() => refused.hint("the file is truncated: was it written completely?"),
        [.., b'/'] | [b'/', ..] => refused.hint("JSON has no comments"),
        _ => refused,
    }
}

/// What serde says about a value that the table did not refuse: only a rule inside oci-spec itself can do that.
fn type_error(source: &Source, error: &serde_json::Error) -> Error {
    let byte = span::offset(&source.bytes, error.line(), error.column());
    let refused = Error::new(ErrorKind::ConfigType, sentence(error)).at(source.at(byte));
    match span::field_at(&source.bytes, source.document.root, byte) {
        Some(field) => refused.field(field),
        None => refused,
    }
}

/// runc takes a relative mount destination as one below `/` and says that it should not be; so do we.
fn root_destinations(loaded: &mut Loaded<Spec>) {
    let Some(mounts) = loaded.spec.mounts_mut() else { return };
    let mut warnings = Warnings::default();
    for (index, mount) in mounts.iter_mut().enumerate() {
        let destination = mount.destination();
        if destination.is_absolute() || destination.as_os_str().is_empty() {
            continue;
        }
        let absolute = Path::new("/").join(destination);
        warnings.add(|| {
            let message =
                format!("{} is not absolute: {} is used", destination.display(), absolute.display());
            let field = Field::item("mounts", index).member("destination");
            Warning::new(ErrorKind::MountDestinationRelative, message).field(field)
        });
        mount.set_destination(absolute);
    }
    loaded.warnings.extend(warnings.tell(&loaded.source));
}
