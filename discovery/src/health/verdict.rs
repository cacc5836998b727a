//! What the tries so far mean: accepted, not yet, or that nobody can tell from here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::SocketAddr;

use crate::provider::Verdict;

/// How one connect ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The other end is there, and said no.
    Refused,
    /// No route, no permission, or silence.
    NoWay {
        address: SocketAddr,
        error: String,
    },
}

/// Rounds in a row without a way to any address after which an endpoint counts as unreachable. One is not enough: the network
/// of a container that is just starting may answer so for a moment.
pub const NO_WAY_ROUNDS: u32 = 3;

/// What was tried since the endpoint's start.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    no_way_rounds: u32,
}

impl Tries {
    /// Takes the outcomes of one round, one for each address.
    pub fn round(&mut self, outcomes: &[Outcome]) -> Verdict {
        if outcomes.contains(&Outcome::Accepted) {
            return Verdict::Accepted;
        }
        let refused = outcomes.contains(&Outcome::Refused);
        self.no_way_rounds = if refused { 0 } else { self.no_way_rounds + 1 };
        let last = outcomes.iter().rev().find_map(|outcome| match outcome {
            Outcome::NoWay { address, error } => Some(format!("{address}: {error}")),
            Outcome::Accepted | Outcome::Refused => None,
        });
        match last {
            Some(error) if self.no_way_rounds >= NO_WAY_ROUNDS => Verdict::Unreachable { error: error.into() },
            _ => Verdict::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up_to_a_verdict() {
        let no_way = || Outcome::NoWay { address: "10.0.0.5:80".parse().unwrap(), error: "no route".to_owned() };
        let unreachable = || Verdict::Unreachable { error: "10.0.0.5:80: no route".into() };
        let check = |rounds: &[Vec<Outcome>], expected: Verdict| {
            let mut tries = Tries::default();
            let last = rounds.iter().map(|round| tries.round(round)).last().unwrap();
            assert_eq!(last, expected, "{rounds:?}");
        };
        check(&[vec![Outcome::Accepted]], Verdict::Accepted);
        check(&[vec![Outcome::Refused], vec![no_way(), Outcome::Accepted]], Verdict::Accepted);
        check(&vec![vec![Outcome::Refused]; 100], Verdict::Waiting);
        check(&vec![vec![no_way()]; 2], Verdict::Waiting);
        check(&vec![vec![no_way()]; 3], unreachable());
        check(&[vec![no_way()], vec![no_way()], vec![Outcome::Refused], vec![no_way()]], Verdict::Waiting);
        check(&vec![vec![no_way(), Outcome::Refused]; 9], Verdict::Waiting);
    }
}
