//! What goes out comes back the same, over thousands of seeded random resources; and equal resources have equal versions.

use std::collections::BTreeMap;

use fastrand::Rng;
use mesh_core::model::policy::Policy;

use crate::decode::{self, Decoded};
use crate::encode::{self, route::Reader};
use crate::kind::Kind;
use crate::packed::Packed;
use crate::sample;

const SEEDS: u64 = 300;

fn decoded(kind: Kind, packed: &Packed) -> Decoded {
    assert_eq!(packed.body.type_url, kind.type_url());
    decode::resource(kind, &packed.name, &packed.body).unwrap_or_else(|error| panic!("{error}: {packed:?}"))
}

fn check<T>(kind: Kind, make: impl Fn(&mut Rng) -> T, encode: impl Fn(&T) -> Packed, value: impl Fn(Decoded) -> T)
where
    T: PartialEq + std::fmt::Debug,
{
    for seed in 0..SEEDS {
        let original = make(&mut Rng::with_seed(seed));
        let packed = encode(&original);
        assert_eq!(value(decoded(kind, &packed)), original, "seed {seed}");
        let again = make(&mut Rng::with_seed(seed));
        assert_eq!(encode(&again).version, packed.version, "seed {seed}");
        let other = make(&mut Rng::with_seed(seed + SEEDS));
        assert_eq!(encode(&other).version == packed.version, other == original, "seed {seed}");
    }
}

#[test]
fn clusters() {
    let value = |decoded| match decoded {
        Decoded::Cluster(decoded) => {
            assert!(!decoded.foreign);
            assert_eq!(decoded.assignment, decoded.cluster.name);
            (*decoded.cluster).clone()
        }
        other => panic!("{other:?}"),
    };
    check(Kind::Cluster, sample::cluster, |cluster| encode::cluster::cluster(cluster).unwrap(), value);
}

#[test]
fn assignments() {
    let value = |decoded| match decoded {
        Decoded::Assignment(assignment) => (*assignment).clone(),
        other => panic!("{other:?}"),
    };
    check(Kind::Assignment, sample::assignment, encode::assignment::assignment, value);
}

#[test]
fn listeners() {
    let value = |decoded| match decoded {
        Decoded::Listener(listener) => (*listener).clone(),
        other => panic!("{other:?}"),
    };
    check(Kind::Listener, sample::listener, |listener| encode::listener::listener(listener).unwrap(), value);
}

#[test]
fn capture_maps() {
    let value = |decoded| match decoded {
        Decoded::Capture(map) => (*map).clone(),
        other => panic!("{other:?}"),
    };
    check(Kind::Capture, sample::capture, encode::capture, value);
}

#[test]
fn route_tables_with_their_policies() {
    for seed in 0..SEEDS {
        let random = &mut Rng::with_seed(seed);
        let table = sample::route_table(random);
        let policy: Policy = sample::policy(random);
        let policies: BTreeMap<_, _> = table.hosts.iter().map(|host| (host.cluster.clone(), &policy)).collect();
        for reader in [Reader::Proxy, Reader::Grpc] {
            let packed = encode::route::route_table(&table, &policies, reader);
            let Decoded::Routes(routes) = decoded(Kind::Route, &packed) else { panic!("{packed:?}") };
            assert_eq!(*routes.table, table, "seed {seed}");
            for back in routes.policies.values() {
                assert_eq!(back.timeout, policy.timeout, "seed {seed}");
                if reader == Reader::Proxy && !policy.retry.on.is_empty() && policy.retry.attempts > 0 {
                    assert_eq!(back.retry_on, policy.retry.on, "seed {seed}");
                    assert_eq!(back.attempts, policy.retry.attempts, "seed {seed}");
                }
            }
        }
        let other = Policy { timeout: Some(std::time::Duration::from_secs(77_777)), ..policy.clone() };
        let changed = table.hosts.iter().map(|host| (host.cluster.clone(), &other)).collect();
        let version = |policies| encode::route::route_table(&table, policies, Reader::Proxy).version;
        assert_eq!(version(&policies) == version(&changed), table.hosts.is_empty(), "a timeout is part of a version");
    }
}
