//! What a server hands over for each request, and what it gets back, whatever version its client speaks.

use std::future::Future;
use std::rc::Rc;

use crate::h2::Duplex;
use crate::message::body::{ClientBody, Interim};
use crate::message::{RequestHead, ResponseHead};

/// A request.
pub struct Asked {
    pub head: RequestHead,
    /// None where nothing of it is to come.
    pub body: Option<ClientBody>,
    pub interim: Rc<dyn Interim>,
}

/// What a request comes to.
pub enum Answer<B, S> {
    Response(ResponseHead, B),
    /// A response after which nothing of an HTTP/1.1 connection can be trusted.
    Last(ResponseHead, B),
    /// A 101 (RFC 9110 section 7.8), or a 2xx to a CONNECT of h2; then the connection, or the stream, is something else, and goes on with
    /// whatever this is.
    Switch(ResponseHead, S),
}

/// What goes on where a client of h2 was answered.
pub trait Tunnel: 'static {
    /// Until it is over.
    fn carry(self, client: Duplex) -> impl Future<Output = ()>;
}
