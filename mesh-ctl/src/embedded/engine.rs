//! Is there a Docker engine, and may its containers' namespaces be entered.

use mesh_discovery::provider::docker::EngineUrl;
use mesh_discovery::provider::docker::client::Engine;
use mesh_proxy::error::chain;
use mesh_proxy::intercept::capture::CaptureConfig;
use mesh_proxy::intercept::probe;

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

/// The version of an engine that answers.
///
/// # Errors
/// As [`connect`].
pub async fn version(flag: Option<&str>) -> Result<String, String> {
    let engine = connect(flag).await?;
    let version = engine.docker.version().await.map_err(|error| error.to_string())?;
    Ok(version.version.unwrap_or_else(|| "of unknown version".to_owned()))
}

/// Why calls of this engine's containers cannot be captured from here; none when they can. Takes some 50 ms.
pub async fn cannot_capture() -> Option<String> {
    let probed = tokio::task::spawn_blocking(|| probe::probe(&CaptureConfig::default())).await;
    match probed {
        Ok(Ok(_)) => None,
        Ok(Err(_)) if !nix::unistd::geteuid().is_root() => {
            Some("this is not root, which entering containers' networks takes".to_owned())
        }
        Ok(Err(error)) => Some(chain(&error)),
        Err(error) => Some(error.to_string()),
    }
}
