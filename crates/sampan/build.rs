//! Links the static binary at a fixed address.
//!
//! A static executable that can be anywhere relocates itself at every start: hundreds of thousands of pointers, a
//! thousand pages that are then private to the process. This one is started for every shim, and is the program in
//! every container of the built-in image. Stack, heap and mappings stay randomized; the code does not move, as with
//! the other engines (Go links like this too).
//!
//! What is handed out (the profile `dist`, known by its `opt-level`) has functions that came out the same only once;
//! that is an option of LLD, which is Rust's linker on x86_64.
#![allow(clippy::print_stdout, reason = "that is how a build script speaks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("ENV") == "gnu" && target("FEATURE").split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-static");
    }
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "s") && target("ARCH") == "x86_64" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
