//! The wire interfaces hull speaks.
