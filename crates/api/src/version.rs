//! Which Kubernetes release this is: said once, for `/version`, the kubelet and OpenAPI.

/// The major version, as `/version` has it.
pub const MAJOR: &str = "1";

/// The minor version.
pub const MINOR: &str = "36";

/// The release whose behaviour is implemented, with our own version as semantic versions name a build:
/// clients that compare versions ignore what stands behind the `+`.
pub const GIT_VERSION: &str = concat!("v1.36.2+sampan.", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_those_of_the_whole() {
        assert!(GIT_VERSION.starts_with(&format!("v{MAJOR}.{MINOR}.")));
    }
}
