//! `mesh-ctl up`, `down`, `scale`, `ps`, `plan`: what should run. The Compose file is read here, so that every mistake in it is
//! told before anything is touched; discovery's controller does the rest, and its steps are shown as they happen.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use mesh_core::compose::{self, Overrides, Project};
use mesh_core::model::replicas::{Action, Plan, ReplicaState, ReplicaStatus, RuntimeKind, StepEvent, StepOutcome};
use mesh_core::tell;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::args::{
    DownArguments, Output, PlanArguments, ProjectArguments, PsArguments, RuntimeChoice, ScaleArguments, UpArguments,
};
use crate::client::{Client, ClientError};
use crate::output::{self, Table};

pub mod awaited; // what is missing until a project is as its file asks for

/// Looked for in the current folder, in this order, as Compose does.
const FILE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Between two looks at what runs, where no event comes.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What the controller answers to a change.
#[derive(Debug, Deserialize)]
struct Planned {
    plan: Plan,
}

/// What the controller answers with a list.
#[derive(Debug, Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

/// # Errors
/// When the file has mistakes, the server does not answer, or not all is ready in time.
pub async fn up(client: &Client, output: Output, arguments: UpArguments) -> anyhow::Result<ExitCode> {
    let project = read_known(client, &arguments.project, arguments.runtime).await?;
    let plan = dry_run(client, &project).await?;
    print_plan(output, &plan)?;
    if !plan.steps.is_empty() && !confirmed("Do this?", arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let seen = newest_event(client).await?;
    let Planned { plan } = client.call(Method::PUT, &format!("/v1/projects/{}", project.name), Some(&project)).await?;
    if arguments.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: u32 = project.services.values().map(|service| service.replicas).sum();
    let deadline = Instant::now() + arguments.wait_timeout;
    let missing = |replicas: &[ReplicaStatus]| awaited::missing(&project, replicas);
    let patience = Patience { deadline, ends_where_hopeless: true, since_plan: plan.number };
    follow(client, project.name.as_str(), seen, patience, missing)
        .await
        .with_context(|| format!("not all of {} is as the file asks for", project.name))?;
    tell!("{}: all {wanted} replicas are ready", project.name);
    for message in calls_to_nowhere(client, &project).await {
        tell!("note: {message}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with where the processes of a project send their calls. They run all the same.
async fn calls_to_nowhere(client: &Client, project: &Project) -> Vec<String> {
    if project.services.values().all(|service| service.runtime == RuntimeKind::Docker) {
        return Vec::new();
    }
    let conditions: Value = client.get("/v1/conditions").await.unwrap_or_default();
    let of_project = format!("process/{}-", project.name);
    let is_meant = |object: &str| object == "provider/process" || object.starts_with(&of_project);
    let items = output::items(&conditions).iter();
    let meant = items.filter(|item| item["type"] == "NoHttpProxy" && item["object"].as_str().is_some_and(is_meant));
    meant.filter_map(|item| item["message"].as_str().map(str::to_owned)).collect()
}

/// # Errors
/// When the server does not answer, or something is left in time.
pub async fn down(client: &Client, arguments: DownArguments) -> anyhow::Result<ExitCode> {
    let name = name_of(&arguments.project)?;
    let running = replicas(client, Some(&name)).await?;
    let ours = running.iter().filter(|replica| replica.managed && replica.state != ReplicaState::NotStarted).count();
    tell!("{name}: {ours} replicas will be stopped and removed");
    if ours > 0 && !confirmed("Do this?", arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let seen = newest_event(client).await?;
    match client.call::<Value>(Method::DELETE, &format!("/v1/projects/{name}"), None::<&Value>).await {
        Ok(_) => {}
        // As it is after the first time.
        Err(ClientError::Refused { status: http::StatusCode::NOT_FOUND, message }) => {
            tell!("{name}: nothing to remove; {message}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + arguments.wait_timeout;
    let left = |replicas: &[ReplicaStatus]| {
        let left = replicas.iter().filter(|replica| replica.managed);
        left.map(|replica| format!("{} is {}", replica.name, replica.state)).collect()
    };
    // A start that was under way may fail yet; what is wanted is the end.
    let patience = Patience { deadline, ends_where_hopeless: false, since_plan: 0 };
    follow(client, &name, seen, patience, left)
        .await
        .with_context(|| format!("something of {name} is left; `mesh-ctl ps -p {name}` says what"))?;
    tell!("{name}: gone");
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When the server refuses.
pub async fn scale(client: &Client, arguments: ScaleArguments) -> anyhow::Result<ExitCode> {
    let wanted: BTreeMap<String, u32> = arguments.replicas.into_iter().collect();
    let name = name_of(&arguments.project)?;
    let _: Value = client.call(Method::POST, &format!("/v1/projects/{name}/scale"), Some(&wanted)).await?;
    let list = wanted.iter().map(|(service, count)| format!("{service}={count}")).collect::<Vec<_>>().join(" ");
    tell!("{name}: {list} is asked for; `mesh-ctl ps -p {name}` shows it come");
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When the server does not answer.
pub async fn ps(client: &Client, output: Output, arguments: PsArguments) -> anyhow::Result<ExitCode> {
    let replicas = replicas(client, arguments.project.as_deref()).await?;
    if replicas.is_empty() && output == Output::Table {
        tell!("no replicas");
        return Ok(ExitCode::SUCCESS);
    }
    let value = json!({ "apiVersion": "mesh/v1", "items": replicas });
    output::print(output, &value, |_| {
        let mut table =
            Table::new(&["NAME", "SERVICE", "RUNTIME", "STATE", "READY", "ADDRESS", "UNIT", "RESTARTS", "LAST STEP"]);
        for replica in &replicas {
            let ports: Vec<String> = replica.ports.iter().map(u16::to_string).collect();
            let address =
                replica.address.map_or_else(|| "-".to_owned(), |address| format!("{address}:{}", ports.join(",")));
            table.row([
                replica.name.clone(),
                replica.service.to_string(),
                replica.runtime.to_string(),
                replica.state.to_string(),
                if replica.ready { "yes" } else { "no" }.to_owned(),
                address,
                if replica.unit.is_empty() { "-".to_owned() } else { replica.unit.chars().take(24).collect() },
                replica.restarts.to_string(),
                replica.last_reason.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table
    })?;
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When the file has mistakes, or the server does not answer.
pub async fn plan(client: &Client, output: Output, arguments: PlanArguments) -> anyhow::Result<ExitCode> {
    let project = read_known(client, &arguments.project, arguments.runtime).await?;
    let plan = dry_run(client, &project).await?;
    print_plan(output, &plan)?;
    let changes = !plan.steps.is_empty() || !plan.not_taken.is_empty();
    Ok(if arguments.exit_code && changes { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Reads the Compose file that the arguments mean. Without `--runtime` a project that is known keeps the one it was brought up with.
async fn read_known(client: &Client, arguments: &ProjectArguments, runtime: RuntimeChoice) -> anyhow::Result<Project> {
    let plain = read(arguments, runtime);
    if runtime != RuntimeChoice::Auto {
        return plain;
    }
    let Ok(name) = name_of(arguments) else { return plain };
    let known = known_runtimes(client, &name).await?;
    let differs = |project: &Project| {
        project
            .services
            .iter()
            .any(|(name, service)| known.get(name.as_str()).is_some_and(|was| *was != service.runtime))
    };
    if known.values().all(|kind| *kind == RuntimeKind::Docker) || plain.as_ref().is_ok_and(|plain| !differs(plain)) {
        return plain;
    }
    let project = read(arguments, RuntimeChoice::Process)?;
    if differs(&project) {
        return plain;
    }
    // Where a new one is to run is nobody's to guess: what was meant for an image may do anything on this host.
    if let Some(new) = project.services.keys().find(|name| !known.contains_key(name.as_str())) {
        bail!(
            "{name} was brought up with --runtime process, and {new} is new in it; --runtime says where it is to run"
        );
    }
    Ok(project)
}

/// Where the services of a project that was brought up run; empty for one that nobody knows.
async fn known_runtimes(client: &Client, project: &str) -> anyhow::Result<BTreeMap<String, RuntimeKind>> {
    let found: Value = match client.get(&format!("/v1/projects/{project}")).await {
        Ok(found) => found,
        Err(ClientError::Refused { status: http::StatusCode::NOT_FOUND, .. }) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let services = found["item"]["project"]["services"].as_object().into_iter().flatten();
    let kind = |(name, service): (&String, &Value)| {
        Some((name.clone(), serde_json::from_value(service["runtime"].clone()).ok()?))
    };
    Ok(services.filter_map(kind).collect())
}

/// Reads the Compose file that the arguments mean, with the `.env` file beside it.
fn read(arguments: &ProjectArguments, runtime: RuntimeChoice) -> anyhow::Result<Project> {
    let path = file_of(arguments)?;
    let runtime = match runtime {
        RuntimeChoice::Auto => None,
        RuntimeChoice::Docker => Some(RuntimeKind::Docker),
        RuntimeChoice::Process => Some(RuntimeKind::Process),
    };
    read_file(&path, arguments.project.as_deref(), runtime, std::env::vars().collect())
}

/// Reads a Compose file; `environment` holds over the `.env` file beside it.
///
/// # Errors
/// When it cannot be read, or with every mistake in it.
pub fn read_file(
    path: &Path,
    name: Option<&str>,
    runtime: Option<RuntimeKind>,
    environment: BTreeMap<String, String>,
) -> anyhow::Result<Project> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read; -f names the Compose file"))?;
    let whole = std::path::absolute(path).with_context(|| format!("{shown} has no absolute path"))?;
    let directory = whole.parent().map(Path::to_owned).unwrap_or_default();
    let beside = directory.join(".env");
    let mut all = match std::fs::read_to_string(&beside) {
        Ok(text) => compose::env_file::parse(&beside.display().to_string(), &text)?,
        Err(_) => BTreeMap::new(),
    };
    all.extend(environment);
    let overrides = Overrides { project_name: name.map(str::to_owned), runtime, directory };
    let nothing_done = |problems| anyhow::anyhow!("nothing was touched:\n{problems}");
    let mut project = compose::read(&shown.to_string(), &text, &all, &overrides).map_err(nothing_done)?;
    project.read_env_files(|path| std::fs::read_to_string(path)).map_err(nothing_done)?;
    Ok(project)
}

fn file_of(arguments: &ProjectArguments) -> anyhow::Result<PathBuf> {
    if let Some(path) = &arguments.file {
        return Ok(path.clone());
    }
    let found = FILE_NAMES.iter().map(PathBuf::from).find(|path| path.exists());
    found.with_context(|| format!("there is none of {} here; -f names the Compose file", FILE_NAMES.join(", ")))
}

/// The project's name: as given, else as the Compose file has it.
fn name_of(arguments: &ProjectArguments) -> anyhow::Result<String> {
    match &arguments.project {
        Some(name) => Ok(name.clone()),
        None => {
            // A file that was brought up with `--runtime process` need not make sense without.
            let plain = read(arguments, RuntimeChoice::Auto);
            Ok(plain.or_else(|error| read(arguments, RuntimeChoice::Process).map_err(|_| error))?.name.to_string())
        }
    }
}

async fn dry_run(client: &Client, project: &Project) -> anyhow::Result<Plan> {
    let path = format!("/v1/projects/{}/plan", project.name);
    Ok(client.call::<Planned>(Method::POST, &path, Some(project)).await?.plan)
}

async fn replicas(client: &Client, project: Option<&str>) -> anyhow::Result<Vec<ReplicaStatus>> {
    let path = match project {
        Some(name) => format!("/v1/replicas?project={name}"),
        None => "/v1/replicas".to_owned(),
    };
    Ok(client.get::<Items<ReplicaStatus>>(&path).await?.items)
}

/// The number of the newest event, so that only what comes after it is told.
async fn newest_event(client: &Client) -> anyhow::Result<u64> {
    let events: Items<StepEvent> = client.get("/v1/events?after=0&wait=0").await?;
    Ok(events.items.last().map_or(0, |event| event.number))
}

/// How long something is waited for.
struct Patience {
    deadline: Instant,
    /// Not beyond a failure that no further try mends.
    ends_where_hopeless: bool,
    /// What failed for an earlier plan was asked for otherwise.
    since_plan: u64,
}

/// Tells every step of a project as it happens, until nothing is missing any more.
async fn follow(
    client: &Client,
    project: &str,
    mut seen: u64,
    patience: Patience,
    missing: impl Fn(&[ReplicaStatus]) -> Vec<String>,
) -> anyhow::Result<()> {
    // The last one of each replica, and whether every further try will end like it.
    let mut failures: BTreeMap<String, (String, bool)> = BTreeMap::new();
    loop {
        let events: Items<StepEvent> = client.get(&format!("/v1/events?after={seen}&wait=0")).await?;
        for event in events.items {
            seen = event.number;
            if event.step.replica.project.as_str() == project {
                tell(&event);
                match &event.outcome {
                    StepOutcome::Failed { error, lasting } => {
                        let is_ours = event.plan >= patience.since_plan;
                        let lasting = *lasting && is_ours && event.step.action != Action::Remove;
                        drop(failures.insert(event.step.replica.to_string(), (error.clone(), lasting)))
                    }
                    _ => drop(failures.remove(&event.step.replica.to_string())),
                }
            }
        }
        let mut missing = missing(&replicas(client, Some(project)).await?);
        if missing.is_empty() {
            return Ok(());
        }
        let told = || failures.values().map(|(error, _)| error.clone());
        if patience.ends_where_hopeless && failures.values().any(|(_, lasting)| *lasting) {
            missing.extend(told());
            bail!(
                "waiting does not help:\n  {}\nwhat ran before runs on; set that right, then `mesh-ctl up` tries again at once",
                missing.join("\n  ")
            );
        }
        if Instant::now() >= patience.deadline {
            missing.extend(awaited_by_plan(client, project).await);
            missing.extend(told());
            bail!("the time is up (--wait-timeout gives more):\n  {}", missing.join("\n  "));
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// What the newest plan waits for, in its words.
async fn awaited_by_plan(client: &Client, project: &str) -> Vec<String> {
    // It is told beside a failure; one that there is none is no further one.
    let plan = client.get::<Planned>(&format!("/v1/projects/{project}/plan")).await;
    let waits = plan.map(|planned| planned.plan.not_taken).unwrap_or_default();
    waits.iter().map(|step| format!("{} {}: {}", step.action, step.replica, step.reason)).collect()
}

fn tell(event: &StepEvent) {
    match &event.outcome {
        StepOutcome::Begun => tell!("  {}", event.step),
        StepOutcome::Done => {}
        StepOutcome::Failed { error, .. } => tell!("  {} failed: {error}", event.step),
    }
}

fn print_plan(output: Output, plan: &Plan) -> anyhow::Result<()> {
    if plan.is_settled() && output == Output::Table {
        tell!("no changes: what runs is what the file asks for");
        return Ok(());
    }
    let mut value = serde_json::to_value(plan)?;
    value["apiVersion"] = "mesh/v1".into();
    output::print(output, &value, |_| {
        let mut table = Table::new(&["ACTION", "REPLICA", "REASON"]);
        for step in &plan.steps {
            table.row([step.action.to_string(), step.replica.to_string(), step.reason.clone()]);
        }
        for step in &plan.not_taken {
            table.row([format!("later: {}", step.action), step.replica.to_string(), step.reason.clone()]);
        }
        table
    })
}

/// Asks on a terminal; elsewhere, or with `--yes`, the answer is yes.
pub fn confirmed(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(true);
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
