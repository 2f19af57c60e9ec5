//! Starting a foreign program with exactly the descriptors it is to have. The new process touches no heap:
//! its lists are laid out before, so that a caller with threads (a test) may start one, too.

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::exec::{Strings, exec};
use crate::process::{self, Clone, Forked, Never};
use crate::{Errno, Result, check, check_unit, fs, signal, socket};

/// What is executed, and what it has.
#[derive(Debug)]
pub struct Program<'a, const N: usize> {
    /// The file.
    pub path: &'a CStr,
    /// Its arguments, its own name first.
    pub args: &'a Strings,
    /// Its environment.
    pub env: &'a Strings,
    /// Its descriptors 0 to N - 1; it has no others.
    pub descriptors: [BorrowedFd<'a>; N],
}

/// Starts it as our child with every signal reset, and answers its pidfd once it is executed. A failure of
/// any step, `execve` included, is the answer.
pub fn spawn<const N: usize>(program: &Program<'_, N>) -> Result<OwnedFd> {
    let (report, failure) = socket::pipe()?;
    match process::clone(Clone::default())? {
        Forked::Child => child(program, failure.as_fd()),
        Forked::Parent { pidfd, .. } => {
            drop(failure);
            started(report)?.map_or(Ok(()), |why| reap(&pidfd, why))?;
            Ok(pidfd)
        }
    }
}

/// What the child told, if anything: it tells failures only.
fn started(report: OwnedFd) -> Result<Option<Errno>> {
    let mut number = [0; 4];
    match std::fs::File::from(report).read_exact(&mut number) {
        Ok(()) => Ok(Some(Errno::from_raw(i32::from_ne_bytes(number)))),
        Err(end) if end.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(other) => Err(Errno::from_raw(other.raw_os_error().unwrap_or(libc::EIO))),
    }
}

fn reap(child: &OwnedFd, why: Errno) -> Result<()> {
    // Someone who reaps every child may have been faster.
    let _ours = process::wait(child.as_fd(), true).is_ok();
    Err(why)
}

/// In the child: becomes the program, or tells why not and ends.
fn child<const N: usize>(program: &Program<'_, N>, failure: BorrowedFd<'_>) -> ! {
    let (pipe, why) = match duplicate_above(failure, N) {
        Err(why) => (failure.as_raw_fd(), why),
        Ok(moved) => {
            let Err(why) = become_program(program, moved);
            (moved, why)
        }
    };
    // SAFETY: the number is the caller's end of the pipe, or our copy of it, which nothing closes.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    // Unheard, it looks like a program that has ended at once.
    let _heard = fs::write_once(pipe, &(why as i32).to_ne_bytes()).is_ok();
    process::exit(127)
}

fn become_program<const N: usize>(program: &Program<'_, N>, failure: RawFd) -> Result<Never> {
    signal::reset();
    // First out of the way of the numbers that are to be filled, then to their places.
    let mut moved = [-1; N];
    for (place, fd) in moved.iter_mut().zip(program.descriptors) {
        *place = duplicate_above(fd, N)?;
    }
    for (number, fd) in (0..).zip(moved) {
        fill(number, fd)?;
    }
    close_rest(N, failure)?;
    exec(program.path, program.args, program.env)
}

/// The number of a copy of `fd`, at least `number`.
fn duplicate_above(fd: BorrowedFd<'_>, number: usize) -> Result<RawFd> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) })
}

fn fill(number: RawFd, fd: RawFd) -> Result<()> {
    // SAFETY: takes numbers only. What it closes may have an owner in this copy of the caller's memory,
    // which only calls execve or _exit from here on and so never drops it.
    check_unit(unsafe { libc::dup2(fd, number) })
}

/// Closes all from `first` on but `kept`, which closes itself on exec.
fn close_rest(first: usize, kept: RawFd) -> Result<()> {
    let first = u32::try_from(first).map_err(|_out_of_range| Errno::EMFILE)?;
    let kept = kept.cast_unsigned();
    if first < kept {
        fs::close_between(first, kept - 1)?;
    }
    fs::close_between(kept + 1, u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn strings(words: &[&str]) -> Strings {
        Strings::new(words.iter().map(|word| CString::new(*word).unwrap()).collect())
    }

    #[test]
    fn the_program_has_its_descriptors_and_no_others() {
        let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        let (reader, writer) = socket::pipe().unwrap();
        let child = spawn(&Program {
            path: c"/bin/ls",
            args: &strings(&["ls", "/proc/self/fd"]),
            env: &strings(&[]),
            descriptors: [null.as_fd(), writer.as_fd(), null.as_fd(), reader.as_fd()],
        })
        .unwrap();
        drop(writer);
        let mut said = String::new();
        File::from(reader).read_to_string(&mut said).unwrap();
        // The last one is the directory that it lists.
        assert_eq!(said, "0\n1\n2\n3\n4\n");
        assert_eq!(process::wait(child.as_fd(), true).unwrap(), Some(process::Exit::Code(0)));
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_an_error() {
        let args = strings(&["x"]);
        let program = Program { path: c"/nowhere/x", args: &args, env: &args, descriptors: [] };
        assert_eq!(spawn(&program).err(), Some(Errno::ENOENT));
    }
}
