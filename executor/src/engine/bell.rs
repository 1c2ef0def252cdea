//! Tells those who wait for an invocation that it has become terminal. A hint, no promise: they look for themselves, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runlet_core::id::InvocationId;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// All who wait, by invocation.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<HashMap<InvocationId, Arc<Notify>>>);

/// One who waits for an invocation.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    bell: &'a Bell,
    invocation: InvocationId,
    notify: Arc<Notify>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, HashMap<InvocationId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listen(&self, invocation: InvocationId) -> Listener<'_> {
        let notify = Arc::clone(self.lock().entry(invocation).or_default());
        Listener { bell: self, invocation, notify }
    }

    pub(crate) fn ring(&self, invocation: InvocationId) {
        let notify = self.lock().get(&invocation).cloned();
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }
}

impl Listener<'_> {
    /// Hears every ring from the moment this is called.
    pub(crate) fn rung(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut all = self.bell.lock();
        // The map's and this one: nobody else listens.
        if Arc::strong_count(&self.notify) <= 2 {
            all.remove(&self.invocation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_listeners_hear_it_and_none_is_left_behind() {
        let bell = Bell::default();
        let id = InvocationId::new();
        let (one, two) = (bell.listen(id), bell.listen(id));
        let (first, second) = (one.rung(), two.rung());
        bell.ring(InvocationId::new());
        bell.ring(id);
        first.await;
        second.await;
        drop(one);
        assert_eq!(bell.lock().len(), 1);
        drop(two);
        assert!(bell.lock().is_empty());
    }
}
