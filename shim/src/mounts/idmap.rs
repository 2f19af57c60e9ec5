//! User namespaces that exist only for the ids of a mount. Called by `mount_one`.

use std::os::fd::OwnedFd;

use hull_sys::namespace;

use super::{Reason, Step, at};

/// A user namespace with these maps: `inside:outside:size`, several with commas between them. On a mount,
/// `inside` is what the file system has.
pub(super) fn namespace_with(uids: &str, gids: &str) -> Step<OwnedFd> {
    let (uids, gids) = (lines(uids)?, lines(gids)?);
    namespace::user_with_maps(&uids, &gids)
        .map_err(|errno| at("create", format!("a user namespace with the ids {uids:?} and {gids:?}"), errno))
}

/// `0:1000:10,10:5000:1` as the kernel wants it.
fn lines(maps: &str) -> Step<String> {
    maps.split(',').map(line).collect()
}

fn line(map: &str) -> Step<String> {
    let numbers: Vec<Option<u32>> = map.split(':').map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [Some(inside), Some(outside), Some(size)] => Ok(format!("{inside} {outside} {size}\n")),
        _ => Err(Reason::invalid(format!("id map {map} is not inside:outside:size"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_become_lines() {
        assert_eq!(lines("0:1000:10,10:5000:1").unwrap(), "0 1000 10\n10 5000 1\n");
    }

    #[test]
    fn odd_maps_are_named() {
        for odd in ["", "0:1", "0:1:-1", "0:1:2:3", "a:1:2"] {
            assert_eq!(lines(odd).unwrap_err().text, format!("id map {odd} is not inside:outside:size"));
        }
    }
}
