//! The harness: runs the real binaries.
