//! One proxy, started from a file's text, in front of one scripted origin.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mesh_core::model::resource::Resources;
use mesh_proxy::app::{App, Options};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::backend::{Backend, Script};
use crate::client::{Client, Delivery};

/// Long enough for a debug build on a busy machine; nothing waits for it unless it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What the proxies' main tasks run on; each has worker threads of its own.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));

/// Nothing is tried twice and nobody is ejected: what a case sees is one exchange.
pub const SERVICE: &str = "retry: { on: [] }, outlier: { consecutive_5xx: 0 }";

/// A client that says nothing more is not waited for long, so that a failing case ends soon.
pub const LIMITS: &str = "limits: { header_timeout: 15s, body_idle_timeout: 15s, idle_timeout: 25s }";

/// It waits for nobody when it ends.
const NO_DRAIN: Duration = Duration::from_millis(10);

/// Both end when dropped.
pub struct World {
    pub proxy: SocketAddr,
    pub backend: Backend,
    _running: Running,
}

/// A proxy; it ends when dropped.
pub struct Running {
    pub address: SocketAddr,
    _told: watch::Sender<Arc<Resources>>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Running {
    /// One listener for one service, with these settings of both. It waits for nobody when it ends.
    pub fn start(listener: &str, service: &str) -> Self {
        Self::patient(listener, service, NO_DRAIN)
    }

    /// One that waits so long for what is under way when it is told to leave.
    pub fn patient(listener: &str, service: &str, drain_timeout: Duration) -> Self {
        let (running, _) = Self::with_listeners(&[listener], service, 1, drain_timeout);
        running
    }

    /// One listener with each of these settings; the addresses of all of them, in order.
    fn with_listeners(
        listeners: &[&str],
        service: &str,
        workers: usize,
        drain_timeout: Duration,
    ) -> (Self, Vec<SocketAddr>) {
        // A listener is called what it listens on, which sorts them.
        let line = |(host, settings): (u8, &&str)| {
            format!("  - {{ listen: \"127.0.0.{host}:0\", protocol: http, service: web, {settings} }}\n")
        };
        let lines: String = (1..).zip(listeners).map(line).collect();
        let file = format!("listeners:\n{lines}services:\n  web: {{ {service} }}\n");
        let parsed = mesh_proxy::config::parse("case", &file).unwrap_or_else(|problems| panic!("{problems}"));
        let (told, resources) = watch::channel(parsed.resources.into());
        let options = Options { workers, drain_timeout, ..Options::default() };
        let app = RUNTIME.block_on(App::bind(options, resources)).unwrap();
        let addresses: Vec<SocketAddr> = app.addresses().into_values().collect();
        let address = *addresses.first().expect("the file has a listener");
        let (shutdown, ended) = oneshot::channel::<()>();
        RUNTIME.spawn(app.run(async move {
            // Told or dropped: both mean the end.
            let _ = ended.await;
        }));
        (Self { address, _told: told, shutdown: Some(shutdown) }, addresses)
    }

    /// Tells it to leave.
    pub fn leave(&mut self) {
        self.shutdown = None;
    }
}

impl World {
    pub fn start(scripts: Vec<Script>) -> Self {
        Self::between(Backend::start(scripts, Delivery::Whole), LIMITS)
    }

    /// With two workers, and a second listener with these settings; its address.
    pub fn secured(settings: &str) -> (Self, SocketAddr) {
        let backend = Backend::start(Vec::new(), Delivery::Whole);
        let service = format!("endpoints: [ {{ address: \"{}\" }} ], {SERVICE}", backend.address);
        let listeners = [LIMITS, &format!("{settings}, {LIMITS}")];
        let (running, addresses) = Running::with_listeners(&listeners, &service, 2, NO_DRAIN);
        (Self { proxy: running.address, backend, _running: running }, addresses[1])
    }

    /// With these settings of the listener.
    pub fn between(backend: Backend, listener: &str) -> Self {
        Self::between_with(backend, listener, SERVICE)
    }

    /// And these of the service.
    pub fn between_with(backend: Backend, listener: &str, service: &str) -> Self {
        let service = format!("endpoints: [ {{ address: \"{}\" }} ], {service}", backend.address);
        let running = Running::start(listener, &service);
        Self { proxy: running.address, backend, _running: running }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.proxy)
    }

    /// Another client's request must be answered with its own answer, whatever was before.
    pub fn serves(&self, target: &str) {
        let mut client = self.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: probe\r\n\r\n"));
        let heard = client.response("GET");
        self.sound();
        let answer = heard.entire();
        assert_eq!((answer.status, answer.text()), (200, format!("GET {target}")), "another client's answer");
    }

    /// The origin got nothing that has no one meaning.
    pub fn sound(&self) {
        self.backend.settled(|log| {
            let broken = log.connections.iter().find(|connection| connection.broken.is_some());
            assert!(broken.is_none(), "the origin got what has no one meaning: {broken:?}");
        });
    }
}
