//! Carries a plan out: one file for each part of it, each a flat run of system calls in the process that is
//! to become the container. It decides nothing, logs nothing and never sees the spec; a failure is a
//! [`Failure`], which `launch` sends to the parent as numbers.

pub mod copy_up;
pub mod fs;
pub mod hide;
pub mod home;
mod old_root;
pub mod process;
pub mod pty;
pub mod root;
pub mod target;

use hull_sys::Errno;

/// Which call of a step failed. The numbers cross the clone, so they are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// The step is one call, or it does not matter which.
    Only = 0,
    /// Opening what is mounted or read.
    OpenSource = 1,
    /// Opening the place in the container.
    OpenTarget = 2,
    /// Making the place in the container.
    MakeTarget = 3,
    /// Opening a file system type.
    OpenFs = 4,
    /// An option of a file system; `detail` is its index.
    Option = 5,
    /// Creating the file system.
    CreateFs = 6,
    /// Setting attributes of a mount.
    Attributes = 7,
    /// Setting propagation.
    Propagation = 8,
    /// Attaching a mount.
    Attach = 9,
    /// The destination is a symlink and may not be one.
    TargetIsLink = 10,
    /// What lies in the place is something else.
    TargetDiffers = 11,
    /// Copying what a tmpfs hides.
    CopyUp = 12,
    /// Making a device node.
    MakeNode = 13,
    /// Changing an owner.
    Chown = 14,
    /// The pty.
    Terminal = 15,
    /// Sending a descriptor to the caller.
    Send = 16,
    /// Starting a program.
    Execute = 17,
    /// A program ended with a code; `errno` is the code.
    Exited = 18,
    /// A program died by a signal; `errno` is the signal.
    Signalled = 19,
    /// A program took too long.
    TimedOut = 20,
    /// Mapping ids of a mount.
    Idmap = 21,
    /// The directory cannot be reached from the root.
    Unreachable = 22,
    /// A write to a kernel file.
    Write = 23,
    /// The place is inside /proc, by a link.
    InsideProc = 24,
    /// What is bound on /proc is none.
    NotProc = 25,
}

impl Call {
    /// From the number; an unknown one is `Only`.
    pub fn from_number(number: u8) -> Self {
        use Call::*;
        const ALL: [Call; 26] = [
            Only,
            OpenSource,
            OpenTarget,
            MakeTarget,
            OpenFs,
            Option,
            CreateFs,
            Attributes,
            Propagation,
            Attach,
            TargetIsLink,
            TargetDiffers,
            CopyUp,
            MakeNode,
            Chown,
            Terminal,
            Send,
            Execute,
            Exited,
            Signalled,
            TimedOut,
            Idmap,
            Unreachable,
            Write,
            InsideProc,
            NotProc,
        ];
        ALL.get(usize::from(number)).copied().unwrap_or(Only)
    }
}

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub call: Call,
    /// An index within the step, where `call` has one.
    pub detail: u8,
    /// The kernel's answer, or what `call` says.
    pub errno: i32,
}

impl Failure {
    /// A failure of `call` with the kernel's errno.
    pub fn new(call: Call, errno: Errno) -> Self {
        Self { call, detail: 0, errno: errno as i32 }
    }
}

/// Turns the errno of a call into the failure of that call.
pub trait At<T> {
    /// Names the call.
    fn at(self, call: Call) -> Result<T, Failure>;
}

impl<T> At<T> for hull_sys::Result<T> {
    fn at(self, call: Call) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(call, errno))
    }
}
