//! Generates the Rust side of the CRI protocol and of our own services beside it; protox parses the `.proto`
//! files, so no `protoc` is needed.

const PROTOCOLS: [&str; 3] =
    ["runtime/v1/api.proto", "sampan/runtime/v1/progress.proto", "sampan/archives/v1/archives.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(PROTOCOLS, ["proto"])?;
    tonic_prost_build::configure()
        // Their Debug is written by hand, without the secrets.
        .skip_debug(["runtime.v1.AuthConfig", "sampan.runtime.v1.MirrorLogin"])
        // The runtime keeps the requests it was given on disk, readable by people.
        .message_attribute(
            ".runtime.v1",
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, rename_all = \"camelCase\")]",
        )
        .compile_fds(files)?;
    Ok(())
}
