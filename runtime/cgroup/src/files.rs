//! The forms that files of cgroups have: one number, lines of a key and a number, lines of a device. What is missing
//! is no error here.

use std::path::Path;

use hull_sys::Errno;

use crate::error::{Error, ErrorKind, Result};

/// A file of a cgroup; nothing when the kernel, the controller or the cgroup is not there.
pub fn text(dir: &Path, file: &str) -> Result<Option<String>> {
    let path = dir.join(file);
    match std::fs::read_to_string(&path).map_err(|error| errno(&error)) {
        Ok(text) => Ok(Some(text)),
        // Removed between open and read; a kernel told to do without (psi=0).
        Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => {
            let text = format!("read {}: {}", path.display(), hull_sys::words(errno));
            Err(Error::new(ErrorKind::Unreadable, text))
        }
    }
}

/// The kernel's number for it.
pub fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Adds the processes in `dir` and below.
pub fn pids(dir: &Path, found: &mut Vec<i32>) -> Result<()> {
    // A cgroup of threads has no such file, or refuses to be read: its processes are those of one above.
    if let Some(text) = text(dir, "cgroup.procs")? {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids(&child.path(), found)?;
        }
    }
    Ok(())
}

/// A file that is one number.
pub fn number(dir: &Path, file: &str) -> Result<Option<u64>> {
    Ok(text(dir, file)?.map(|text| parse(&text)))
}

/// As [`number`], 0 when the file is not there: the messages have no other word for it.
pub fn number_or_zero(dir: &Path, file: &str) -> Result<u64> {
    Ok(number(dir, file)?.unwrap_or(0))
}

/// A number in the kernel's words: `max` is the largest, and what is below zero is nothing.
pub fn parse(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        // Nothing but a number, or a number below zero, is ever written there.
        text => text.parse().unwrap_or(0),
    }
}

/// The number after `key` in lines of both; `None` when there is none.
pub fn number_of(text: &str, key: &str) -> Option<u64> {
    value_of(text, key)?.parse().ok()
}

/// The value after `key` in lines of both.
pub fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

/// Lines of `key number`.
#[derive(Debug)]
pub struct Flat<'a>(Vec<(&'a str, u64)>);

impl<'a> Flat<'a> {
    /// Of this text.
    pub fn new(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(' ')).map(|(key, n)| (key, parse(n))).collect())
    }

    /// 0 when the kernel does not have it.
    pub fn get(&self, key: &str) -> u64 {
        self.0.iter().find(|(name, _)| *name == key).map_or(0, |(_, number)| *number)
    }
}

/// Device numbers and what follows them: `8:0 Read 4096`.
pub fn device_line(line: &str) -> Option<(u64, u64, &str)> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, rest))
}

/// One line of an RDMA file, `mlx4_0 hca_handle=2 hca_object=max`: device, handles, objects.
pub fn rdma_line(line: &str) -> Option<(String, u32, u32)> {
    let (device, rest) = line.split_once(' ')?;
    let of = |key: &str| {
        let values = rest.split(' ').filter_map(|pair| pair.split_once('='));
        let value = values.filter(|(name, _)| *name == key).map(|(_, value)| parse(value)).next();
        u32::try_from(value.unwrap_or(0)).unwrap_or(u32::MAX)
    };
    Some((device.to_owned(), of("hca_handle"), of("hca_object")))
}

/// The sizes of huge pages on this host as cgroups name them, smallest first.
pub fn page_sizes() -> Vec<String> {
    // A kernel without huge pages has no such directory.
    let names = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = names.filter_map(|entry| size_kib(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(size_name).collect()
}

fn size_kib(name: &str) -> Option<u64> {
    name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
}

fn size_name(kib: u64) -> String {
    match kib {
        0x400..0x10_0000 => format!("{}MB", kib >> 10),
        0x10_0000.. => format!("{}GB", kib >> 20),
        _ => format!("{kib}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_is_the_largest_number_and_below_zero_is_nothing() {
        assert_eq!(parse("max\n"), u64::MAX);
        assert_eq!(parse("-1\n"), 0);
        assert_eq!(parse("9223372036854771712\n"), 9_223_372_036_854_771_712);
    }

    #[test]
    fn missing_file_is_nothing_and_another_failure_an_error() {
        assert_eq!(number(Path::new("/proc/self"), "pids.current").unwrap(), None);
        let error = number(Path::new("/proc/self"), "fd").unwrap_err();
        assert_eq!(error.message, "read /proc/self/fd: is a directory");
    }

    #[test]
    fn flat_lines_are_found_by_their_key() {
        let flat = Flat::new("cache 7\nrss 8\nhierarchical_memory_limit max\n\nodd\n");
        assert_eq!((flat.get("rss"), flat.get("cache"), flat.get("swap")), (8, 7, 0));
        assert_eq!(flat.get("hierarchical_memory_limit"), u64::MAX);
    }

    #[test]
    fn rdma_max_is_the_largest_number() {
        assert_eq!(rdma_line("mlx4_0 hca_handle=2 hca_object=max"), Some(("mlx4_0".into(), 2, u32::MAX)));
        assert_eq!(rdma_line(""), None);
    }

    #[test]
    fn page_sizes_have_the_names_of_cgroup_files() {
        let names: Vec<_> = [64, 2048, 32768, 1_048_576].into_iter().map(size_name).collect();
        assert_eq!(names, ["64KB", "2MB", "32MB", "1GB"]);
        assert_eq!(size_kib("hugepages-2048kB"), Some(2048));
    }
}
