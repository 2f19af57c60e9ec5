//! The process tree of a launch: the parent, the child it makes (init of a container, or a process that
//! joins one), the stage between them when namespaces are joined, and the channel they talk over.

pub mod channel;
pub mod end;
pub mod foreground;
pub mod hooks;
pub mod idmap;
pub mod init;
pub mod join;
pub mod notify;
mod open;
pub mod parent;
mod procfs;
pub mod report;
pub mod stage;
