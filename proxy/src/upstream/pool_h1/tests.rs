//! Both pools call whoever waits, without its having to look.

use std::rc::Rc;
use std::task::{Context, Waker};

use mesh_core::model::policy::{Circuit, Policy, Upstream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::super::pool_h2::{Checkout, PoolH2};
use super::*;
use crate::endpoint::LiveCluster;
use crate::endpoint::tests::{cluster_with, start, target};
use crate::resilience::line::{Class, Ticket, Turn};
use crate::resilience::places::Places;

struct World {
    cluster: LiveCluster,
    places: Rc<Places>,
    key: PoolKey,
    stream: TcpStream,
    _peer: TcpStream,
}

impl World {
    /// One connection is allowed.
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let circuit = Circuit { connections_max: 1, ..Circuit::default() };
        let cluster = cluster_with(vec![target(0, 1)], Policy { circuit, ..Policy::default() }, start());
        let key = PoolKey::new(0, &cluster.endpoints()[0], address);
        let (stream, _peer) = (stream.unwrap(), accepted.unwrap().0);
        Self { cluster, places: Rc::default(), key, stream, _peer }
    }
}

/// Joins, and looks once in vain.
fn join(places: &Places, class: Class) -> Ticket {
    let ticket = places.join(class);
    assert_eq!(turn(places, ticket), Turn::Called);
    assert_eq!(turn(places, ticket), Turn::Next);
    ticket
}

fn turn(places: &Places, ticket: Ticket) -> Turn {
    places.turn(ticket, &Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_connection_that_comes_back_calls_the_next() {
    let World { cluster, places, key, stream, _peer } = World::new().await;
    let pool = PoolH1::default();
    let place = places.take(&cluster, || false).unwrap();
    let ticket = join(&places, Class::Connection);
    pool.put(H1Connection::new(key, &cluster.endpoints()[0], stream, place, Upstream::default()), start());
    assert_eq!(turn(&places, ticket), Turn::Called);
    assert!(places.take(&cluster, || pool.evict(cluster.stats())).is_some(), "it may lead elsewhere");
    assert_eq!(pool.idle_count(), 0);
}

#[tokio::test]
async fn a_stream_that_comes_free_calls_the_next_and_an_idle_connection_makes_room() {
    let World { cluster, places, key, stream, _peer } = World::new().await;
    let local = LocalSet::new();
    local
        .run_until(async {
            let pool = Rc::new(PoolH2::default());
            let Checkout::Connect(connecting) = pool.checkout(&key) else { panic!("there is none yet") };
            let place = places.take(&cluster, || false).unwrap();
            let stream = connecting.opened(&cluster.endpoints()[0], stream, place, Upstream::default());
            let ticket = join(&places, Class::Stream { origin: 0, only: None });
            assert!(places.take(&cluster, || pool.evict(cluster.stats())).is_none(), "it is in use");
            drop(stream);
            assert_eq!(turn(&places, ticket), Turn::Called);
            assert_eq!(pool.connection_count(), 1);
            assert!(places.take(&cluster, || pool.evict(cluster.stats())).is_some());
            assert_eq!(pool.connection_count(), 0);
        })
        .await;
}

#[tokio::test]
async fn what_a_service_allows_holds_for_its_connections() {
    let idle = Duration::from_secs(1);
    let rows = [
        (Upstream { idle_connections_max: 0, ..Upstream::default() }, IDLE_TIMEOUT / 2, 0),
        (Upstream::default(), IDLE_TIMEOUT / 2, 1),
        (Upstream::default(), IDLE_TIMEOUT, 0),
        (Upstream { idle_timeout: Some(idle), ..Upstream::default() }, idle, 0),
        (Upstream { idle_timeout: Some(2 * IDLE_TIMEOUT), ..Upstream::default() }, IDLE_TIMEOUT, 1),
    ];
    for (allowed, later, expected) in rows {
        let World { cluster, places, key, stream, _peer } = World::new().await;
        let pool = PoolH1::default();
        let place = places.take(&cluster, || false).unwrap();
        pool.put(H1Connection::new(key, &cluster.endpoints()[0], stream, place, allowed), start());
        pool.sweep(start() + later);
        assert_eq!(pool.idle_count(), expected, "{allowed:?} after {later:?}");
    }
}
