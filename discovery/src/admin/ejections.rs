//! What proxies found out by calling: endpoints that they took out for a while. Discovery does not act on it, since each proxy
//! balances for itself; it shows it, so that there is one place to look.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::model::names::EndpointId;
use tokio::sync::watch;

/// Proxies remembered at most, and ejections of each; a report beyond is refused.
pub const PROXIES_MAX: usize = 1024;
pub const EJECTIONS_MAX: usize = 4096;

/// No ejection is believed for longer than this without being told again: a proxy that has gone silent ejects nobody. One that
/// lives repeats its report several times in that time.
pub const EJECTION_MAX: Duration = Duration::from_secs(30);

/// Every endpoint that a proxy has out now. It replaces what the proxy said before, so that a lost report is mended by the next
/// one; an empty list takes all back. While it holds, `GET /v1/endpoints` shows the endpoint as `"state": "ejected"`, unless it
/// is not ready or draining anyway, with the reason, the proxies and the time left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub ejections: Vec<ReportedEjection>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedEjection {
    /// As the endpoint's `id`.
    pub endpoint: EndpointId,
    /// Milliseconds until the proxy lets it in again.
    pub for_ms: u64,
    /// `5 consecutive 5xx`.
    pub reason: Arc<str>,
}

/// All that is out now, by proxy.
#[derive(Debug, Clone, Default)]
pub struct Ejections {
    by_proxy: BTreeMap<Arc<str>, BTreeMap<EndpointId, Ejection>>,
}

#[derive(Debug, Clone)]
struct Ejection {
    until: Instant,
    reason: Arc<str>,
}

impl Ejections {
    /// Why the endpoint is out, and for whom; none when it is in everywhere.
    #[must_use]
    pub fn reason(&self, endpoint: &EndpointId, now: Instant) -> Option<String> {
        let by_proxy = self.by_proxy.iter().filter_map(|(proxy, out)| Some((proxy, out.get(endpoint)?)));
        let out: Vec<_> = by_proxy.filter(|(_, ejection)| ejection.until > now).collect();
        let (_, latest) = out.iter().max_by_key(|(_, ejection)| ejection.until)?;
        let seconds = (latest.until - now).as_secs() + 1;
        let proxies = out.iter().map(|(proxy, _)| &***proxy).collect::<Vec<_>>().join(", ");
        Some(format!("{} (taken out by {proxies} for {seconds} s more)", latest.reason))
    }

    fn replace(&mut self, proxy: &str, report: Report, now: Instant) {
        for out in self.by_proxy.values_mut() {
            out.retain(|_, ejection| ejection.until > now);
        }
        let until = |reported: &ReportedEjection| now + Duration::from_millis(reported.for_ms).min(EJECTION_MAX);
        let out: BTreeMap<_, _> = report
            .ejections
            .into_iter()
            .map(|reported| (reported.endpoint.clone(), Ejection { until: until(&reported), reason: reported.reason }))
            .collect();
        self.by_proxy.insert(proxy.into(), out);
        self.by_proxy.retain(|_, out| !out.is_empty());
    }
}

/// Where proxies' reports come in, and the API looks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EjectionReports {
    now: watch::Sender<Arc<Ejections>>,
}

/// A report that is over a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    #[error("{proxies} proxies report already, which is the most that is remembered")]
    TooManyProxies { proxies: usize },
    #[error("{ejections} ejections are more than the {EJECTIONS_MAX} that are remembered of one proxy")]
    TooManyEjections { ejections: usize },
}

impl EjectionReports {
    /// Takes what `proxy` has out now in place of what it said before.
    ///
    /// # Errors
    /// [`ReportError`] when it is over a limit; what the proxy said before stays then.
    pub fn replace(&self, proxy: &str, report: Report, now: Instant) -> Result<(), ReportError> {
        if report.ejections.len() > EJECTIONS_MAX {
            return Err(ReportError::TooManyEjections { ejections: report.ejections.len() });
        }
        let mut result = Ok(());
        self.now.send_if_modified(|ejections| {
            if ejections.by_proxy.len() >= PROXIES_MAX && !ejections.by_proxy.contains_key(proxy) {
                result = Err(ReportError::TooManyProxies { proxies: ejections.by_proxy.len() });
                return false;
            }
            Arc::make_mut(ejections).replace(proxy, report, now);
            true
        });
        result
    }

    #[must_use]
    pub fn now(&self) -> Arc<Ejections> {
        self.now.borrow().clone()
    }

    /// To be woken by each report.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Ejections>> {
        self.now.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_replace_expire_and_add_up() {
        let (reports, now) = (EjectionReports::default(), Instant::now());
        let id = EndpointId::new("c1", 1);
        let report = |for_ms, reason: &str| Report {
            ejections: vec![ReportedEjection { endpoint: id.clone(), for_ms, reason: reason.into() }],
        };
        reports.replace("a", report(30_000, "5 consecutive 5xx"), now).unwrap();
        reports.replace("b", report(10_000, "connect failures"), now).unwrap();
        let said = |after: u64| reports.now().reason(&id, now + Duration::from_secs(after));
        assert_eq!(said(5).unwrap(), "5 consecutive 5xx (taken out by a, b for 26 s more)");
        assert_eq!(said(20).unwrap(), "5 consecutive 5xx (taken out by a for 11 s more)");
        // However long a proxy means to keep it out: it is silent since.
        reports.replace("c", report(600_000, "5 consecutive 5xx"), now).unwrap();
        assert_eq!(said(29).unwrap(), "5 consecutive 5xx (taken out by a, c for 2 s more)");
        assert_eq!(said(30), None);
        reports.replace("c", Report::default(), now).unwrap();
        reports.replace("a", Report::default(), now).unwrap();
        assert_eq!(said(5).unwrap(), "connect failures (taken out by b for 6 s more)");
        assert_eq!(reports.now().reason(&EndpointId::new("c1", 2), now), None, "a restart is another endpoint");
        let many = vec![report(1, "x").ejections[0].clone(); EJECTIONS_MAX + 1];
        assert!(reports.replace("a", Report { ejections: many }, now).is_err());
    }
}
