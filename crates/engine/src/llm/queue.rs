//! Who is next: requests wait in the accounts of their owners, and the next place goes to the owner who was served least.
//!
//! Source: the virtual token counter of "Fairness in Serving Large Language Models" (Sheng et al. 2024), with its
//! weights: a token generated counts as two of a prompt. Prompt tokens found in the cache cost nobody anything and
//! count nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// What a prompt's token and a generated one count.
pub const PROMPT_TOKEN_WEIGHT: u64 = 1;
pub const GENERATED_TOKEN_WEIGHT: u64 = 2;

/// Accounts that are kept, at most, though their owners have nothing here now.
const ACCOUNTS_MAX: usize = 4096;

/// Index of an owner's account, for as long as the owner has something waiting or running.
pub type AccountId = usize;

/// Requests that wait, `T` each.
pub struct Queue<T> {
    accounts: Vec<Account<T>>,
    by_owner: HashMap<Arc<str>, AccountId>,
    /// The account that had the last turn.
    last: AccountId,
    /// Turns given so far.
    turns: u64,
    waiting: usize,
}

struct Account<T> {
    owner: Arc<str>,
    /// Weighted tokens that the owner was served.
    served: u64,
    /// The last of its turns.
    turn: u64,
    /// What waits, by priority, first come first served.
    lines: BTreeMap<i32, VecDeque<T>>,
    /// Requests that had their turn and have not ended.
    running: usize,
}

impl<T> Account<T> {
    fn priority(&self) -> Option<i32> {
        self.lines.keys().next().copied()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { accounts: Vec::new(), by_owner: HashMap::new(), last: 0, turns: 0, waiting: 0 }
    }
}

impl<T> Queue<T> {
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Adds a request to the account of `owner`. An owner who had nothing waiting begins no further behind than the one
    /// with the least service of those who wait: nobody saves up turns by staying away.
    pub fn push(&mut self, owner: &Arc<str>, priority: i32, request: T) {
        let least =
            self.accounts.iter().filter(|account| !account.lines.is_empty()).map(|account| account.served);
        let least = least.min().or_else(|| Some(self.accounts.get(self.last)?.served)).unwrap_or(0);
        let id = self.account(owner);
        let account = &mut self.accounts[id];
        if account.lines.is_empty() {
            account.served = account.served.max(least);
        }
        account.lines.entry(priority).or_default().push_back(request);
        self.waiting += 1;
    }

    /// The next request and its priority.
    pub fn peek(&self) -> Option<(i32, &T)> {
        let (id, priority) = self.next()?;
        Some((priority, self.accounts[id].lines.get(&priority)?.front()?))
    }

    /// Takes the next request: of the most urgent, the one whose owner was served least, or longer ago.
    pub fn pop(&mut self) -> Option<(AccountId, T)> {
        let (id, priority) = self.next()?;
        let account = &mut self.accounts[id];
        let line = account.lines.get_mut(&priority)?;
        let request = line.pop_front()?;
        if line.is_empty() {
            account.lines.remove(&priority);
        }
        self.turns += 1;
        account.turn = self.turns;
        account.running += 1;
        self.last = id;
        self.waiting -= 1;
        Some((id, request))
    }

    fn next(&self) -> Option<(AccountId, i32)> {
        let waiting = self.accounts.iter().enumerate();
        let waiting =
            waiting.filter_map(|(id, account)| Some((account.priority()?, account.served, account.turn, id)));
        waiting.min().map(|(priority, _, _, id)| (id, priority))
    }

    /// Counts weighted tokens as served to an account.
    pub fn charge(&mut self, id: AccountId, tokens: u64) {
        self.accounts[id].served += tokens;
    }

    /// Takes back what was charged for and turned out to cost nothing.
    pub fn refund(&mut self, id: AccountId, tokens: u64) {
        let served = &mut self.accounts[id].served;
        *served = served.saturating_sub(tokens);
    }

    /// One that had its turn has ended.
    pub fn end(&mut self, id: AccountId) {
        self.accounts[id].running -= 1;
    }

    /// Takes out those that wait and of which `is_over` says so.
    pub fn take_out(&mut self, mut is_over: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for account in &mut self.accounts {
            for line in account.lines.values_mut() {
                while let Some(at) = line.iter().position(&mut is_over) {
                    out.extend(line.remove(at));
                }
            }
            account.lines.retain(|_, line| !line.is_empty());
        }
        self.waiting -= out.len();
        out
    }

    fn account(&mut self, owner: &Arc<str>) -> AccountId {
        if let Some(id) = self.by_owner.get(owner) {
            return *id;
        }
        let fresh = Account { owner: owner.clone(), served: 0, turn: 0, lines: BTreeMap::new(), running: 0 };
        let idle = || {
            let accounts = self.accounts.iter().enumerate();
            let idle = accounts.filter(|(_, account)| account.lines.is_empty() && account.running == 0);
            idle.min_by_key(|(_, account)| account.turn).map(|(id, _)| id)
        };
        let id = match if self.accounts.len() < ACCOUNTS_MAX { None } else { idle() } {
            Some(id) => {
                self.by_owner.remove(&self.accounts[id].owner);
                self.accounts[id] = fresh;
                id
            }
            None => {
                self.accounts.push(fresh);
                self.accounts.len() - 1
            }
        };
        self.by_owner.insert(owner.clone(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Arc<str> {
        name.into()
    }

    /// Gives `turns` turns of which each is charged `cost`, and returns who had them.
    fn turns(queue: &mut Queue<&'static str>, turns: usize, cost: u64) -> Vec<&'static str> {
        let mut turn = || {
            let (id, request) = queue.pop().unwrap();
            queue.charge(id, cost);
            queue.end(id);
            request
        };
        (0..turns).map(|_| turn()).collect()
    }

    #[test]
    fn one_owner_is_served_in_order() {
        let mut queue = Queue::default();
        ["1", "2", "3"].into_iter().for_each(|name| queue.push(&owner("a"), 0, name));
        assert_eq!(turns(&mut queue, 3, 5), ["1", "2", "3"]);
        assert_eq!((queue.len(), queue.pop()), (0, None));
    }

    #[test]
    fn a_hundred_of_one_owner_delay_the_first_of_another_by_one_turn_at_most() {
        let mut queue = Queue::default();
        (0..100).for_each(|_| queue.push(&owner("many"), 0, "many"));
        turns(&mut queue, 7, 300);
        queue.push(&owner("few"), 0, "few");
        assert!(turns(&mut queue, 2, 300).contains(&"few"));
    }

    #[test]
    fn turns_follow_what_was_served_and_not_how_often() {
        let mut queue = Queue::default();
        for _ in 0..9 {
            queue.push(&owner("long"), 0, "long");
            queue.push(&owner("short"), 0, "short");
        }
        let mut had = BTreeMap::from([("long", 0), ("short", 0)]);
        for _ in 0..8 {
            let (id, name) = queue.pop().unwrap();
            queue.charge(id, if name == "long" { 300 } else { 100 });
            *had.get_mut(name).unwrap() += 1;
        }
        assert_eq!(had, BTreeMap::from([("long", 2), ("short", 6)]));
    }

    #[test]
    fn nobody_saves_up_turns_by_staying_away() {
        let mut queue = Queue::default();
        (0..50).for_each(|_| queue.push(&owner("busy"), 0, "busy"));
        turns(&mut queue, 40, 100);
        (0..10).for_each(|_| queue.push(&owner("new"), 0, "new"));
        let next = turns(&mut queue, 10, 100);
        assert_eq!(next.iter().filter(|name| **name == "new").count(), 5, "{next:?}");
        turns(&mut queue, 10, 100);
        // Into an empty queue one comes as if served as much as who had the last turn.
        queue.push(&owner("late"), 0, "late");
        queue.push(&owner("busy"), 0, "busy");
        queue.push(&owner("late"), 0, "late");
        assert_ne!(turns(&mut queue, 3, 100)[..2], ["late", "late"]);
    }

    #[test]
    fn the_more_urgent_go_first_whoever_they_are_of() {
        let mut queue = Queue::default();
        queue.push(&owner("a"), 0, "a0");
        queue.push(&owner("a"), 5, "a5");
        queue.push(&owner("b"), -1, "b-1");
        queue.push(&owner("b"), 0, "b0");
        assert_eq!(queue.peek(), Some((-1, &"b-1")));
        assert_eq!(turns(&mut queue, 4, 10), ["b-1", "a0", "b0", "a5"]);
    }

    #[test]
    fn what_is_over_is_taken_out_wherever_it_stands() {
        let mut queue = Queue::default();
        ["x", "y"].into_iter().for_each(|name| queue.push(&owner("a"), 0, name));
        queue.push(&owner("b"), 3, "x");
        assert_eq!(queue.take_out(|name| *name == "x"), ["x", "x"]);
        assert_eq!((queue.len(), queue.peek()), (1, Some((0, &"y"))));
    }

    #[test]
    fn accounts_without_work_are_forgotten_when_there_are_too_many() {
        let mut queue = Queue::default();
        queue.push(&owner("stays"), 0, "stays");
        let (stays, _) = queue.pop().unwrap();
        for number in 0..2 * ACCOUNTS_MAX {
            queue.push(&owner(&number.to_string()), 0, "x");
            turns(&mut queue, 1, 1);
        }
        assert_eq!((queue.accounts.len(), queue.by_owner.len()), (ACCOUNTS_MAX, ACCOUNTS_MAX));
        assert_eq!(&*queue.accounts[stays].owner, "stays");
        queue.end(stays);
    }
}
