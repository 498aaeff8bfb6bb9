//! A registry that speaks HTTP/2: many requests share one connection.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sampan_oci::manifest::media_type;
use sampan_oci::registry::{Client, ClientConfig, Credentials};
use sampan_oci::{Descriptor, Reference};
use tokio_rustls::rustls;

use crate::fake::Authority;

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_where_the_server_offers_it() {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let (connections, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("127.0.0.1");
    let tls = acceptor(&certificate, &key);
    let (counted, seen, body) = (connections.clone(), second.clone(), bytes.clone());
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = tls.accept(stream).await else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            let (seen, body) = (seen.clone(), body.clone());
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                if request.version() == http::Version::HTTP_2 {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                let answer = http::Response::new(Full::new(bytes::Bytes::from(body.clone())));
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(address.to_string());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ca.crt"), &authority.pem).unwrap();
    let config = ClientConfig { certs_d: vec![dir.path().to_path_buf()], ..ClientConfig::default() };
    let client = Client::new(config).unwrap();
    let reference = Reference::parse(&format!("{address}/a/b:1")).unwrap();
    let session = client.session(&reference, Credentials::Anonymous);
    assert!(session.blob_bytes(&descriptor, 10 << 20).await.unwrap() == bytes);
    let pulls: Vec<_> = (0..6)
        .map(|_| {
            let (session, descriptor) = (session.clone(), descriptor.clone());
            tokio::spawn(async move { session.blob_bytes(&descriptor, 10 << 20).await.unwrap() })
        })
        .collect();
    for pull in pulls {
        assert!(pull.await.unwrap() == bytes);
    }
    assert_eq!(second.load(Ordering::SeqCst), 7, "every request over HTTP/2");
    assert!(connections.load(Ordering::SeqCst) <= 2, "{connections:?}");
    server.abort();
}

fn acceptor(certificate: &str, key: &str) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}
