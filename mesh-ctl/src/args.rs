//! What a person types. Exit codes: 0, 1 for a failure, 2 for wrong usage (and for `plan --exit-code` with changes).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The one tool a person needs for a Weft mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-ctl", disable_version_flag = true, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of discovery's HTTP API
    #[arg(long, global = true, env = "MESH_SERVER", default_value = "http://127.0.0.1:14000", value_name = "URL", value_parser = server)]
    pub server: String,
    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Yaml,
}

/// Where services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// Containers where an engine can be used, else local processes
    Auto,
    /// Containers, or a failure
    Docker,
    /// Local processes on loopback addresses
    Process,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the mesh at work: an example shop, a failing replica, a kill, a scale-up
    Demo(DemoArguments),
    /// Run discovery, the controller and a node proxy in one process
    Dev(DevArguments),
    /// Make what runs match a Compose file, and keep it so
    Up(UpArguments),
    /// Stop and remove what `up` started
    Down(DownArguments),
    /// Change the number of replicas: `scale web=5 api=2`
    Scale(ScaleArguments),
    /// List replicas
    Ps(PsArguments),
    /// Show what `up` would do, and why
    Plan(PlanArguments),
    /// List services, endpoints or conditions
    Get(GetArguments),
    /// Explain how a call from one service to another is resolved, and which endpoints it can take
    Why(WhyArguments),
    /// Check what this machine offers: kernel, capabilities, nftables, engine
    Check(CheckArguments),
    /// Remove all that Weft ever made on this host
    Cleanup(CleanupArguments),
    /// Print a completion script
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the version of this tool and of the server, when it answers
    Version,
    /// A service of the demo's shop (what its replicas run)
    #[command(hide = true, name = "shop-service")]
    ShopService(ShopArguments),
}

#[derive(Debug, Clone, Args)]
pub struct DemoArguments {
    /// Where the shop's services run
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    pub runtime: RuntimeChoice,
    /// End by itself after this long, counted from the first user request: 30s, 2m
    #[arg(long = "for", value_parser = duration, value_name = "DURATION", default_value = "60s")]
    pub run_for: Duration,
    /// User requests a second (50 at least)
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(50..=2000))]
    pub rate: u32,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// This is the demo's privileged container
    #[arg(long, hide = true)]
    pub inside: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DevArguments {
    /// Mesh every container, not only those with the label mesh.enable=true
    #[arg(long)]
    pub exposed_by_default: bool,
    /// The engine: unix:///var/run/docker.sock, tcp://HOST:PORT, or none
    #[arg(long, env = "MESH_DOCKER", value_name = "URL", value_parser = engine_url)]
    pub docker: Option<String>,
    /// Leave the host's own network alone: virtual IPs are reached from containers only, and without an engine by nobody
    #[arg(long)]
    pub no_host: bool,
    /// Services from a file, beside those of the engine
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where virtual IPs and desired state are kept
    #[arg(long, env = "MESH_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
}

/// Which Compose file, and what it is called.
#[derive(Debug, Clone, Args)]
pub struct ProjectArguments {
    /// The Compose file [default: compose.yaml, compose.yml, docker-compose.yaml or docker-compose.yml here]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The project's name [default: the file's `name`, else the name of its folder]
    #[arg(long, short, value_name = "NAME", env = "COMPOSE_PROJECT_NAME")]
    pub project: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub project: ProjectArguments,
    /// Where services run that do not say it themselves
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    pub runtime: RuntimeChoice,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Do not wait until all is ready
    #[arg(long, short)]
    pub detach: bool,
    /// How long to wait until all is ready
    #[arg(long, value_parser = duration, default_value = "2m", value_name = "DURATION")]
    pub wait_timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct DownArguments {
    #[command(flatten)]
    pub project: ProjectArguments,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// How long to wait until all is gone
    #[arg(long, value_parser = duration, default_value = "2m", value_name = "DURATION")]
    pub wait_timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct ScaleArguments {
    /// SERVICE=REPLICAS, one or more
    #[arg(required = true, value_name = "SERVICE=N", value_parser = service_count)]
    pub replicas: Vec<(String, u32)>,
    #[command(flatten)]
    pub project: ProjectArguments,
}

#[derive(Debug, Clone, Args)]
pub struct PsArguments {
    /// Only this project
    #[arg(long, short, value_name = "NAME")]
    pub project: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub project: ProjectArguments,
    /// Where services run that do not say it themselves
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    pub runtime: RuntimeChoice,
    /// Exit with 2 when there are changes
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resource {
    #[value(alias = "service", alias = "svc")]
    Services,
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    #[value(alias = "condition")]
    Conditions,
}

#[derive(Debug, Clone, Args)]
pub struct GetArguments {
    #[arg(value_enum)]
    pub resource: Resource,
    /// Only this namespace
    #[arg(long, short)]
    pub namespace: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct WhyArguments {
    /// The calling service: web, or web.shop
    pub from: String,
    /// The called service: api, api.shop, optionally with a port: api:8080
    pub to: String,
    /// Admin address of the calling proxy, for its view of the endpoints
    #[arg(long, env = "MESH_PROXY_ADMIN", default_value = "http://127.0.0.1:14020", value_name = "URL")]
    pub proxy: String,
}

#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// The engine: unix:///var/run/docker.sock, tcp://HOST:PORT, or none
    #[arg(long, env = "MESH_DOCKER", value_name = "URL", value_parser = engine_url)]
    pub docker: Option<String>,
    /// Warnings fail too
    #[arg(long)]
    pub strict: bool,
}

#[derive(Debug, Clone, Args)]
pub struct CleanupArguments {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// The engine: unix:///var/run/docker.sock, tcp://HOST:PORT, or none
    #[arg(long, env = "MESH_DOCKER", value_name = "URL", value_parser = engine_url)]
    pub docker: Option<String>,
    /// Where state is kept
    #[arg(long, env = "MESH_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShopRole {
    Front,
    Api,
    Payments,
}

#[derive(Debug, Clone, Args)]
pub struct ShopArguments {
    #[arg(value_enum)]
    pub role: ShopRole,
    /// Where to listen [default: all addresses]
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: std::net::IpAddr,
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// The service that this one calls: http://api:8080
    #[arg(long, env = "SHOP_UPSTREAM")]
    pub upstream: Option<String>,
    /// Answer 500 to every call
    #[arg(long, env = "SHOP_FAIL", action = clap::ArgAction::Set, default_value_t = false)]
    pub fail: bool,
    /// What this replica calls itself
    #[arg(long, env = "SHOP_VERSION", default_value = "stable")]
    pub version: String,
}

fn duration(text: &str) -> Result<Duration, mesh_core::config::duration::DurationError> {
    mesh_core::config::duration::parse(text)
}

/// As the client takes it; the text is kept.
fn server(text: &str) -> Result<String, String> {
    crate::client::Client::new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// As the engine's URL is read; empty counts as not given.
fn engine_url(text: &str) -> Result<String, String> {
    crate::embedded::engine::choose(Some(text)).map(|_| text.to_owned())
}

fn service_count(text: &str) -> Result<(String, u32), String> {
    let (service, count) = text.split_once('=').ok_or("SERVICE=N is wanted, as in web=3")?;
    let count = count.parse().map_err(|_| format!("{count:?} is no number of replicas; web=3 asks for three"))?;
    Ok((service.to_owned(), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_wrong_usage() {
        let check = |words: &[&str], expected: Option<i32>| {
            let parsed = Arguments::try_parse_from([&["mesh-ctl"], words].concat());
            assert_eq!(parsed.err().map(|error| error.exit_code()), expected, "{words:?}");
        };
        check(&["ps", "--server", "foo"], Some(2));
        check(&["ps", "--server", "localhost:9"], None);
        check(&["scale", "web"], Some(2));
        check(&["scale", "web=x"], Some(2));
        check(&["scale", "web=-1"], Some(2));
        check(&["scale", "web=3", "api=0"], None);
        check(&["dev", "--docker", "foo"], Some(2));
        check(&["dev", "--docker", "none"], None);
        check(&["check", "--docker", "foo"], Some(2));
        check(&["cleanup", "--docker", "unix:///run/docker.sock"], None);
    }
}
