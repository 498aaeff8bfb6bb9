//! A failed pull in words: what the runtime said to each credential, and where that credential came from
//! (IMG-30 to IMG-32, IMG-66). No secret is in it.

use std::fmt;

use tonic::{Code, Status};

use super::credentials::{Credential, Found};
use crate::cri::go_error;

/// One credential that was tried, and the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the runtime said.
    error: String,
    /// Whom it was said to; empty when nobody was asked.
    tried: String,
}

/// All of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PullFailure {
    pub(super) refusals: Vec<Refusal>,
}

impl Refusal {
    /// The kubelet itself refused.
    pub(super) fn of_ours(error: &str) -> Self {
        Self { error: error.to_owned(), tried: String::new() }
    }

    pub(super) fn of_runtime(
        status: &Status,
        credential: Option<&Credential>,
        repository: &str,
        found: &Found,
    ) -> Self {
        // A code that says nothing is left out, as upstream does.
        let error = match status.code() {
            Code::Unknown => status.message().to_owned(),
            _ => go_error(status),
        };
        let mut tried = match credential {
            Some(credential) => credential.to_string(),
            None => {
                let mut tried = "anonymous".to_owned();
                for secret in &found.without_entry {
                    tried.push_str(&format!("; Secret {secret} has no entry for {repository}"));
                }
                for secret in &found.missing {
                    tried.push_str(&format!("; Secret {secret} does not exist"));
                }
                tried
            }
        };
        for mirror in &found.mirrors {
            tried.push_str(&format!("; mirror {}: {}", mirror.host, mirror.credential));
        }
        Self { error, tried }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if self.tried.is_empty() { Ok(()) } else { write!(f, " (tried: {})", self.tried) }
    }
}

impl fmt::Display for PullFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refusals.as_slice() {
            [refusal] => refusal.fmt(f),
            refusals => {
                let all: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", all.join(", "))
            }
        }
    }
}

impl PullFailure {
    /// Reason and message of the waiting container. `image` is as the spec writes it.
    pub(super) fn classify(&self, image: &str) -> (&'static str, String) {
        for (reason, text) in [
            ("RegistryUnavailable", "because the registry is unavailable"),
            ("SignatureValidationFailed", "because the signature validation failed"),
        ] {
            if !self.refusals.is_empty()
                && self.refusals.iter().all(|refusal| refusal.error.starts_with(reason))
            {
                let all = self.to_string();
                let rest = all.strip_prefix(reason).map_or_else(|| format!(": {all}"), str::to_owned);
                return (reason, format!("image pull failed for {image} {text}{rest}"));
            }
        }
        ("ErrImagePull", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::credentials::{Login, Source};

    fn refused(message: &str, credential: Option<&Credential>, found: &Found) -> Refusal {
        Refusal::of_runtime(&Status::unknown(message), credential, "reg.io/a", found)
    }

    fn secret(name: &str) -> Credential {
        Credential {
            key: "reg.io".into(),
            login: Login::Password { username: "alice".into(), password: "hunter2".into() },
            source: Source::Secret { uid: "1".into(), namespace: "ns".into(), name: name.into() },
        }
    }

    #[test]
    fn img_31_32_runtime_errors_with_known_beginnings() {
        let of = |message: &str| PullFailure { refusals: vec![refused(message, None, &Found::default())] };
        assert_eq!(
            of("RegistryUnavailable: foo").classify("i"),
            (
                "RegistryUnavailable",
                "image pull failed for i because the registry is unavailable: foo (tried: anonymous)"
                    .to_owned()
            )
        );
        assert_eq!(
            of("SignatureValidationFailed").classify("i").1,
            "image pull failed for i because the signature validation failed (tried: anonymous)"
        );
        assert_eq!(of("other").classify("i"), ("ErrImagePull", "other (tried: anonymous)".to_owned()));
    }

    #[test]
    fn img_66_every_credential_is_named_with_its_answer_and_without_its_secret() {
        let found = Found::default();
        let file = Credential { source: Source::NodeFile { path: "/k/config.json".into() }, ..secret("") };
        let failure = PullFailure {
            refusals: vec![refused("401", Some(&secret("a")), &found), refused("403", Some(&file), &found)],
        };
        assert_eq!(
            failure.to_string(),
            "[401 (tried: Secret ns/a for reg.io), 403 (tried: /k/config.json for reg.io)]"
        );
        assert!(!format!("{failure:?} {:?}", secret("a")).contains("hunter2"));
        assert!(!format!("{:?}", secret("a")).contains("alice"));
    }

    #[test]
    fn an_anonymous_try_says_why_it_was_anonymous() {
        let found =
            Found { without_entry: vec!["ns/a".into()], missing: vec!["ns/b".into()], ..Default::default() };
        assert_eq!(
            refused("401", None, &found).to_string(),
            "401 (tried: anonymous; Secret ns/a has no entry for reg.io/a; Secret ns/b does not exist)"
        );
    }

    #[test]
    fn img_30_a_code_that_says_something_stays() {
        let refusal = Refusal::of_runtime(&Status::not_found("x"), None, "a", &Found::default());
        assert_eq!(refusal.to_string(), "rpc error: code = NotFound desc = x (tried: anonymous)");
    }
}
