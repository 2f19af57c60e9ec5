//! `HOME` for a process whose environment has none: the home directory of its user in the container's own
//! passwd file, `/` where there is none. Called by `launch` once the root is the container's.

use std::io::Read;
use std::os::fd::BorrowedFd;

use hull_sys::open::{self, How};

/// More than this of a passwd file is not read.
const LIMIT_BYTES: u64 = 4 << 20;

/// The home directory of `uid` according to `/etc/passwd` below `root`.
pub fn find(root: BorrowedFd<'_>, uid: u32) -> String {
    let mut text = Vec::new();
    // The image may have anything there.
    let read =
        open::in_root(root, c"/etc/passwd", How::READ_NOW).map(std::fs::File::from).is_ok_and(|file| {
            file.metadata().is_ok_and(|found| found.is_file())
                && file.take(LIMIT_BYTES).read_to_end(&mut text).is_ok()
        });
    let found = if read { home_of(&String::from_utf8_lossy(&text), uid) } else { None };
    found.unwrap_or_else(|| "/".to_owned())
}

/// The sixth field of the first line whose third is `uid`.
fn home_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_user = fields.nth(2).and_then(|text| text.parse().ok()) == Some(uid);
        fields.nth(2).filter(|home| is_user && !home.is_empty()).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::home_of;

    #[test]
    fn the_home_is_the_sixth_field_of_the_users_line() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/false\nbroken\n";
        assert_eq!(home_of(passwd, 33).as_deref(), Some("/srv"));
        assert_eq!(home_of(passwd, 7), None);
    }
}
