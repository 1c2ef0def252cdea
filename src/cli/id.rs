//! Ids as people type them: the prefix says what kind of thing is meant.

use std::str::FromStr;

use runlet_core::id::{BadId, DeliveryId, ExecutionId, InvocationId};

/// An invocation or one of its executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunId {
    /// An invocation.
    Invocation(InvocationId),
    /// An execution.
    Execution(ExecutionId),
}

/// Anything that has a page in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnyId {
    /// An invocation or an execution.
    Run(RunId),
    /// A delivery.
    Delivery(DeliveryId),
}

/// A text that is no such id.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub(crate) enum NoId {
    /// The prefix is right, the rest is not.
    #[error(transparent)]
    Bad(#[from] BadId),
    /// Another kind of thing, or none.
    #[error("expected {0}; `runlet executions` lists ids")]
    Kind(&'static str),
}

impl FromStr for RunId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        match text.split_once('_') {
            Some(("inv", _)) => Ok(Self::Invocation(text.parse()?)),
            Some(("exe", _)) => Ok(Self::Execution(text.parse()?)),
            _ => Err(NoId::Kind("an id that starts with inv_ or exe_")),
        }
    }
}

impl FromStr for AnyId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        match text.split_once('_') {
            Some(("dlv", _)) => Ok(Self::Delivery(text.parse()?)),
            Some(("inv" | "exe", _)) => text.parse().map(Self::Run),
            _ => Err(NoId::Kind("an id that starts with inv_, exe_ or dlv_")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_chooses_the_kind() {
        let (invocation, execution, delivery) = (InvocationId::new(), ExecutionId::new(), DeliveryId::new());
        assert_eq!(invocation.to_string().parse(), Ok(RunId::Invocation(invocation)));
        assert_eq!(execution.to_string().parse(), Ok(AnyId::Run(RunId::Execution(execution))));
        assert_eq!(delivery.to_string().parse(), Ok(AnyId::Delivery(delivery)));
        assert!(matches!(delivery.to_string().parse::<RunId>(), Err(NoId::Kind(_))));
        assert!(matches!("exe_1".parse::<RunId>(), Err(NoId::Bad(_))));
        assert!(matches!("on-push".parse::<AnyId>(), Err(NoId::Kind(_))));
    }
}
