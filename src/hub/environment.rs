//! Settings of the Hub, from the same variables that Python's `huggingface_hub` reads.

use std::{env, fmt, path::PathBuf, time::Duration};

use super::names::{DEFAULT_NAMESPACE, is_hub_name};
use crate::{Error, Result};

/// An access token. It prints as `hidden`, whatever the format.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a token; white space around it is dropped. None when nothing is left.
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty()).then(|| Self(token.into()))
    }

    /// The token itself, for the one place that sends it.
    #[cfg(feature = "hub")]
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// How to reach the Hub, and where to keep what comes from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Address of the Hub, without a slash at its end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Access token (`HF_TOKEN`, else the file `HF_TOKEN_PATH` or `HF_HOME/token`).
    pub token: Option<Token>,
    /// The cache (`HF_HUB_CACHE`, else `HF_HOME/hub`), shared with Python's client.
    pub cache: PathBuf,
    /// Work from the cache alone (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// The user or organisation of short names, where it was named (`FASTFLOW_NAMESPACE`).
    pub namespace: Option<String>,
    /// Longest wait for a connection and for the answer's head (`HF_HUB_ETAG_TIMEOUT`, seconds).
    pub answer_timeout: Duration,
    /// Longest silence in the middle of a transfer (`HF_HUB_DOWNLOAD_TIMEOUT`, seconds).
    pub silence_timeout: Duration,
    /// Attempts at one request, and attempts in a row of a transfer that bring nothing new.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
}

impl HubOptions {
    /// The user or organisation that short names belong to.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// Settings from the process's environment.
    ///
    /// Proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) are read by the HTTP library.
    ///
    /// # Errors
    /// When a variable's value cannot be understood, naming it; when no home folder is known.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// Settings from variables that `lookup` gives. Empty ones count as not set.
    ///
    /// # Errors
    /// As [`HubOptions::from_environment`].
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(setting(
                "HF_ENDPOINT",
                "must start with https:// or http://",
            ));
        }
        let home = hf_home(&get)?;
        let cache = match get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")) {
            Some(path) => expand(&path, &get),
            None => home.join("hub"),
        };
        let offline = get("HF_HUB_OFFLINE").or_else(|| get("TRANSFORMERS_OFFLINE"));
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            token: token(&get, &home)?,
            cache,
            offline: offline.is_some_and(|value| is_true(&value)),
            namespace: namespace(&get)?,
            answer_timeout: seconds(&get, "HF_HUB_ETAG_TIMEOUT")?,
            silence_timeout: seconds(&get, "HF_HUB_DOWNLOAD_TIMEOUT")?,
            attempts: 5,
            backoff: Duration::from_millis(500),
        })
    }
}

fn namespace(get: &impl Fn(&str) -> Option<String>) -> Result<Option<String>> {
    const NAME: &str = "FASTFLOW_NAMESPACE";
    match get(NAME) {
        Some(name) if !is_hub_name(name.trim()) => Err(setting(
            NAME,
            "must be the name of a user or an organisation on the Hub",
        )),
        name => Ok(name.map(|name| name.trim().into())),
    }
}

fn token(get: &impl Fn(&str) -> Option<String>, home: &std::path::Path) -> Result<Option<Token>> {
    if get("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
        return Ok(None);
    }
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(token) = get(name).as_deref().and_then(Token::new) {
            return sendable(token, name).map(Some);
        }
    }
    let file = match get("HF_TOKEN_PATH") {
        Some(path) => expand(&path, get),
        None => home.join("token"),
    };
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    let token = Token::new(&kept);
    token
        .map(|token| sendable(token, &file.display().to_string()))
        .transpose()
}

/// A header cannot hold every token, and the error of one that does not would not say where it is from.
fn sendable(token: Token, place: &str) -> Result<Token> {
    let odd = token.0.chars().find(|c| !c.is_ascii_graphic());
    let what = match odd {
        None => return Ok(token),
        Some('\n' | '\r') => "a line break",
        Some(c) if c.is_whitespace() => "white space",
        Some(_) => "a character",
    };
    let reason = format!("holds {what} inside the token, which no token has; set it again");
    Err(setting(place, &reason))
}

fn hf_home(get: &impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if let Some(path) = get("HF_HOME") {
        return Ok(expand(&path, get));
    }
    if let Some(path) = get("XDG_CACHE_HOME") {
        return Ok(expand(&path, get).join("huggingface"));
    }
    let home = user_home(get).ok_or_else(|| {
        setting(
            "HF_HOME",
            "no home folder is known; set it to where the cache may be",
        )
    })?;
    Ok(PathBuf::from(home).join(".cache/huggingface"))
}

fn user_home(get: &impl Fn(&str) -> Option<String>) -> Option<String> {
    get("HOME").or_else(|| get("USERPROFILE"))
}

/// `~` and `$NAME` as Python's client expands them; what is not known stays as it is written.
fn expand(path: &str, get: &impl Fn(&str) -> Option<String>) -> PathBuf {
    let expanded = shellexpand::full_with_context_no_errors(path, || user_home(get), get);
    PathBuf::from(expanded.into_owned())
}

fn seconds(get: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Duration> {
    let Some(value) = get(name) else {
        return Ok(Duration::from_secs(10));
    };
    match value.trim().parse::<f64>().map(Duration::try_from_secs_f64) {
        Ok(Ok(time)) if !time.is_zero() => Ok(time),
        _ => Err(setting(name, "must be a number of seconds above 0")),
    }
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_uppercase().as_str())
}

fn setting(name: &str, reason: &str) -> Error {
    Error::Config {
        path: name.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<HubOptions> {
        HubOptions::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn defaults_are_those_of_pythons_client() {
        let found = options(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(found.endpoint, "https://huggingface.co");
        assert_eq!(found.cache, PathBuf::from("/home/u/.cache/huggingface/hub"));
        assert_eq!((found.offline, &found.token), (false, &None));
        assert_eq!(found.silence_timeout, Duration::from_secs(10));
        assert_eq!(found.namespace, None);
        assert_eq!(found.namespace(), DEFAULT_NAMESPACE);
    }

    #[test]
    fn the_cache_moves_in_pythons_order() {
        let home = ("HOME", "/home/u");
        for (variables, cache) in [
            (vec![home, ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (
                vec![home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")],
                "/home/u/hf/hub",
            ),
            (
                vec![home, ("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/old",
            ),
            (
                vec![
                    home,
                    ("HUGGINGFACE_HUB_CACHE", "/old"),
                    ("HF_HUB_CACHE", "$HOME/new"),
                ],
                "/home/u/new",
            ),
            (
                vec![home, ("HF_HUB_CACHE", ""), ("HF_HOME", "/h")],
                "/h/hub",
            ),
        ] {
            assert_eq!(
                options(&variables).unwrap().cache,
                PathBuf::from(cache),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn offline_is_a_word_that_means_yes() {
        for (value, offline) in [
            ("1", true),
            ("true", true),
            ("ON", true),
            ("0", false),
            ("no", false),
            ("", false),
        ] {
            let found = options(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(found.offline, offline, "{value:?}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_then_the_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let hf_home = ("HF_HOME", home.path().to_str().unwrap());
        let token = |variables: &[(&str, &str)]| options(variables).unwrap().token;
        assert_eq!(token(&[hf_home]), Token::new("from-file"));
        assert_eq!(
            token(&[hf_home, ("HF_TOKEN", " direct ")]),
            Token::new("direct")
        );
        assert_eq!(
            token(&[hf_home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
        assert_eq!(token(&[hf_home, ("HF_TOKEN_PATH", "/nowhere")]), None);
    }

    #[test]
    fn a_token_with_a_line_break_inside_is_named_and_not_shown() {
        let home = ("HOME", "/h");
        let ended = options(&[home, ("HF_TOKEN", "hf_secret\r\n")]).unwrap();
        assert_eq!(ended.token, Token::new("hf_secret"));
        let error = |name, value| options(&[home, (name, value)]).unwrap_err().to_string();
        let found = error("HF_TOKEN", "hf_sec\nret");
        assert!(found.starts_with("HF_TOKEN: holds a line break"), "{found}");
        assert!(!found.contains("sec"), "{found}");
        let found = error("HUGGING_FACE_HUB_TOKEN", "hf sec");
        assert!(found.starts_with("HUGGING_FACE_HUB_TOKEN: holds white space"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "hf_a\nhf_b\n").unwrap();
        let path = path.to_str().unwrap();
        assert!(error("HF_TOKEN_PATH", path).starts_with(path));
    }

    #[test]
    fn a_token_never_prints() {
        let found = options(&[("HOME", "/h"), ("HF_TOKEN", "hf_secret")]).unwrap();
        let token = found.token.clone().unwrap();
        for text in [
            format!("{found:?}"),
            format!("{found:#?}"),
            format!("{token:?} {token}"),
        ] {
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_HUB_ETAG_TIMEOUT", "soon"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
            ("FASTFLOW_NAMESPACE", "org/name"),
        ] {
            let error = options(&[("HOME", "/h"), (name, value)])
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(options(&[]).unwrap_err().to_string().contains("HF_HOME"));
    }
}
