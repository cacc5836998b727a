//! `mesh-ctl version`: of this tool, and of the server when it answers.

use std::process::ExitCode;

use mesh_core::telemetry::build_info::VERSION;
use serde_json::{Value, json};

use crate::args::Output;
use crate::client::{Client, ClientError};
use crate::output::{self, Table, cell};

/// # Errors
/// When the server answers with something unexpected; a server that is not there is no failure.
pub async fn run(client: &Client, output: Output) -> anyhow::Result<ExitCode> {
    let server = match client.get::<Value>("/v1/version").await {
        Ok(answer) => answer["version"].clone(),
        Err(ClientError::Connect { .. } | ClientError::Timeout { .. }) => Value::Null,
        Err(error) => return Err(error.into()),
    };
    let value = json!({ "apiVersion": "mesh/v1", "client": VERSION, "server": server });
    output::print(output, &value, |value| {
        let mut table = Table::new(&["CLIENT", "SERVER"]);
        table.row([cell(value, "client"), cell(value, "server")]);
        table
    })?;
    Ok(ExitCode::SUCCESS)
}
