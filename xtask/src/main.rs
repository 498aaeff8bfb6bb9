//! What people run besides cargo.

fn main() {}
