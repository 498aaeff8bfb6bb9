//! The embedded OCI runtime, with runc's command line.
