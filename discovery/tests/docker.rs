//! The Docker provider and the Docker runtime against a real engine. Every test makes what it needs under a label of its own and
//! removes it when it ends. The containers run this very binary, which is static, out of an empty image.
//!
//! Without an engine the tests are ignored with a printed reason; under `MESH_E2E=1` they fail.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

#[path = "docker/app.rs"]
mod app; // what runs inside the containers
#[path = "docker/fixture.rs"]
mod fixture; // what every test needs
#[path = "docker/proxy.rs"]
mod proxy; // stands before the engine's socket, and cuts
#[path = "docker/provider.rs"]
mod provider; // the tests of the provider
#[path = "docker/runtime.rs"]
mod runtime; // the tests of the runtime
#[path = "docker/whole.rs"]
mod whole; // the tests of all of it

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

type Test = fn(&fixture::Shared);

const TESTS: [(&str, Test); 17] = [
    ("provider::a_container_is_found_on_both_its_networks", provider::a_container_is_found_on_both_its_networks),
    (
        "provider::a_typo_is_a_condition_on_that_container_alone",
        provider::a_typo_is_a_condition_on_that_container_alone,
    ),
    ("provider::the_healthcheck_has_the_last_word", provider::the_healthcheck_has_the_last_word),
    ("provider::it_drains_before_it_dies", provider::it_drains_before_it_dies),
    ("provider::a_kill_is_heard_before_the_container_is_gone", provider::a_kill_is_heard_before_the_container_is_gone),
    ("provider::one_that_survives_its_stop_signal_comes_back", provider::one_that_survives_its_stop_signal_comes_back),
    ("provider::another_signal_drains_nobody", provider::another_signal_drains_nobody),
    ("provider::paused_is_not_ready", provider::paused_is_not_ready),
    ("provider::a_shared_network_is_the_owners", provider::a_shared_network_is_the_owners),
    ("provider::one_offs_are_nobodys_endpoints", provider::one_offs_are_nobodys_endpoints),
    ("provider::an_address_is_told_before_its_container_runs", provider::an_address_is_told_before_its_container_runs),
    ("provider::a_restart_is_another_life", provider::a_restart_is_another_life),
    ("provider::a_cut_stream_costs_nothing_but_a_resync", provider::a_cut_stream_costs_nothing_but_a_resync),
    ("runtime::a_replica_lives_from_start_to_remove", runtime::a_replica_lives_from_start_to_remove),
    ("runtime::refusals_say_what_to_do", runtime::refusals_say_what_to_do),
    (
        "whole::a_restart_beside_a_silent_engine_takes_nothing_away",
        whole::a_restart_beside_a_silent_engine_takes_nothing_away,
    ),
    ("whole::a_scale_down_is_announced", whole::a_scale_down_is_announced),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("serve") => return app::serve(words.next().as_deref()),
        Some("health") => return app::health(),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let must = std::env::var("MESH_E2E").is_ok_and(|value| value == "1");
    let listing = arguments.list;
    let shared = if listing { Err("only listed".to_owned()) } else { fixture::Shared::new() };
    let shared: &'static Result<fixture::Shared, String> = Box::leak(Box::new(shared));
    if let (Err(reason), false) = (shared, listing) {
        let verdict = if must { "failed, since MESH_E2E=1" } else { "ignored" };
        eprintln!("tests on a Docker engine are {verdict}: {reason}");
    }
    let trial = |(name, test): (&'static str, Test)| {
        let run = move || match shared {
            Ok(shared) => {
                test(shared);
                Ok(())
            }
            Err(reason) => Err(Failed::from(reason.as_str())),
        };
        Trial::test(name, run).with_ignored_flag(shared.is_err() && !must && !listing)
    };
    let conclusion = libtest_mimic::run(&arguments, TESTS.into_iter().map(trial).collect());
    if let Ok(shared) = shared {
        shared.remove_image();
    }
    conclusion.exit_code()
}
