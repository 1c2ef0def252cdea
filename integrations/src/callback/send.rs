//! Sending a message to an address: signed, answered within a time, and no redirect followed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use http_body_util::Full;
use hyper::header::{HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use runlet_core::clock;
use runlet_core::secret::Secret;
use tokio_rustls::rustls::ClientConfig;

use super::connect::{ConnectError, connect};
use super::networks::Networks;
use crate::standard::signed::{self, Keys};

/// Longest that a receiver can put us off.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// What a receiver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// When it wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// Why a receiver said nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// There is no connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The secret cannot sign.
    #[error("the secret {0}")]
    Secret(String),
    /// The request could not be made.
    #[error("the address cannot be asked for: {0}")]
    Request(hyper::http::Error),
    /// The connection broke.
    #[error("no answer: {0}")]
    Broken(#[from] hyper::Error),
}

impl SendError {
    /// Whether another try would end the same way.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Forbidden | ConnectError::Address) | Self::Request(_))
    }
}

/// A message to an address.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// Its id: the same in every try.
    pub(super) id: &'a str,
    pub(super) url: &'a str,
    /// What the body is, and what goes with it.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// Sends a message; what the receiver has to say is in status and headers, its body is not read.
pub(super) async fn send(
    message: Message<'_>,
    secret: &Secret,
    networks: &Networks,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Answer, SendError> {
    let Message { id, url, headers, body } = message;
    let uri: Uri = url.parse().map_err(|_| ConnectError::Address)?;
    let keys = Keys::read(secret).map_err(SendError::Secret)?;
    let at = clock::now().timestamp();
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = headers.iter().fold(Request::post(target), |request, (name, value)| request.header(name, value));
    let request = request
        .header(HOST, host)
        .header(USER_AGENT, concat!("runlet/", env!("CARGO_PKG_VERSION")))
        .header(signed::ID, id)
        .header(signed::TIMESTAMP, at)
        .header(signed::SIGNATURE, signed::signature(&keys, id, at, &body))
        .body(Full::new(body))
        .map_err(SendError::Request)?;
    let stream = connect(&uri, networks, tls).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        Ok(Answer { status: response.status(), retry_after: retry_after(response.headers()) })
    };
    let mut answered = pin!(answered);
    // The connection lives as long as this does, and no longer. It may end with the answer, which is there then.
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let moment = DateTime::parse_from_rfc2822(text).ok()?;
            (moment.to_utc() - clock::now()).to_std().unwrap_or_default()
        }
    };
    Some(pause.clamp(Duration::from_secs(1), PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_say_when_to_come_again() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!([read("120"), read("0"), read("99999999999")], [Some(120), Some(1), Some(86_400)]);
        let soon = (clock::now() + Duration::from_secs(100)).to_rfc2822().replace("+0000", "GMT");
        assert!(read(&soon).is_some_and(|pause| (98..=100).contains(&pause)), "{soon}");
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(1));
        assert_eq!([read("soon"), read("-1"), read("")], [None; 3]);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
