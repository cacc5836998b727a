//! A query's bytes to a reply's. Input: one byte that says who asks and how, then the packet.
#![no_main]

use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;
use mesh_core::model::snapshot::Snapshot;
use mesh_discovery::dns::answer::{Asker, Transport, Verdict, failure, respond};
use mesh_discovery::dns::zone::Zone;
use mesh_discovery::provider::file;

static SNAPSHOT: LazyLock<Arc<Snapshot>> =
    LazyLock::new(|| mesh_fuzz::snapshot_of(file::parse::parse("shop", mesh_fuzz::SHOP).expect("the shop parses")));
static ZONE: LazyLock<Zone> = LazyLock::new(|| Zone::new("mesh.internal", None).expect("a domain name"));

fuzz_target!(|bytes: &[u8]| {
    let Some((first, packet)) = bytes.split_first() else { return };
    let transport = if first & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let asker = Asker { transport, allowed: first & 2 == 0, source: None };
    let decision = respond(packet, asker, &ZONE, &SNAPSHOT, &mut fastrand::Rng::with_seed(u64::from(*first)));
    let replies = match decision.verdict {
        Verdict::Reply { bytes, .. } => vec![bytes],
        _ => failure(packet).into_iter().collect(),
    };
    for reply in replies {
        let message = Message::from_vec(&reply).expect("a reply can be read");
        assert_eq!(reply[..2], packet[..2], "a reply has the id of its query");
        assert_eq!(message.metadata.message_type, MessageType::Response);
        if transport == Transport::Udp {
            assert!(reply.len() <= 4096, "{} bytes over UDP", reply.len());
        }
    }
});
