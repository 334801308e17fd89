//! What can go wrong between us and the Hub, sorted by what helps against it.

use std::time::Duration;

use hf_hub::HFError;
use reqwest::{StatusCode, header::HeaderMap};

use super::{environment::Token, wait};
use crate::Error;

/// How the reason begins where no server was reached.
pub(super) const UNREACHABLE: &str = "cannot connect to";

/// The result of a request.
pub(super) type Outcome<T> = std::result::Result<T, Failure>;

/// What a 404 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Repo,
    Revision,
    File,
    /// The server does not say.
    Something,
}

/// A request that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is not there, or hidden from us.
    Missing(Missing),
    /// We may not.
    Denied(String),
    /// It may work later: no connection, cut, overloaded, asked to wait.
    Busy {
        after: Option<Duration>,
        reason: String,
    },
    /// Somebody else was faster.
    Conflict(String),
    /// Repeating does not help.
    Refused(String),
    /// Not the network's fault.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Failure {
    /// Sorts an answer that is not a success.
    pub(super) fn from_answer(status: StatusCode, headers: &HeaderMap, with_token: bool) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let answer = Answer {
            status: status.as_u16(),
            code: header("x-error-code"),
            message: header("x-error-message"),
            after: wait::asked(status, headers),
        };
        answer.sorted(with_token)
    }

    /// Sorts an error of hf-hub.
    pub(super) fn from_hf(error: HFError, with_token: bool) -> Self {
        let (context, missing, after) = match error {
            HFError::Http { context } => (context, Missing::Something, None),
            HFError::AuthRequired { context } | HFError::Forbidden { context } => {
                (context, Missing::Something, None)
            }
            HFError::Conflict { context } => {
                return Self::Conflict(context.server_message.unwrap_or_else(|| "conflict".into()));
            }
            HFError::RateLimited {
                retry_after,
                context,
            } => (context, Missing::Something, retry_after),
            HFError::RepoNotFound { .. } => return Self::Missing(Missing::Repo),
            HFError::RevisionNotFound { .. } => return Self::Missing(Missing::Revision),
            HFError::EntryNotFound { .. } => return Self::Missing(Missing::File),
            HFError::Request { source, .. } => return Self::from_http(source),
            HFError::Xet { operation, source } => {
                let reason = format!("{operation}: {}", with_causes(source.as_ref()));
                return Self::Busy {
                    after: None,
                    reason,
                };
            }
            other => return Self::Refused(with_causes(&other)),
        };
        let answer = Answer {
            status: context.status.as_u16(),
            code: context.error_code.as_deref(),
            message: context.server_message.as_deref(),
            after,
        };
        match answer.sorted(with_token) {
            Self::Missing(Missing::Something) => Self::Missing(missing),
            sorted => sorted,
        }
    }

    /// Sorts an error below HTTP. Of the address only the server is told: a storage link's query is
    /// a secret.
    pub(super) fn from_http(error: reqwest::Error) -> Self {
        let url = error.url().map(|url| url.origin().ascii_serialization());
        let server = url.unwrap_or_else(|| "the server".into());
        let error = error.without_url();
        if error.is_builder() || error.is_redirect() {
            return Self::Refused(with_causes(&error));
        }
        let reason = if error.is_timeout() {
            format!("{server} does not answer in time")
        } else if error.is_connect() {
            format!("{UNREACHABLE} {server} ({})", innermost(&error))
        } else {
            format!("{server}: {}", with_causes(&error))
        };
        Self::Busy {
            after: None,
            reason,
        }
    }

    /// The crate's error for `place`, one line, with what helps; `token` does not appear in it.
    pub(super) fn at(self, place: &str, token: Option<&Token>) -> Error {
        let reason = match self {
            Self::Ours(error) => return error,
            Self::Missing(Missing::Repo) => {
                "no such repository, or a private one; check the name, or set HF_TOKEN to a token that may read it".into()
            }
            Self::Missing(Missing::Revision) => "no such revision (branch, tag or commit)".into(),
            Self::Missing(Missing::File) => "no such file in this repository and revision".into(),
            Self::Missing(Missing::Something) => "not found on the Hub (404)".into(),
            Self::Denied(reason) => format!(
                "{reason}; use a token that may do this (HF_TOKEN), or accept the conditions on the repository's page"
            ),
            Self::Busy { reason, .. } => format!(
                "{reason}; try again later, or set HF_HUB_OFFLINE=1 to use only what is cached"
            ),
            Self::Conflict(reason) => format!("{reason}; somebody else changed the repository, try again"),
            Self::Refused(reason) => reason,
        };
        Error::Hub {
            place: one_line(place, token),
            reason: one_line(&reason, token),
        }
    }
}

/// The parts of a refusal that decide what it means.
struct Answer<'a> {
    status: u16,
    code: Option<&'a str>,
    message: Option<&'a str>,
    after: Option<Duration>,
}

impl Answer<'_> {
    fn sorted(&self, with_token: bool) -> Failure {
        let said = self
            .message
            .map(|text| format!(": {text}"))
            .unwrap_or_default();
        let reason = format!("the Hub answers {}{said}", self.status);
        match (self.status, self.code) {
            (_, Some("RepoNotFound")) => Failure::Missing(Missing::Repo),
            (_, Some("RevisionNotFound")) => Failure::Missing(Missing::Revision),
            (_, Some("EntryNotFound")) => Failure::Missing(Missing::File),
            // Without a token the Hub answers so for what does not exist, not to give private names away.
            (401, None) if !with_token => Failure::Missing(Missing::Repo),
            (401 | 403, _) => Failure::Denied(reason),
            (404, _) => Failure::Missing(Missing::Something),
            (409 | 412, _) => Failure::Conflict(reason),
            (408 | 429 | 500..=599, _) => Failure::Busy {
                after: self.after,
                reason,
            },
            _ => Failure::Refused(reason),
        }
    }
}

/// An error with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What an error comes from in the end.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// A message that fits a line and does not hold the token, whoever put it there.
fn one_line(text: &str, token: Option<&Token>) -> String {
    let text = match token {
        Some(token) => text.replace(token.expose(), "hidden"),
        None => text.into(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    match line.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
