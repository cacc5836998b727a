use mesh_core::model::resource::VirtualHost;

use super::*;

fn router(hosts: &[(&str, &[&str])]) -> Router {
    let host = |(cluster, domains): &(&str, &[&str])| VirtualHost {
        name: Arc::from(*cluster),
        domains: domains.iter().map(|domain| Arc::from(*domain)).collect(),
        cluster: Arc::from(*cluster),
    };
    Router::build(&RouteTable { name: "80".into(), hosts: hosts.iter().map(host).collect() })
}

const SHOP: &[(&str, &[&str])] = &[
    (
        "web",
        &["web.shop.svc.mesh.internal", "web.shop.svc.mesh.internal:80", "web.shop", "web.shop:80", "web", "web:80"],
    ),
    ("api", &["api.shop", "API", "api:81", "[fd00::1]", "10.0.0.1:80"]),
];

#[test]
fn authorities_find_their_cluster() {
    let strict = router(SHOP);
    let check = |authority: &str, expected: Option<&str>| {
        assert_eq!(strict.route(authority).ok().map(|cluster| &**cluster), expected, "{authority:?}");
    };
    check("web", Some("web"));
    check("WEB", Some("web"));
    check("Web.Shop.svc.mesh.internal", Some("web"));
    check("web.shop.svc.mesh.internal.", Some("web"));
    check("web.shop.svc.mesh.internal.:80", Some("web"));
    check("web:80", Some("web"));
    check("web:9999", Some("web"));
    check("api", Some("api"));
    check("API:81", Some("api"));
    check("[FD00::1]:80", Some("api"));
    check("[fd00::1]", Some("api"));
    check("10.0.0.1:80", Some("api"));
    for unknown in [
        "10.0.0.1",
        "10.0.0.1:81",
        "webs",
        "eb",
        "",
        ":80",
        "web:",
        "web:http",
        ".",
        "[",
        "]:1",
        "wéb",
        "web.shop:80:80",
    ] {
        // An empty port is allowed by RFC 3986 section 3.2.3.
        check(unknown, (unknown == "web:").then_some("web"));
    }
    check(&format!("{}web", "a".repeat(10_000)), None);
    check(&"A".repeat(10_000), None);
}

#[test]
fn the_star_takes_the_rest() {
    let open = router(&[("web", &["*", "web"]), ("api", &["api", "*"])]);
    assert_eq!(&**open.route("api:1").unwrap(), "api");
    assert_eq!(&**open.route("anything").unwrap(), "web");
    assert_eq!(&**open.route("").unwrap(), "web");
}

#[test]
fn who_is_unknown_is_told_the_known() {
    let error = router(SHOP).route("Nobody:80").unwrap_err();
    let known = "10.0.0.1, [fd00::1], api, api.shop, web, web.shop, web.shop.svc.mesh.internal";
    assert_eq!(error.to_string(), format!("no service is called \"Nobody:80\" here; known are: {known}"));
    assert_eq!(router(&[]).route("x").unwrap_err().to_string(), "no service is called \"x\" here; known are: none");
}

#[test]
fn the_first_claim_of_a_domain_holds() {
    assert_eq!(&**router(&[("one", &["web"]), ("two", &["Web"])]).route("web").unwrap(), "one");
}
