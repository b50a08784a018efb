//! Which pages of the key/value cache are whose, and which tokens the filled ones hold.
//!
//! Full pages stand in a tree keyed by their tokens, so that sequences that begin alike share them (RadixAttention,
//! Zheng et al. 2024, with whole pages as edges). A page that nobody uses stays until its room is needed; then the
//! least recently used leaf goes first.

use std::collections::{BTreeSet, HashMap};

use kernels::attention::PAGE_TOKENS;

/// Hands out page numbers; the cache itself holds what is in them.
pub struct Pages {
    /// Indexed by page number.
    nodes: Vec<Node>,
    /// Where a sequence's first page is looked up.
    roots: HashMap<Box<[u32]>, u32>,
    free: Vec<u32>,
    /// Leaves of the tree that nobody uses, by when they were last used.
    evictable: BTreeSet<(u64, u32)>,
    /// Pages with users.
    used: usize,
    /// Pages whose contents went because their room was needed.
    evicted: u64,
    /// Counts the sequences that ended: what "recently" is measured in.
    clock: u64,
}

#[derive(Default)]
struct Node {
    /// Sequences that use the page now.
    users: u32,
    /// The page's place in the tree, once it is full.
    place: Option<Place>,
    children: HashMap<Box<[u32]>, u32>,
    last_used: u64,
    /// Positions, from its first, for which the draft model's page of the same number is filled.
    drafted: usize,
}

struct Place {
    parent: Option<u32>,
    tokens: Box<[u32]>,
}

/// The pages of one sequence, in the order of its positions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub pages: Vec<u32>,
    /// Tokens at the sequence's beginning whose keys and values are in the pages already.
    pub cached_tokens: usize,
    /// Full pages that stand in the tree, and the last node on their path.
    published: usize,
    tip: Option<u32>,
}

impl Lease {
    /// Positions that there are pages for.
    pub fn positions(&self) -> usize {
        self.pages.len() * PAGE_TOKENS
    }

    /// Whether the next page that this sequence of `tokens` will let others find is the one that `other` will.
    pub fn fills_the_same(&self, tokens: &[u32], other: &Lease, others: &[u32]) -> bool {
        let page = self.published * PAGE_TOKENS..(self.published + 1) * PAGE_TOKENS;
        let same_path = (self.published, self.tip) == (other.published, other.tip);
        same_path && tokens.get(page.clone()).is_some_and(|tokens| others.get(page) == Some(tokens))
    }
}

impl Pages {
    pub fn new(total: u32) -> Pages {
        Pages {
            nodes: (0..total).map(|_| Node::default()).collect(),
            roots: HashMap::new(),
            free: (0..total).rev().collect(),
            evictable: BTreeSet::new(),
            used: 0,
            evicted: 0,
            clock: 0,
        }
    }

    /// Pages that `tokens` positions need.
    pub fn needed(tokens: usize) -> usize {
        tokens.div_ceil(PAGE_TOKENS)
    }

    /// Pages for `positions` positions, those that hold the beginning of `prompt` already among them; at least
    /// the prompt's last token is left to evaluate. `None` where fewer than these and `spare` more can be had.
    pub fn take(&mut self, prompt: &[u32], positions: usize, spare: usize) -> Option<Lease> {
        let reusable = &prompt[..prompt.len().saturating_sub(1)];
        let mut lease = Lease::default();
        for tokens in reusable.chunks_exact(PAGE_TOKENS) {
            let Some(page) = self.child(lease.tip, tokens) else { break };
            lease.tip = Some(page);
            lease.pages.push(page);
        }
        let shared = lease.pages.len();
        // Held before anything is evicted, so that what was just found does not go.
        lease.pages.iter().for_each(|page| self.hold(*page));
        lease.published = shared;
        lease.cached_tokens = shared * PAGE_TOKENS;
        let missing = Pages::needed(positions).saturating_sub(shared);
        if missing + spare > self.available() || !self.grow(&mut lease, positions) {
            self.give_back(lease);
            return None;
        }
        Some(lease)
    }

    /// Adds pages until there are enough for `positions`. False, with nothing added, where too few can be had.
    pub fn grow(&mut self, lease: &mut Lease, positions: usize) -> bool {
        let missing = Pages::needed(positions).saturating_sub(lease.pages.len());
        if missing > self.available() {
            return false;
        }
        for _ in 0..missing {
            // Whoever holds a page holds the path to it, so all that nobody holds can be evicted leaf by leaf.
            let page = self.free.pop().or_else(|| self.evict());
            assert!(page.is_some(), "of the pages that nobody uses, some are neither free nor leaves");
            page.into_iter().for_each(|page| {
                self.hold(page);
                self.nodes[page as usize].drafted = 0;
                lease.pages.push(page);
            });
        }
        true
    }

    /// Takes over what others have filled, by now, of the pages that this sequence of `tokens` would fill next; at least
    /// the last token is left to evaluate. Returns the tokens from the beginning that need no evaluation.
    pub fn adopt(&mut self, lease: &mut Lease, tokens: &[u32]) -> usize {
        while let Some(next) =
            tokens[..tokens.len().saturating_sub(1)].chunks_exact(PAGE_TOKENS).nth(lease.published)
        {
            let Some(equal) = self.child(lease.tip, next) else { break };
            self.replace(lease, equal);
        }
        lease.published * PAGE_TOKENS
    }

    /// The page after the published ones has the same bits in `equal`, of the tree: that takes its place.
    fn replace(&mut self, lease: &mut Lease, equal: u32) {
        self.hold(equal);
        let page = std::mem::replace(&mut lease.pages[lease.published], equal);
        self.let_go(page);
        lease.published += 1;
        lease.tip = Some(equal);
    }

    /// Lets others find the pages that `tokens`, the sequence from its beginning, have filled by now.
    pub fn publish(
        &mut self,
        lease: &mut Lease,
        tokens: impl Fn(std::ops::Range<usize>) -> Box<[u32]>,
        filled: usize,
    ) {
        while (lease.published + 1) * PAGE_TOKENS <= filled {
            let start = lease.published * PAGE_TOKENS;
            let tokens = tokens(start..start + PAGE_TOKENS);
            let page = lease.pages[lease.published];
            if let Some(equal) = self.child(lease.tip, &tokens) {
                // Somebody filled the same page at the same time.
                self.replace(lease, equal);
                continue;
            }
            lease.published += 1;
            match lease.tip {
                Some(parent) => {
                    self.nodes[parent as usize].children.insert(tokens.clone(), page);
                }
                None => {
                    self.roots.insert(tokens.clone(), page);
                }
            }
            self.nodes[page as usize].place = Some(Place { parent: lease.tip, tokens });
            lease.tip = Some(page);
        }
    }

    /// Tokens at the sequence's beginning whose keys and values the draft model has.
    pub fn drafted(&self, lease: &Lease) -> usize {
        let filled = |page: &u32| self.nodes[*page as usize].drafted;
        let whole = lease.pages.iter().take_while(|page| filled(page) == PAGE_TOKENS).count();
        whole * PAGE_TOKENS + lease.pages.get(whole).map_or(0, filled)
    }

    /// The draft model has evaluated the sequence's first `tokens` tokens.
    pub fn fill_draft(&mut self, lease: &Lease, tokens: usize) {
        for (page, first) in lease.pages.iter().zip((0..tokens).step_by(PAGE_TOKENS)) {
            let drafted = &mut self.nodes[*page as usize].drafted;
            *drafted = (*drafted).max(tokens - first).min(PAGE_TOKENS);
        }
    }

    /// Beyond its first `tokens` tokens, the sequence goes on in another way than the draft model was told.
    pub fn cut_draft(&mut self, lease: &Lease, tokens: usize) {
        for (index, page) in lease.pages.iter().enumerate().skip(tokens / PAGE_TOKENS) {
            let drafted = &mut self.nodes[*page as usize].drafted;
            *drafted = (*drafted).min(tokens.saturating_sub(index * PAGE_TOKENS));
        }
    }

    /// Ends a sequence's use of its pages; those in the tree keep what they hold.
    pub fn give_back(&mut self, lease: Lease) {
        self.clock += 1;
        lease.pages.into_iter().for_each(|page| self.let_go(page));
    }

    fn let_go(&mut self, page: u32) {
        let node = &mut self.nodes[page as usize];
        node.users -= 1;
        if node.users > 0 {
            return;
        }
        self.used -= 1;
        node.last_used = self.clock;
        if node.place.is_none() {
            self.free.push(page);
        } else if node.children.is_empty() {
            self.evictable.insert((node.last_used, page));
        }
    }

    /// Pages that sequences use now.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Pages that nobody uses: free, or with contents that may go.
    fn available(&self) -> usize {
        self.nodes.len() - self.used
    }

    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn child(&self, parent: Option<u32>, tokens: &[u32]) -> Option<u32> {
        let children = parent.map_or(&self.roots, |parent| &self.nodes[parent as usize].children);
        children.get(tokens).copied()
    }

    fn hold(&mut self, page: u32) {
        let node = &mut self.nodes[page as usize];
        self.evictable.remove(&(node.last_used, page));
        self.used += usize::from(node.users == 0);
        node.users += 1;
    }

    /// Takes the least recently used leaf out of the tree.
    fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.evictable.pop_first()?;
        let Place { parent, tokens } = self.nodes[page as usize].place.take()?;
        self.evicted += 1;
        match parent {
            Some(parent) => {
                let node = &mut self.nodes[parent as usize];
                node.children.remove(&tokens);
                if node.children.is_empty() && node.users == 0 {
                    self.evictable.insert((node.last_used, parent));
                }
            }
            None => {
                self.roots.remove(&tokens);
            }
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: usize = PAGE_TOKENS;

    fn text(kind: u32, length: usize) -> Vec<u32> {
        (0..length as u32).map(|i| kind * 100_000 + i).collect()
    }

    /// Takes pages for a whole sequence, fills and publishes them, and gives them back.
    fn serve(pages: &mut Pages, tokens: &[u32]) -> usize {
        let mut lease = pages.take(tokens, tokens.len(), 0).unwrap();
        let cached = lease.cached_tokens;
        pages.publish(&mut lease, |range| tokens[range].into(), tokens.len());
        pages.give_back(lease);
        cached
    }

    #[test]
    fn pages_are_taken_whole_or_not_at_all() {
        let mut pages = Pages::new(4);
        let lease = pages.take(&text(1, 1), 3 * P, 0).unwrap();
        assert_eq!((lease.pages.len(), pages.used()), (3, 3));
        assert_eq!(pages.take(&text(2, 1), P + 1, 0), None);
        assert_eq!(pages.used(), 3);
        pages.give_back(lease);
        assert_eq!(pages.take(&text(1, 1), 4 * P, 0).unwrap().pages.len(), 4);
    }

    #[test]
    fn a_beginning_seen_before_is_found_but_for_the_last_token() {
        let mut pages = Pages::new(16);
        assert_eq!(serve(&mut pages, &text(1, 2 * P)), 0);
        assert_eq!(serve(&mut pages, &text(1, 2 * P)), P);
        assert_eq!(serve(&mut pages, &text(1, 2 * P + 1)), 2 * P);
        assert_eq!(serve(&mut pages, &text(2, 2 * P + 1)), 0);
        assert_eq!(pages.used(), 0);
    }

    #[test]
    fn running_sequences_share_pages() {
        let mut pages = Pages::new(16);
        let tokens = text(1, 3 * P);
        let mut first = pages.take(&tokens, 4 * P, 0).unwrap();
        pages.publish(&mut first, |range| tokens[range].into(), 3 * P);
        let second = pages.take(&tokens, 4 * P, 0).unwrap();
        assert_eq!(second.pages[..2], first.pages[..2]);
        assert_eq!(pages.used(), 6);
        pages.give_back(first);
        assert_eq!(pages.used(), 4);
        pages.give_back(second);
        assert_eq!(pages.used(), 0);
    }

    #[test]
    fn the_least_recently_used_leaf_goes_first() {
        let mut pages = Pages::new(4);
        serve(&mut pages, &text(1, 2 * P));
        serve(&mut pages, &text(2, 2 * P));
        serve(&mut pages, &text(1, 2 * P + 1).split_off(0)[..2 * P]); // uses the first again
        let lease = pages.take(&text(3, 1), 2 * P, 0).unwrap();
        pages.give_back(lease);
        assert_eq!(serve(&mut pages, &text(1, P + 1)), P);
    }

    #[test]
    fn equal_pages_filled_at_the_same_time_are_kept_once() {
        let mut pages = Pages::new(8);
        let tokens = text(1, 2 * P);
        let mut one = pages.take(&tokens, 2 * P, 0).unwrap();
        let mut two = pages.take(&tokens, 2 * P, 0).unwrap();
        pages.publish(&mut one, |range| tokens[range].into(), 2 * P);
        pages.publish(&mut two, |range| tokens[range].into(), 2 * P);
        pages.give_back(two);
        pages.give_back(one);
        assert_eq!(pages.free.len(), 6);
        assert_eq!(serve(&mut pages, &text(1, 2 * P + 1)), 2 * P);
    }

    #[test]
    fn a_lease_grows_as_far_as_pages_can_be_had() {
        let mut pages = Pages::new(4);
        serve(&mut pages, &text(1, 2 * P));
        assert_eq!(pages.take(&text(2, 1), P, 4), None);
        let mut lease = pages.take(&text(2, 1), P, 3).unwrap();
        assert!(pages.grow(&mut lease, P) && lease.pages.len() == 1);
        let other = pages.take(&text(3, 1), P, 0).unwrap();
        assert!(!pages.grow(&mut lease, 4 * P) && lease.pages.len() == 1);
        assert!(pages.grow(&mut lease, 3 * P) && lease.positions() == 3 * P);
        assert_eq!((pages.used(), pages.evicted()), (4, 2));
        pages.give_back(other);
        pages.give_back(lease);
        assert_eq!((pages.used(), pages.free.len()), (0, 4));
    }

    #[test]
    fn what_others_filled_meanwhile_is_adopted_but_for_the_last_token() {
        let mut pages = Pages::new(12);
        let (tokens, other) = (text(1, 3 * P), text(2, 3 * P));
        let mut one = pages.take(&tokens, 3 * P, 0).unwrap();
        let mut two = pages.take(&tokens, 3 * P, 0).unwrap();
        let mut three = pages.take(&other, 3 * P, 0).unwrap();
        assert!(two.fills_the_same(&tokens, &one, &tokens));
        assert!(!three.fills_the_same(&other, &one, &tokens));
        assert_eq!(pages.adopt(&mut two, &tokens), 0);
        pages.publish(&mut one, |range| tokens[range].into(), 3 * P);
        assert!(!two.fills_the_same(&tokens, &one, &tokens));
        assert_eq!((pages.adopt(&mut two, &tokens), pages.adopt(&mut three, &other)), (2 * P, 0));
        assert_eq!((&two.pages[..2], pages.used()), (&one.pages[..2], 7));
        pages.give_back(one);
        // The page that is left it fills itself.
        pages.publish(&mut two, |range| tokens[range].into(), 3 * P);
        pages.give_back(two);
        pages.give_back(three);
        assert_eq!((pages.used(), pages.free.len()), (0, 9));
    }

    #[test]
    fn an_equal_page_stays_while_a_sequence_builds_on_it() {
        let mut pages = Pages::new(6);
        let tokens = text(1, 3 * P);
        let mut one = pages.take(&tokens, 2 * P, 0).unwrap();
        let mut two = pages.take(&tokens, 3 * P, 0).unwrap();
        pages.publish(&mut one, |range| tokens[range].into(), P);
        pages.publish(&mut two, |range| tokens[range].into(), P);
        pages.give_back(one);
        // Takes every page that nobody holds, and gives them another beginning.
        let other = text(2, 3 * P);
        let mut third = pages.take(&other, 3 * P, 0).unwrap();
        pages.publish(&mut third, |range| other[range].into(), 3 * P);
        pages.publish(&mut two, |range| tokens[range].into(), 2 * P);
        let mixed = [&other[..], &tokens[P..2 * P], &[0]].concat();
        pages.give_back(two);
        pages.give_back(third);
        assert_eq!(serve(&mut pages, &mixed), 3 * P);
    }

    #[test]
    fn what_the_draft_model_has_follows_the_pages() {
        let mut pages = Pages::new(6);
        let tokens = text(1, 3 * P);
        let mut lease = pages.take(&tokens, 3 * P, 0).unwrap();
        let check =
            |pages: &Pages, lease: &Lease, expected: usize| assert_eq!(pages.drafted(lease), expected);
        check(&pages, &lease, 0);
        pages.fill_draft(&lease, P + 5);
        check(&pages, &lease, P + 5);
        pages.cut_draft(&lease, P + 7);
        check(&pages, &lease, P + 5);
        pages.cut_draft(&lease, P + 2);
        check(&pages, &lease, P + 2);
        pages.fill_draft(&lease, 3 * P);
        check(&pages, &lease, 3 * P);
        pages.cut_draft(&lease, 2 * P + 1);
        pages.publish(&mut lease, |range| tokens[range].into(), 2 * P);
        pages.give_back(lease);
        // Whoever takes the pages over has what they hold, and new ones hold nothing.
        let lease = pages.take(&tokens, 4 * P, 0).unwrap();
        assert_eq!(lease.cached_tokens, 2 * P);
        check(&pages, &lease, 2 * P);
        pages.give_back(lease);
        let other = text(2, 6 * P);
        let lease = pages.take(&other, 6 * P, 0).unwrap();
        check(&pages, &lease, 0);
    }

    #[test]
    fn no_page_is_lost_or_handed_out_twice_in_a_long_mixed_run() {
        let mut pages = Pages::new(24);
        let mut running: Vec<(Vec<u32>, Lease)> = Vec::new();
        let mut random = 12345u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        for _ in 0..5000 {
            if next(2) == 0 && !running.is_empty() {
                let (tokens, mut lease) = running.swap_remove(next(running.len() as u64) as usize);
                let filled = next(tokens.len() as u64 + 1) as usize;
                pages.publish(&mut lease, |range| tokens[range].into(), filled);
                pages.give_back(lease);
            } else {
                let mut tokens = text(1, next(4) as usize * P);
                tokens.extend(text(2 + next(3) as u32, 1 + next(3 * P as u64) as usize));
                if let Some(lease) = pages.take(&tokens, tokens.len(), 0) {
                    running.push((tokens, lease));
                }
            }
            let in_tree = pages.nodes.iter().filter(|n| n.place.is_some() && n.users == 0).count();
            assert_eq!(pages.used() + pages.free.len() + in_tree, 24);
            assert_eq!(pages.used(), pages.nodes.iter().filter(|n| n.users > 0).count());
            for (_, lease) in &running {
                assert!(lease.pages.iter().all(|page| !pages.free.contains(page)));
            }
        }
        running.into_iter().for_each(|(_, lease)| pages.give_back(lease));
        assert_eq!(pages.used(), 0);
    }
}
