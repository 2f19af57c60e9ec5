//! The `features` document of the runtime spec: what engines ask before they rely on something.
//! It may not probe: it states what this build does, and each claim has a test that does it. `cli` calls it.

/// The document with four spaces of indent and a newline at the end, as runc prints it.
pub fn features_json() -> String {
    String::new()
}
