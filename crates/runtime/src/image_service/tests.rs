//! The forms in which credentials come.
#![allow(clippy::unwrap_used)]

use sampan_oci::registry::Credentials;

use super::pull_image::credentials;
use super::*;

fn auth(change: impl FnOnce(&mut v1::AuthConfig)) -> Result<Credentials, Status> {
    let mut auth = v1::AuthConfig::default();
    change(&mut auth);
    credentials(Some(auth))
}

#[test]
fn forms_of_credentials() {
    let basic = Credentials::Basic { username: "u".into(), password: "p:w".into() };
    assert_eq!(credentials(None).unwrap(), Credentials::Anonymous);
    assert_eq!(auth(|_| {}).unwrap(), Credentials::Anonymous);
    assert_eq!(auth(|a| (a.username, a.password) = ("u".into(), "p:w".into())).unwrap(), basic);
    assert_eq!(auth(|a| a.auth = "dTpwOnc=".into()).unwrap(), basic);
    assert_eq!(auth(|a| a.auth = "dTpwOnc".into()).unwrap(), basic);
    assert_eq!(auth(|a| a.identity_token = "t".into()).unwrap(), Credentials::IdentityToken("t".into()));
    assert_eq!(auth(|a| a.registry_token = "t".into()).unwrap(), Credentials::RegistryToken("t".into()));
    assert_eq!(
        auth(|a| (a.username, a.password) = ("<token>".into(), "t".into())).unwrap(),
        Credentials::IdentityToken("t".into())
    );
    let error = auth(|a| a.auth = "!!".into()).unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(!format!("{basic:?}").contains("p:w"), "secrets are not printed");
}
