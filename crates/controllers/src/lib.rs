//! Reconcilers over the API: namespaces, service accounts, root CA, garbage collection.
