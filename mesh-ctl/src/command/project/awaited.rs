//! What is missing until what runs of a project is what its file asks for, in words. Only what the controller made counts, and
//! only as configured now: what is about to be replaced is not what was asked for, however well it serves.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use mesh_core::compose::{Project, Restart, Service};
use mesh_core::model::replicas::{ReplicaState, ReplicaStatus};

/// Empty when nothing is.
#[must_use]
pub fn missing(project: &Project, replicas: &[ReplicaStatus]) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, service) in &project.services {
        let ours = || replicas.iter().filter(|replica| replica.managed && replica.service == *name);
        let done = ours().filter(|replica| replica.current && is_done(replica, service)).count();
        let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX);
        let others = ours().filter(|replica| replica.state != ReplicaState::NotStarted).count() - done;
        if done < wanted {
            missing.push(format!("{name}: {done} of {wanted} replicas are ready as the file has them"));
        } else if done > wanted || others > 0 {
            missing.push(format!("{name}: {} replicas have not gone yet", done - wanted + others));
        }
    }
    let is_known = |replica: &&ReplicaStatus| project.services.contains_key(&replica.service);
    let left = replicas.iter().filter(|replica| replica.managed && !is_known(replica));
    missing.extend(left.map(|replica| format!("{} has not gone yet; its service is not in the file", replica.name)));
    missing
}

/// It takes requests, or was to run once and did.
fn is_done(replica: &ReplicaStatus, service: &Service) -> bool {
    let has_completed = replica.state == ReplicaState::Exited { code: Some(0) };
    replica.ready || (has_completed && service.restart != Restart::Always)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_core::compose::{self, Overrides};
    use mesh_core::model::names::Name;
    use mesh_core::model::replicas::RuntimeKind;

    use super::*;

    fn replica(service: &str, number: u32) -> ReplicaStatus {
        let project = Name::new("t").unwrap();
        ReplicaStatus {
            name: format!("t-{service}-{number}"),
            project,
            service: Name::new(service).unwrap(),
            number,
            runtime: RuntimeKind::Process,
            unit: format!("{service}{number}").into(),
            state: ReplicaState::Running,
            ready: true,
            address: None,
            ports: Vec::new(),
            started_millis: None,
            restarts: 0,
            last_reason: None,
            managed: true,
            current: true,
        }
    }

    #[test]
    fn only_what_was_made_as_the_file_has_it_counts() {
        let text = "name: t\nx-mesh: { runtime: process }\nservices:\n  web: { command: [x], scale: 2 }\n  init: { command: [x], \
                    restart: 'no' }\n";
        let overrides = Overrides { directory: "/".into(), ..Overrides::default() };
        let project = compose::read("compose.yaml", text, &BTreeMap::new(), &overrides).unwrap();
        let init = ReplicaStatus { ready: false, state: ReplicaState::Exited { code: Some(0) }, ..replica("init", 1) };
        let check = |replicas: &[ReplicaStatus], expected: &[&str]| {
            let all: Vec<ReplicaStatus> = replicas.iter().chain([&init]).cloned().collect();
            assert_eq!(missing(&project, &all), expected, "{replicas:?}");
        };
        let old = |number| ReplicaStatus { current: false, ..replica("web", number) };
        let foreign = |number| ReplicaStatus { managed: false, current: false, ..replica("web", number) };
        check(&[replica("web", 1), replica("web", 2)], &[]);
        check(&[replica("web", 1), replica("web", 2), foreign(3)], &[]);
        let one = "web: 1 of 2 replicas are ready as the file has them";
        check(&[replica("web", 1), old(2)], &[one]);
        check(&[replica("web", 1), foreign(2)], &[one]);
        check(&[replica("web", 1), ReplicaStatus { ready: false, ..replica("web", 2) }], &[one]);
        check(&[old(1), old(2)], &["web: 0 of 2 replicas are ready as the file has them"]);
        check(&[replica("web", 1), replica("web", 2), old(3)], &["web: 1 replicas have not gone yet"]);
        check(&[replica("web", 1), replica("web", 2), replica("web", 3)], &["web: 1 replicas have not gone yet"]);
        let former = replica("former", 1);
        let left = "t-former-1 has not gone yet; its service is not in the file";
        check(&[replica("web", 1), replica("web", 2), former], &[left]);
        assert_eq!(
            missing(&project, &[replica("web", 1), replica("web", 2)]),
            ["init: 0 of 1 replicas are ready as the file has them"]
        );
    }
}
