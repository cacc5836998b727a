//! The handshake of one connection, and in words why it failed: an operator reads it who has never heard of our library.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::duration;
use rustls::server::Acceptor;
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible, ServerConfig};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// What went wrong, in few words: the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The listener has nothing to serve with.
    NoConfig,
    Timeout,
    /// The client closed or reset the connection.
    Closed,
    NotTls,
    Version,
    /// No cipher suite, key-exchange group or signature in common.
    Algorithm,
    Alpn,
    NoClientCertificate,
    BadClientCertificate,
    /// The client ended it by an alert: mostly since our certificate is not good to it.
    Alert,
    Malformed,
}

impl Why {
    pub const ALL: [Self; 11] = [
        Self::NoConfig,
        Self::Timeout,
        Self::Closed,
        Self::NotTls,
        Self::Version,
        Self::Algorithm,
        Self::Alpn,
        Self::NoClientCertificate,
        Self::BadClientCertificate,
        Self::Alert,
        Self::Malformed,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoConfig => "no_certificate",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Algorithm => "algorithm",
            Self::Alpn => "alpn",
            Self::NoClientCertificate => "no_client_certificate",
            Self::BadClientCertificate => "bad_client_certificate",
            Self::Alert => "alert",
            Self::Malformed => "malformed",
        }
    }
}

/// A handshake that failed.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct HandshakeError {
    pub why: Why,
    /// What the client asked for (SNI); none when it said nothing, or nothing was heard of it.
    pub server_name: Option<Box<str>>,
    text: String,
}

impl HandshakeError {
    /// A listener that has nothing to serve with.
    #[must_use]
    pub fn no_config() -> Self {
        Self::new(Why::NoConfig, None, "none of the listener's certificates can be used; the log has said why")
    }

    fn new(why: Why, server_name: Option<Box<str>>, text: impl Into<String>) -> Self {
        Self { why, server_name, text: text.into() }
    }
}

/// Shakes hands within `timeout`.
///
/// # Errors
/// [`HandshakeError`] says why not; the client was told by an alert, where TLS has one for it.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Result<TlsStream<S>, HandshakeError> {
    let mut heard = Heard::default();
    let shaken = tokio::time::timeout(timeout, shake(stream, config, &mut heard)).await;
    let (why, text) = match shaken {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => explain(&error, &heard),
        Err(_) if heard.is_any => {
            (Why::Timeout, format!("the client did not finish it within {}", duration::format(timeout)))
        }
        Err(_) => (Why::Timeout, format!("no whole hello came from the client within {}", duration::format(timeout))),
    };
    Err(HandshakeError::new(why, heard.server_name, text))
}

/// What a client's hello said, for the words of a failure.
#[derive(Default)]
struct Heard {
    is_any: bool,
    server_name: Option<Box<str>>,
    /// What it would speak, where that is nothing that we do.
    alpn: Option<String>,
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
    heard: &mut Heard,
) -> io::Result<TlsStream<S>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    heard.is_any = true;
    heard.server_name = hello.server_name().map(Box::from);
    if let Some(offered) = hello.alpn()
        && !config.alpn_protocols.is_empty()
    {
        let offered: Vec<&[u8]> = offered.collect();
        if !offered.iter().any(|name| config.alpn_protocols.iter().any(|ours| ours == name)) {
            heard.alpn =
                Some(offered.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>().join(", "));
        }
    }
    start.into_stream(config).await
}

fn explain(error: &io::Error, heard: &Heard) -> (Why, String) {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => explain_tls(error, heard),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            let when = if heard.is_any { "in the middle of it" } else { "before its hello was whole" };
            (Why::Closed, format!("the client closed the connection {when}"))
        }
        None => (Why::Closed, format!("the connection broke off: {error}")),
    }
}

fn explain_tls(error: &rustls::Error, heard: &Heard) -> (Why, String) {
    use rustls::Error;
    let misfit = |what: &str| (Why::Algorithm, format!("the client and we have no {what} in common"));
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)
        | Error::InappropriateMessage { .. }
            if !heard.is_any =>
        {
            (Why::NotTls, "what the client sent is no TLS; does it speak plain HTTP?".to_owned())
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => (Why::Version, "the client speaks no version of TLS that the listener takes".to_owned()),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => misfit("cipher suite"),
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => misfit("key-exchange group"),
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => misfit("signature scheme"),
        Error::PeerIncompatible(other) => (Why::Algorithm, format!("the client does not fit: {other:?}")),
        Error::NoApplicationProtocol => {
            let offered = heard.alpn.as_deref().unwrap_or("nothing");
            (Why::Alpn, format!("the client would speak {offered} (ALPN); the listener speaks h2 and http/1.1"))
        }
        Error::NoCertificatesPresented => {
            (Why::NoClientCertificate, "the client showed no certificate, and the listener requires one".to_owned())
        }
        Error::InvalidCertificate(error) => {
            (Why::BadClientCertificate, format!("the client's certificate is refused: {}", Certificate(error)))
        }
        Error::AlertReceived(alert) => (Why::Alert, format!("the client gave up: {}", Alert(*alert))),
        other => (Why::Malformed, format!("the client's messages make no sense: {other}")),
    }
}

/// What is wrong with a certificate.
struct Certificate<'e>(&'e CertificateError);

impl fmt::Display for Certificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CertificateError::UnknownIssuer => f.write_str("none of the authorities in client_ca signed it"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => f.write_str("it has expired"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                f.write_str("it is not valid yet; do both clocks agree?")
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                f.write_str("it is not made for clients (extended key usage)")
            }
            CertificateError::BadSignature => f.write_str("its signature is wrong"),
            CertificateError::BadEncoding => f.write_str("it cannot be read"),
            other => write!(f, "{other}"),
        }
    }
}

/// What a client says of us.
struct Alert(AlertDescription);

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            AlertDescription::UnknownCA => "it does not know the authority of our certificate (unknown_ca)",
            AlertDescription::BadCertificate => "our certificate is not good to it (bad_certificate)",
            AlertDescription::CertificateExpired => "our certificate has expired (certificate_expired)",
            AlertDescription::CertificateUnknown => "our certificate is not good to it (certificate_unknown)",
            AlertDescription::UnrecognisedName => "our certificate is for another name (unrecognized_name)",
            AlertDescription::HandshakeFailure => "it found nothing to agree on (handshake_failure)",
            AlertDescription::ProtocolVersion => "it does not speak our version of TLS (protocol_version)",
            AlertDescription::UserCanceled => "it was cancelled (user_canceled)",
            other => return write!(f, "by the alert {other:?}"),
        };
        f.write_str(name)
    }
}
