//! The mounts that this process sees, as the kernel lists them (`proc_pid_mountinfo(5)`). Pure but for
//! [`read`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the mount shows of its file system.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: &'a [u8],
    /// The options of the file system itself.
    pub options: &'a [u8],
}

/// The table as bytes: a path may be anything. Of this thread, which may have a mount namespace of its own.
///
/// # Errors
/// When procfs is not there.
pub fn read() -> std::io::Result<Vec<u8>> {
    std::fs::read("/proc/thread-self/mountinfo")
}

/// The mounts in it, in the order of the table.
pub fn entries(table: &[u8]) -> impl DoubleEndedIterator<Item = Entry<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(parse)
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut words = line.split(|byte| *byte == b' ');
    let (root, point) = (words.nth(3)?, words.next()?);
    words.find(|word| *word == b"-")?;
    let (kind, options) = (words.next()?, words.nth(1)?);
    Some(Entry { root: unescape(root), point: unescape(point), kind, options })
}

/// Undoes the octal escapes (`\040` for a space).
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = if *first == b'\\' { octal(after) } else { None };
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsString::from_vec(plain).into()
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_give_root_point_type_and_options() {
        let table = b"35 31 0:32 /docker/x /sys/fs/cgroup/a\\040b rw,relatime shared:9 master:1 - cgroup cgroup rw,memory\n\
            36 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        let all: Vec<_> = entries(table).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].root, Path::new("/docker/x"));
        assert_eq!(all[0].point, Path::new("/sys/fs/cgroup/a b"));
        assert_eq!((all[0].kind, all[0].options), (&b"cgroup"[..], &b"rw,memory"[..]));
        assert_eq!(all[1].point, Path::new("/"));
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(b"/a\\134b\\09"), Path::new("/a\\b\\09"));
        assert_eq!(unescape(b"/\\"), Path::new("/\\"));
    }

    #[test]
    fn lines_that_are_cut_are_passed_over() {
        assert_eq!(entries(b"\n1 2 3\n36 1 8:1 / / rw - ext4\n").count(), 0);
    }
}
