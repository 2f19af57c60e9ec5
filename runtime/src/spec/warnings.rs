//! Keeps what is said about a file short, whatever the file: few warnings, no endless message.
//! It decides nothing about the file. `load`, `fit` and `check` call it.

use super::load::Source;
use crate::error::{ErrorKind, Warning};

/// The most warnings told one by one: each place costs a walk through the file, and a hostile file has millions.
pub const MAX_WARNINGS: usize = 32;

/// Warnings, the first `MAX_WARNINGS` in full and the others by number.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    told: Vec<Warning>,
    others: usize,
}

impl Warnings {
    pub(super) fn add(&mut self, warning: impl FnOnce() -> Warning) {
        if self.told.len() < MAX_WARNINGS {
            self.told.push(warning());
        } else {
            self.others += 1;
        }
    }

    /// With their places in the file.
    pub(super) fn tell(self, source: &Source) -> Vec<Warning> {
        let mut told: Vec<Warning> = self.told.into_iter().map(|warning| source.point(warning)).collect();
        if self.others > 0 {
            told.push(Warning::new(
                ErrorKind::MoreWarnings,
                format!("{} more warnings of this kind", self.others),
            ));
        }
        told
    }
}

/// The longest message; a value from the file may be megabytes.
const MAX_MESSAGE: usize = 500;

/// The message, cut when a value in it is very long.
pub(super) fn short(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let cut = message.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_MESSAGE).last();
        message.truncate(cut.unwrap_or(0));
        message.push('…');
    }
    message
}
