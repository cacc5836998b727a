//! The control plane of one host: the walk of a container event.
