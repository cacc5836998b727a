//! `mesh-ctl why FROM TO`: how the name is resolved, where the call goes, every endpoint: taken, or refused and why; and what the
//! call gets. What discovery knows is joined with what the calling proxy has seen.

mod called; // who is meant
mod verdict; // each endpoint: taken or refused

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use mesh_core::model::names::DEFAULT_ZONE;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::resource::ANY_PORT;
use mesh_discovery::admin::view::{EndpointItem, List, PortItem, ServiceItem, SnapshotItem};
use mesh_proxy::error::ProxyError;
use serde_json::{Value, json};

use self::called::{Called, find, full_name, port_of};
use self::verdict::{Call, Caller, Judged, callers_of, endpoints_of, refusal};
use crate::args::{Output, WhyArguments};
use crate::client::{Client, ClientError};
use crate::output::{self, Table, cell, items};

/// The host itself calls virtual IPs too, and is no service.
const HOST: &str = "host";

/// # Errors
/// When discovery does not answer, or knows no such caller or service.
pub async fn run(client: &Client, output: Output, arguments: WhyArguments) -> anyhow::Result<ExitCode> {
    let answer: List<SnapshotItem> = client.get("/v1/snapshot").await?;
    let whole = answer.items.first().context("discovery answered without a snapshot")?;
    let (from, callers, home) = caller(whole, &arguments.from)?;
    let called = Called::read(&arguments.to);
    let to = find(&whole.services, &called, home.as_deref()).map_err(|error| anyhow!("NR: {error}"))?;
    let port = port_of(to, &called)?;
    let of_cluster = if to.ports.is_empty() { ANY_PORT } else { port.port };
    let cluster = format!("outbound|{of_cluster}||{}.svc.{DEFAULT_ZONE}", full_name(to));
    // A proxy that is not there is no failure: what discovery knows is told all the same.
    let seen = match Client::new(&arguments.proxy)?.get::<Value>("/clusters").await {
        Ok(clusters) => Ok(cluster_named(&clusters, &cluster)),
        Err(error) => Err(unseen(&error)),
    };
    let standings = seen.as_ref().ok().and_then(Option::as_ref).map(standings).unwrap_or_default();
    let endpoints: Vec<&EndpointItem> = endpoints_of(whole, to).filter(|item| item.port == port.name).collect();
    let judged = Call { callers: &callers, network_names: &whole.network_names, standings }.judge(&endpoints);
    let value = json!({
        "apiVersion": "mesh/v1",
        "from": from,
        "to": full_name(to),
        "virtual_ip": to.virtual_ip,
        "port": port.port,
        "cluster": cluster,
        "proxy": match &seen {
            Ok(Some(state)) => json!({ "balance": state["balance"], "circuit": state["circuit"] }),
            Ok(None) => json!({ "unknown": "this proxy has not been told of the cluster" }),
            Err(error) => json!({ "unknown": error }),
        },
        "items": judged,
        "gets": gets(&port, &judged, refusal(&cluster, &endpoints, &judged).as_ref()),
    });
    if output == Output::Table {
        output::write(&heading(&value))?;
        if !judged.is_empty() {
            output::write(&endpoint_table(&value).render())?;
            output::write("\n")?;
        }
        let carried = if seen.is_err() { "Where a proxy carries it, the call gets" } else { "The call gets" };
        output::write(&format!("{carried} {}\n", cell(&value["gets"], "text")))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(output, &value, endpoint_table)?;
    Ok(ExitCode::SUCCESS)
}

/// The caller's whole name, those that call under it, and its namespace.
fn caller(whole: &SnapshotItem, from: &str) -> anyhow::Result<(String, Vec<Caller>, Option<String>)> {
    let service: Result<&ServiceItem, _> = find(&whole.services, &Called::read(from), None);
    match service {
        Ok(service) => Ok((full_name(service), callers_of(whole, service), Some(service.namespace.clone()))),
        Err(_) if from == HOST => Ok((HOST.to_owned(), Vec::new(), None)),
        Err(error) => Err(anyhow!("the caller is not known: {error}")),
    }
}

/// The client's own advice is about discovery.
fn unseen(error: &ClientError) -> String {
    match error {
        ClientError::Connect { server, .. } => format!(
            "nobody answers at {server}; is a mesh-proxy running, with that as its --admin-listen (MESH_ADMIN_LISTEN)? --proxy or \
             MESH_PROXY_ADMIN names another"
        ),
        other => other.to_string(),
    }
}

fn cluster_named(clusters: &Value, name: &str) -> Option<Value> {
    clusters["clusters"].as_array()?.iter().find(|cluster| cluster["name"] == name).cloned()
}

/// The endpoints of a cluster, as its proxy sees them, by id.
fn standings(cluster: &Value) -> BTreeMap<String, Value> {
    let listed = cluster["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    listed.iter().map(|endpoint| (cell(endpoint, "id"), endpoint.clone())).collect()
}

/// What the call ends with.
fn gets(port: &PortItem, judged: &[Judged], refusal: Option<&ProxyError>) -> Value {
    let Some(error) = refusal else {
        let taken = judged.iter().filter(|one| one.verdict == "taken").count();
        let text = match taken {
            1 => "the answer of the one endpoint that is taken".to_owned(),
            several => format!("the answer of one of the {several} endpoints that are taken"),
        };
        return json!({ "text": text });
    };
    let (status, code) = (error.status().as_u16(), error.reason().flag());
    let answer = match port.protocol {
        Protocol::Tcp => format!("a closed connection ({code})"),
        Protocol::Auto => format!("{status} {code} (a closed connection where it is no HTTP)"),
        _ => format!("{status} {code}"),
    };
    json!({ "status": status, "code": code, "words": error.reason().words(), "text": format!("{answer}: {error}") })
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
