//! Queue in which callers take turns. The wait of a caller does not depend on the number
//! of items of other callers.

use std::collections::{HashMap, VecDeque};

use otpd_rules::CallerName;

/// Queue with one lane per caller.
#[derive(Debug)]
pub struct Lanes<Item> {
    /// Index of each caller's lane. Lanes are kept, because callers are configured.
    names: HashMap<CallerName, usize>,
    queues: Vec<VecDeque<Item>>,
    /// Lanes that are not empty, in the order of their turns.
    turns: VecDeque<usize>,
    waiting: usize,
}

impl<Item> Default for Lanes<Item> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            queues: Vec::new(),
            turns: VecDeque::new(),
            waiting: 0,
        }
    }
}

impl<Item> Lanes<Item> {
    /// Number of items in all lanes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Number of items in the lane of `caller`.
    pub fn waiting_of(&self, caller: &CallerName) -> usize {
        let lane = self.names.get(caller);
        lane.map_or(0, |&lane| self.queues[lane].len())
    }

    /// Adds an item at the end of its caller's lane.
    pub fn push(&mut self, caller: &CallerName, item: Item) {
        let lane = self.lane(caller);
        if self.queues[lane].is_empty() {
            self.turns.push_back(lane);
        }
        self.queues[lane].push_back(item);
        self.waiting += 1;
    }

    /// Takes the oldest item of the caller whose turn it is.
    pub fn pop(&mut self) -> Option<Item> {
        let turn = self.turns.pop_front()?;
        let lane = &mut self.queues[turn];
        let item = lane.pop_front();
        self.waiting -= 1;
        if !lane.is_empty() {
            self.turns.push_back(turn);
        }
        item
    }

    /// Takes the newest item of the longest lane, if that lane has more than `most` items.
    pub fn pop_newest_beyond(&mut self, most: usize) -> Option<Item> {
        let lanes = self.turns.iter().copied();
        let longest = lanes.max_by_key(|&lane| self.queues[lane].len())?;
        if self.queues[longest].len() <= most {
            return None;
        }
        let item = self.queues[longest].pop_back();
        self.waiting -= 1;
        if self.queues[longest].is_empty() {
            self.turns.retain(|&lane| lane != longest);
        }
        item
    }

    /// Number of items that would be taken before the next item of `caller`.
    pub fn ahead_of(&self, caller: &CallerName) -> usize {
        let lane = self.names.get(caller);
        let mine = self.waiting_of(caller);
        let others = self.turns.iter().filter(|&other| Some(other) != lane);
        let before_mine = |&other: &usize| self.queues[other].len().min(mine + 1);
        mine + others.map(before_mine).sum::<usize>()
    }

    fn lane(&mut self, caller: &CallerName) -> usize {
        if let Some(&lane) = self.names.get(caller) {
            return lane;
        }
        self.queues.push(VecDeque::new());
        self.names.insert(caller.clone(), self.queues.len() - 1);
        self.queues.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(items: &[(&'static str, usize)]) -> Lanes<(&'static str, usize)> {
        let mut lanes = Lanes::default();
        for &(caller, number) in items {
            lanes.push(&CallerName::new(caller), (caller, number));
        }
        lanes
    }

    #[test]
    fn caller_waits_for_one_item_of_each_other_caller() {
        let mut lanes = filled(&[("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0)]);
        // One of its own, two of the first caller, and one of the third.
        assert_eq!(lanes.ahead_of(&CallerName::new("b")), 4);
        let order: Vec<_> = std::iter::from_fn(|| lanes.pop()).collect();
        let expected = [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("a", 2)];
        assert_eq!(order, expected);
        assert_eq!(lanes.waiting(), 0);
    }

    #[test]
    fn emptied_lane_loses_its_turn() {
        let mut lanes = filled(&[("a", 0), ("b", 0), ("b", 1)]);
        assert_eq!(lanes.pop_newest_beyond(1), Some(("b", 1)));
        assert_eq!(lanes.pop_newest_beyond(1), None);
        assert!(lanes.pop_newest_beyond(0).is_some());
        assert!(lanes.pop_newest_beyond(0).is_some());
        assert_eq!((lanes.waiting(), lanes.pop()), (0, None));
        lanes.push(&CallerName::new("a"), ("a", 1));
        assert_eq!(lanes.pop(), Some(("a", 1)));
        assert_eq!(lanes.pop(), None);
    }
}
