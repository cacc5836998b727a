//! What the clients of a listener may take of us, and the endpoints of a service.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::ops::RangeInclusive;
use std::time::Duration;

use mesh_core::config::section::{Bytes, Section};
use mesh_core::model::limits::H2Limits;
use mesh_core::model::policy::Upstream;
use mesh_core::model::resource::Limits;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Request heads below the smaller are refused in practice, above the larger they are an attack.
const HEADER_BYTES: RangeInclusive<u64> = KIB..=16 * MIB;

/// Below the smaller, browsers are refused; above the larger, looking for one among them is an attack.
const HEADER_COUNT: RangeInclusive<u32> = 16..=10_000;

/// Frames of one kind in 10 s. Below the smaller, clients are cut that do nothing out of the ordinary.
const FRAMES: RangeInclusive<u32> = 10..=1_000_000;

/// The widest that h2 has (RFC 9113 section 6.5.2).
const STREAMS: RangeInclusive<u32> = 1..=(1 << 31) - 1;

pub(super) fn read(listener: &Section<'_>) -> (Limits, H2Limits) {
    let (defaults, h2_defaults) = (Limits::default(), H2Limits::default());
    let Some(section) = listener.section("limits") else { return (defaults, h2_defaults) };
    let time = |key: &str, default: Duration| time(&section, key).unwrap_or(default);
    let limits = Limits {
        connections_max: connections_max(&section).unwrap_or(defaults.connections_max),
        handshake_timeout: time("handshake_timeout", defaults.handshake_timeout),
        header_timeout: time("header_timeout", defaults.header_timeout),
        body_idle_timeout: time("body_idle_timeout", defaults.body_idle_timeout),
        idle_timeout: time("idle_timeout", defaults.idle_timeout),
        header_bytes_max: bytes(&section, "max_header_bytes", HEADER_BYTES).unwrap_or(defaults.header_bytes_max),
        header_count_max: number(&section, "max_headers", HEADER_COUNT).unwrap_or(defaults.header_count_max),
        unread_body_bytes_max: bytes(&section, "max_unread_body_bytes", 0..=GIB)
            .map_or(defaults.unread_body_bytes_max, |bytes| bytes as u64),
        linger_timeout: time("linger_timeout", defaults.linger_timeout),
        half_closed_timeout: time("half_closed_timeout", defaults.half_closed_timeout),
    };
    let h2 = section.section("h2").map_or(h2_defaults, |section| read_h2(section));
    section.finish();
    (limits, h2)
}

fn read_h2(section: Section<'_>) -> H2Limits {
    let defaults = H2Limits::default();
    let frames = |key: &str, default: u32| number(&section, key, FRAMES).unwrap_or(default);
    let size = |key: &str, range, default: usize| bytes(&section, key, range).unwrap_or(default);
    let window = |key: &str, least, default: u32| {
        let bytes = bytes(&section, key, least..=GIB).and_then(|bytes| bytes.try_into().ok());
        bytes.unwrap_or(default)
    };
    let keepalive_interval = match section.optional("keepalive_interval") {
        None => defaults.keepalive_interval,
        Some(interval) => Some(interval).filter(|interval| *interval != Duration::ZERO),
    };
    let limits = H2Limits {
        streams_max: number(&section, "max_concurrent_streams", STREAMS).unwrap_or(defaults.streams_max),
        header_block_bytes_max: size("max_header_block_bytes", HEADER_BYTES, defaults.header_block_bytes_max),
        continuations_max: number(&section, "max_continuations", 0..=10_000).unwrap_or(defaults.continuations_max),
        resets_max: frames("max_resets", defaults.resets_max),
        pings_max: frames("max_pings", defaults.pings_max),
        settings_max: frames("max_settings", defaults.settings_max),
        empty_data_max: frames("max_empty_data", defaults.empty_data_max),
        priorities_max: frames("max_priorities", defaults.priorities_max),
        window_updates_max: frames("max_window_updates", defaults.window_updates_max),
        ignored_max: frames("max_ignored", defaults.ignored_max),
        unread_answer_bytes_max: size("max_unread_answer_bytes", KIB..=16 * MIB, defaults.unread_answer_bytes_max),
        stream_window_bytes_max: window("max_stream_window_bytes", 64 * KIB, defaults.stream_window_bytes_max),
        connection_window_bytes: window("connection_window_bytes", 128 * KIB, defaults.connection_window_bytes),
        keepalive_interval,
        keepalive_timeout: time(&section, "keepalive_timeout").unwrap_or(defaults.keepalive_timeout),
    };
    section.finish();
    limits
}

/// What a service's endpoints may.
pub(super) fn read_upstream(service: &Section<'_>) -> Upstream {
    let defaults = Upstream::default();
    let Some(section) = service.section("upstream") else { return defaults };
    let header_bytes = bytes(&section, "max_header_bytes", HEADER_BYTES).and_then(|bytes| u32::try_from(bytes).ok());
    let upstream = Upstream {
        idle_timeout: time(&section, "idle_timeout"),
        idle_connections_max: number(&section, "max_idle_connections", 0..=1_000_000)
            .unwrap_or(defaults.idle_connections_max),
        header_bytes_max: header_bytes.unwrap_or(defaults.header_bytes_max),
        header_count_max: number(&section, "max_headers", HEADER_COUNT).unwrap_or(defaults.header_count_max),
    };
    section.finish();
    upstream
}

fn time(section: &Section<'_>, key: &str) -> Option<Duration> {
    let time = section.optional(key);
    if time == Some(Duration::ZERO) {
        section.problem(key, "more than 0s is wanted: without a limit, idle connections would pile up");
    }
    time
}

fn connections_max(limits: &Section<'_>) -> Option<u32> {
    let max: u32 = limits.optional("max_connections")?;
    if max == 0 {
        limits.problem("max_connections", "at least 1 is wanted; a listener that takes nobody is left out");
    }
    Some(max)
}

fn bytes(section: &Section<'_>, key: &str, range: RangeInclusive<u64>) -> Option<usize> {
    let Bytes(bytes) = section.optional(key)?;
    if !range.contains(&bytes) {
        let (least, most) = (shown(*range.start()), shown(*range.end()));
        section.problem(key, format!("a size from {least} to {most} is wanted"));
    }
    usize::try_from(bytes).ok()
}

/// As people write it.
fn shown(bytes: u64) -> String {
    let unit = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

fn number(section: &Section<'_>, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
    let number = section.optional(key)?;
    if !range.contains(&number) {
        section.problem(key, format!("a number from {} to {} is wanted", range.start(), range.end()));
    }
    Some(number)
}
