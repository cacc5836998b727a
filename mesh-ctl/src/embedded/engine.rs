//! Is there a Docker engine, and may its containers' namespaces be entered.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_discovery::provider::docker::EngineUrl;
use mesh_discovery::provider::docker::client::Engine;

/// The engine that `flag`, else `DOCKER_HOST`, else the default socket means; none when it is turned off.
///
/// # Errors
/// In words, when that is no engine's URL.
pub fn choose(flag: Option<&str>) -> Result<Option<EngineUrl>, String> {
    EngineUrl::choose(flag, std::env::var("DOCKER_HOST").ok().as_deref()).map_err(|error| error.to_string())
}

/// An engine that answers.
///
/// # Errors
/// In words, why there is none.
pub async fn connect(flag: Option<&str>) -> Result<Engine, String> {
    let url = choose(flag)?.ok_or_else(|| "turned off by `none`".to_owned())?;
    Engine::connect(&url).await.map_err(|error| error.to_string())
}

/// The engine's version.
///
/// # Errors
/// As [`connect`].
pub async fn probe(flag: Option<&str>) -> Result<String, String> {
    let engine = connect(flag).await?;
    let version = engine.docker.version().await.map_err(|error| error.to_string())?;
    Ok(version.version.unwrap_or_else(|| "of unknown version".to_owned()))
}

/// Why the namespaces of this engine's containers cannot be entered from here; none when they can.
#[must_use]
pub fn cannot_enter() -> Option<&'static str> {
    (!nix::unistd::geteuid().is_root()).then_some("this is not root, which entering containers' namespaces takes")
}

/// The host's address on the engine's default bridge: containers of every bridge network reach the host by it.
///
/// # Errors
/// In words, when the engine has no such bridge.
pub async fn gateway(engine: &Engine) -> Result<IpAddr, String> {
    let bridge = engine.docker.inspect_network("bridge", None).await.map_err(|error| error.to_string())?;
    let pools = bridge.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let first_of = |subnet: String| subnet.parse::<IpNet>().ok()?.hosts().next();
    // Engines that were not told a gateway do not name the one they took: the subnet's first address.
    let gateway = pools
        .into_iter()
        .find_map(|pool| pool.gateway.and_then(|text| text.parse().ok()).or_else(|| first_of(pool.subnet?)));
    gateway.ok_or_else(|| "its network `bridge` has no gateway".to_owned())
}
