//! What becomes of a program without cancellations.

use super::program::{How, Part, Within};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Completed,
    RolledBack,
    Failed,
    TimedOut,
    NotReady,
}

pub(crate) struct Model {
    /// The end of each task.
    pub(crate) ends: Vec<Expected>,
    pub(crate) flow_fails: bool,
}

pub(crate) fn model(parts: &[Part]) -> Model {
    let mut ends: Vec<Expected> = Vec::new();
    let mut flow_fails = false;
    for part in parts {
        let first = ends.len();
        for node in &part.nodes {
            let mut inputs = node.takes.iter().map(|taken| ends[*taken]);
            let ready = node.kind == super::program::Kind::Tolerant
                || inputs.all(|end| matches!(end, Expected::Completed | Expected::RolledBack));
            ends.push(match node.how {
                _ if !ready => Expected::NotReady,
                _ if !node.fails_for_good() => Expected::Completed,
                How::Overrun if node.overruns() => Expected::TimedOut,
                How::Error | How::Panic | How::Overrun | How::Child => Expected::Failed,
            });
        }
        let fails = |index: usize| ends[index] != Expected::Completed && !part.nodes[index - first].tolerated;
        let unobserved = |parts: &[Part]| {
            let takers: Vec<_> = parts.iter().flat_map(|part| &part.nodes).flat_map(|node| &node.takes).collect();
            (first..ends.len()).any(|index| fails(index) && !takers.contains(&&index))
        };
        let rolled_back = match part.within {
            // Tasks of later parts take results of these.
            Within::Flow => {
                flow_fails |= unobserved(parts);
                false
            }
            Within::Subflow => {
                flow_fails |= unobserved(parts);
                false
            }
            // Its failure is the transaction's error, which the flow ignores.
            Within::Transaction { succeeds } => !succeeds,
            Within::Careless => unobserved(std::slice::from_ref(part)),
        };
        if rolled_back {
            let completed = ends[first..].iter_mut().filter(|end| **end == Expected::Completed);
            completed.for_each(|end| *end = Expected::RolledBack);
        }
    }
    Model { ends, flow_fails }
}
