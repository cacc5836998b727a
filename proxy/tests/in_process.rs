//! The real app on port 0, between real clients and backends, in one process.
#![allow(clippy::unwrap_used)]

mod in_process {
    pub mod support; // a mesh, backends, clients
    pub mod certificates; // authorities, and what they signed
    mod refusals; // what is answered when nobody else answers
    mod balancing; // who gets the request
    mod retries; // once more, elsewhere
    mod waiting; // for a connection, in line
    mod protocols; // h1, h2, trailers, upgrades, bytes
    mod arrivals; // over which worker, how many, whose they are, how long a first byte is awaited
    mod tls; // who may come in, by which version; certificates that change
    mod handshakes; // which certificate, which version, who may come in; why not, in words
    mod endings; // timeouts, cut bodies, drain, reload
    mod limits; // what a client may take of us, key by key
    mod metrics; // under which names all of it is counted
}
