//! `-info`: what this runtime is, for the daemon's questions before any container; `-v`, for people.

use std::path::Path;
use std::rc::Rc;

use hull_proto::types::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};

use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::options::{self, Options};
use crate::reaper::Reaper;
use crate::runtime::Runtime;

/// `RuntimeInfo`, with the features document of the runtime that the options on standard input name.
///
/// # Errors
/// Options that cannot be read.
pub fn info(_flags: &Flags) -> Result<Vec<u8>> {
    let options = Options::from_input(&options::read_input()?)?;
    let runtime = Runtime::new(&options, "", Path::new("/"), "", &Rc::new(Reaper::default()));
    let features = runtime.features().map(|json| Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned(),
        value: json,
        ..Any::default()
    });
    let info = RuntimeInfo {
        name: "io.containerd.hull.v1".to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("HULL_COMMIT").unwrap_or_default().to_owned(),
            ..RuntimeVersion::default()
        }),
        features: features.into(),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes().map_err(|why| Error::failed("write the answer", why))
}

/// A line for people.
pub fn version() -> Vec<u8> {
    let commit = option_env!("HULL_COMMIT").unwrap_or("unknown");
    format!("containerd-shim-hull-v1 {}\ncommit: {commit}\n", env!("CARGO_PKG_VERSION")).into_bytes()
}
