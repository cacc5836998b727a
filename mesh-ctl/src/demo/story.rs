//! The story, told live: what was discovered, who gets how much, the failing replica taken out, one killed and replaced, more
//! of them started; beside each the user requests that failed so far.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use mesh_core::model::replicas::{ReplicaStatus, StepEvent, StepOutcome};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::facts::Act;
use super::traffic::{Counts, Traffic};
use crate::embedded::Mesh;
use crate::output::{Table, cell, items, say, write};

/// Between two looks at what has become of an act.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Replicas of `api` after the scale-up.
const SCALED: u32 = 5;

#[derive(Debug, Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

/// Tells the story of one project on one mesh.
#[derive(Debug)]
pub struct Story<'m> {
    mesh: &'m Mesh,
    project: String,
    traffic: Traffic,
    /// Of the first user request.
    started: Option<Instant>,
    events_seen: u64,
}

impl<'m> Story<'m> {
    #[must_use]
    pub fn new(mesh: &'m Mesh, project: &str, traffic: Traffic) -> Self {
        Self { mesh, project: project.to_owned(), traffic, started: None, events_seen: 0 }
    }

    /// From here on lines carry the time and the failures so far.
    pub fn traffic_begins(&mut self) {
        self.started = Some(Instant::now());
    }

    fn failed(&self) -> u64 {
        self.traffic.counts().failed
    }

    /// One line of the story.
    pub fn tell(&self, line: &str) {
        match self.started {
            None => say(format_args!("  {line}")),
            Some(started) => {
                let Counts { sent, failed, .. } = self.traffic.counts();
                say(format_args!(
                    "[{:>5.1} s] {line}   ({sent} sent, {failed} failed)",
                    started.elapsed().as_secs_f64()
                ));
            }
        }
    }

    /// Tells every step that the controller took since the last call, with its reason.
    async fn tell_steps(&mut self) -> anyhow::Result<()> {
        let path = format!("/v1/events?after={}&wait=0&project={}", self.events_seen, self.project);
        let events: Items<StepEvent> = self.mesh.api.get(&path).await?;
        for event in events.items {
            self.events_seen = event.number;
            match event.outcome {
                StepOutcome::Begun => self.tell(&event.step.to_string()),
                StepOutcome::Done => {}
                StepOutcome::Failed { error, .. } => self.tell(&format!("{} failed: {error}", event.step)),
            }
        }
        Ok(())
    }

    async fn replicas(&self) -> anyhow::Result<Vec<ReplicaStatus>> {
        Ok(self.mesh.api.get::<Items<ReplicaStatus>>(&format!("/v1/replicas?project={}", self.project)).await?.items)
    }

    /// Waits until `wanted` replicas are ready, telling what is done meanwhile.
    ///
    /// # Errors
    /// When they are not by `deadline`, with what they are instead.
    pub async fn until_ready(&mut self, wanted: usize, deadline: Instant) -> anyhow::Result<()> {
        loop {
            self.tell_steps().await?;
            let replicas = self.replicas().await?;
            if replicas.iter().filter(|replica| replica.ready).count() >= wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let states = replicas.iter().map(|replica| format!("{} {}", replica.name, replica.state));
                bail!("not all replicas are ready in time: {}", states.collect::<Vec<_>>().join(", "));
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    /// What was discovered, as tables.
    ///
    /// # Errors
    /// When discovery does not answer.
    pub async fn tell_discovered(&self) -> anyhow::Result<()> {
        let services: Value = self.mesh.api.get("/v1/services").await?;
        let endpoints: Value = self.mesh.api.get("/v1/endpoints").await?;
        say(format_args!("\nDiscovered:"));
        for service in items(&services).iter().filter(|service| service["namespace"] == self.project.as_str()) {
            let (name, namespace) = (cell(service, "name"), cell(service, "namespace"));
            say(format_args!("\n  {name}.{namespace}.svc.mesh.internal is {}", cell(service, "virtual_ip")));
            let mut table = Table::new(&["    ENDPOINT", "ADDRESS", "WEIGHT", "STATE", "REASON"]);
            let of_service = |endpoint: &&Value| {
                endpoint["service"] == name.as_str() && endpoint["namespace"] == service["namespace"]
            };
            for endpoint in items(&endpoints).iter().filter(of_service) {
                let row = ["name", "address", "weight", "state", "reason"].map(|key| cell(endpoint, key));
                table.row(
                    row.into_iter()
                        .enumerate()
                        .map(|(column, cell)| if column == 0 { format!("    {cell}") } else { cell }),
                );
            }
            // As `say`: what is told is not what is done.
            let _ = write(&table.render());
        }
        say("");
        Ok(())
    }

    /// Who answered how much of what came since `before`.
    pub fn tell_shares(&self, before: &Counts) {
        let now = self.traffic.counts();
        for (role, replicas) in &now.answered_by {
            let earlier = before.answered_by.get(role);
            let since = |name: &str, count: u64| count - earlier.and_then(|map| map.get(name)).copied().unwrap_or(0);
            let shares: BTreeMap<&str, u64> = replicas
                .iter()
                .map(|(name, count)| (name.as_str(), since(name, *count)))
                .filter(|(_, count)| *count > 0)
                .collect();
            let total: u64 = shares.values().sum();
            let list =
                shares.iter().map(|(name, count)| format!("{name} {:.0} %", 100.0 * *count as f64 / total as f64));
            self.tell(&format!("{role}: {}", list.collect::<Vec<_>>().join(", ")));
        }
    }

    /// Waits until the proxy has taken an endpoint of payments out; nobody asks it to.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn until_ejected(&self, deadline: Instant) -> anyhow::Result<Act> {
        while Instant::now() < deadline {
            let clusters: Value = self.mesh.admin.get("/clusters").await?;
            let payments = format!("||payments.{}.", self.project);
            let of_payments = |cluster: &&Value| cell(cluster, "name").contains(&payments);
            let endpoints = clusters["clusters"].as_array().into_iter().flatten().filter(of_payments);
            let endpoints = endpoints.flat_map(|cluster| cluster["endpoints"].as_array().into_iter().flatten());
            if let Some(out) = endpoints.into_iter().find(|endpoint| endpoint["standing"] == "ejected") {
                let failures = cell(out, "failures_total");
                self.tell(&format!(
                    "payments at {} is taken out: it failed {failures} times, each was retried elsewhere",
                    cell(out, "address")
                ));
                return Ok(self.done());
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        Ok(Act::default())
    }

    /// Kills one replica of api, and waits until another stands in its place.
    ///
    /// # Errors
    /// When discovery does not answer, or the replica cannot be killed.
    pub async fn kill_and_replace<K: AsyncFnOnce(&ReplicaStatus) -> anyhow::Result<()>>(
        &mut self,
        kill: K,
        deadline: Instant,
    ) -> anyhow::Result<Act> {
        self.tell_steps().await?;
        let of_api = |replica: &&ReplicaStatus| replica.service.as_str() == "api" && replica.ready;
        let victim = self.replicas().await?.iter().filter(of_api).max_by_key(|replica| replica.number).cloned();
        let victim = victim.context("there is no ready replica of api to kill")?;
        kill(&victim).await?;
        self.tell(&format!("{} is killed (SIGKILL)", victim.name));
        let killed = Instant::now();
        while Instant::now() < deadline {
            self.tell_steps().await?;
            let replaced =
                |replica: &ReplicaStatus| replica.name == victim.name && replica.unit != victim.unit && replica.ready;
            if self.replicas().await?.iter().any(replaced) {
                self.tell(&format!(
                    "{} serves again, {:.2} s after the kill",
                    victim.name,
                    killed.elapsed().as_secs_f64()
                ));
                return Ok(Act { took: Some(killed.elapsed()), failed_by_then: self.failed() });
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        Ok(Act::default())
    }

    /// Asks for more replicas of api, and waits until each new one has answered a user.
    ///
    /// # Errors
    /// When discovery does not answer.
    pub async fn scale_up(&mut self, deadline: Instant) -> anyhow::Result<Act> {
        let before: Vec<String> = self.addresses_of_api().await?;
        self.tell(&format!("api is asked to scale from {} to {SCALED} replicas", before.len()));
        let asked = Instant::now();
        let path = format!("/v1/projects/{}/scale", self.project);
        let _: Value = self.mesh.api.call(Method::POST, &path, Some(&json!({ "api": SCALED }))).await?;
        while Instant::now() < deadline {
            self.tell_steps().await?;
            let now = self.addresses_of_api().await?;
            let fresh: Vec<&String> = now.iter().filter(|address| !before.contains(address)).collect();
            let counts = self.traffic.counts();
            let answered = counts.answered_by.get("api");
            let serves = |address: &&String| answered.is_some_and(|names| names.keys().any(|name| of(name, address)));
            if now.len() >= SCALED as usize && fresh.iter().all(serves) {
                let seconds = asked.elapsed().as_secs_f64();
                self.tell(&format!(
                    "{} new replicas of api have answered users, {seconds:.2} s after the call",
                    fresh.len()
                ));
                return Ok(Act { took: Some(asked.elapsed()), failed_by_then: self.failed() });
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        Ok(Act::default())
    }

    /// What ready replicas of api call themselves in answers: process addresses, or container ids.
    async fn addresses_of_api(&self) -> anyhow::Result<Vec<String>> {
        let replicas = self.replicas().await?;
        let ready = replicas.iter().filter(|replica| replica.service.as_str() == "api" && replica.ready);
        Ok(ready.map(called_in_answers).collect())
    }

    fn done(&self) -> Act {
        Act { took: self.started.map(|started| started.elapsed()), failed_by_then: self.failed() }
    }
}

/// A process answers with its address; a container with its host name, which is its short id.
fn called_in_answers(replica: &ReplicaStatus) -> String {
    match (replica.runtime, replica.address) {
        (mesh_core::model::replicas::RuntimeKind::Process, Some(address)) => address.to_string(),
        _ => replica.unit.chars().take(12).collect(),
    }
}

/// Whether `127.77.0.4/stable` is of `127.77.0.4`.
fn of(name: &str, address: &str) -> bool {
    name.split('/').next() == Some(address)
}
