//! Image references, digests, platforms, manifests, the registry client and the layer codecs.
