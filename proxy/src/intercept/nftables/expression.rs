//! The few expressions our rules are made of, each as `libnftnl` writes it (`linux/netfilter/nf_tables.h`).
//!
//! An expression loads something into a register, compares or looks up what is in it, or acts. A rule is a list of
//! them, given up at the first that does not match. All of ours use register 1.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

/// One expression of a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

// What the crate has no names for (`linux/netfilter/nf_tables.h`).
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// What netfilter itself calls it (`linux/netfilter.h`).
const NF_DROP: u32 = 0;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
/// NF_CT_STATE_BIT(IP_CT_NEW) (`linux/netfilter/nf_conntrack_common.h`).
const CT_STATE_NEW: u32 = 8;
/// NF_CT_STATE_INVALID_BIT.
const CT_STATE_INVALID: u32 = 1;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;

// Where the fields lie (RFC 791 3.1, RFC 8200 3, RFC 9293 3.1).
const IPV4_SOURCE: (u32, u32) = (12, 4);
const IPV4_DESTINATION: (u32, u32) = (16, 4);
const IPV6_SOURCE: (u32, u32) = (8, 16);
const IPV6_DESTINATION: (u32, u32) = (24, 16);
const TCP_SEQUENCE_NUMBER: (u32, u32) = (4, 4);
const TCP_FLAGS: (u32, u32) = (13, 1);
const TCP_FIN_SYN_RST_ACK: u8 = 0x17;
const TCP_SYN: u8 = 0x02;
const TCP_SYN_ACK: u8 = 0x12;
const TCP_RST_ACK: u8 = 0x14;

/// `ct state new`. That it asks connection tracking is what it is for: the kernel tracks only where a rule depends on
/// it.
pub(super) fn is_new_connection() -> Vec<Expression> {
    connection_state(CT_STATE_NEW)
}

/// `ct state invalid`: of a connection that the kernel does not track, and cannot begin with this packet.
pub(super) fn is_of_unknown_connection() -> Vec<Expression> {
    connection_state(CT_STATE_INVALID)
}

fn connection_state(bit: u32) -> Vec<Expression> {
    let destination: u32 = Register::Reg1.into();
    let load = vec![
        DefaultNla::new(NFTA_CT_DREG, destination.to_be_bytes().to_vec()),
        DefaultNla::new(NFTA_CT_KEY, NFT_CT_STATE.to_be_bytes().to_vec()),
    ];
    vec![other("ct", load), keep_bits(&bit.to_ne_bytes()), compare(Operator::NotEqual, &[0; size_of::<u32>()])]
}

/// `meta mark VALUE`: SO_MARK of the socket that sends.
pub(super) fn mark_is(mark: u32) -> Vec<Expression> {
    vec![load_meta(MetaKey::Mark), compare(Operator::Equal, &mark.to_ne_bytes())]
}

/// `oif INDEX`.
pub(super) fn output_interface_is(index: u32) -> Vec<Expression> {
    vec![load_meta(MetaKey::Oif), compare(Operator::Equal, &index.to_ne_bytes())]
}

/// `meta l4proto udp`.
pub(super) fn is_udp() -> Vec<Expression> {
    vec![load_meta(MetaKey::L4Proto), compare(Operator::Equal, &[IPPROTO_UDP])]
}

/// `tcp flags syn / fin,syn,rst,ack`: the first packet of a connection, and no other. A connection that is older than
/// connection tracking in this namespace is picked up by it in the middle and would look new.
pub(super) fn is_first_of_tcp_connection() -> Vec<Expression> {
    tcp_flags(TCP_SYN)
}

/// `tcp flags syn,ack / fin,syn,rst,ack`: somebody listens.
pub(super) fn is_acceptance() -> Vec<Expression> {
    tcp_flags(TCP_SYN_ACK)
}

/// `tcp flags rst,ack / fin,syn,rst,ack tcp sequence 0`: nobody listens (RFC 9293 section 3.5.2, group 1).
pub(super) fn is_refusal() -> Vec<Expression> {
    let sequence = load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, TCP_SEQUENCE_NUMBER);
    [tcp_flags(TCP_RST_ACK), vec![sequence, compare(Operator::Equal, &[0; 4])]].concat()
}

fn tcp_flags(flags: u8) -> Vec<Expression> {
    vec![
        load_meta(MetaKey::L4Proto),
        compare(Operator::Equal, &[IPPROTO_TCP]),
        load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS),
        keep_bits(&[TCP_FIN_SYN_RST_ACK]),
        compare(Operator::Equal, &[flags]),
    ]
}

/// `meta l4proto @SET`.
pub(super) fn protocol_in(set: &str) -> Vec<Expression> {
    vec![load_meta(MetaKey::L4Proto), look_up(set)]
}

/// `ip daddr PREFIX`.
pub(super) fn ipv4_destination_in_prefix(prefix: Ipv4Net) -> Vec<Expression> {
    let mask: Ipv4Addr = prefix.netmask();
    vec![
        load_meta(MetaKey::Nfproto),
        compare(Operator::Equal, &[NFPROTO_IPV4]),
        load_payload(NFT_PAYLOAD_NETWORK_HEADER, IPV4_DESTINATION),
        keep_bits(&mask.octets()),
        compare(Operator::Equal, &prefix.network().octets()),
    ]
}

/// `ip daddr @SET`.
pub(super) fn ipv4_destination_in_set(set: &str) -> Vec<Expression> {
    address_in_set(NFPROTO_IPV4, IPV4_DESTINATION, set)
}

/// `ip saddr @SET`.
pub(super) fn ipv4_source_in_set(set: &str) -> Vec<Expression> {
    address_in_set(NFPROTO_IPV4, IPV4_SOURCE, set)
}

/// `ip6 daddr @SET`.
pub(super) fn ipv6_destination_in_set(set: &str) -> Vec<Expression> {
    address_in_set(NFPROTO_IPV6, IPV6_DESTINATION, set)
}

/// `ip6 saddr @SET`.
pub(super) fn ipv6_source_in_set(set: &str) -> Vec<Expression> {
    address_in_set(NFPROTO_IPV6, IPV6_SOURCE, set)
}

fn address_in_set(family: u8, field: (u32, u32), set: &str) -> Vec<Expression> {
    vec![
        load_meta(MetaKey::Nfproto),
        compare(Operator::Equal, &[family]),
        load_payload(NFT_PAYLOAD_NETWORK_HEADER, field),
        look_up(set),
    ]
}

/// `redirect to :PORT`. In the output hook that is 127.0.0.1 or ::1.
pub(super) fn redirect_to(port: u16) -> Vec<Expression> {
    let port = DataAttribute::Value(port.to_be_bytes().to_vec());
    let register: u32 = Register::Reg1.into();
    vec![
        Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Reg1), Immediate::Data(port)]).into(),
        other("redir", vec![DefaultNla::new(NFTA_REDIR_REG_PROTO_MIN, register.to_be_bytes().to_vec())]),
    ]
}

/// `return`: on to the next chain.
pub(super) fn give_back() -> Vec<Expression> {
    verdict(Verdict::Return)
}

/// `drop`: as if it had never come.
pub(super) fn drop_it() -> Vec<Expression> {
    verdict(Verdict::Other(NF_DROP))
}

fn verdict(code: Verdict) -> Vec<Expression> {
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(code)]);
    vec![
        Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(verdict)])
            .into(),
    ]
}

/// `reject with tcp reset`: the caller sees ECONNREFUSED at once.
pub(super) fn reject_with_reset() -> Vec<Expression> {
    vec![reject(NFT_REJECT_TCP_RST, 0)]
}

/// `reject with icmpx port-unreachable`: the caller sees ECONNREFUSED on its next call.
pub(super) fn reject_with_port_unreachable() -> Vec<Expression> {
    vec![reject(NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH)]
}

fn load_meta(key: MetaKey) -> Expression {
    // nft writes the key first; the kernel does not mind.
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)]).into()
}

fn load_payload(base: u32, (offset, len): (u32, u32)) -> Expression {
    let destination = Payload::DestinationRegister(Register::Reg1);
    Expressions::Payload(vec![destination, Payload::Base(base), Payload::Offset(offset), Payload::Len(len)]).into()
}

fn keep_bits(mask: &[u8]) -> Expression {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(u32::try_from(mask.len()).expect("a mask has at most 16 bytes")),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
    ])
    .into()
}

fn compare(operator: Operator, value: &[u8]) -> Expression {
    let value = DataAttribute::Value(value.to_vec());
    Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), Cmp::Data(value)]).into()
}

fn look_up(set: &str) -> Expression {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(Register::Reg1)]).into()
}

fn reject(kind: u32, code: u8) -> Expression {
    let kind = DefaultNla::new(NFTA_REJECT_TYPE, kind.to_be_bytes().to_vec());
    other("reject", vec![kind, DefaultNla::new(NFTA_REJECT_ICMP_CODE, vec![code])])
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other { expression_type: name.to_owned(), attributes }.into()
}
