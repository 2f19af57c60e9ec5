//! The place a rule looks at, as links to the places above it: a rule that passes spends nothing on names.
//! It owns no text. Every rule carries one along; `refuse` makes the `Field` of an error from it.

use crate::error::Field;

/// A place in config.json.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'a> {
    /// A fixed place: `linux.seccomp`.
    Named(&'static str),
    /// A member of the place above.
    Member(&'a At<'a>, &'a str),
    /// An element of the place above.
    Index(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    pub(super) const fn member(&'a self, name: &'a str) -> Self {
        Self::Member(self, name)
    }

    pub(super) const fn index(&'a self, index: usize) -> Self {
        Self::Index(self, index)
    }
}

impl From<At<'_>> for Field {
    fn from(at: At<'_>) -> Self {
        match at {
            At::Named(name) => Self::named(name),
            At::Member(above, name) => Self::from(*above).member(name),
            At::Index(above, index) => Self::from(*above).index(index),
        }
    }
}
