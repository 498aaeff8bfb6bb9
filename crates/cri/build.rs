//! Generates the Rust side of the CRI protocol and of our own progress service; protox parses the `.proto`
//! files, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["runtime/v1/api.proto", "sampan/runtime/v1/progress.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Its Debug is written by hand, without the secrets.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(files)?;
    Ok(())
}
