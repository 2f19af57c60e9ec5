//! A file system of its own: made by the calls of Linux 5.2, or by `mount(2)` where an option is longer than
//! those take. Called for everything that is no copy of a mount and no program.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use hull_proto::types::Mount;
use hull_sys::mount::{
    Change, attr, clone_tree, configure, legacy_flags, make_mount, mount_legacy, open_fs, set_attributes,
    unmount_detached,
};

use super::{Options, Reason, Step, at, by_number, device, text};

/// A value longer than this cannot be given to `fsconfig(2)`.
pub(super) const LONGEST_VALUE: usize = 255;
/// All options together, for `mount(2)`, which takes a page with its last byte zero.
const LONGEST_DATA: usize = 4095;

/// A key with its value, or a key alone.
pub(super) type Pair = (CString, Option<CString>);

/// Flags of a file system: bit of `mount(2)`, name in `fsconfig(2)`.
const FLAGS: [(u64, &CStr); 4] = [
    (libc::MS_SYNCHRONOUS, c"sync"),
    (libc::MS_DIRSYNC, c"dirsync"),
    (libc::MS_LAZYTIME, c"lazytime"),
    (libc::MS_MANDLOCK, c"mand"),
];

/// A mount that is not attached yet.
pub(super) fn make(
    mount: &Mount,
    options: &Options,
    users: Option<BorrowedFd<'_>>,
    place: BorrowedFd<'_>,
) -> Step<OwnedFd> {
    let mut own = options.own.clone();
    // Kept open until the file system holds the device, which is free again without a user.
    let device = if options.loop_device {
        let direct_io = Options::take_flag(&mut own, "direct-io");
        let read_only = options.attributes() & attr::RDONLY != 0;
        Some(device::show(&mount.source, hull_sys::loopdev::Show { read_only, direct_io })?)
    } else {
        None
    };
    let source = device.as_ref().map_or(mount.source.as_str(), |(_, name)| name.as_str());
    let new = FileSystem::of(mount, source, options)?;
    let own = pairs(&own)?;
    let made = if own.iter().any(is_long) { new.make_old(&own, place)? } else { new.make(&own)? };
    if users.is_some() {
        set_attributes(made.as_fd(), Change::default(), false, users)
            .map_err(|errno| at("map ids of", source, errno))?;
    }
    Ok(made)
}

/// What all ways of making it share.
pub(super) struct FileSystem {
    kind: CString,
    source: CString,
    attributes: u64,
    flags: u64,
}

impl FileSystem {
    pub(super) fn of(mount: &Mount, source: &str, options: &Options) -> Step<Self> {
        let (kind, source) = (text(&mount.type_)?, text(source)?);
        Ok(Self { kind, source, attributes: options.attributes(), flags: options.flags })
    }

    /// By `fsopen(2)`: every value has its own call.
    pub(super) fn make(&self, own: &[Pair]) -> Step<OwnedFd> {
        let context = open_fs(&self.kind)?;
        let said = |errno| said(context.as_fd(), errno);
        let set = |key: &CStr, value: Option<&CStr>| configure(context.as_fd(), key, value).map_err(said);
        if !self.source.is_empty() {
            set(c"source", Some(&self.source))?;
        }
        if self.attributes & attr::RDONLY != 0 {
            set(c"ro", None)?;
        }
        for (_, name) in FLAGS.iter().filter(|(bit, _)| self.flags & bit != 0) {
            set(name, None)?;
        }
        for (key, value) in own {
            set(key, value.as_deref())?;
        }
        make_mount(context.as_fd(), self.attributes).map_err(said)
    }

    /// By `mount(2)` on `place`, and off again: what is left is as if the other way had made it.
    pub(super) fn make_old(&self, own: &[Pair], place: BorrowedFd<'_>) -> Step<OwnedFd> {
        let data = data(own)?;
        let flags = self.flags | legacy_flags(self.attributes);
        mount_legacy(&self.source, &by_number(place), &self.kind, flags, &data)?;
        // Not by the number: that is what lies below.
        let path = std::fs::read_link(OsStr::from_bytes(by_number(place).to_bytes()))?;
        let made = clone_tree(None, &text(&path)?, false, true);
        unmount_detached(&text(&path)?)?;
        Ok(made?)
    }
}

pub(super) fn pairs(own: &[(String, Option<String>)]) -> Step<Vec<Pair>> {
    own.iter().map(|(key, value)| Ok((text(key)?, value.as_ref().map(text).transpose()?))).collect()
}

pub(super) fn is_long((_, value): &Pair) -> bool {
    value.as_ref().is_some_and(|value| value.count_bytes() > LONGEST_VALUE)
}

/// Whether `mount(2)` has room for them.
pub(super) fn fit(own: &[Pair]) -> bool {
    data(own).is_ok()
}

/// `key=value,key`.
fn data(own: &[Pair]) -> Step<CString> {
    let one = |(key, value): &Pair| match value {
        Some(value) => [key.to_bytes(), b"=", value.to_bytes()].concat(),
        None => key.to_bytes().to_vec(),
    };
    let data = own.iter().map(one).collect::<Vec<_>>().join(&b',');
    if data.len() > LONGEST_DATA {
        return Err(Reason::invalid(format!("{} bytes of options are too long", data.len())));
    }
    text(OsStr::from_bytes(&data))
}

/// The errno, and what the file system has to say: `invalid argument (overlay: missing 'lowerdir')`.
fn said(context: BorrowedFd<'_>, errno: hull_sys::Errno) -> Reason {
    let mut line = [0; 512];
    // Each read is one message, `e text` for an error; no message is ENODATA.
    while let Ok(length @ 3..) = nix::unistd::read(context, &mut line) {
        if let Some([b'e', b' ', message @ ..]) = line.get(..length) {
            let message = String::from_utf8_lossy(message);
            let text = format!("{} ({})", Reason::from(errno), message.trim_end());
            return Reason { errno, text };
        }
    }
    errno.into()
}
