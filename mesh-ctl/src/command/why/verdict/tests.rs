use serde_json::json;

use super::*;

fn endpoint(name: &str, networks: &[(&str, &str)]) -> EndpointItem {
    let place = |(network, address): &(&str, &str)| NetworkAddress {
        network: (*network).into(),
        address: address.parse().unwrap(),
    };
    let networks: Vec<NetworkAddress> = networks.iter().map(place).collect();
    EndpointItem {
        id: name.to_owned(),
        name: name.to_owned(),
        service: "api".to_owned(),
        namespace: "shop".to_owned(),
        address: networks.first().map_or_else(String::new, |place| format!("{}:80", place.address)),
        port: "http".to_owned(),
        weight: 100,
        priority: 0,
        state: "ready".to_owned(),
        reason: "accepted".to_owned(),
        networks,
        zone: None,
        version: None,
    }
}

fn caller(name: &str, networks: &[&str]) -> Caller {
    Caller { name: name.to_owned(), networks: networks.iter().map(|network| (*network).into()).collect() }
}

fn judge(callers: &[Caller], endpoints: &[&EndpointItem], standings: &[(&str, Value)]) -> Vec<Judged> {
    let network_names = [("n1".into(), "shop_front".into()), ("n2".into(), "shop_back".into())].into();
    let standings = standings.iter().map(|(id, standing)| ((*id).to_owned(), standing.clone())).collect();
    Call { callers, network_names: &network_names, standings }.judge(endpoints)
}

#[test]
fn an_endpoint_on_no_network_of_the_caller_is_refused_whatever_the_proxy_draws() {
    let api = endpoint("api-1", &[("n2", "10.2.0.2")]);
    let taken = json!({ "standing": "taken", "requests_total": 3 });
    let judged = &judge(&[caller("web-1", &["n1"])], &[&api], &[("api-1", taken)])[0];
    assert_eq!((judged.verdict, judged.code, judged.reason), ("refused", "UH", Some("NoSharedNetwork")));
    assert!(judged.why.contains("it is on shop_back, the caller on shop_front; join"), "{}", judged.why);
    let refusal = refusal("outbound|80||api", &[&api], std::slice::from_ref(judged)).unwrap();
    assert_eq!(refusal.to_string(), "api-1 is on no network of the caller");
    assert_eq!((refusal.status().as_u16(), refusal.reason()), (503, Reason::NoHealthyUpstream));
}

#[test]
fn the_address_is_that_on_the_shared_network() {
    let api = endpoint("api-1", &[("n1", "10.1.0.2"), ("n2", "10.2.0.2")]);
    let address = |callers: &[Caller]| judge(callers, &[&api], &[])[0].address.clone();
    assert_eq!(address(&[caller("web-1", &["n2"])]), "10.2.0.2:80");
    assert_eq!(address(&[caller("web-1", &[])]), "10.1.0.2:80");
    assert_eq!(address(&[]), "10.1.0.2:80");

    let portless = EndpointItem { address: "10.1.0.2".to_owned(), port: String::new(), ..api.clone() };
    let judged = |networks: &[&str]| judge(&[caller("web-1", networks)], &[&portless], &[]).remove(0);
    assert_eq!(judged(&["n2"]).address, "10.2.0.2");
    assert_eq!(judged(&["n3"]).reason, Some("NoSharedNetwork"));
}

#[test]
fn one_that_some_callers_reach_is_taken_and_says_from_whom_not() {
    let api = endpoint("api-1", &[("n2", "10.2.0.2")]);
    let judged = &judge(&[caller("web-1", &["n1"]), caller("web-2", &["n2"])], &[&api], &[])[0];
    assert_eq!(judged.verdict, "taken");
    assert!(judged.why.contains("not from web-1"), "{}", judged.why);
    assert!(refusal("c", &[&api], std::slice::from_ref(judged)).is_none());
}

#[test]
fn each_endpoint_has_a_verdict() {
    let check = |endpoint: &EndpointItem, standing: Option<Value>, verdict: &str, why: &str| {
        let standings: Vec<_> = standing.into_iter().map(|standing| ("api-1", standing)).collect();
        let judged = &judge(&[], &[endpoint], &standings)[0];
        assert_eq!(judged.verdict, verdict, "{}", judged.why);
        assert!(judged.why.contains(why), "{}", judged.why);
    };
    let ready = endpoint("api-1", &[("", "10.0.0.1")]);
    check(&ready, None, "taken", "accepted");
    check(&ready, Some(json!({ "standing": "ejected", "ejected_for_ms": 1500 })), "refused", "back in 1.5 s");
    check(&ready, Some(json!({ "standing": "taken-in-panic" })), "taken", "better than none");
    check(&EndpointItem { weight: 0, ..ready.clone() }, None, "refused", "its weight is 0");
    let draining = EndpointItem { state: "draining".to_owned(), reason: "told to stop".to_owned(), ..ready };
    check(&draining, None, "refused", "draining: told to stop");
    let ejected = EndpointItem { state: "ejected".to_owned(), ..endpoint("api-1", &[("", "10.0.0.1")]) };
    check(&ejected, None, "taken", "better than none");
}

#[test]
fn later_priorities_wait_for_the_first() {
    let first = endpoint("api-1", &[("", "10.0.0.1")]);
    let second = EndpointItem { priority: 1, ..endpoint("api-2", &[("", "10.0.0.2")]) };
    let verdicts =
        |endpoints: &[&EndpointItem]| judge(&[], endpoints, &[]).iter().map(|it| it.verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&[&first, &second]), ["taken", "refused"]);
    let down = EndpointItem { state: "not-ready".to_owned(), ..first };
    assert_eq!(verdicts(&[&down, &second]), ["refused", "taken"]);
}

#[test]
fn a_service_nobody_serves_is_refused_as_the_proxy_refuses_it() {
    let text = |endpoints: &[&EndpointItem]| {
        let judged = judge(&[], endpoints, &[]);
        refusal("outbound|80||api", endpoints, &judged).map(|error| error.to_string())
    };
    let none = "outbound|80||api: 0 endpoints known, none takes requests: 0 not ready, 0 draining, 0 with weight 0";
    assert_eq!(text(&[]).as_deref(), Some(none));
    let light = EndpointItem { weight: 0, ..endpoint("api-1", &[("", "10.0.0.1")]) };
    let down = EndpointItem { state: "not-ready".to_owned(), ..endpoint("api-2", &[("", "10.0.0.2")]) };
    let two = "outbound|80||api: 2 endpoints known, none takes requests: 1 not ready, 0 draining, 1 with weight 0";
    assert_eq!(text(&[&light, &down]).as_deref(), Some(two));
    assert_eq!(text(&[&endpoint("api-1", &[("", "10.0.0.1")])]), None);
}
