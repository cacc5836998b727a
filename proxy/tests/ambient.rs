//! The real app with real network namespaces: what an application dials inside one, and where it gets. The namespaces are joined
//! by a bridge in one of their own, so that nothing of the host is touched.
//!
//! It needs root. Without it each test says why it did not run; with `MESH_E2E=1` that is a failure.
#![allow(clippy::unwrap_used)]

mod ambient {
    pub mod world; // namespaces, backends, clients
    pub mod told; // what a control plane would say
    mod dialled; // what is dialled decides
    mod lifecycle; // captured, given back, gone
    mod sidecar; // its own namespace alone
}
