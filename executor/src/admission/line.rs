//! The lines of those who wait: one per function, and one per namespace for all of its leases.

use std::collections::{BTreeMap, BTreeSet};

use runlet_core::name::{Namespace, RevisionDigest};

use super::Map;
use super::fair::Shares;
use super::want::{AGE, Want, Weights, Who};

/// Where one stands in its line: by arrival and priority, then by ticket.
pub(super) type Order = (i64, u64);

/// The revision whose parked sandboxes will do, and how many executions may run: those in a lane want the same.
type Lane = (Option<RevisionDigest>, u32);

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) want: Want,
    /// Whether it has its turn already and lacks only a place.
    pub(super) has_turn: bool,
    /// Whether it is among those whose number is bounded.
    pub(super) counted: bool,
    pub(super) order: Order,
    pub(super) answer: W,
}

impl<W> Waiter<W> {
    pub(super) fn lane(&self) -> Lane {
        (self.want.parked().map(|(_, revision)| revision.clone()), self.want.most())
    }
}

/// Where one who comes at `now` (milliseconds) stands.
pub(super) fn order(now: u64, priority: i16, ticket: u64) -> Order {
    (i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(i64::from(priority) * AGE), ticket)
}

/// A function: what runs, and who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) running: u32,
    pub(super) waiting: u32,
    lanes: BTreeMap<Lane, BTreeSet<Order>>,
    counted: BTreeSet<Order>,
}

impl Line {
    /// The first of each lane whose turn could come now, best first.
    pub(super) fn heads(&self) -> Vec<u64> {
        let mut heads: Vec<Order> = self
            .lanes
            .iter()
            .filter(|((_, most), _)| self.running < *most)
            .filter_map(|(_, lane)| lane.first().copied())
            .collect();
        heads.sort_unstable();
        heads.into_iter().map(|(_, ticket)| ticket).collect()
    }

    /// How many stand before that place.
    pub(super) fn before(&self, order: Order) -> usize {
        self.lanes.values().map(|lane| lane.range(..order).count()).sum()
    }

    /// Whether somebody waits for a sandbox of the revision.
    pub(super) fn wants(&self, revision: &RevisionDigest) -> bool {
        self.lanes.iter().any(|((wanted, _), lane)| wanted.as_ref() == Some(revision) && !lane.is_empty())
    }

    fn has_heads(&self) -> bool {
        self.lanes.iter().any(|((_, most), lane)| self.running < *most && !lane.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }
}

/// A namespace.
#[derive(Debug)]
struct Tenant {
    shares: Shares<Who>,
    lines: Map<Who, Line>,
    counted: u32,
    /// The lines by how many of them count, so that the longest is found.
    lengths: BTreeSet<(usize, Who)>,
}

/// Namespaces that are known though they have nothing to do, so that they are not better off for having been away.
const KEPT: usize = 1024;

/// All lines.
#[derive(Debug)]
pub(super) struct Lines {
    weights: Weights,
    shares: Shares<Namespace>,
    tenants: Map<Namespace, Tenant>,
    /// The namespaces by how many of theirs count, over their weight.
    lengths: BTreeSet<(u64, Namespace)>,
}

/// A length that can be compared between namespaces.
fn weighed(counted: u32, weight: u32) -> u64 {
    (u64::from(counted) << 20) / u64::from(weight)
}

impl Lines {
    pub(super) fn new(weights: Weights) -> Self {
        Self { weights, shares: Shares::new(), tenants: Map::default(), lengths: BTreeSet::new() }
    }

    pub(super) fn line(&self, namespace: &Namespace, who: &Who) -> Option<&Line> {
        self.tenants.get(namespace)?.lines.get(who)
    }

    /// Executions that run, of a line.
    pub(super) fn running(&self, namespace: &Namespace, who: &Who) -> u32 {
        self.line(namespace, who).map_or(0, |line| line.running)
    }

    /// The line whose turn it is among those with a head.
    pub(super) fn first(&self) -> Option<(&Namespace, &Who)> {
        let namespace = self.shares.first()?;
        Some((namespace, self.tenants.get(namespace)?.shares.first()?))
    }

    /// Whether anybody waits who has a free turn.
    pub(super) fn has_heads(&self) -> bool {
        self.shares.first().is_some()
    }

    fn tenant(&mut self, namespace: &Namespace) -> &mut Tenant {
        if !self.tenants.contains_key(namespace) {
            if self.tenants.len() > KEPT {
                self.tenants.retain(|_, tenant| !tenant.lines.is_empty());
            }
            let (shares, lines, lengths) = (Shares::new(), Map::default(), BTreeSet::new());
            self.tenants.insert(namespace.clone(), Tenant { shares, lines, counted: 0, lengths });
        }
        self.tenants.get_mut(namespace).expect("it was put there")
    }

    /// Somebody gets into line.
    pub(super) fn push<W>(&mut self, waiter: &Waiter<W>) {
        let (namespace, who) = (&waiter.want.namespace, waiter.want.who());
        let line = self.tenant(namespace).lines.entry(who.clone()).or_default();
        line.waiting += 1;
        line.lanes.entry(waiter.lane()).or_default().insert(waiter.order);
        if waiter.counted {
            self.count(namespace, &who, |line| line.counted.insert(waiter.order));
        }
        self.refresh(namespace, &who);
    }

    /// Somebody leaves its line.
    pub(super) fn remove<W>(&mut self, waiter: &Waiter<W>) {
        let (namespace, who) = (&waiter.want.namespace, waiter.want.who());
        let Some(line) = self.tenants.get_mut(namespace).and_then(|tenant| tenant.lines.get_mut(&who)) else { return };
        line.waiting -= 1;
        let key = waiter.lane();
        if let Some(lane) = line.lanes.get_mut(&key) {
            lane.remove(&waiter.order);
            if lane.is_empty() {
                line.lanes.remove(&key);
            }
        }
        if waiter.counted {
            self.count(namespace, &who, |line| line.counted.remove(&waiter.order));
        }
        self.refresh(namespace, &who);
    }

    /// Changes who of a line counts.
    fn count(&mut self, namespace: &Namespace, who: &Who, change: impl FnOnce(&mut Line) -> bool) {
        let weight = self.weights.of(namespace);
        let Some(tenant) = self.tenants.get_mut(namespace) else { return };
        let Some(line) = tenant.lines.get_mut(who) else { return };
        let before = line.counted.len();
        change(line);
        let now = line.counted.len();
        tenant.lengths.remove(&(before, who.clone()));
        if now > 0 {
            tenant.lengths.insert((now, who.clone()));
        }
        self.lengths.remove(&(weighed(tenant.counted, weight), namespace.clone()));
        tenant.counted = if now > before { tenant.counted + 1 } else { tenant.counted - 1 };
        if tenant.counted > 0 {
            self.lengths.insert((weighed(tenant.counted, weight), namespace.clone()));
        }
    }

    /// Who has to go so that one more of this line may wait, when no more may: the last of the longest line. `None`: nobody, for
    /// the one who comes has no shorter line.
    pub(super) fn pushed_out(&self, namespace: &Namespace, who: &Who) -> Option<u64> {
        let last = |tenant: &Tenant, who: &Who| tenant.lines.get(who)?.counted.last().map(|(_, ticket)| *ticket);
        let mine = self.tenants.get(namespace);
        let (longest, greedy) = self.lengths.last()?;
        let counted = mine.map_or(0, |tenant| tenant.counted) + 1;
        if greedy != namespace && weighed(counted, self.weights.of(namespace)) < *longest {
            let tenant = self.tenants.get(greedy)?;
            return last(tenant, &tenant.lengths.last()?.1);
        }
        let tenant = mine?;
        let (length, longest) = tenant.lengths.last()?;
        let own = tenant.lines.get(who).map_or(0, |line| line.counted.len()) + 1;
        (own < *length).then(|| last(tenant, longest)).flatten()
    }

    /// An execution begins.
    pub(super) fn begin(&mut self, namespace: &Namespace, who: &Who) {
        let weight = self.weights.of(namespace);
        let tenant = self.tenant(namespace);
        // Leases are not counted: nothing bounds their number but room.
        match tenant.lines.get_mut(who) {
            _ if who.is_none() => {}
            Some(line) => line.running += 1,
            None => {
                tenant.lines.insert(who.clone(), Line { running: 1, ..Line::default() });
            }
        }
        tenant.shares.charge(who, 1);
        self.shares.charge(namespace, weight);
        self.refresh(namespace, who);
    }

    /// An execution has ended.
    pub(super) fn end(&mut self, namespace: &Namespace, who: &Who) {
        if let Some(line) = self.tenants.get_mut(namespace).and_then(|tenant| tenant.lines.get_mut(who)) {
            line.running = line.running.saturating_sub(1);
        }
        self.refresh(namespace, who);
    }

    /// Sees to it that those are in the shares who have heads, and that lines go away in which nobody is.
    fn refresh(&mut self, namespace: &Namespace, who: &Who) {
        let Some(tenant) = self.tenants.get_mut(namespace) else { return };
        let Some(line) = tenant.lines.get(who) else { return };
        tenant.shares.set_wanting(who, line.has_heads());
        if line.is_empty() {
            tenant.lines.remove(who);
        }
        let wanting = tenant.shares.first().is_some();
        self.shares.set_wanting(namespace, wanting);
    }

    /// All lines with their namespaces.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Namespace, &Who, &Line)> {
        self.tenants
            .iter()
            .flat_map(|(namespace, tenant)| tenant.lines.iter().map(move |(who, line)| (namespace, who, line)))
    }

    /// How many pieces the namespaces have had more than others, and their weights; those of whom there is nothing to say are
    /// not among them.
    pub(super) fn namespaces(&self) -> Vec<(Namespace, f64, f64)> {
        let mut known: Map<&Namespace, f64> = self.weights.all().map(|(namespace, _)| (namespace, 0.0)).collect();
        known.extend(self.shares.ahead());
        let weight = |namespace| f64::from(self.weights.of(namespace));
        known.into_iter().map(|(namespace, ahead)| (namespace.clone(), ahead, weight(namespace))).collect()
    }

    /// The functions that have had more than their share of their namespace, in pieces.
    pub(super) fn functions_ahead(&self) -> impl Iterator<Item = (&Namespace, &Who, f64)> {
        self.tenants
            .iter()
            .flat_map(|(namespace, tenant)| tenant.shares.ahead().map(move |(who, ahead)| (namespace, who, ahead)))
    }
}
