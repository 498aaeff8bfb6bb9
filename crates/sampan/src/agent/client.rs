//! A client whose identity can be another one tomorrow: everything that talks to the API keeps the client that it was
//! given, and what is sent goes by the certificate of the day. Watches that are open stay open.

use std::sync::{Arc, PoisonError, RwLock};

use http::Request;
use kube::{Client, client::Body};

/// The client with the identity of now.
#[derive(Clone)]
pub(super) struct RenewedClient(Arc<RwLock<Client>>);

impl RenewedClient {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(RwLock::new(client)))
    }

    /// What is sent from now on goes through this one.
    pub(super) fn renew(&self, client: Client) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// A client that follows.
    pub(super) fn client(&self) -> Client {
        let current = Arc::clone(&self.0);
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = current.read().unwrap_or_else(PoisonError::into_inner).clone();
            async move { client.send(request).await }
        });
        Client::new(service, "default")
    }
}
