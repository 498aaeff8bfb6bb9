//! The store's tests against both of its implementations and against crashes.
#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod embedded;
mod etcd;
mod full;
