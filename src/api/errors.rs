//! What a handler fails with, and how it becomes a problem document. The inner cause goes to the log and never out.

use hyper::StatusCode;
use runlet_core::disk::DiskLow;
use runlet_core::engine::EngineError;
use runlet_core::id::{ExecutionId, InvocationId};
use runlet_core::outcome::Outcome;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::StoreError;
use warp::reply::Response;

use crate::http::body::BodyError;
use crate::http::reply;

/// A request that got no 2xx.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Problem>);

impl ApiError {
    /// An error of `code`; `detail` says what is wrong, where, and what to do.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            code,
            status: code.status(),
            detail: detail.into(),
            execution: None,
            invocation: None,
            outcome: None,
        }))
    }

    /// The request breaks a rule.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::Invalid, detail)
    }

    /// There is no such thing in the namespace.
    pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} `{name}` in this namespace"))
    }

    /// An execution that ended with anything but `ok`.
    pub(crate) fn of_outcome(code: Code, invocation: InvocationId, execution: ExecutionId, outcome: Outcome) -> Self {
        let detail = match (&outcome.error, outcome.exit_code, outcome.signal) {
            (Some(error), ..) if !error.message.is_empty() => format!("{}: {}", error.kind, error.message),
            (Some(error), ..) => error.kind.clone(),
            (None, Some(status), _) => format!("the function exited with status {status}"),
            (None, None, Some(signal)) => format!("the function was ended by signal {signal}"),
            (None, None, None) => format!("the execution ended with outcome {}", outcome.kind),
        };
        Self(Box::new(Problem {
            execution: Some(execution),
            invocation: Some(invocation),
            outcome: Some(outcome),
            ..*Self::new(code, detail).0
        }))
    }

    /// A fault of runlet itself: logged here, told as no more than that.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!(error = %chain, "a request failed");
        Self::new(Code::Internal, "a fault of runlet itself; the server's log tells more")
    }

    /// The code.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// What is wrong, in words.
    pub(crate) fn detail(&self) -> String {
        self.0.detail.clone()
    }

    /// The response.
    pub(crate) fn response(&self) -> Response {
        reply::problem(&self.0)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.code() {
            Code::StoreDown => {
                tracing::warn!(error = %error, "the database does not answer");
                Self::new(Code::StoreDown, "the database does not answer: nothing was changed; try again")
            }
            Code::Internal => Self::internal(&error),
            code => Self::new(code, error.to_string()),
        }
    }
}

impl From<DiskLow> for ApiError {
    fn from(error: DiskLow) -> Self {
        Self::new(Code::DiskLow, error.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::StoreDown(error) => error.into(),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let text = error.to_string();
        match error {
            BodyError::TooLarge(_) => Self::new(Code::TooLarge, text),
            BodyError::NoRoom => Self::new(Code::QueueFull, text),
            BodyError::Broken => Self::with_status(StatusCode::BAD_REQUEST, text),
            BodyError::TooSlow => Self::with_status(StatusCode::REQUEST_TIMEOUT, text),
        }
    }
}

impl ApiError {
    /// An invalid request that HTTP has a finer status for.
    fn with_status(status: StatusCode, detail: String) -> Self {
        let mut error = Self::invalid(detail);
        error.0.status = status.as_u16();
        error
    }
}

#[cfg(test)]
mod tests {
    use runlet_core::outcome::OutcomeKind;

    use super::*;

    #[test]
    fn inner_causes_stay_inside() {
        let row = StoreError::Inconsistent { table: "functions", id: "7".to_owned(), what: "sesame".to_owned() };
        let error = ApiError::from(EngineError::StoreDown(row));
        assert_eq!(error.code(), Code::Internal);
        assert!(!error.0.detail.contains("sesame"));
    }

    #[test]
    fn what_passes_by_itself_says_when_to_try_again() {
        for error in [EngineError::QueueFull("full".to_owned()), EngineError::Stopping] {
            let response = ApiError::from(error).response();
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        assert_eq!(ApiError::from(BodyError::TooSlow).response().status(), 408);
        assert_eq!(ApiError::from(BodyError::TooLarge(1)).response().status(), 413);
    }

    #[test]
    fn an_outcome_tells_what_the_function_did() {
        let problem = |outcome: Outcome| {
            let code = Code::of_outcome(outcome.kind).expect("it failed");
            ApiError::of_outcome(code, InvocationId::new(), ExecutionId::new(), outcome).0.detail
        };
        assert_eq!(problem(Outcome::exit(3)), "the function exited with status 3");
        assert_eq!(problem(Outcome::signal(9)), "the function was ended by signal 9");
        assert_eq!(problem(Outcome::of(OutcomeKind::Oom)), "the execution ended with outcome oom");
        assert_eq!(problem(Outcome::because(OutcomeKind::Timeout, "10s are over")), "timeout: 10s are over");
    }
}
