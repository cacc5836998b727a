//! `mesh-ctl why FROM TO`: how the name is resolved, where the call goes, and every endpoint: taken, or refused and why. What
//! discovery knows is joined with what the calling proxy has seen.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use mesh_core::config::suggest;
use mesh_core::model::names::DEFAULT_ZONE;
use serde_json::{Value, json};

use crate::args::{Output, WhyArguments};
use crate::client::Client;
use crate::output::{self, Table, cell, items};

/// What a person calls a service: `api`, `api.shop`, or its whole DNS name; with a port or without.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Called {
    name: String,
    namespace: Option<String>,
    port: Option<u16>,
}

impl Called {
    fn read(text: &str) -> Self {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (text, None),
        };
        let host = host.trim_end_matches('.');
        let host = host.strip_suffix(&format!(".svc.{DEFAULT_ZONE}")).unwrap_or(host);
        match host.split_once('.') {
            Some((name, namespace)) => Self { name: name.to_owned(), namespace: Some(namespace.to_owned()), port },
            None => Self { name: host.to_owned(), namespace: None, port },
        }
    }
}

/// # Errors
/// When discovery does not answer, or knows no such service.
pub async fn run(client: &Client, output: Output, arguments: WhyArguments) -> anyhow::Result<ExitCode> {
    let services: Value = client.get("/v1/services").await?;
    let endpoints: Value = client.get("/v1/endpoints").await?;
    let services = items(&services);
    let from = find(services, &Called::read(&arguments.from), None);
    let called = Called::read(&arguments.to);
    let home = from.ok().map(|service| cell(service, "namespace"));
    let to = find(services, &called, home.as_deref())?;
    let port = port_of(to, &called)?;
    let cluster = format!("outbound|{port}||{}.{}.svc.{DEFAULT_ZONE}", cell(to, "name"), cell(to, "namespace"));
    // A proxy that is not there is no failure: what discovery knows is told all the same.
    let seen = match Client::new(&arguments.proxy)?.get::<Value>("/clusters").await {
        Ok(clusters) => Ok(cluster_named(&clusters, &cluster)),
        Err(error) => Err(error.to_string()),
    };
    let rows = verdicts(to, items(&endpoints), seen.as_ref().ok().and_then(Option::as_ref), &port_name(to, port));
    let value = json!({
        "apiVersion": "mesh/v1",
        "from": arguments.from,
        "to": format!("{}.{}", cell(to, "name"), cell(to, "namespace")),
        "virtual_ip": to["virtual_ip"],
        "port": port,
        "cluster": cluster,
        "proxy": match &seen {
            Ok(Some(state)) => json!({ "balance": state["balance"], "circuit": state["circuit"] }),
            Ok(None) => json!({ "unknown": "this proxy has not been told of the cluster" }),
            Err(error) => json!({ "unknown": error }),
        },
        "items": rows,
    });
    if output == Output::Table {
        output::write(&heading(&value))?;
    }
    output::print(output, &value, endpoint_table)?;
    Ok(ExitCode::SUCCESS)
}

/// The service that is meant: in the caller's namespace first, then where it is the only one of its name.
fn find<'a>(services: &'a [Value], called: &Called, home: Option<&str>) -> anyhow::Result<&'a Value> {
    let same: Vec<&Value> = services.iter().filter(|service| service["name"] == called.name.as_str()).collect();
    let wanted = called.namespace.as_deref().or(home);
    let found = same.iter().find(|service| Some(cell(service, "namespace").as_str()) == wanted);
    match (found, same.as_slice(), &called.namespace) {
        (Some(service), _, _) => Ok(service),
        (None, [only], None) => Ok(only),
        (None, [], _) => {
            let names: Vec<String> = services.iter().map(|service| cell(service, "name")).collect();
            match suggest::nearest(&called.name, names.iter().map(String::as_str)) {
                Some(meant) => bail!("NR: nobody is called {}; did you mean {meant}?", called.name),
                None => bail!("NR: nobody is called {}; `mesh-ctl get services` lists who there is", called.name),
            }
        }
        (None, several, _) => {
            let list: Vec<String> =
                several.iter().map(|s| format!("{}.{}", called.name, cell(s, "namespace"))).collect();
            bail!("NR: {} is {}; say which", called.name, list.join(" or "))
        }
    }
}

fn ports(service: &Value) -> &[Value] {
    service["ports"].as_array().map_or(&[], Vec::as_slice)
}

/// The port that is called: as said, else the only or the first one.
fn port_of(service: &Value, called: &Called) -> anyhow::Result<u64> {
    let all: Vec<u64> = ports(service).iter().filter_map(|port| port["port"].as_u64()).collect();
    match called.port.map(u64::from) {
        Some(port) if all.contains(&port) => Ok(port),
        Some(port) => bail!("NR: {} has no port {port}; it has {all:?}", called.name),
        None => match all.first() {
            Some(port) => Ok(*port),
            None => bail!("NR: {} has no port; `mesh-ctl get conditions` may say why", called.name),
        },
    }
}

fn port_name(service: &Value, number: u64) -> String {
    let port = ports(service).iter().find(|port| port["port"] == number);
    port.map_or_else(|| number.to_string(), |port| cell(port, "name"))
}

fn cluster_named(clusters: &Value, name: &str) -> Option<Value> {
    clusters["clusters"].as_array()?.iter().find(|cluster| cluster["name"] == name).cloned()
}

/// Each endpoint of the service's port with the verdict on it.
fn verdicts(service: &Value, endpoints: &[Value], cluster: Option<&Value>, port: &str) -> Vec<Value> {
    let standings: BTreeMap<String, &Value> = cluster
        .and_then(|cluster| cluster["endpoints"].as_array())
        .map(|list| list.iter().map(|endpoint| (cell(endpoint, "id"), endpoint)).collect())
        .unwrap_or_default();
    let ours = endpoints.iter().filter(|endpoint| {
        let of_service = cell(service, "name") == cell(endpoint, "service");
        of_service && endpoint["namespace"] == service["namespace"] && cell(endpoint, "port") == port
    });
    ours.map(|endpoint| verdict(endpoint, standings.get(&cell(endpoint, "id")).copied())).collect()
}

fn verdict(endpoint: &Value, standing: Option<&Value>) -> Value {
    let state = cell(endpoint, "state");
    let stands = standing.map(|standing| cell(standing, "standing"));
    let (verdict, code, why) = match stands.as_deref() {
        Some("taken") => ("taken", "-", "in the draw by its weight".to_owned()),
        Some("taken-in-panic") => ("taken", "-", "ejected like all others, and better than none".to_owned()),
        Some("ejected") => {
            let left = standing.and_then(|standing| standing["ejected_for_ms"].as_u64()).unwrap_or(0);
            ("refused", "UH", format!("ejected after failures in a row; back in {:.1} s", left as f64 / 1e3))
        }
        Some("other-priority") => ("refused", "UH", "endpoints of a lower priority number are ready".to_owned()),
        Some("weight-zero") => ("refused", "UH", "its weight is 0".to_owned()),
        Some(_) => ("refused", "UH", cell(endpoint, "reason")),
        None if state == "ready" && endpoint["weight"] != 0 => ("taken", "-", cell(endpoint, "reason")),
        None if state == "ready" => ("refused", "UH", "its weight is 0".to_owned()),
        None => ("refused", "UH", format!("{state}: {}", cell(endpoint, "reason"))),
    };
    json!({
        "name": endpoint["name"], "address": endpoint["address"], "weight": endpoint["weight"], "state": state,
        "verdict": verdict, "code": code, "why": why,
        "active_requests": standing.map(|standing| standing["active_requests"].clone()),
        "requests_total": standing.map(|standing| standing["requests_total"].clone()),
        "failures_total": standing.map(|standing| standing["failures_total"].clone()),
    })
}

fn heading(value: &Value) -> String {
    let proxy = match &value["proxy"]["unknown"] {
        Value::Null => format!("balanced by {}", cell(&value["proxy"], "balance")),
        unknown => format!("not asked: {}", unknown.as_str().unwrap_or_default()),
    };
    format!(
        "{} calls {}\n  resolution  {} is {} ({})\n  route       port {} leads to {}\n  proxy       {proxy}\n\n",
        cell(value, "from"),
        cell(value, "to"),
        cell(value, "to"),
        cell(value, "virtual_ip"),
        format_args!("{}.svc.{DEFAULT_ZONE}", cell(value, "to")),
        cell(value, "port"),
        cell(value, "cluster"),
    )
}

fn endpoint_table(value: &Value) -> Table {
    let mut table = Table::new(&["ENDPOINT", "ADDRESS", "WEIGHT", "VERDICT", "CODE", "REQUESTS", "FAILURES", "WHY"]);
    for item in items(value) {
        let keys = ["name", "address", "weight", "verdict", "code", "requests_total", "failures_total", "why"];
        table.row(keys.map(|key| cell(item, key)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_called_in_several_ways() {
        let check = |text: &str, name: &str, namespace: Option<&str>, port: Option<u16>| {
            let expected = Called { name: name.to_owned(), namespace: namespace.map(str::to_owned), port };
            assert_eq!(Called::read(text), expected, "{text}");
        };
        check("api", "api", None, None);
        check("api:8080", "api", None, Some(8080));
        check("api.shop", "api", Some("shop"), None);
        check("api.shop.svc.mesh.internal.:80", "api", Some("shop"), Some(80));
    }

    #[test]
    fn the_callers_namespace_comes_first() {
        let service = |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace });
        let all = [service("api", "a"), service("api", "b"), service("web", "a")];
        let find = |text: &str, home: Option<&str>| {
            let found = super::find(&all, &Called::read(text), home);
            found.map(|service| cell(service, "namespace")).map_err(|error| error.to_string())
        };
        assert_eq!(find("api", Some("b")).unwrap(), "b");
        assert_eq!(find("api.a", Some("b")).unwrap(), "a");
        assert_eq!(find("web", Some("b")).unwrap(), "a");
        assert!(find("api", None).unwrap_err().contains("api.a or api.b"));
        assert!(find("apj", None).unwrap_err().contains("did you mean api"));
    }

    #[test]
    fn each_endpoint_has_a_verdict() {
        let endpoint = json!({ "state": "ready", "weight": 100, "reason": "accepted" });
        assert_eq!(verdict(&endpoint, None)["verdict"], "taken");
        let ejected = verdict(&endpoint, Some(&json!({ "standing": "ejected", "ejected_for_ms": 1500 })));
        assert_eq!((ejected["verdict"].as_str(), ejected["code"].as_str()), (Some("refused"), Some("UH")));
        assert!(ejected["why"].as_str().unwrap().contains("1.5 s"));
        let draining = verdict(&json!({ "state": "draining", "weight": 1, "reason": "told to stop" }), None);
        assert_eq!(draining["why"], "draining: told to stop");
    }
}
