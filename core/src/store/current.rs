//! The current revision of functions and their aliases, remembered for a moment: what a warm call needs to know without
//! asking the database.
//!
//! Another server's deploy is seen at most [`FRESH`] later; this server's own at once. While the database is away nobody can
//! deploy: then what was known last is good for [`STALE`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::alias::Alias;
use super::function::Function;
use super::{Store, StoreError};
use crate::name::{AliasName, FunctionName, Namespace};

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(1);

/// How long the last answer is good while the database is away.
pub const STALE: Duration = Duration::from_secs(600);

/// Who has a last answer waits no longer than this for a new one.
pub const ASK: Duration = Duration::from_millis(300);

/// Most answers kept.
const BOUND: usize = 4096;

/// A function as callers name it.
#[derive(Debug, Clone)]
pub struct Current {
    /// The function, at its current revision.
    pub function: Function,
    /// Its aliases.
    pub aliases: Vec<Alias>,
}

impl Current {
    /// The alias of that name.
    #[must_use]
    pub fn alias(&self, name: &AliasName) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.name == *name)
    }
}

/// Answers, those that say "there is none" included.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Counts the invalidations: an answer that was asked for before one is not kept.
    epoch: u64,
    answers: HashMap<(Namespace, FunctionName), Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    /// When the database was asked for it.
    asked: Instant,
    /// When it was last taken for good.
    since: Instant,
    current: Option<Arc<Current>>,
    /// Whose turn it is to ask again.
    turn: Arc<Turn>,
}

type Turn = tokio::sync::Mutex<()>;

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is known of a function.
    pub(super) fn forget(&self, namespace: &Namespace, name: &FunctionName) {
        let mut known = self.lock();
        known.epoch += 1;
        known.answers.remove(&(namespace.clone(), name.clone()));
    }

    /// The answer if it is fresh, else the epoch to give to [`Cache::keep`].
    fn look(&self, key: &(Namespace, FunctionName)) -> Result<Option<Arc<Current>>, u64> {
        let known = self.lock();
        match known.answers.get(key) {
            Some(answer) if answer.since.elapsed() < FRESH => Ok(answer.current.clone()),
            _ => Err(known.epoch),
        }
    }

    /// Where there is a last answer: the turn to ask for a new one. One asks, for all who need it at that moment.
    fn turn(&self, key: &(Namespace, FunctionName)) -> Option<Arc<Turn>> {
        let known = self.lock();
        let last = known.answers.get(key).filter(|answer| answer.asked.elapsed() < STALE)?;
        Some(Arc::clone(&last.turn))
    }

    /// The last answer, which is good for another moment: the database is away.
    fn last(&self, key: &(Namespace, FunctionName)) -> Option<Option<Arc<Current>>> {
        let mut known = self.lock();
        let answer = known.answers.get_mut(key).filter(|answer| answer.asked.elapsed() < STALE)?;
        answer.since = Instant::now();
        Some(answer.current.clone())
    }

    fn keep(&self, key: (Namespace, FunctionName), current: Option<Arc<Current>>, asked: Instant, epoch: u64) {
        let mut known = self.lock();
        if known.epoch != epoch {
            return;
        }
        if known.answers.len() >= BOUND {
            known.answers.retain(|_, answer| answer.since.elapsed() < FRESH);
        }
        if known.answers.len() < BOUND {
            let turn = known.answers.get(&key).map(|last| Arc::clone(&last.turn)).unwrap_or_default();
            known.answers.insert(key, Answer { asked, since: asked, current, turn });
        }
    }
}

impl Store {
    /// What this server saw last of a function, however long ago: to be checked by whoever relies on it.
    pub(super) fn known(&self, namespace: &Namespace, name: &FunctionName) -> Option<Arc<Current>> {
        self.inner.current.lock().answers.get(&(namespace.clone(), name.clone()))?.current.clone()
    }

    /// The function of that name, as it was at most a second ago; this server's own changes are seen at once.
    /// While the database is away: as it was last seen.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn current(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
    ) -> Result<Option<Arc<Current>>, StoreError> {
        let key = (namespace.clone(), name.clone());
        let cache = &self.inner.current;
        if let Ok(current) = cache.look(&key) {
            return Ok(current);
        }
        let last = cache.turn(&key);
        let turn = match &last {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        // Whoever had the turn before has asked.
        let epoch = match cache.look(&key) {
            Ok(current) => return Ok(current),
            Err(epoch) => epoch,
        };
        let asked = Instant::now();
        let found = if turn.is_some() {
            timeout(ASK, self.ask(namespace, name)).await.unwrap_or_else(|_| Err(StoreError::away()))
        } else {
            self.ask(namespace, name).await
        };
        let current = match found {
            Ok(current) => current.map(Arc::new),
            Err(error @ StoreError::Down(_)) => return cache.last(&key).ok_or(error),
            Err(error) => return Err(error),
        };
        cache.keep(key, current.clone(), asked, epoch);
        Ok(current)
    }

    /// Asks the database.
    async fn ask(&self, namespace: &Namespace, name: &FunctionName) -> Result<Option<Current>, StoreError> {
        let Some(function) = self.function(namespace, name).await? else { return Ok(None) };
        let aliases = self.aliases(namespace, name, None, i64::MAX).await?;
        Ok(Some(Current { function, aliases }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_deploy_is_not_kept() {
        let cache = Cache::default();
        let key = (Namespace::default_namespace(), FunctionName::new("f").unwrap());
        let epoch = cache.look(&key).unwrap_err();
        cache.forget(&key.0, &key.1);
        cache.keep(key.clone(), None, Instant::now(), epoch);
        let epoch = cache.look(&key).unwrap_err();
        cache.keep(key.clone(), None, Instant::now(), epoch);
        assert!(cache.look(&key).is_ok());
    }

    #[test]
    fn it_stays_within_its_bound() {
        let cache = Cache::default();
        for n in 0..BOUND + 10 {
            let key = (Namespace::default_namespace(), FunctionName::new(format!("f{n}")).unwrap());
            cache.keep(key, None, Instant::now(), 0);
        }
        assert!(cache.lock().answers.len() <= BOUND);
    }
}
