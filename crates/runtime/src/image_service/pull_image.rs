//! `PullImage`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sampan_cri::progress::MirrorLogin;
use sampan_cri::v1;
use sampan_oci::registry::Credentials;
use tonic::Status;

use super::{ImageService, name_of, status};
use crate::images::PullRequest;

pub(super) async fn pull_image(
    service: &ImageService,
    request: v1::PullImageRequest,
    mirrors: Vec<MirrorLogin>,
) -> Result<v1::PullImageResponse, Status> {
    let spec = name_of(request.image)?;
    let credentials = credentials(request.auth)?;
    let tracked = service.pulls.begin(&spec.image);
    let pull = PullRequest {
        image: spec.image.clone(),
        credentials,
        mirrors: by_server(mirrors),
        handler: spec.runtime_handler,
        progress: Some(tracked.sender()),
    };
    let store = service.store.clone();
    let result = store.pull(pull).await;
    match &result {
        Ok(image) => tracked.done(image.image_ref()),
        Err(error) => tracked.failed(error.chain()),
    }
    let image = result.map_err(|error| status(&error).prefixed(&spec.image))?;
    Ok(v1::PullImageResponse { image_ref: image.id.to_string() })
}

fn by_server(logins: Vec<MirrorLogin>) -> HashMap<String, Vec<Credentials>> {
    let mut servers: HashMap<String, Vec<Credentials>> = HashMap::new();
    for MirrorLogin { host, username, password, identity_token } in logins {
        let login = match identity_token.is_empty() {
            true => Credentials::basic(&username, &password),
            false => Credentials::IdentityToken(identity_token),
        };
        servers.entry(host).or_default().push(login);
    }
    servers
}

trait Prefixed {
    fn prefixed(self, image: &str) -> Self;
}

impl Prefixed for Status {
    /// Names the image as the user wrote it; words that kubelets look for stay in front.
    fn prefixed(self, image: &str) -> Self {
        match self.message().strip_prefix("RegistryUnavailable: ") {
            Some(rest) => {
                Status::new(self.code(), format!("RegistryUnavailable: pull image {image:?}: {rest}"))
            }
            None => Status::new(self.code(), format!("pull image {image:?}: {}", self.message())),
        }
    }
}

/// CRI's forms: a registry token, an identity token, user and password, or both of these in `auth`.
pub(super) fn credentials(auth: Option<v1::AuthConfig>) -> Result<Credentials, Status> {
    let Some(auth) = auth else { return Ok(Credentials::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::RegistryToken(auth.registry_token));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Credentials::IdentityToken(auth.identity_token));
    }
    if !auth.username.is_empty() || !auth.password.is_empty() {
        return Ok(Credentials::basic(&auth.username, &auth.password));
    }
    if auth.auth.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let text = auth.auth.trim_end_matches('\0').trim();
    let decoded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => Ok(Credentials::basic(username, password.trim_end_matches('\0'))),
        None => Err(Status::invalid_argument("the credentials' `auth` is not base64 of `user:password`")),
    }
}
