//! Every raw system call and every `unsafe` of the runtime.
