//! The Node object: registered at start, its status kept true, its Lease renewed.

pub(crate) mod admission;
pub(crate) mod capacity;
pub(crate) mod conditions;
mod images;
mod lease;
mod registration;
pub(crate) mod resize;

pub(crate) use lease::renew;
pub(crate) use registration::{event, keep_registered, labels};
