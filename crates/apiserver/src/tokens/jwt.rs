//! JSON Web Tokens signed with ES256: the little of RFC 7515/7519 that ServiceAccount tokens need.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// More than any token of ours has; what is longer is not looked at.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// What precedes the point in a SubjectPublicKeyInfo of a P-256 key.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The signing key.
pub(super) struct Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// Names the key in tokens: the hash of its public half, as upstream computes it.
    id: String,
}

/// Why a token was not accepted; never told to who sent it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("not a token of this server")]
    Foreign,
    #[error("the signature does not match")]
    Signature,
}

impl Key {
    /// Reads a PKCS #8 key from PEM.
    pub(super) fn from_pem(pem: &str) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Identity {
            operation: "read the key that signs ServiceAccount tokens".into(),
            source,
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| failed(Box::new(e)))?;
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
                .map_err(|e| failed(e.to_string().into()))?;
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&spki));
        Ok(Self { pair, random, id })
    }

    /// Signs claims.
    pub(super) fn sign(&self, claims: &Value) -> Result<String, Error> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.pair.sign(&self.random, token.as_bytes()).map_err(|error| Error::Identity {
            operation: "sign a ServiceAccount token".into(),
            source: error.to_string().into(),
        })?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
        Ok(token)
    }

    /// The claims of a token that this key signed. Times are the caller's business.
    pub(super) fn verify(&self, token: &str) -> Result<Value, Refused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refused::Foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Foreign)?;
        let (header, claims) = signed.split_once('.').ok_or(Refused::Foreign)?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Foreign);
        let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).map_err(|_| Refused::Foreign);
        let header = json(bytes(header)?)?;
        if header["alg"] != "ES256" || header["kid"].as_str().is_some_and(|id| id != self.id) {
            return Err(Refused::Foreign);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &bytes(signature)?)
            .map_err(|_| Refused::Signature)?;
        json(bytes(claims)?)
    }

    /// The public half as a JSON Web Key Set.
    pub(super) fn jwks(&self) -> Value {
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}
