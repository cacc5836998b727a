//! One look at the engine: which containers there are, and the inspection of those that may have changed. It holds nothing and
//! changes nothing, so that events are heard while it is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures_util::stream::{self, StreamExt};

use super::client::{Engine, EngineError, describe};
use super::inspect::{Container, NetworkMode};

/// Inspections under way at once.
const INSPECTIONS_MAX: usize = 8;

/// What is to be looked at.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Inspect all of them.
    pub all: bool,
    /// Inspect these, whatever is known of them.
    pub changed: BTreeSet<Arc<str>>,
    /// Known already, and in whose network they live; inspected only when `all` or `changed` says so.
    pub known: BTreeMap<Arc<str>, NetworkMode>,
    pub only_label: Option<(String, String)>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Ids of all that run; what is not among them is gone.
    pub present: BTreeSet<Arc<str>>,
    pub inspected: Vec<Container>,
    /// Those that the engine could not tell about, by id: name and why.
    pub odd: BTreeMap<Arc<str>, (Arc<str>, String)>,
}

/// Lists, then inspects.
///
/// # Errors
/// When the engine does not answer. A container that vanished in between is left out, and one that the engine answers oddly
/// about is told beside the others.
pub async fn read(engine: Engine, order: Order) -> Result<Seen, EngineError> {
    let mut options = ListContainersOptionsBuilder::default();
    if let Some((key, value)) = &order.only_label {
        options = options.filters(&[("label".to_owned(), vec![format!("{key}={value}")])].into());
    }
    let listed = engine.ask("list containers", engine.docker.list_containers(Some(options.build()))).await?;
    let listed = listed.map_err(|error| engine.failed("list containers", &error))?;
    let mut seen = Seen::default();
    let mut names = BTreeMap::new();
    for summary in listed {
        let Some(id) = summary.id else { continue };
        let id: Arc<str> = id.into();
        let name = summary.names.and_then(|names| names.into_iter().next()).unwrap_or_else(|| id.to_string());
        names.insert(id.clone(), Arc::<str>::from(name.trim_start_matches('/')));
        seen.present.insert(id);
    }
    let wanted = |id: &&Arc<str>| order.all || order.changed.contains(*id) || !order.known.contains_key(*id);
    let ids: Vec<Arc<str>> = seen.present.iter().filter(wanted).cloned().collect();
    inspect_into(&engine, &mut seen, ids, &names).await?;
    let owners = missing_owners(&order, &seen);
    inspect_into(&engine, &mut seen, owners, &names).await?;
    Ok(seen)
}

/// Containers outside the list whose network somebody in it lives in.
fn missing_owners(order: &Order, seen: &Seen) -> Vec<Arc<str>> {
    let kept = order.known.iter().filter(|(id, _)| seen.present.contains(*id)).map(|(_, mode)| mode);
    let modes = kept.chain(seen.inspected.iter().map(|container| &container.network));
    let owners: BTreeSet<&Arc<str>> = modes
        .filter_map(|mode| match mode {
            NetworkMode::Container(owner) => Some(owner),
            NetworkMode::Own | NetworkMode::Host | NetworkMode::None => None,
        })
        .collect();
    let is_there = |owner: &str| {
        // By id this is nearly always answered without a name; a name that is listed costs one inspection more, no harm.
        seen.present.contains(owner) || seen.inspected.iter().any(|container| container.is_called(owner))
    };
    owners.into_iter().filter(|owner| !is_there(owner)).cloned().collect()
}

async fn inspect_into(
    engine: &Engine,
    seen: &mut Seen,
    ids: Vec<Arc<str>>,
    names: &BTreeMap<Arc<str>, Arc<str>>,
) -> Result<(), EngineError> {
    let inspect = |id: Arc<str>| async move {
        let answer = engine.docker.inspect_container(&id, None::<InspectContainerOptions>);
        let answer = engine.ask("inspect container", answer).await;
        (id, answer)
    };
    let mut answers = stream::iter(ids.into_iter().map(inspect)).buffer_unordered(INSPECTIONS_MAX);
    while let Some((id, answer)) = answers.next().await {
        match answer? {
            Ok(inspected) => {
                if let Some(container) = Container::from_inspect(inspected) {
                    seen.present.insert(container.id.unit.clone());
                    seen.inspected.push(container);
                }
            }
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => _ = seen.present.remove(&id),
            // The engine answers, but not about this one: whatever it is, the others are none the worse.
            Err(error @ (Error::DockerResponseServerError { .. } | Error::JsonDataError { .. })) => {
                let name = names.get(&id).unwrap_or(&id).clone();
                tracing::debug!(container = %name, error = %describe(&error), "cannot be inspected");
                seen.odd.insert(id, (name, describe(&error)));
            }
            Err(error) => return Err(engine.failed("inspect container", &error)),
        }
    }
    Ok(())
}
