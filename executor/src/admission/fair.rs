//! Fair shares: whose turn it is among those that want something, by what each has had.
//!
//! Start-time fair queueing. Each key has a mark: where its next piece begins on a scale that all share. Who is served moves its
//! mark on by one piece over its weight; the lowest mark is first, and among equals who has wanted longest. The floor
//! is where the last piece that was served began: who comes (back) begins there at the lowest, so that nobody saves up for later.

use std::collections::BTreeSet;
use std::hash::Hash;

use super::Map;

/// What one piece moves the mark of a key with weight 1.
pub(super) const PIECE: u64 = 1 << 20;

/// Marks that are kept before those that say nothing any more are looked for.
const KEPT: usize = 256;

/// How a key stands.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: u64,
    /// Since when it wants something, if it does.
    wants: Option<u64>,
}

/// The marks of all keys.
#[derive(Debug)]
pub(super) struct Shares<K> {
    floor: u64,
    marks: Map<K, Mark>,
    wanting: BTreeSet<(u64, u64, K)>,
    /// Counts those who came.
    came: u64,
    /// How many marks there may be before the next look for those that can go.
    sweep_at: usize,
}

impl<K: Clone + Ord + Hash> Shares<K> {
    pub(super) fn new() -> Self {
        Self { floor: 0, marks: Map::default(), wanting: BTreeSet::new(), came: 0, sweep_at: KEPT }
    }

    /// Who is first of those that want something.
    pub(super) fn first(&self) -> Option<&K> {
        self.wanting.first().map(|(.., key)| key)
    }

    /// Says whether a key wants something.
    pub(super) fn set_wanting(&mut self, key: &K, wants: bool) {
        let known = self.marks.get(key).copied();
        match (known.and_then(|mark| mark.wants), wants) {
            (None, true) => {
                let at = known.map_or(self.floor, |mark| mark.at.max(self.floor));
                self.came += 1;
                if known.is_none() {
                    self.sweep();
                }
                self.marks.insert(key.clone(), Mark { at, wants: Some(self.came) });
                self.wanting.insert((at, self.came, key.clone()));
            }
            (Some(since), false) => {
                let at = known.map_or(self.floor, |mark| mark.at);
                self.wanting.remove(&(at, since, key.clone()));
                self.marks.insert(key.clone(), Mark { at, wants: None });
            }
            _ => {}
        }
    }

    /// A key was served a piece.
    pub(super) fn charge(&mut self, key: &K, weight: u32) {
        let mark = self.marks.get(key).copied().unwrap_or(Mark { at: self.floor, wants: None });
        let begins = mark.at.max(self.floor);
        // One that is served out of turn, for it found what nobody else can use, does not lift the floor over those that wait.
        let first = self.wanting.first().map_or(begins, |(at, ..)| *at);
        self.floor = self.floor.max(begins.min(first));
        let at = begins + PIECE / u64::from(weight.max(1));
        if let Some(since) = mark.wants {
            self.wanting.remove(&(mark.at, since, key.clone()));
            self.wanting.insert((at, since, key.clone()));
        }
        match self.marks.get_mut(key) {
            Some(mark) => mark.at = at,
            None => {
                self.sweep();
                self.marks.insert(key.clone(), Mark { at, wants: None });
            }
        }
    }

    /// Forgets marks that say no more than that nothing is known.
    fn sweep(&mut self) {
        if self.marks.len() < self.sweep_at {
            return;
        }
        let floor = self.floor;
        self.marks.retain(|_, mark| mark.wants.is_some() || mark.at > floor);
        self.sweep_at = (self.marks.len() * 2).max(KEPT);
    }

    /// Those that have had more than others, and how much: in pieces of weight 1.
    pub(super) fn ahead(&self) -> impl Iterator<Item = (&K, f64)> {
        let floor = self.floor;
        self.marks.iter().filter(move |(_, mark)| mark.at > floor).map(move |(key, mark)| {
            let ahead = u32::try_from(mark.at - floor).unwrap_or(u32::MAX);
            (key, f64::from(ahead) / f64::from(1_u32 << 20))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Serves whoever is first, `pieces` times.
    fn serve(shares: &mut Shares<u8>, weights: &[u32], pieces: usize) -> Vec<u8> {
        let mut served = Vec::new();
        for _ in 0..pieces {
            let Some(key) = shares.first().copied() else { break };
            shares.charge(&key, weights[usize::from(key)]);
            served.push(key);
        }
        served
    }

    #[test]
    fn one_who_comes_late_does_not_wait_behind_a_backlog() {
        let mut shares = Shares::new();
        shares.set_wanting(&0, true);
        serve(&mut shares, &[1, 1], 10_000);
        shares.set_wanting(&1, true);
        assert_eq!(shares.first(), Some(&1));
        assert_eq!(serve(&mut shares, &[1, 1], 5), [1, 0, 1, 0, 1]);
    }

    #[test]
    fn nobody_saves_up() {
        let mut shares = Shares::new();
        for key in [0, 1] {
            shares.set_wanting(&key, true);
        }
        shares.set_wanting(&1, false);
        serve(&mut shares, &[1, 1], 100);
        shares.set_wanting(&1, true);
        let ones = serve(&mut shares, &[1, 1], 20).into_iter().filter(|key| *key == 1).count();
        assert!(ones <= 11, "{ones} of 20");
    }

    #[test]
    fn what_says_nothing_is_forgotten() {
        let mut shares = Shares::new();
        for key in 0..100_000_u32 {
            shares.set_wanting(&key, true);
            shares.charge(&key, 1);
            shares.charge(&key, 1);
            shares.set_wanting(&key, false);
        }
        assert!(shares.marks.len() < 4 * KEPT, "{}", shares.marks.len());
    }

    proptest! {
        /// Over any stretch in which all of them want something, each is served by its weight, give or take one round.
        #[test]
        fn all_are_served_by_weight(weights in proptest::collection::vec(1_u32..8, 2..6), head in 0_usize..50) {
            let mut shares = Shares::new();
            for key in 0..weights.len() {
                shares.set_wanting(&u8::try_from(key).unwrap(), true);
            }
            serve(&mut shares, &weights, head);
            let rounds = 20;
            let total: u32 = weights.iter().sum();
            let served = serve(&mut shares, &weights, (total * rounds) as usize);
            for (key, weight) in weights.iter().enumerate() {
                let got = u32::try_from(served.iter().filter(|one| usize::from(**one) == key).count()).unwrap();
                let due = weight * rounds;
                prop_assert!(got.abs_diff(due) <= weight + 1, "{key} got {got}, {due} were due: {weights:?}");
            }
        }
    }
}
