//! From the bytes of config.json to checked values in oci-spec's types, and the JSON hull prints about a
//! container. It may not touch the host: it reads the one file it is handed and computes the rest. `cli` calls
//! it first in every verb that is given a bundle, and again to say where in the file a later error stands.

mod fit;
mod load;
mod scan;
mod shape;
mod span;
mod warnings;

/// Rules that the spec decides alone, without the host.
pub mod check;
/// The `features` document: what this build can do.
pub mod features;
/// The one type for a container's name.
pub mod id;
/// The JSON of `state` and of a hook's stdin.
pub mod state;
/// The config.json that `hull spec` writes.
pub mod template;
/// Points in time as RFC 3339 text.
pub mod time;
/// The closed lists of words of the spec.
pub mod words;

pub use check::{check, check_process, check_resources};
pub use id::ContainerId;
pub use load::{
    Loaded, MAX_BYTES, MAX_DEPTH, MAX_VALUES, Source, load, load_process, load_resources, locate, parse,
};
pub use shape::field_paths;
pub use time::Timestamp;
pub use warnings::MAX_WARNINGS;
