//! The provider on a real engine.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bollard::models::{EndpointSettings, HealthConfig, NetworkConnectRequest};
use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RestartContainerOptions, StopContainerOptions,
};
use mesh_core::model::condition::ConditionKind;
use mesh_core::model::endpoint::EndpointState::{Draining, NotReady, Ready};
use mesh_discovery::provider::ReadySource;
use mesh_discovery::provider::docker::{EngineUrl, Resync};

use super::fixture::{Shared, find, on_network};
use super::{app, proxy};

pub fn a_container_is_found_on_both_its_networks(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let (front, front_id) = bench.network("front").await;
        let (back, back_id) = bench.network("back").await;
        let labels =
            [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "web"), ("mesh.weight", "7")];
        let id = bench.start("web", &labels, |body| on_network(body, &front, &["web", "www"])).await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let endpoint_config =
            Some(EndpointSettings { aliases: Some(vec!["web-back".to_owned()]), ..Default::default() });
        let request = NetworkConnectRequest { container: id.clone(), endpoint_config };
        bench.docker.connect_network(&back, request).await.unwrap();
        bench.until("both networks are seen", |seen| seen.endpoints[0].endpoint.addresses.len() == 2).await;
        let seen = &bench.seen.endpoints[0];
        let endpoint = &seen.endpoint;
        assert_eq!(endpoint.service.to_string(), "web.shop");
        assert_eq!((&*endpoint.id.unit, endpoint.weight, seen.ready), (id.as_str(), 7, ReadySource::FirstAccept));
        assert!(endpoint.id.start > 1_700_000_000_000, "{}", endpoint.id.start);
        let networks: Vec<_> = endpoint.addresses.iter().map(|address| &*address.network).collect();
        assert_eq!(networks, [back_id.as_str(), front_id.as_str()]);
        assert_eq!(endpoint.ports.values().collect::<Vec<_>>(), [&8080]);
        assert!(
            endpoint.own_names.contains(&bench.name("web").into()) && endpoint.own_names.contains(&id[..12].into())
        );
        let aliases: Vec<_> = endpoint.aliases.iter().map(|alias| &**alias).collect();
        assert_eq!(aliases, ["web", "web-back", "www"]);
        assert!(tokio::fs::metadata(&*bench.seen.workloads[0].namespace_path).await.is_ok());
        assert_eq!(bench.seen.workloads[0].networks.len(), 2);
        for address in &endpoint.addresses {
            tokio::net::TcpStream::connect((address.address, 8080)).await.unwrap();
        }
        assert_eq!(bench.seen.conditions, []);
    });
}

pub fn a_typo_is_a_condition_on_that_container_alone(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        bench.start("good", &[], |_| {}).await;
        bench.start("bad", &[("mesh.wieght", "3"), ("mesh.port", "http")], |_| {}).await;
        bench.until("both are seen", |seen| seen.endpoints.len() == 2).await;
        let object = format!("container/{}", bench.name("bad"));
        let found: Vec<_> = bench.seen.conditions.iter().map(|one| (&*one.object, one.kind)).collect();
        assert_eq!(found, [(&*object, ConditionKind::UnknownLabel), (&*object, ConditionKind::InvalidLabel)]);
        assert!(bench.seen.conditions[0].message.contains("did you mean mesh.weight?"));
    });
}

pub fn the_healthcheck_has_the_last_word(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let second = Some(1_000_000_000);
        let check = HealthConfig {
            test: Some(vec!["CMD".to_owned(), "/app".to_owned(), "health".to_owned()]),
            interval: second,
            timeout: second,
            retries: Some(1),
            ..HealthConfig::default()
        };
        bench.start("web", &[], |body| body.healthcheck = Some(check)).await;
        bench.until("it starts", |seen| !seen.endpoints.is_empty()).await;
        let first = &bench.seen.endpoints[0];
        assert_eq!((first.endpoint.state, first.ready), (NotReady, ReadySource::Stated));
        let address = format!("{}:8081", first.endpoint.address().unwrap());
        bench.until("it is healthy", |seen| seen.endpoints[0].endpoint.state == Ready).await;
        app::say(&address, b'u').await.unwrap();
        bench.until("it is unhealthy", |seen| seen.endpoints[0].endpoint.state == NotReady).await;
        assert!(bench.seen.endpoints[0].endpoint.reason.contains("unhealthy"));
        app::say(&address, b'h').await.unwrap();
        bench.until("it is healthy again", |seen| seen.endpoints[0].endpoint.state == Ready).await;
    });
}

pub fn it_drains_before_it_dies(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let id = bench.start("web", &[], |_| {}).await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let docker = bench.docker.clone();
        let told = Instant::now();
        let stop = tokio::spawn(async move { docker.stop_container(&id, None::<StopContainerOptions>).await });
        bench.until("it drains", |seen| seen.endpoints.first().is_some_and(|one| one.endpoint.state == Draining)).await;
        let heard = told.elapsed();
        assert!(!stop.is_finished(), "it was told only when all was over");
        assert!(heard < Duration::from_millis(750), "told {heard:?} after the stop");
        bench.until("it is gone", |seen| seen.endpoints.is_empty() && seen.workloads.is_empty()).await;
        stop.await.unwrap().unwrap();
    });
}

pub fn a_kill_is_heard_before_the_container_is_gone(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let id = bench.start("web", &[], |_| {}).await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        bench.docker.kill_container(&id, Some(options)).await.unwrap();
        bench.next().await;
        assert_eq!(bench.seen.endpoints[0].endpoint.state, Draining, "the first that is told");
        bench.until("it is gone", |seen| seen.endpoints.is_empty()).await;
    });
}

pub fn one_that_survives_its_stop_signal_comes_back(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let id = bench
            .start("web", &[], |body| {
                body.cmd = Some(vec!["stubborn".to_owned()]);
                body.stop_signal = Some("SIGUSR1".to_owned());
                body.stop_timeout = Some(1);
            })
            .await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let options = KillContainerOptionsBuilder::default().signal("10").build();
        bench.docker.kill_container(&id, Some(options)).await.unwrap();
        let told = Instant::now();
        bench.until("it drains", |seen| seen.endpoints[0].endpoint.state == Draining).await;
        bench.until("it is back", |seen| seen.endpoints[0].endpoint.state == NotReady).await;
        assert_eq!(bench.seen.endpoints[0].ready, ReadySource::FirstAccept);
        let after = told.elapsed();
        assert!((2_900..6_000).contains(&after.as_millis()), "back after {after:?}; 1 s and 2 s are wanted");
    });
}

pub fn another_signal_drains_nobody(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let id = bench.start("web", &[], |body| body.cmd = Some(vec!["stubborn".to_owned()])).await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let options = KillContainerOptionsBuilder::default().signal("SIGHUP").build();
        bench.docker.kill_container(&id, Some(options)).await.unwrap();
        bench.docker.pause_container(&id).await.unwrap();
        // The pause comes after the signal, so what is told next has seen both.
        bench.next().await;
        assert_eq!(&*bench.seen.endpoints[0].endpoint.reason, "paused");
    });
}

pub fn paused_is_not_ready(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let id = bench.start("web", &[], |_| {}).await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let before = bench.seen.endpoints[0].endpoint.id.clone();
        bench.docker.pause_container(&id).await.unwrap();
        bench.until("it is paused", |seen| seen.endpoints[0].ready == ReadySource::Stated).await;
        assert_eq!(bench.seen.endpoints[0].endpoint.state, NotReady);
        bench.docker.unpause_container(&id).await.unwrap();
        bench.until("it goes on", |seen| seen.endpoints[0].ready == ReadySource::FirstAccept).await;
        assert_eq!(bench.seen.endpoints[0].endpoint.id, before, "the same life");
    });
}

pub fn a_shared_network_is_the_owners(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let (network, network_id) = bench.network("net").await;
        let owner = bench.start("owner", &[("mesh.enable", "false")], |body| on_network(body, &network, &[])).await;
        bench
            .start("app", &[("mesh.port", "8080")], |body| {
                // The engine refuses it in another's namespace.
                body.exposed_ports = None;
                // The owner has the port; that it lives is all that matters.
                body.cmd = Some(vec!["idle".to_owned()]);
                body.host_config.get_or_insert_default().network_mode = Some(format!("container:{owner}"));
            })
            .await;
        let app_name = bench.name("app");
        bench.until("it is seen", |seen| find(seen, &app_name).is_some()).await;
        assert_eq!(bench.seen.endpoints.len(), 1);
        let app = &find(&bench.seen, &app_name).unwrap().endpoint;
        assert_eq!(&*app.addresses[0].network, network_id.as_str());
        assert_eq!((bench.seen.workloads.len(), &*bench.seen.workloads[0].name), (1, app_name.as_str()));
        assert!(bench.seen.workloads[0].namespace_path.starts_with("/"));
    });
}

pub fn one_offs_are_nobodys_endpoints(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let compose = |one_off: &'static str| {
            [
                ("com.docker.compose.project", "shop"),
                ("com.docker.compose.service", "web"),
                ("com.docker.compose.oneoff", one_off),
            ]
        };
        bench.start("run", &compose("True"), |_| {}).await;
        bench.start("off", &[("mesh.enable", "false")], |_| {}).await;
        bench.start("web", &compose("False"), |_| {}).await;
        let web = bench.name("web");
        bench.until("the service is seen", |seen| find(seen, &web).is_some()).await;
        assert_eq!(bench.seen.endpoints.len(), 1, "and it alone, though it came last");
    });
}

pub fn an_address_is_told_before_its_container_runs(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let (network, network_id) = bench.network("net").await;
        let id = bench.start("web", &[], |body| on_network(body, &network, &[])).await;
        bench.until("its address is known", |seen| !seen.arriving.is_empty()).await;
        assert!(bench.seen.endpoints.is_empty(), "the engine has not told of its start");
        let (address, arriving) = bench.seen.arriving.first_key_value().unwrap();
        let (address, arriving) = (*address, arriving.clone());
        assert_eq!((&*arriving.id.unit, arriving.id.start, &*arriving.network), (&*id, 0, &*network_id));
        bench.until("it runs", |seen| seen.endpoints.len() == 1).await;
        assert_eq!(bench.seen.endpoints[0].endpoint.addresses[0].address, address);
        assert_eq!(bench.seen.endpoints[0].endpoint.service, arriving.service);
        assert!(bench.seen.arriving.is_empty(), "it is there");

        // One that cannot start.
        let broken = |body: &mut bollard::models::ContainerCreateBody| {
            on_network(body, &network, &[]);
            body.entrypoint = Some(vec!["/no-such-file".to_owned()]);
        };
        assert!(bench.try_start("broken", broken).await.is_err());
        bench.until("its address was known", |seen| !seen.arriving.is_empty()).await;
        bench.until("it is forgotten", |seen| seen.arriving.is_empty()).await;
    });
}

pub fn a_restart_is_another_life(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let id = bench.start("web", &[], |_| {}).await;
        bench.until("it is seen", |seen| seen.endpoints.len() == 1).await;
        let before = bench.seen.endpoints[0].endpoint.id.clone();
        bench.docker.restart_container(&id, None::<RestartContainerOptions>).await.unwrap();
        bench
            .until("it is back", |seen| {
                seen.endpoints.first().is_some_and(|one| one.endpoint.id != before && one.endpoint.state == NotReady)
            })
            .await;
        assert_eq!(bench.seen.endpoints[0].endpoint.id.unit, before.unit);
        assert!(bench.seen.endpoints[0].endpoint.id.start > before.start);
    });
}

pub fn a_cut_stream_costs_nothing_but_a_resync(shared: &Shared) {
    let EngineUrl::Unix(socket) = &shared.url else { return };
    let threads = tokio::runtime::Runtime::new().unwrap();
    let proxy = threads.block_on(proxy::Proxy::start(socket.clone()));
    let url: EngineUrl = format!("tcp://{}", proxy.address).parse().unwrap();
    shared.bench(url).play(async |bench| {
        let old = bench.start("old", &[], |_| {}).await;
        bench.until("the first is seen", |seen| seen.endpoints.len() == 1).await;
        assert_eq!((bench.metrics.resyncs(Resync::Start), bench.metrics.resyncs(Resync::Reconnect)), (1, 0));
        proxy.cut();
        let lost = |kind: ConditionKind| kind == ConditionKind::ProviderUnavailable;
        bench.until("the loss is told", |seen| seen.conditions.iter().any(|one| lost(one.kind))).await;
        assert_eq!(bench.seen.endpoints.len(), 1, "the last good list stays");
        bench.start("new", &[], |_| {}).await;
        let forced = RemoveContainerOptionsBuilder::default().force(true).build();
        bench.docker.remove_container(&old, Some(forced)).await.unwrap();
        proxy.mend();
        let new = bench.name("new");
        bench.until("what happened meanwhile is seen", |seen| find(seen, &new).is_some()).await;
        assert_eq!((bench.seen.endpoints.len(), bench.seen.conditions.len()), (1, 0));
        assert!(bench.metrics.resyncs(Resync::Reconnect) >= 1);
        assert_eq!(proxy.refused.load(Ordering::Relaxed), 0, "only reading is asked for");
    });
}
