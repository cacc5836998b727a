//! Which certificate a client is shown: the one for the name that it asks for (SNI, RFC 6066 section 3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::held::Identity;

/// Certificates by name: an exact one first, then a wildcard of one label (RFC 9525 section 6.3), then the first of all.
///
/// Several may have one name, such as one of RSA and one of ECDSA: the first whose key the client can check is shown.
#[derive(Debug)]
pub struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<Arc<str>, Vec<usize>>,
    /// By what follows `*.`.
    wildcard: HashMap<Arc<str>, Vec<usize>>,
    /// Those that have the names of the first.
    default: Vec<usize>,
}

impl ByName {
    #[must_use]
    pub fn new(identities: Vec<Identity>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::<_, Vec<usize>>::new(), HashMap::<_, Vec<usize>>::new());
        for (at, identity) in identities.iter().enumerate() {
            for name in &identity.names {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(Arc::from(parent)).or_default().push(at),
                    None => exact.entry(Arc::clone(name)).or_default().push(at),
                }
            }
        }
        let first = identities.first().map(|identity| identity.names.clone()).unwrap_or_default();
        let default = identities.iter().enumerate().filter(|(at, identity)| *at == 0 || identity.names == first);
        let default = default.map(|(at, _)| at).collect();
        Self { keys: identities.into_iter().map(|identity| identity.key).collect(), exact, wildcard, default }
    }

    /// The one for a client that asks for that name, and can check those signatures.
    #[must_use]
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_deref().and_then(|name| self.exact.get(name));
        let parent = || name.as_deref()?.split_once('.').map(|(_, parent)| parent);
        let named = exact.or_else(|| self.wildcard.get(parent()?));
        let candidates = named.unwrap_or(&self.default);
        let fits = |at: &&usize| self.keys.get(**at).is_some_and(|key| key.key.choose_scheme(schemes).is_some());
        // One that does not fit at all is told as such by the handshake.
        let chosen = candidates.iter().find(fits).or(candidates.first());
        chosen.and_then(|at| self.keys.get(*at))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    fn identity(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Identity {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(vec!["any".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let secret = rustls_pki_types::PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], secret, &default_provider()).unwrap();
        Identity { key: Arc::new(key), names: names.iter().map(|name| Arc::from(*name)).collect() }
    }

    #[test]
    fn exact_names_then_wildcards_then_the_first() {
        let (p256, ed) = (&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519);
        let all = [
            identity(&["first.test"], p256),
            identity(&["*.shop.test"], p256),
            identity(&["api.shop.test", "b.test"], p256),
            identity(&["api.shop.test"], ed),
            identity(&["first.test"], ed),
        ];
        let (p256, ed) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
        let keys: Vec<_> = all.iter().map(|identity| Arc::clone(&identity.key)).collect();
        let by_name = ByName::new(all.into());
        for (name, schemes, expected) in [
            (Some("first.test"), vec![p256, ed], 0),
            (Some("API.Shop.test"), vec![p256, ed], 2),
            (Some("api.shop.test"), vec![ed], 3),
            (Some("web.shop.test"), vec![p256], 1),
            (Some("b.test"), vec![p256], 2),
            // One label for a wildcard, no more and no fewer.
            (Some("a.web.shop.test"), vec![p256], 0),
            (Some("shop.test"), vec![p256], 0),
            (Some("nobody.test"), vec![p256], 0),
            (Some("nobody.test"), vec![ed], 4),
            (None, vec![p256, ed], 0),
            (Some("web.shop.test"), vec![ed], 1),
        ] {
            let chosen = by_name.choose(name, &schemes).unwrap();
            assert!(Arc::ptr_eq(chosen, &keys[expected]), "{name:?} {schemes:?}");
        }
        assert!(ByName::new(Vec::new()).choose(None, &[]).is_none());
    }
}
