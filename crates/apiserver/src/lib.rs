//! The Kubernetes API over HTTP: discovery, REST, watch, admission, authentication, authorization.
