//! `mesh-ctl get services|endpoints|conditions`: the catalogue as discovery has it.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{GetArguments, Output, Resource};
use crate::client::Client;
use crate::output::{self, Table, cell, items};
use mesh_core::tell;

/// # Errors
/// When discovery does not answer.
pub async fn run(client: &Client, output: Output, arguments: GetArguments) -> anyhow::Result<ExitCode> {
    let path = match arguments.resource {
        Resource::Services => "/v1/services",
        Resource::Endpoints => "/v1/endpoints",
        Resource::Conditions => "/v1/conditions",
    };
    let mut answer: Value = client.get(path).await?;
    if let Some(namespace) = &arguments.namespace {
        let kept: Vec<Value> = items(&answer).iter().filter(|item| of_namespace(item, namespace)).cloned().collect();
        answer["items"] = json!(kept);
    }
    let empty = items(&answer).is_empty();
    let table = match arguments.resource {
        Resource::Services => services,
        Resource::Endpoints => endpoints,
        Resource::Conditions => conditions,
    };
    if empty && output == Output::Table {
        tell!("none; snapshot {}", cell(&answer, "snapshot"));
        return Ok(ExitCode::SUCCESS);
    }
    output::print(output, &answer, table)?;
    Ok(ExitCode::SUCCESS)
}

/// Conditions have no namespace of their own: all of them are shown.
fn of_namespace(item: &Value, namespace: &str) -> bool {
    item["namespace"].as_str().is_none_or(|of| of == namespace)
}

fn services(answer: &Value) -> Table {
    let mut table = Table::new(&["NAMESPACE", "NAME", "VIRTUAL-IP", "PORTS"]);
    for item in items(answer) {
        let ports = item["ports"].as_array().map_or(&[][..], Vec::as_slice);
        let ports = ports.iter().map(|port| format!("{}/{}", cell(port, "port"), cell(port, "protocol")));
        let ports = ports.collect::<Vec<_>>().join(",");
        table.row([cell(item, "namespace"), cell(item, "name"), cell(item, "virtual_ip"), ports]);
    }
    table
}

fn endpoints(answer: &Value) -> Table {
    let mut table = Table::new(&["NAMESPACE", "SERVICE", "NAME", "ADDRESS", "PORT", "WEIGHT", "STATE", "REASON"]);
    for item in items(answer) {
        let keys = ["namespace", "service", "name", "address", "port", "weight", "state", "reason"];
        table.row(keys.map(|key| cell(item, key)));
    }
    table
}

fn conditions(answer: &Value) -> Table {
    let mut table = Table::new(&["OBJECT", "TYPE", "MESSAGE"]);
    for item in items(answer) {
        table.row(["object", "type", "message"].map(|key| cell(item, key)));
    }
    table
}
