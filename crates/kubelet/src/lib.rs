//! The node agent: pod workers, images, environment, volumes, status, the kubelet's HTTP API.
