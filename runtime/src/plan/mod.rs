//! The pure middle of hull: a spec and facts go in, kernel-shaped data comes out.
//! It does no I/O, reads neither environment nor clock and holds no unsafe code.
//! `cli` and `launch` call it and hand what it returns to `apply`.

pub mod seccomp;
