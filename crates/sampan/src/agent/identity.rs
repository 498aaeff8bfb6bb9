//! Who a kubeconfig says that we are, and whom it trusts: the kubelet's port needs both beside the client that uses them.

use std::fs;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use sampan_apiserver::CertifiedKeyPem;
use secrecy::ExposeSecret;

/// The authority of the cluster, PEM.
pub(super) fn authority(connection: &kube::Config) -> Result<String> {
    let certificates = connection.root_cert.iter().flatten();
    let pem: String = certificates
        .map(|der| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
        })
        .collect();
    // The kubelet's port lets in whom this authority vouches for, so there must be one.
    Some(pem).filter(|pem| !pem.is_empty()).context("clusters: certificate-authority-data is missing")
}

/// The client certificate and its key, PEM.
pub(super) fn certificate(connection: &kube::Config) -> Result<CertifiedKeyPem> {
    let user = &connection.auth_info;
    let certificate = text(
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        "users: client-certificate-data",
    )?;
    let key = text(
        user.client_key_data.as_ref().map(ExposeSecret::expose_secret),
        user.client_key.as_deref(),
        "users: client-key-data",
    )?;
    Ok(CertifiedKeyPem { certificate, key })
}

/// Another certificate for the same cluster.
pub(super) fn set(connection: &mut kube::Config, pair: &CertifiedKeyPem) {
    let user = &mut connection.auth_info;
    user.client_certificate_data = Some(STANDARD.encode(&pair.certificate));
    user.client_key_data = Some(STANDARD.encode(&pair.key).into());
    (user.client_certificate, user.client_key) = (None, None);
}

fn text(data: Option<&str>, file: Option<&str>, field: &'static str) -> Result<String> {
    let bytes = match (data, file) {
        (Some(data), _) => STANDARD.decode(data.trim()).with_context(|| format!("{field}: not base64"))?,
        (None, Some(file)) => fs::read(file).with_context(|| format!("reading {file}"))?,
        (None, None) => anyhow::bail!("{field} is missing: a node shows a certificate"),
    };
    String::from_utf8(bytes).with_context(|| format!("{field}: not PEM"))
}
