//! The input gate: while a critical section runs, nothing else of its object does.
//!
//! A section has an *owner*: the event, or the task, whose code began it. Sections begun inside a section are
//! its children. Among siblings, and among those without a parent, one runs at a time, in the order in
//! which they were begun.
//!
//! **Invariant:** an event enters only while no section is there; code of an owner runs only while no section
//! of another owner runs.

use std::collections::VecDeque;

/// Whose code runs: the number of an event inside its object, or of a task.
pub type Owner = u64;

/// Names a section of one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionId(u64);

/// Says what may run in one object in memory.
#[derive(Debug, Default)]
pub struct InputGate {
    /// In the order in which they were begun, which is that of their ids.
    sections: VecDeque<Section>,
    count: u64,
}

#[derive(Debug)]
struct Section {
    id: SectionId,
    parent: Option<SectionId>,
    owner: Owner,
}

/// How deep sections may nest.
const DEPTH_MAX: usize = 64;

impl InputGate {
    /// Returns whether an event may enter.
    pub fn is_open(&self) -> bool {
        self.sections.is_empty()
    }

    /// Returns whether code of `owner` may run.
    pub fn admits(&self, owner: Owner) -> bool {
        self.first().is_none_or(|first| first == owner)
    }

    /// Returns whose section runs; none where there is none.
    pub fn first(&self) -> Option<Owner> {
        // The first of those without a parent is the first of all: a child is begun after its parent.
        self.sections.front().map(|first| first.owner)
    }

    /// Begins a section of `owner`, inside of `parent` if there is one. None where it would nest too deep.
    pub fn begin(&mut self, owner: Owner, parent: Option<SectionId>) -> Option<SectionId> {
        let ancestors = std::iter::successors(parent, |id| self.find(*id)?.parent);
        if ancestors.count() >= DEPTH_MAX {
            return None;
        }
        self.count += 1;
        let id = SectionId(self.count);
        // A parent that has ended meanwhile holds back nobody.
        let parent = parent.filter(|id| self.find(*id).is_some());
        self.sections.push_back(Section { id, parent, owner });
        Some(id)
    }

    /// Returns whether the section runs: its parent does, and no sibling before it is left.
    pub fn runs(&self, id: SectionId) -> bool {
        let Some(section) = self.find(id) else { return false };
        let first = self.sections.iter().find(|other| other.parent == section.parent);
        first.is_some_and(|first| first.id == id)
            && section.parent.is_none_or(|parent| self.runs(parent))
    }

    /// Ends a section, and those inside of it.
    pub fn end(&mut self, id: SectionId) {
        // A child is begun after its parent, so what ends is known in time.
        let mut ended = vec![id];
        self.sections.retain(|section| {
            let ends =
                section.id == id || section.parent.is_some_and(|parent| ended.contains(&parent));
            if ends {
                ended.push(section.id);
            }
            !ends
        });
    }

    fn find(&self, id: SectionId) -> Option<&Section> {
        let index = self.sections.binary_search_by_key(&id, |section| section.id).ok()?;
        self.sections.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_without_sections_admits_everybody() {
        let gate = InputGate::default();
        assert!(gate.is_open() && gate.admits(1) && gate.admits(2));
    }

    #[test]
    fn a_section_keeps_events_and_other_owners_out_until_it_ends() {
        let mut gate = InputGate::default();
        let section = gate.begin(1, None).unwrap();
        assert!(gate.runs(section) && !gate.is_open());
        assert!(gate.admits(1) && !gate.admits(2));
        gate.end(section);
        assert!(gate.is_open() && gate.admits(2) && !gate.runs(section));
    }

    #[test]
    fn sections_of_several_owners_run_one_after_the_other_in_the_order_begun() {
        let mut gate = InputGate::default();
        let [a, b, c] = [1, 2, 3].map(|owner| gate.begin(owner, None).unwrap());
        for (running, waiting, owner) in [(a, b, 1), (b, c, 2)] {
            assert!(gate.runs(running) && !gate.runs(waiting));
            assert!(gate.admits(owner) && !gate.admits(owner + 1));
            gate.end(running);
        }
        assert!(gate.runs(c) && !gate.is_open());
    }

    #[test]
    fn a_section_that_was_given_up_while_waiting_holds_back_nobody() {
        let mut gate = InputGate::default();
        let [a, b, c] = [1, 2, 3].map(|owner| gate.begin(owner, None).unwrap());
        gate.end(b);
        assert!(gate.runs(a));
        gate.end(a);
        assert!(gate.runs(c));
    }

    #[test]
    fn a_section_inside_a_section_runs_at_once_and_its_siblings_wait_for_it() {
        let mut gate = InputGate::default();
        let outer = gate.begin(1, None).unwrap();
        let first = gate.begin(1, Some(outer)).unwrap();
        let second = gate.begin(1, Some(outer)).unwrap();
        let inner = gate.begin(1, Some(first)).unwrap();
        assert!(gate.runs(outer) && gate.runs(first) && gate.runs(inner) && !gate.runs(second));
        gate.end(inner);
        gate.end(first);
        assert!(gate.runs(second) && !gate.is_open());
        gate.end(second);
        gate.end(outer);
        assert!(gate.is_open());
    }

    #[test]
    fn the_end_of_a_section_ends_those_inside_and_lets_the_next_run() {
        let mut gate = InputGate::default();
        let outer = gate.begin(1, None).unwrap();
        let inner = gate.begin(1, Some(outer)).unwrap();
        let innermost = gate.begin(1, Some(inner)).unwrap();
        let next = gate.begin(2, None).unwrap();
        gate.end(outer);
        assert!(!gate.runs(inner) && !gate.runs(innermost) && gate.runs(next));
    }

    #[test]
    fn a_child_of_a_section_that_waits_waits_too() {
        let mut gate = InputGate::default();
        let running = gate.begin(1, None).unwrap();
        let waiting = gate.begin(2, None).unwrap();
        let child = gate.begin(2, Some(waiting)).unwrap();
        assert!(!gate.runs(child));
        gate.end(running);
        assert!(gate.runs(child));
    }

    #[test]
    fn a_child_of_a_section_that_has_ended_is_one_of_its_own() {
        let mut gate = InputGate::default();
        let ended = gate.begin(1, None).unwrap();
        gate.end(ended);
        let section = gate.begin(1, Some(ended)).unwrap();
        assert!(gate.runs(section));
    }

    #[test]
    fn sections_nest_to_a_depth_and_not_beyond() {
        let mut gate = InputGate::default();
        let mut parent = None;
        for _ in 0..DEPTH_MAX {
            parent = Some(gate.begin(1, parent).unwrap());
        }
        assert_eq!(gate.begin(1, parent), None);
        assert!(gate.begin(1, None).is_some());
    }
}
