//! What was asked for, in the store: one entry for each project, `desired/<project>`.

use std::sync::Arc;

use mesh_core::model::names::Name;

use super::spec::{Desired, DesiredProjects};
use crate::store::{Expect, Revision, SharedStore, StoreError, Write};

const PREFIX: &str = "desired/";

fn key(project: &Name) -> String {
    format!("{PREFIX}{project}")
}

/// All projects, and the revision of the store that has them so. One that cannot be read (by an older version) is told and passed over: nothing of it is touched.
///
/// # Errors
/// What the store says.
pub(super) async fn load(store: &SharedStore) -> Result<(DesiredProjects, Revision), StoreError> {
    let mut projects = DesiredProjects::new();
    let listed = store.list(PREFIX).await?;
    for entry in listed.entries {
        match serde_json::from_slice::<Desired>(&entry.value) {
            Ok(desired) => drop(projects.insert(desired.project.name.clone(), Arc::new(desired))),
            Err(error) => {
                tracing::error!(key = entry.key, %error, "what was asked for cannot be read; ask for it again")
            }
        }
    }
    Ok((projects, listed.revision))
}

/// One project, with the revision that wrote it: a change of it is only right on top of that one.
///
/// # Errors
/// What the store says.
pub(super) async fn load_one(store: &SharedStore, project: &Name) -> Result<Option<(Desired, Revision)>, StoreError> {
    let entry = store.get(&key(project)).await?;
    Ok(entry.and_then(|entry| Some((serde_json::from_slice(&entry.value).ok()?, entry.revision))))
}

pub(super) async fn save(store: &SharedStore, desired: &Desired, expect: Expect) -> Result<(), StoreError> {
    // A project is plain data; its serialization has no way to fail.
    let value = serde_json::to_vec(desired).unwrap_or_default();
    store.apply(vec![Write::put(key(&desired.project.name), value, expect)]).await.map(drop)
}

pub(super) async fn forget(store: &SharedStore, project: &Name) -> Result<(), StoreError> {
    store.apply(vec![Write::delete(key(project), Expect::Anything)]).await.map(drop)
}
