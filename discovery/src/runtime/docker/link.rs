//! The way to an engine that may not be there yet. Nobody waits for it here: whoever needs it while it is away is told so at
//! once, and one task ([`super::DockerRuntime::watch_over`]) makes it anew for as long as it takes.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bollard::Docker;
use futures_util::future::BoxFuture;
use mesh_core::model::replicas::RuntimeKind;

use crate::runtime::RuntimeError;

/// Makes a client that has agreed on the API's version with the engine; or says why there is none.
pub type Connect = Box<dyn Fn() -> BoxFuture<'static, Result<Docker, String>> + Send + Sync>;

/// A client, or why there is none now.
pub(super) struct Link {
    now: Mutex<Result<Docker, String>>,
    /// None: what there is, is never made anew.
    connect: Option<Connect>,
}

impl Link {
    pub(super) fn made(docker: Docker) -> Self {
        Self { now: Mutex::new(Ok(docker)), connect: None }
    }

    pub(super) fn later(connect: Connect) -> Self {
        Self { now: Mutex::new(Err("it has not answered yet".to_owned())), connect: Some(connect) }
    }

    pub(super) fn docker(&self) -> Result<Docker, RuntimeError> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        now.map_err(|message| RuntimeError::Unavailable { runtime: RuntimeKind::Docker, message })
    }

    /// Tries to make it anew; what was there stays until it is known whether the engine answers.
    pub(super) async fn renew(&self) -> Result<Docker, RuntimeError> {
        if let Some(connect) = &self.connect {
            let made = connect().await;
            *self.now.lock().unwrap_or_else(PoisonError::into_inner) = made;
        }
        self.docker()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("now", &self.docker().map(drop)).finish_non_exhaustive()
    }
}
