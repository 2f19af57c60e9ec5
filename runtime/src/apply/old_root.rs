//! Takes the host's mounts out of the container's mount namespace where the old root stays below the new one
//! (`--no-pivot`): as long as a whole procfs or sysfs is in there, a process of the container may mount another
//! one, without the masks (`mount_too_revealing` in the kernel). Called by `apply::root`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use hull_sys::open::{self, How};
use hull_sys::{Errno, mount};

use super::hide::empty_directory;
use super::process::Proc;
use super::{At, Call, Failure};

/// One line of mountinfo (`proc_pid_mountinfo(5)`).
#[derive(Debug, PartialEq)]
struct Entry {
    id: u64,
    parent: u64,
    /// It is of a whole file system, not of a directory in it.
    is_whole: bool,
    at: CString,
    kind: String,
}

/// Detaches every mount below `old` but those that `root` lies in, and covers what is left of procfs and sysfs.
pub(super) fn take_away(root: BorrowedFd<'_>, old: BorrowedFd<'_>, proc: &Proc) -> Result<(), Failure> {
    let (root_id, old_id) = (mount_id(root, proc)?, mount_id(old, proc)?);
    let table = table(proc)?;
    let kept = line_of(&table, root_id);
    // The last first: it may lie over an earlier one.
    for entry in table.iter().rev().filter(|entry| entry.parent == old_id && !kept.contains(&entry.id)) {
        match mount::unmount_detached(&entry.at) {
            // EINVAL, EPERM: locked together in a user namespace. ENOENT: below one that went before.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::ENOENT) => {}
            Err(errno) => return Err(Failure::new(Call::Only, errno)),
        }
    }
    let table = self::table(proc)?;
    let is_shown = |entry: &&Entry| entry.is_whole && matches!(&*entry.kind, "proc" | "sysfs");
    for entry in table.iter().filter(is_shown) {
        if !line_of(&table, entry.id).contains(&root_id) {
            let place = open::on_host(None, &entry.at, How::DIRECTORY).at(Call::OpenTarget)?;
            mount::attach(empty_directory()?.as_fd(), place.as_fd()).at(Call::Attach)?;
        }
    }
    Ok(())
}

/// A mount and those it lies in, up to the first.
fn line_of(table: &[Entry], id: u64) -> Vec<u64> {
    let mut line = vec![id];
    let parent_of = |id: u64| table.iter().find(|entry| entry.id == id).map(|entry| entry.parent);
    while let Some(parent) = line.last().and_then(|id| parent_of(*id)).filter(|id| !line.contains(id)) {
        line.push(parent);
    }
    line
}

fn table(proc: &Proc) -> Result<Vec<Entry>, Failure> {
    let text = proc.read_own("mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<Entry> {
    let text = |word: &[u8]| std::str::from_utf8(word).ok().map(str::to_owned);
    let mut words = line.split(|byte| *byte == b' ');
    let id = text(words.next()?)?.parse().ok()?;
    let parent = text(words.next()?)?.parse().ok()?;
    let is_whole = words.nth(1)? == b"/";
    let at = CString::new(unescape(words.next()?)).ok()?;
    let kind = text(words.skip_while(|word| *word != b"-").nth(1)?)?;
    Some(Entry { id, parent, is_whole, at, kind })
}

/// Space, tab, newline and backslash stand there as three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(3..).unwrap_or(&[]);
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// The number mountinfo has for the mount `fd` is open on.
fn mount_id(fd: BorrowedFd<'_>, proc: &Proc) -> Result<u64, Failure> {
    let text = proc.read_own(&format!("fdinfo/{}", fd.as_raw_fd()))?;
    let text = String::from_utf8_lossy(&text);
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    number.and_then(|n| n.trim().parse().ok()).ok_or(Failure::new(Call::OpenSource, Errno::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_understood() {
        let line = br"36 35 98:0 / /mnt/a\040b rw,noatime shared:1 master:2 - proc none rw";
        let entry =
            Entry { id: 36, parent: 35, is_whole: true, at: c"/mnt/a b".into(), kind: "proc".to_owned() };
        assert_eq!(parse(line), Some(entry));
        assert!(!parse(b"36 35 98:0 /sys /x rw - proc none rw").unwrap().is_whole);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_line_goes_up_to_the_first_mount() {
        let entry = |id, parent| Entry { id, parent, is_whole: true, at: c"/".into(), kind: String::new() };
        assert_eq!(line_of(&[entry(1, 1), entry(2, 1), entry(3, 2), entry(4, 1)], 3), [3, 2, 1]);
    }
}
