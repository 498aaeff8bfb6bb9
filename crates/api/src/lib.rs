//! Kubernetes kinds as sampan uses them: scheme, defaulting, validation, selectors, patches, tables. Pure, no I/O.
