//! The channel between the process that runs a verb and the one that becomes a container's, as messages of
//! twelve bytes that carry only numbers. Used by `parent`, `init`, `join` and, for the second half of a
//! container's life, between `start` and a created container.
//!
//! | sender | message | answer | what holds afterwards |
//! |---|---|---|---|
//! | child | `NeedMaps` | `Mapped` | the id maps of its user namespace are written, it may become root in it |
//! | child | `AtHooks` | `HooksDone` | prestart and createRuntime hooks ran, with all namespaces and mounts in place |
//! | child | `Ready` | `Saved` or `Start` | everything but the program's start is done; the state is saved |
//! | start | `Start` | `Executing` | (on the start socket) the container is no longer "created" |
//! | child | `Executing` | end of channel | nothing but `execve` is left; the end without a report is success |
//! | stage of exec | `Made` | `Mapped`, to the child | the child exists and has the stage's end of the channel; the stage exits |
//! | child | `Report` | none | the step that failed; the child exits |
//! | child | text | none | (after a `Report` of a startContainer hook) what the hook has printed |
//!
//! The end of the channel before `Executing` means that the other side is gone: the child exits, the parent
//! reads how the child ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::Pid;
use hull_sys::{Errno, Result, socket};

use crate::apply::{Call, Failure};

/// Where in a container's set-up a step stands. The numbers cross the clone, so they are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Talking over the channel.
    Channel = 0,
    /// Entering the cgroup.
    Cgroup = 1,
    /// Joining namespace `step` of the plan.
    Join = 2,
    /// Writing the clock offsets.
    TimeOffsets = 3,
    /// The clone of the container's init.
    Clone = 4,
    /// Becoming root in the user namespace.
    IdMap = 5,
    /// The session and its keyring.
    Session = 6,
    /// The cgroup namespace.
    CgroupNamespace = 7,
    /// The loopback device.
    Loopback = 8,
    /// The root as a mount of its own.
    Root = 9,
    /// File system operation `step` before the hooks.
    Before = 10,
    /// createContainer hook `step`.
    CreateContainer = 11,
    /// File system operation `step` after the hooks.
    After = 12,
    /// The change of the root.
    ChangeRoot = 13,
    /// Host and domain name.
    Names = 14,
    /// Kernel parameter `step`.
    Sysctl = 15,
    /// The terminal.
    Terminal = 16,
    /// Scheduling and I/O priority.
    Scheduling = 17,
    /// A label of a security module.
    Label = 18,
    /// The working directory.
    WorkingDirectory = 19,
    /// The groups of the user.
    Groups = 20,
    /// User and group id.
    User = 21,
    /// Capabilities.
    Capabilities = 22,
    /// Looking for the program.
    LookUp = 23,
    /// Waiting for the start.
    Wait = 24,
    /// startContainer hook `step`.
    StartContainer = 25,
    /// Descriptors to pass on.
    Descriptors = 26,
    /// Resource limit `step`.
    Rlimit = 27,
    /// The system call filter.
    Seccomp = 28,
    /// The execution of the program.
    Execute = 29,
    /// The execution domain.
    Personality = 30,
}

impl Stage {
    fn from_number(number: u8) -> Self {
        use Stage::*;
        const ALL: [Stage; 31] = [
            Channel,
            Cgroup,
            Join,
            TimeOffsets,
            Clone,
            IdMap,
            Session,
            CgroupNamespace,
            Loopback,
            Root,
            Before,
            CreateContainer,
            After,
            ChangeRoot,
            Names,
            Sysctl,
            Terminal,
            Scheduling,
            Label,
            WorkingDirectory,
            Groups,
            User,
            Capabilities,
            LookUp,
            Wait,
            StartContainer,
            Descriptors,
            Rlimit,
            Seccomp,
            Execute,
            Personality,
        ];
        ALL.get(usize::from(number)).copied().unwrap_or(Channel)
    }
}

/// A step that failed, in numbers. The side that holds the plan makes a sentence of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub stage: Stage,
    /// Index of the step within the stage.
    pub step: u16,
    /// Which call of it, and why.
    pub failure: Failure,
}

impl Report {
    /// A failure at step `step` of `stage`.
    pub fn new(stage: Stage, step: usize, failure: Failure) -> Self {
        Self { stage, step: u16::try_from(step).unwrap_or(u16::MAX), failure }
    }
}

/// Says where a failure happened.
pub trait In<T> {
    /// Names stage and step.
    fn during(self, stage: Stage, step: usize) -> std::result::Result<T, Report>;
}

impl<T> In<T> for std::result::Result<T, Failure> {
    fn during(self, stage: Stage, step: usize) -> std::result::Result<T, Report> {
        self.map_err(|failure| Report::new(stage, step, failure))
    }
}

impl<T> In<T> for Result<T> {
    fn during(self, stage: Stage, step: usize) -> std::result::Result<T, Report> {
        self.map_err(|errno| Report::new(stage, step, Failure::new(Call::Only, errno)))
    }
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The child waits for its id maps.
    NeedMaps,
    /// They are written.
    Mapped,
    /// The child waits for the hooks of the runtime's side.
    AtHooks,
    /// They ran.
    HooksDone,
    /// The child is set up.
    Ready,
    /// The state is saved; the start comes over the start socket.
    Saved,
    /// Go on to the program.
    Start,
    /// Only `execve` is left.
    Executing,
    /// A stage has made the child: its number, as both sides see it.
    Made(Pid),
    /// A step failed.
    Report(Report),
}

/// More words than these are cut.
const TEXT_LIMIT: usize = 16 << 10;

/// Length of every message.
const LENGTH: usize = 12;

impl Message {
    fn encode(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = match self {
            Self::NeedMaps => 1,
            Self::Mapped => 2,
            Self::AtHooks => 3,
            Self::HooksDone => 4,
            Self::Ready => 5,
            Self::Saved => 6,
            Self::Start => 7,
            Self::Executing => 8,
            Self::Report(_) => 9,
            Self::Made(_) => 10,
        };
        if let Self::Made(pid) = self {
            bytes[8..12].copy_from_slice(&pid.to_ne_bytes());
        }
        if let Self::Report(report) = self {
            bytes[1] = report.stage as u8;
            bytes[2] = report.failure.call as u8;
            bytes[3] = report.failure.detail;
            bytes[4..6].copy_from_slice(&report.step.to_ne_bytes());
            bytes[8..12].copy_from_slice(&report.failure.errno.to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; LENGTH]) -> Option<Self> {
        let number = i32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        Some(match bytes[0] {
            1 => Self::NeedMaps,
            2 => Self::Mapped,
            3 => Self::AtHooks,
            4 => Self::HooksDone,
            5 => Self::Ready,
            6 => Self::Saved,
            7 => Self::Start,
            8 => Self::Executing,
            9 => Self::Report(Report {
                stage: Stage::from_number(bytes[1]),
                step: u16::from_ne_bytes([bytes[4], bytes[5]]),
                failure: Failure { call: Call::from_number(bytes[2]), detail: bytes[3], errno: number },
            }),
            10 => Self::Made(number),
            _ => return None,
        })
    }
}

/// One end of the channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub fn pair() -> Result<(Self, Self)> {
        socket::pair().map(|(one, other)| (Self(one), Self(other)))
    }

    /// An end made from a connected socket that keeps message borders.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Says something.
    pub fn send(&self, message: Message) -> Result<()> {
        socket::send(self.0.as_fd(), &message.encode(), None)
    }

    /// What the other side says; `None` when it is gone.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = [0; LENGTH];
        let received = match socket::receive(self.0.as_fd(), &mut bytes) {
            // It went without reading all we said, which the kernel tells once, before its own last words.
            Err(Errno::ECONNRESET) => socket::receive(self.0.as_fd(), &mut bytes),
            received => received,
        };
        match received {
            Ok((0, _)) | Err(Errno::ECONNRESET) => Ok(None),
            Ok((LENGTH, _)) => Message::decode(bytes).map(Some).ok_or(Errno::EBADMSG),
            Ok(_) => Err(Errno::EBADMSG),
            Err(errno) => Err(errno),
        }
    }

    /// Says something in words.
    pub fn send_text(&self, text: &str) -> Result<()> {
        socket::send(self.0.as_fd(), text.as_bytes(), None)
    }

    /// Words of the other side; nothing when it has none, or is gone.
    pub fn receive_text(&self) -> String {
        let mut bytes = vec![0; TEXT_LIMIT];
        let length = socket::receive(self.0.as_fd(), &mut bytes).map_or(0, |(length, _)| length);
        bytes.truncate(length);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Says `message` and waits for `answer`; anything else, the end included, is an error.
    pub fn ask(&self, message: Message, answer: Message) -> Result<()> {
        self.send(message)?;
        self.expect(answer)
    }

    /// Waits for `answer`; anything else, the end included, is an error.
    pub fn expect(&self, answer: Message) -> Result<()> {
        match self.receive()? {
            Some(got) if got == answer => Ok(()),
            Some(_) => Err(Errno::EBADMSG),
            None => Err(Errno::EPIPE),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_arrive_as_they_were_sent() {
        let (one, other) = Channel::pair().unwrap();
        let failure = Failure { call: Call::Attach, detail: 3, errno: libc::EPERM };
        let report = Message::Report(Report { stage: Stage::Personality, step: 517, failure });
        one.send(report).unwrap();
        assert_eq!(other.receive(), Ok(Some(report)));
        one.send(Message::Made(4_194_304)).unwrap();
        assert_eq!(other.receive(), Ok(Some(Message::Made(4_194_304))));
        drop(one);
        assert_eq!(other.receive(), Ok(None));
    }
}
