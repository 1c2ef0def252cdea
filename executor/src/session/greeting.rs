//! The first words between host and runner: hello, welcome and init, ready or init_error.

use runlet_core::outcome::{ErrorDetail, OutcomeKind};
use runlet_runtimes::frame::{Frame, Kind};
use serde::{Deserialize, Serialize};

use super::answer::{Breach, error_detail, json};
use super::channel::Channel;

/// The feature of runners that serve several calls at a time.
const CONCURRENCY: &str = "concurrency";

/// How the greeting ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeted {
    Ready,
    InitError(ErrorDetail),
}

/// A greeting on its way.
#[derive(Debug)]
pub(super) struct Greeting<'a> {
    init: &'a serde_json::Value,
    welcomed: bool,
}

#[derive(Deserialize)]
struct Hello {
    versions: Vec<u64>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Serialize)]
struct Welcome {
    version: u64,
}

impl<'a> Greeting<'a> {
    /// The greeting after which the runner is told `init`.
    pub(super) const fn new(init: &'a serde_json::Value) -> Self {
        Self { init, welcomed: false }
    }

    /// Takes the next frame and replies on `channel`; `Some` once it is over.
    pub(super) fn hear(&mut self, frame: &Frame, channel: &mut Channel) -> Result<Option<Greeted>, Breach> {
        if frame.call != 0 {
            return Err(Breach::ForeignCall { got: frame.call, expected: 0 });
        }
        match (frame.kind, self.welcomed) {
            (Kind::Hello, false) => {
                let hello: Hello = json(frame)?;
                if !hello.versions.contains(&1) {
                    return Err(Breach::Version(hello.versions));
                }
                if self.init["concurrency"].as_u64().is_some_and(|calls| calls > 1)
                    && !hello.features.iter().any(|feature| feature == CONCURRENCY)
                {
                    return Ok(Some(Greeted::InitError(ErrorDetail {
                        kind: OutcomeKind::InitError.as_str().to_owned(),
                        message: "the manifest says `concurrency`, and the runner does not list the feature \
                                  \"concurrency\" in its hello: it serves one call at a time"
                            .to_owned(),
                        trace: Vec::new(),
                    })));
                }
                channel.say(Kind::Welcome, 0, false, &Welcome { version: 1 })?;
                channel.say(Kind::Init, 0, false, self.init).map_err(|_| Breach::OwnFrame("environment"))?;
                self.welcomed = true;
                Ok(None)
            }
            (Kind::Ready, true) => Ok(Some(Greeted::Ready)),
            (Kind::InitError, true) => Ok(Some(Greeted::InitError(error_detail(frame)?))),
            (got, false) => Err(Breach::Unexpected { got, expected: "a hello" }),
            (got, true) => Err(Breach::Unexpected { got, expected: "a ready or an init_error" }),
        }
    }
}
