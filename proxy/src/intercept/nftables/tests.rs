//! The bytes, and the rules as `nft` reads them back.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::tests::{TestNamespace, run};
use super::*;

fn rules() -> Rules {
    Rules {
        port: 14001,
        virtual_ips: "240.240.0.0/16".parse().unwrap(),
        mark: 0x6d65_7368,
        alive_timeout: Duration::from_secs(5),
    }
}

/// Reads `aa bb cc # what it is`, line by line.
fn bytes(text: &str) -> Vec<u8> {
    let hexadecimal = text.lines().map(|line| line.split('#').next().unwrap());
    hexadecimal.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// `messages` between the begin and the end of a transaction that starts at sequence number 7.
#[cfg(target_endian = "little")]
fn check(transaction: &Transaction, messages: &str, end_sequence: u8) {
    let begin = "14 00 00 00  10 00  01 00  07 00 00 00  00 00 00 00   00 00 00 0a  # BATCH_BEGIN for nf_tables";
    let end = format!("14 00 00 00  11 00  01 00  {end_sequence:02x} 00 00 00  00 00 00 00   00 00 00 0a  # BATCH_END");
    let expected = bytes(&[begin, messages, &end].join("\n"));
    let encoded = transaction.encode(7);
    assert_eq!(encoded.len() % 4, 0);
    assert!(encoded == expected, "expected {expected:02x?}\ngot      {encoded:02x?}");
}

#[cfg(target_endian = "little")]
#[test]
fn a_table_a_set_and_an_element_have_these_bytes() {
    let mut transaction = Transaction::default();
    transaction.push(Object::Table(TABLE), NLM_F_CREATE | NLM_F_EXCL, message::new_table(TABLE, true));
    let set = message::new_set(TABLE, SET_ALIVE, 1, KeyType::InetProtocol, Some(Duration::from_secs(5)));
    transaction.push(Object::Set(SET_ALIVE), NLM_F_CREATE, set);
    transaction.push(Object::Elements(SET_ALIVE), NLM_F_CREATE, message::add_elements(TABLE, SET_ALIVE, [ALIVE]));
    let expected = "
        28 00 00 00  00 0a  01 06  08 00 00 00  00 00 00 00   # NEWTABLE, REQUEST|EXCL|CREATE, 8
        01 00 00 00                                           # NFPROTO_INET
        09 00 01 00  6d 65 73 68 00 00 00 00                  # NAME mesh
        08 00 02 00  00 00 00 02                              # FLAGS owner
        58 00 00 00  09 0a  01 04  09 00 00 00  00 00 00 00   # NEWSET, REQUEST|CREATE, 9
        01 00 00 00
        09 00 01 00  6d 65 73 68 00 00 00 00                  # TABLE mesh
        0a 00 02 00  61 6c 69 76 65 00 00 00                  # NAME alive
        08 00 03 00  00 00 00 10                              # FLAGS timeout
        08 00 04 00  00 00 00 0c                              # KEY_TYPE inet_proto
        08 00 05 00  00 00 00 01                              # KEY_LEN 1
        08 00 0a 00  00 00 00 01                              # ID 1
        0c 00 0b 00  00 00 00 00 00 00 13 88                  # TIMEOUT 5000 ms
        40 00 00 00  0c 0a  05 04  0a 00 00 00  00 00 00 00   # NEWSETELEM, REQUEST|ACK|CREATE, 10
        01 00 00 00
        09 00 01 00  6d 65 73 68 00 00 00 00                  # TABLE mesh
        0a 00 02 00  61 6c 69 76 65 00 00 00                  # SET alive
        14 00 03 80                                           # ELEMENTS
        10 00 01 80                                           #   ELEM
        0c 00 01 80                                           #     KEY
        05 00 01 00  06 00 00 00                              #       VALUE tcp";
    check(&transaction, expected, 0x0b);
}

#[cfg(target_endian = "little")]
#[test]
fn a_chain_and_a_rule_have_these_bytes() {
    let mut transaction = Transaction::default();
    let chain = message::new_base_chain(TABLE, CHAIN_OUTPUT, Place::NatOutput);
    transaction.push(Object::Chain(CHAIN_OUTPUT), NLM_F_CREATE, chain);
    push_rules(&mut transaction, TABLE, CHAIN_OUTPUT, [("hi", expr::redirect_to(14001))]);
    let expected = "
        50 00 00 00  03 0a  01 04  08 00 00 00  00 00 00 00   # NEWCHAIN, REQUEST|CREATE, 8
        01 00 00 00
        09 00 01 00  6d 65 73 68 00 00 00 00                  # TABLE mesh
        0b 00 03 00  6f 75 74 70 75 74 00 00                  # NAME output
        14 00 04 80                                           # HOOK
        08 00 01 00  00 00 00 03                              #   NUM local out
        08 00 02 00  ff ff ff 9c                              #   PRIORITY -100
        08 00 05 00  00 00 00 01                              # POLICY accept
        08 00 07 00  6e 61 74 00                              # TYPE nat
        84 00 00 00  06 0a  05 0c  09 00 00 00  00 00 00 00   # NEWRULE, REQUEST|ACK|CREATE|APPEND, 9
        01 00 00 00
        09 00 01 00  6d 65 73 68 00 00 00 00                  # TABLE mesh
        0b 00 02 00  6f 75 74 70 75 74 00 00                  # CHAIN output
        4c 00 04 80                                           # EXPRESSIONS
        2c 00 01 80                                           #   ELEM
        0e 00 01 00  69 6d 6d 65 64 69 61 74 65 00 00 00      #     NAME immediate
        18 00 02 80                                           #     DATA
        08 00 01 00  00 00 00 01                              #       DREG 1
        0c 00 02 80                                           #       DATA
        06 00 01 00  36 b1 00 00                              #         VALUE port 14001
        1c 00 01 80                                           #   ELEM
        0a 00 01 00  72 65 64 69 72 00 00 00                  #     NAME redir
        0c 00 02 80                                           #     DATA
        08 00 01 00  00 00 00 01                              #       REG_PROTO_MIN 1
        09 00 07 00  00 03 68 69 00 00 00 00                  # USERDATA comment, 3 bytes, hi";
    check(&transaction, expected, 0x0a);
}

/// What is written here by hand, loaded by `nft` itself into another namespace, is to read the same as what we wrote.
const MEANT: &str = r#"
table inet mesh_refuse {
    chain keep_nat {
        type nat hook output priority -100; policy accept;
        ct state new return comment "keeps connections translated"
    }
    chain refuse {
        type filter hook input priority 0; policy accept;
        tcp flags syn / fin,syn,rst,ack ip daddr 240.240.0.0/16 reject with tcp reset comment "no proxy for this virtual IP"
        meta l4proto udp ip daddr 240.240.0.0/16 reject with icmpx type port-unreachable comment "virtual IPs carry TCP"
    }
}
table inet mesh {
    set alive { type inet_proto; timeout 5s; elements = { tcp } }
    set addresses { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 } }
    set addresses6 { type ipv6_addr; elements = { fd00::1 } }
    chain output {
        type nat hook output priority -100; policy accept;
        meta mark 0x6d657368 return comment "the proxy's own connections pass"
        tcp flags syn / fin,syn,rst,ack meta l4proto @alive ip daddr 240.240.0.0/16 redirect to :14001 comment "to a virtual IP"
        oif "lo" return comment "to itself"
        tcp flags syn / fin,syn,rst,ack meta l4proto @alive ip daddr @addresses redirect to :14001 comment "to an endpoint"
        tcp flags syn / fin,syn,rst,ack meta l4proto @alive ip6 daddr @addresses6 redirect to :14001 comment "to an IPv6 endpoint"
    }
    chain input {
        type filter hook input priority 0; policy accept;
        tcp flags syn,ack / fin,syn,rst,ack ct state invalid meta l4proto @alive ip saddr @addresses drop comment "dialled past the proxy"
        tcp flags syn,ack / fin,syn,rst,ack ct state invalid meta l4proto @alive ip6 saddr @addresses6 drop comment "dialled past the proxy"
        tcp flags rst,ack / fin,syn,rst,ack tcp sequence 0 ct state invalid meta l4proto @alive ip saddr @addresses drop comment "refused past the proxy"
        tcp flags rst,ack / fin,syn,rst,ack tcp sequence 0 ct state invalid meta l4proto @alive ip6 saddr @addresses6 drop comment "refused past the proxy"
    }
}
"#;

/// Without what differs from one reading to the next, or says who wrote it.
fn comparable(ruleset: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in ruleset.lines().filter(|line| line.trim() != "flags owner") {
        let line = line.split(" # progname").next().unwrap();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(index) = words.iter().position(|word| *word == "expires") {
            words.drain(index..index + 2);
        }
        lines.push(words.join(" "));
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[test]
fn nft_reads_what_was_meant() {
    let (Some(ours), Some(theirs)) = (TestNamespace::new(), TestNamespace::new()) else { return };
    let namespace = ours.handle();
    refuse_virtual_ips(Some(&namespace), rules().virtual_ips).unwrap();
    let mut ruleset = Ruleset::open(Some(&namespace), &rules()).unwrap();
    ruleset.set_addresses(&addresses(&["10.0.0.1", "10.0.0.2", "fd00::1"])).unwrap();
    assert_eq!(ruleset.ownership(), Ownership::Socket);
    assert!(ours.ruleset().contains("flags owner"), "{}", ours.ruleset());

    let mut nft = Command::new("ip")
        .args(["netns", "exec", &theirs.name, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin.take().unwrap().write_all(MEANT.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
    assert_eq!(comparable(&ours.ruleset()), comparable(&theirs.ruleset()));
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What is in both sets now.
fn elements(namespace: &TestNamespace) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for set in [SET_ADDRESSES, SET_ADDRESSES6] {
        let text = run("ip", &["netns", "exec", &namespace.name, "nft", "list", "set", "inet", TABLE, set]);
        let words = text.split(|character: char| character.is_whitespace() || ",{}=".contains(character));
        found.extend(words.filter_map(|word| word.parse::<IpAddr>().ok()));
    }
    found
}

#[test]
fn addresses_are_replaced_by_the_difference() {
    let Some(test) = TestNamespace::new() else { return };
    let mut ruleset = Ruleset::open(Some(&test.handle()), &rules()).unwrap();
    let steps: [&[&str]; 6] = [
        &["10.0.0.1", "fd00::1"],
        &["10.0.0.1", "10.0.0.2"],
        &["10.0.0.1", "10.0.0.2"],
        &["10.0.0.3"],
        &[],
        &["fd00::2"],
    ];
    for step in steps {
        let wanted = addresses(step);
        ruleset.set_addresses(&wanted).unwrap();
        assert_eq!(elements(&test), wanted);
        assert_eq!(ruleset.addresses(), &wanted);
    }
}

#[test]
fn many_addresses_are_taken_in_pieces() {
    let Some(test) = TestNamespace::new() else { return };
    let mut ruleset = Ruleset::open(Some(&test.handle()), &rules()).unwrap();
    let ipv4 = (0..2500u32).map(|index| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + index)));
    let ipv6 = (0..2500u128).map(|index| IpAddr::from(Ipv6Addr::from_bits((0xfd << 120) + index)));
    let wanted: BTreeSet<IpAddr> = ipv4.chain(ipv6).collect();
    ruleset.set_addresses(&wanted).unwrap();
    assert_eq!(elements(&test), wanted);
    ruleset.set_addresses(&BTreeSet::new()).unwrap();
    assert_eq!(elements(&test), BTreeSet::new());
}

#[test]
fn dropping_removes_the_table_however_it_is_owned() {
    for ownership in [Ownership::Socket, Ownership::AliveSet] {
        let Some(test) = TestNamespace::new() else { return };
        let mut ruleset = Ruleset::open_as(Some(&test.handle()), &rules(), ownership).unwrap();
        assert_eq!(test.ruleset().contains("flags owner"), ownership == Ownership::Socket);
        ruleset.set_addresses(&addresses(&["10.0.0.1"])).unwrap();
        ruleset.renew_alive().unwrap();
        drop(ruleset);
        assert_eq!(test.ruleset(), "");
    }
}

#[test]
fn only_one_process_can_hold_the_table() {
    let Some(test) = TestNamespace::new() else { return };
    let namespace = test.handle();
    let first = Ruleset::open(Some(&namespace), &rules()).unwrap();
    let second = Ruleset::open(Some(&namespace), &rules());
    assert!(matches!(second, Err(NftablesError::OwnedByAnother { table: TABLE })), "{second:?}");
    let removed = remove_tables(Some(&namespace));
    assert!(matches!(removed, Err(NftablesError::OwnedByAnother { table: TABLE })), "{removed:?}");
    drop(first);
    Ruleset::open(Some(&namespace), &rules()).unwrap();
}

#[test]
fn a_table_that_nobody_owns_is_replaced() {
    let Some(test) = TestNamespace::new() else { return };
    run("ip", &["netns", "exec", &test.name, "nft", "add", "table", "inet", TABLE]);
    run("ip", &["netns", "exec", &test.name, "nft", "add", "chain", "inet", TABLE, "leftover"]);
    let _ruleset = Ruleset::open(Some(&test.handle()), &rules()).unwrap();
    let text = test.ruleset();
    assert!(text.contains("flags owner") && !text.contains("leftover"), "{text}");
}

#[test]
fn a_refusal_names_its_object() {
    let Some(test) = TestNamespace::new() else { return };
    let mut ruleset = Ruleset::open_as(Some(&test.handle()), &rules(), Ownership::AliveSet).unwrap();
    for chain in [CHAIN_OUTPUT, CHAIN_INPUT] {
        run("ip", &["netns", "exec", &test.name, "nft", "flush", "chain", "inet", TABLE, chain]);
    }
    run("ip", &["netns", "exec", &test.name, "nft", "delete", "set", "inet", TABLE, SET_ADDRESSES]);
    let error = ruleset.set_addresses(&addresses(&["10.0.0.1"])).unwrap_err();
    let is_named = matches!(error, NftablesError::Refused { object: Object::Elements(SET_ADDRESSES), .. });
    assert!(is_named && error.errno() == Some(Errno::ENOENT), "{error:?}");
    assert!(error.to_string().starts_with("the kernel refused the elements of set addresses: ENOENT"), "{error}");
    assert!(ruleset.addresses().is_empty());
}

#[test]
fn refusing_and_removing_can_be_done_twice() {
    let Some(test) = TestNamespace::new() else { return };
    let namespace = test.handle();
    for _ in 0..2 {
        refuse_virtual_ips(Some(&namespace), rules().virtual_ips).unwrap();
        assert_eq!(test.ruleset().matches("reject").count(), 2, "{}", test.ruleset());
    }
    assert!(remove_tables(Some(&namespace)).unwrap());
    assert!(!remove_tables(Some(&namespace)).unwrap());
    assert_eq!(test.ruleset(), "");
}
