//! One place that speaks HTTP: hf-hub for the API, reqwest for files, both with our patience.

use std::{thread, time::Duration};

use hf_hub::{HFClient, HFClientSync, HFError, HFResult};
use reqwest::{
    Method, StatusCode, Url,
    blocking::Response,
    header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE},
    redirect::Policy,
};

use super::{
    environment::HubOptions,
    failure::{Failure, Outcome},
    names::RepoId,
    progress::{Event, Progress},
};
use crate::{Error, Result};

const USER_AGENT: &str = concat!("candle-fastflow/", env!("CARGO_PKG_VERSION"));

/// A server that asks for more than this is not waited for. The Hub's windows are of 300 s.
const LONGEST_WAIT: Duration = Duration::from_secs(310);

/// Settings and the connection that go with them.
pub(super) struct Client {
    pub(super) options: HubOptions,
    http: reqwest::blocking::Client,
}

impl Client {
    pub(super) fn new(options: HubOptions) -> Result<Self> {
        let http = reqwest::blocking::Client::builder()
            .user_agent(USER_AGENT)
            // Redirects are followed by hand: an answer's own headers matter, and the token
            // must not leave the Hub.
            .redirect(Policy::none())
            .connect_timeout(options.answer_timeout)
            .timeout(options.silence_timeout)
            .build()
            .map_err(|error| Failure::from_http(error).at(&options.endpoint, None))?;
        Ok(Self { options, http })
    }

    /// hf-hub's client with our settings and none of its own.
    pub(super) fn api(&self) -> Result<HFClientSync> {
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.options.answer_timeout)
            .read_timeout(self.options.silence_timeout.max(Duration::from_secs(30)))
            .build()
            .map_err(|error| self.at(&self.options.endpoint, Failure::from_http(error)))?;
        // Without a token hf-hub would look for one itself; one that no header can hold stops it.
        let token = self
            .options
            .token
            .as_ref()
            .map_or("\n", |token| token.expose());
        HFClient::builder()
            .endpoint(&self.options.endpoint)
            .token(token)
            .client(http)
            .cache_dir(&self.options.cache)
            .retry_max_attempts(0)
            .build_sync()
            .map_err(|error| self.at(&self.options.endpoint, self.sorted(error)))
    }

    /// The address of a file; a revision is one segment of it, slashes and all.
    pub(super) fn file_url(&self, repo: &RepoId, revision: &str, file: &str) -> Result<Url> {
        let bad = || Error::Config {
            path: "HF_ENDPOINT".into(),
            reason: format!("`{}` is not an address", self.options.endpoint),
        };
        let mut url = Url::parse(&self.options.endpoint).map_err(|_| bad())?;
        url.path_segments_mut()
            .map_err(|()| bad())?
            .pop_if_empty()
            .extend([repo.owner(), repo.name(), "resolve", revision])
            .extend(file.split('/'));
        Ok(url)
    }

    /// The headers that tell a file's hash, size and commit: of the Hub's own answer, not of the
    /// storage that it leads to.
    pub(super) fn head(&self, url: Url) -> Outcome<Response> {
        self.follow(Method::HEAD, url, 0, |answer, next| {
            let tells = ["x-linked-etag", "etag"]
                .iter()
                .any(|name| answer.headers().contains_key(*name));
            tells && next.origin() != answer.url().origin()
        })
    }

    /// A file's bytes from `start` on (or from 0: look at the status).
    pub(super) fn get(&self, url: Url, start: u64) -> Outcome<Response> {
        self.follow(Method::GET, url, start, |_, _| false)
    }

    fn follow(
        &self,
        method: Method,
        mut url: Url,
        start: u64,
        enough: impl Fn(&Response, &Url) -> bool,
    ) -> Outcome<Response> {
        for _ in 0..10 {
            let answer = self.send(method.clone(), url.clone(), start)?;
            if !answer.status().is_redirection() {
                return self.checked(answer);
            }
            let location = answer
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let Some(next) = location.and_then(|location| url.join(location).ok()) else {
                return Err(Failure::Refused("the server redirects to nowhere".into()));
            };
            if enough(&answer, &next) {
                return Ok(answer);
            }
            url = next;
        }
        Err(Failure::Refused("the server redirects in circles".into()))
    }

    fn send(&self, method: Method, url: Url, start: u64) -> Outcome<Response> {
        let home = Url::parse(&self.options.endpoint).map(|home| home.origin());
        let at_home = home.is_ok_and(|home| home == url.origin());
        // Compression would make sizes and offsets lie.
        let mut request = self
            .http
            .request(method.clone(), url)
            .header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.options.token.as_ref().filter(|_| at_home) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        if method == Method::HEAD {
            request = request.timeout(self.options.answer_timeout);
        }
        request.send().map_err(Failure::from_http)
    }

    fn checked(&self, answer: Response) -> Outcome<Response> {
        let status = answer.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(answer);
        }
        let with_token = self.options.token.is_some();
        Err(Failure::from_answer(status, answer.headers(), with_token))
    }

    /// One call of hf-hub, repeated while the Hub is busy.
    pub(super) fn call<T>(
        &self,
        progress: Progress,
        mut call: impl FnMut() -> HFResult<T>,
    ) -> Outcome<T> {
        self.retried(progress, || call().map_err(|error| self.sorted(error)))
    }

    /// Repeats a request while the Hub is busy, waiting longer each time, or as long as it asks.
    pub(super) fn retried<T>(
        &self,
        progress: Progress,
        mut attempt: impl FnMut() -> Outcome<T>,
    ) -> Outcome<T> {
        let mut count = 1;
        loop {
            match attempt() {
                Err(busy @ Failure::Busy { .. }) if count < self.options.attempts => {
                    self.pause(busy, count, progress)?;
                    count += 1;
                }
                other => return other,
            }
        }
    }

    /// Waits before the attempt after number `count`; gives the failure back if that is too long.
    pub(super) fn pause(&self, failure: Failure, count: u32, progress: Progress) -> Outcome<()> {
        let Failure::Busy { after, reason } = failure else {
            return Err(failure);
        };
        let grown = self.options.backoff * 2_u32.saturating_pow(count.saturating_sub(1)).min(64);
        let wait = after.unwrap_or(grown);
        if wait > LONGEST_WAIT {
            let reason = format!("{reason}; it asks to wait {} s", wait.as_secs());
            return Err(Failure::Busy { after, reason });
        }
        if wait >= Duration::from_secs(1) {
            let notice = format!("{reason}; trying again in {} s", wait.as_secs());
            progress(Event::Notice(&notice));
        }
        tracing::debug!(?wait, "the Hub is busy");
        count_down(wait, progress);
        Ok(())
    }

    /// hf-hub does not hand on the header by which the Hub says how long its limit lasts: the same address is asked
    /// once more for it.
    fn limit_at(&self, url: &str) -> Option<Failure> {
        let answer = self.send(Method::HEAD, Url::parse(url).ok()?, 0).ok()?;
        match self.checked(answer) {
            Err(busy @ Failure::Busy { after: Some(_), .. }) => Some(busy),
            _ => None,
        }
    }

    pub(super) fn at(&self, place: &str, failure: Failure) -> Error {
        failure.at(place, self.options.token.as_ref())
    }

    pub(super) fn sorted(&self, error: HFError) -> Failure {
        let limited = match &error {
            HFError::RateLimited {
                retry_after: None,
                context,
            } => Some(context),
            // Listings.
            HFError::Http { context } if context.status == StatusCode::TOO_MANY_REQUESTS => {
                Some(context)
            }
            _ => None,
        };
        let limit = limited.and_then(|context| self.limit_at(&context.url));
        limit.unwrap_or_else(|| Failure::from_hf(error, self.options.token.is_some()))
    }
}

/// Sleeps, telling every second how much is left.
fn count_down(wait: Duration, progress: Progress) {
    let mut left = wait;
    while !left.is_zero() {
        if wait >= Duration::from_secs(1) {
            let seconds = left.as_secs_f64().ceil() as u64;
            progress(Event::Waiting { seconds });
        }
        let step = left.min(Duration::from_secs(1));
        thread::sleep(step);
        left -= step;
    }
    if wait >= Duration::from_secs(1) {
        progress(Event::Waiting { seconds: 0 });
    }
}
