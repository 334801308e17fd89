//! How long a server asks to wait: `Retry-After`, and the Hub's `RateLimit`.

use std::time::{Duration, SystemTime};

use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};

/// What the headers of a refusal ask for; the longest where several do.
pub(super) fn asked(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let now = header(DATE.as_str()).and_then(|text| httpdate::parse_http_date(text).ok());
    let after = header(RETRY_AFTER.as_str())
        .and_then(|text| retry_after(text, now.unwrap_or_else(SystemTime::now)));
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    let window = header("ratelimit").filter(|_| limited).and_then(rate_limit);
    after.max(window)
}

/// Seconds, or a date, which is compared with the server's own clock.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let then = httpdate::parse_http_date(text).ok()?;
            Some(then.duration_since(now).unwrap_or_default())
        }
    }
}

/// The IETF draft's form, `"api";r=0;t=55`: of each limit what remains and the seconds until it is whole again. Limits
/// of which something remains are not waited for. The window ends within that second, so that one more is safe.
fn rate_limit(text: &str) -> Option<Duration> {
    let waits = text.split(',').filter_map(|limit| {
        let number = |key: &str| {
            let mut parts = limit.split(';').map(str::trim);
            parts.find_map(|part| part.strip_prefix(key)?.trim().parse::<u64>().ok())
        };
        let seconds = number("t=")?;
        (number("r=").unwrap_or(0) == 0).then(|| Duration::from_secs(seconds.saturating_add(1)))
    });
    waits.max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn seconds(status: u16, headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let headers = headers.iter().map(pair).collect();
        asked(StatusCode::from_u16(status).unwrap(), &headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn servers_say_it_in_three_ways() {
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        let later = ("retry-after", "Wed, 21 Oct 2015 07:29:30 GMT");
        for (status, headers, found) in [
            (429, vec![("retry-after", "42")], Some(42)),
            (503, vec![date, later], Some(90)),
            (
                503,
                vec![date, ("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT")],
                Some(0),
            ),
            (429, vec![("ratelimit", "\"api\";r=0;t=55")], Some(56)),
            (429, vec![("ratelimit", "\"api\"; r=0; t=300")], Some(301)),
            // Two limits, of which one is used up.
            (
                429,
                vec![("ratelimit", "\"pages\";r=7;t=290, \"resolvers\";r=0;t=12")],
                Some(13),
            ),
            (429, vec![("ratelimit", "\"api\";r=9;t=55")], None),
            (
                429,
                vec![("retry-after", "5"), ("ratelimit", "\"api\";r=0;t=20")],
                Some(21),
            ),
            // Sent with every answer: it is no reason for another failure.
            (500, vec![("ratelimit", "\"api\";r=0;t=55")], None),
            (429, vec![("ratelimit", "nonsense")], None),
            (429, vec![("retry-after", "soon")], None),
        ] {
            assert_eq!(seconds(status, &headers), found, "{status} {headers:?}");
        }
    }
}
