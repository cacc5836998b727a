//! An authority's signature on a client's certificate is checked once by each worker, not with every connection of that client.
//!
//! Whether a signature fits a key and a text never changes, so what was found right is right again for the same three, byte by
//! byte. Everything else about a certificate (its time, its purpose, its names, which authority it leads to) is looked at each time,
//! and so is the client's own signature on the handshake, which is another one every time.

use std::cell::RefCell;
use std::hash::Hasher;
use std::sync::{Arc, LazyLock};

use rustc_hash::FxHasher;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls_pki_types::{AlgorithmIdentifier, FipsStatus, InvalidSignature, SignatureVerificationAlgorithm};

/// Signatures that a worker remembers; two that fall on one place take turns.
const PLACES: usize = 256;

/// Longer certificates are checked each time.
const BYTES_MAX: usize = 4096;

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// What was found right.
#[derive(Debug, Default)]
struct Seen {
    /// By hash; [`PLACES`] of them once there is a first.
    places: Vec<Option<Fact>>,
}

/// One signature that fits.
#[derive(Debug)]
struct Fact {
    algorithm: usize,
    key_length: usize,
    text_length: usize,
    /// Key, text and signature.
    bytes: Box<[u8]>,
}

/// One way to check signatures, with a memory.
#[derive(Debug)]
struct Remembering {
    checks: &'static dyn SignatureVerificationAlgorithm,
    /// Its place among all.
    number: usize,
}

/// `provider`, for checking chains of certificates.
#[must_use]
pub fn remembering(provider: &CryptoProvider) -> Arc<CryptoProvider> {
    /// They live as long as the process, as the ones that they stand before.
    static ALGORITHMS: LazyLock<&'static [&'static dyn SignatureVerificationAlgorithm]> = LazyLock::new(|| {
        let all = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let wrap = |(number, checks): (usize, &&'static dyn SignatureVerificationAlgorithm)| {
            let wrapped: &'static Remembering = Box::leak(Box::new(Remembering { checks: *checks, number }));
            wrapped as &'static dyn SignatureVerificationAlgorithm
        };
        Box::leak(all.iter().enumerate().map(wrap).collect::<Box<[_]>>())
    });
    let mapping = provider.signature_verification_algorithms.mapping;
    let signature_verification_algorithms = WebPkiSupportedAlgorithms { all: *ALGORITHMS, mapping };
    Arc::new(CryptoProvider { signature_verification_algorithms, ..provider.clone() })
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let parts = [public_key, message, signature];
        if SEEN.with_borrow(|seen| seen.holds(self.number, parts)) {
            return Ok(());
        }
        self.checks.verify_signature(public_key, message, signature)?;
        SEEN.with_borrow_mut(|seen| seen.note(self.number, parts));
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.checks.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.checks.signature_alg_id()
    }

    fn fips_status(&self) -> FipsStatus {
        self.checks.fips_status()
    }

    fn fips(&self) -> bool {
        self.checks.fips()
    }
}

impl Seen {
    fn holds(&self, algorithm: usize, parts: [&[u8]; 3]) -> bool {
        self.places.get(place(parts)).is_some_and(|fact| fact.as_ref().is_some_and(|fact| fact.is(algorithm, parts)))
    }

    fn note(&mut self, algorithm: usize, parts: [&[u8]; 3]) {
        let [key, text, _] = parts;
        if parts.iter().map(|part| part.len()).sum::<usize>() > BYTES_MAX {
            return;
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let (key_length, text_length) = (key.len(), text.len());
        self.places[place(parts)] =
            Some(Fact { algorithm, key_length, text_length, bytes: parts.concat().into_boxed_slice() });
    }
}

impl Fact {
    fn is(&self, algorithm: usize, [key, text, signature]: [&[u8]; 3]) -> bool {
        let Some((own_key, rest)) = self.bytes.split_at_checked(self.key_length) else { return false };
        let Some((own_text, own_signature)) = rest.split_at_checked(self.text_length) else { return false };
        self.algorithm == algorithm && own_signature == signature && own_text == text && own_key == key
    }
}

/// By the signature alone: it is as good as random, and another one for any other text.
fn place([_, _, signature]: [&[u8]; 3]) -> usize {
    let mut hasher = FxHasher::default();
    hasher.write(signature);
    hasher.finish() as usize % PLACES
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Right is what ends in "!"; counts how often it was asked.
    #[derive(Debug, Default)]
    struct Asked(AtomicUsize);

    impl SignatureVerificationAlgorithm for Asked {
        fn verify_signature(&self, _: &[u8], _: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if signature.ends_with(b"!") { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    fn algorithm(number: usize) -> (Remembering, &'static Asked) {
        let asked: &'static Asked = Box::leak(Box::default());
        (Remembering { checks: asked, number }, asked)
    }

    #[test]
    fn what_was_right_is_asked_once_and_what_was_wrong_each_time() {
        let (one, asked) = algorithm(0);
        let check = |key: &str, text: &str, signature: &str, right: bool, times: usize| {
            let found = one.verify_signature(key.as_bytes(), text.as_bytes(), signature.as_bytes());
            assert_eq!((found.is_ok(), asked.0.load(Ordering::Relaxed)), (right, times), "{key} {text} {signature}");
        };
        check("key", "text", "good!", true, 1);
        check("key", "text", "good!", true, 1);
        check("key", "text", "bad", false, 2);
        check("key", "text", "bad", false, 3);
        // Whatever else is the same: other bytes are another question.
        check("kez", "text", "good!", true, 4);
        check("kez", "texu", "good!", true, 5);
        check("kezt", "exu", "good!", true, 6);
        check("kezt", "exu", "good!", true, 6);
        let (other, asked) = algorithm(1);
        other.verify_signature(b"kezt", b"exu", b"good!").unwrap();
        assert_eq!(asked.0.load(Ordering::Relaxed), 1, "another algorithm has its own answers");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (one, asked) = algorithm(2);
        let long = vec![b'x'; BYTES_MAX];
        for _ in 0..2 {
            one.verify_signature(b"key", &long, b"long!").unwrap();
        }
        assert_eq!(asked.0.load(Ordering::Relaxed), 2);
        for number in 0..4 * PLACES {
            one.verify_signature(b"key", b"text", format!("{number}!").as_bytes()).unwrap();
        }
        SEEN.with_borrow(|seen| assert_eq!(seen.places.len(), PLACES));
    }

    #[test]
    fn every_algorithm_has_its_memory_and_handshakes_have_none() {
        let plain = rustls::crypto::aws_lc_rs::default_provider();
        let with_memory = remembering(&plain);
        let (before, after) = (plain.signature_verification_algorithms, with_memory.signature_verification_algorithms);
        assert_eq!(before.all.len(), after.all.len());
        for (one, other) in before.all.iter().zip(after.all) {
            assert_eq!(one.public_key_alg_id(), other.public_key_alg_id());
            assert_eq!(one.signature_alg_id(), other.signature_alg_id());
            assert!(format!("{other:?}").contains("Remembering"));
        }
        assert!(!format!("{:?}", after.mapping).contains("Remembering"));
    }
}
