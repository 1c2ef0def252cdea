//! Why a request on a hook path got no 2xx: inside with its cause, outside as a code and a sentence.

use runlet_core::engine::EngineError;
use runlet_core::id::DeliveryId;
use runlet_core::name::{HookPath, Namespace};
use runlet_core::problem::Code;
use runlet_core::store::StoreError;

use super::adapter::Refusal;

/// Why a request was refused, for a problem document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The stable code.
    pub code: Code,
    /// What is wrong.
    pub text: String,
    /// The delivery, where the refusal is on record.
    pub delivery: Option<DeliveryId>,
}

/// The same with its cause, which the sender is not told.
#[derive(Debug)]
pub(super) enum Failure {
    /// No trigger listens there. Nothing is stored.
    UnknownHook(Namespace, HookPath),
    /// A function of the hook was removed while the delivery was on its way. Nothing is stored.
    HookChanged,
    /// The operator has not configured the hook's secret. Already logged, with the secret's name.
    NoSecret,
    /// The adapter said no; on record.
    Refusal(Refusal, DeliveryId),
    /// The adapter panicked.
    Examine(tokio::task::JoinError),
    /// The engine committed the work and named no delivery.
    NotRecorded,
    /// The store could not record it.
    Store(StoreError),
    /// The engine could not take it.
    Engine(EngineError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotFound { .. } => Self::HookChanged,
            EngineError::StoreDown(error) => Self::Store(error),
            other => Self::Engine(other),
        }
    }
}

impl Failure {
    /// What the sender is told. Faults of runlet itself are logged here, once.
    pub(super) fn refused(self) -> Refused {
        let (code, text, delivery) = match self {
            Self::UnknownHook(namespace, path) => {
                (Code::NotFound, format!("there is no hook `{path}` in namespace `{namespace}`"), None)
            }
            Self::HookChanged => (
                Code::Conflict,
                "the functions of this hook are being changed; send the delivery again".to_owned(),
                None,
            ),
            Self::NoSecret => (Code::Internal, "the hook's secret is not configured".to_owned(), None),
            Self::Refusal(refusal, delivery) => (refusal.code(), refusal.to_string(), Some(delivery)),
            Self::Engine(error) => (error.code(), error.to_string(), None),
            Self::Store(error) if error.code() == Code::StoreDown => {
                let text = "the database does not answer: nothing was accepted; send the delivery again";
                (Code::StoreDown, text.to_owned(), None)
            }
            Self::Store(error) => internal(&error),
            Self::Examine(error) => internal(&error),
            Self::NotRecorded => internal(&"the engine named no delivery"),
        };
        Refused { code, text, delivery }
    }
}

fn internal(error: &dyn std::fmt::Debug) -> (Code, String, Option<DeliveryId>) {
    tracing::error!(?error, "a delivery failed");
    (Code::Internal, "a fault of the server; its log has the reason".to_owned(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: Failure) -> (Code, String) {
        let refused = failure.refused();
        (refused.code, refused.text)
    }

    #[test]
    fn faults_keep_their_cause_to_themselves() {
        let row = StoreError::Inconsistent { table: "deliveries", id: "7".to_owned(), what: "sesame".to_owned() };
        let (code, text) = told(Failure::from(EngineError::from(row)));
        assert_eq!(code, Code::Internal);
        assert!(!text.contains("sesame"), "{text}");
    }

    #[test]
    fn what_passes_by_itself_has_a_code_that_says_so() {
        assert_eq!(told(StoreError::Private("gone".to_owned()).into()).0, Code::StoreDown);
        assert_eq!(told(EngineError::Stopping.into()).0, Code::SandboxLost);
        assert_eq!(told(EngineError::QueueFull("full".to_owned()).into()), (Code::QueueFull, "full".to_owned()));
    }
}
