//! What can be made to go wrong.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_LENGTH},
    response::Response,
};
use futures_util::stream;

/// One thing that goes wrong, for the next `times` requests that fit.
#[derive(Clone)]
pub struct Fault {
    pub method: &'static str,
    /// A part of the path; of the storage host's too.
    pub path: &'static str,
    pub times: usize,
    pub kind: Kind,
}

#[derive(Clone)]
pub enum Kind {
    /// Answer with this status, this header and a page of text.
    Status(u16, Option<(&'static str, &'static str)>),
    /// Do what was asked, then answer with this status all the same.
    Afterwards(u16),
    /// Close the connection after so many bytes of the body.
    Cut(usize),
    /// As many bytes as there should be, all zero.
    WrongBody,
    /// An ETag of some older content.
    StaleEtag,
    /// A hash that leads out of the cache's folder.
    WildEtag,
    /// A commit that leads out of the cache's folder.
    WildCommit,
    /// After the first half of the body, silence.
    Stall(Duration),
    /// The body in small pieces with waits between them.
    Slow(Duration),
}

impl Fault {
    pub fn new(method: &'static str, path: &'static str, kind: Kind) -> Self {
        Self {
            method,
            path,
            times: 1,
            kind,
        }
    }

    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}

/// The error page of a fault that needs no proper answer.
pub fn refusal(kind: &Kind) -> Option<Response> {
    let (Kind::Status(status, _) | Kind::Afterwards(status)) = kind else {
        return None;
    };
    let page = "<html>this page is not a model</html>";
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = StatusCode::from_u16(*status).unwrap();
    if let Kind::Status(_, Some((name, value))) = kind {
        response
            .headers_mut()
            .insert(*name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// Spoils a proper answer.
pub fn spoil(kind: &Kind, headers: &mut HeaderMap, bytes: Vec<u8>) -> Body {
    let len = bytes.len();
    let half = len / 2;
    let mut etag = |value: &str| {
        for name in ["etag", "x-linked-etag"] {
            if headers.contains_key(name) {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
    };
    match kind {
        Kind::StaleEtag => etag(&format!("\"{}\"", "0123456789abcdef".repeat(4))),
        Kind::WildEtag => etag("\"../../../../outside\""),
        Kind::WildCommit => {
            headers.insert(
                "x-repo-commit",
                HeaderValue::from_static("../../../../outside"),
            );
        }
        _ => {}
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    match kind {
        Kind::WrongBody => Body::from(vec![0; len]),
        Kind::Cut(at) => {
            let broken = std::io::Error::other("cut by the test");
            let parts = [
                Ok(Bytes::from(bytes[..(*at).min(len)].to_vec())),
                Err(broken),
            ];
            // The wait lets the first part reach the client before the connection breaks.
            paced(parts.into(), Duration::from_millis(50))
        }
        Kind::Stall(time) => {
            let parts = [&bytes[..half], &bytes[half..]];
            paced(
                parts.map(|part| Ok(Bytes::from(part.to_vec()))).into(),
                *time,
            )
        }
        Kind::Slow(time) => {
            let pieces = bytes.chunks(len.div_ceil(8).max(1));
            paced(
                pieces
                    .map(|piece| Ok(Bytes::from(piece.to_vec())))
                    .collect(),
                *time,
            )
        }
        _ => Body::from(bytes),
    }
}

fn paced(parts: Vec<std::io::Result<Bytes>>, wait: Duration) -> Body {
    let parts = parts.into_iter().enumerate();
    Body::from_stream(stream::unfold(parts, move |mut parts| async move {
        let (index, part) = parts.next()?;
        if index > 0 {
            tokio::time::sleep(wait).await;
        }
        Some((part, parts))
    }))
}
