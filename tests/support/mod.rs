//! A Hub in this process: what the tests of `hub` talk to instead of the real one.
#![allow(dead_code, clippy::unwrap_used)]

pub mod content;
pub mod faults;
pub mod server;
