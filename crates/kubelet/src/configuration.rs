//! Upstream's `KubeletConfiguration` file (kubelet.config.k8s.io/v1beta1): read, checked against the table of
//! all its fields ([`fields`]), and laid over a [`KubeletConfig`](crate::KubeletConfig).
//!
//! A file that works with upstream's kubelet starts ours: what is not supported is named in a warning and
//! nothing else; what is wrong (an unknown field, a number that is a text) is an error with its path.

mod apply;
mod check;
mod fields;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::{files, go_duration};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// Configuration files are small; a larger one is something else.
const MAX_BYTES: u64 = 1 << 20;

/// A checked configuration.
#[derive(Clone, Debug, Default)]
pub struct KubeletConfiguration {
    value: Value,
    warnings: Vec<String>,
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read the kubelet configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no YAML or JSON.
    #[error("kubelet configuration: {0}")]
    Syntax(String),
    /// A field is unknown, has a wrong type, or a value that cannot be.
    #[error("kubelet configuration: {path}: {problem}")]
    Field {
        /// Where, such as `evictionHard.memory.available`.
        path: String,
        /// What, and what would be right.
        problem: String,
    },
}

impl ConfigurationError {
    fn field(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { path: path.into(), problem: problem.into() }
    }
}

impl KubeletConfiguration {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigurationError`].
    pub fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let failed = |source| ConfigurationError::Read { path: path.to_owned(), source };
        let too_large = || failed(std::io::Error::other("larger than 1 MiB: no kubelet configuration"));
        let text = files::read_text_bounded(path, MAX_BYTES).map_err(failed)?;
        Self::parse(&text.ok_or_else(too_large)?)
    }

    /// Reads a text in YAML or JSON.
    ///
    /// # Errors
    /// See [`ConfigurationError`].
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let document = sampan_api::schema::decode::yaml_document(text)
            .map_err(|error| ConfigurationError::Syntax(error.to_string()))?;
        if let Some(duplicate) = document.duplicates.first() {
            return Err(ConfigurationError::field(duplicate, "given twice"));
        }
        let value = document.value;
        for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            if value[field].as_str() != Some(expected) {
                return Err(ConfigurationError::field(field, format!("must be {expected}")));
            }
        }
        let mut warnings = Vec::new();
        check::object(&value, fields::FIELDS, "", &mut warnings)?;
        let configuration = Self { value, warnings };
        // What only shows when values meet each other.
        configuration.verify()?;
        Ok(configuration)
    }

    /// One line for each field that is set and not supported.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The text at `field`; `None` when it is not set or empty.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<String> {
        self.value[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// How long the runtime may take for an answer; `None` for the default.
    #[must_use]
    pub fn runtime_request_timeout(&self) -> Option<Duration> {
        self.value["runtimeRequestTimeout"].as_str().and_then(go_duration::parse)
    }

    /// The number at `field`; `None` when it is not set.
    #[must_use]
    pub fn number<N: TryFrom<i64>>(&self, field: &str) -> Option<N> {
        N::try_from(self.value[field].as_i64()?).ok()
    }
}

#[cfg(test)]
mod tests;
