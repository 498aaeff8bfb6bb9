//! Sandbox networking: bridge, addresses, port mapping, CNI.
