//! tmp
pub mod table;
