//! The protocol: routes, permissions, faults and a record of what was asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::Engine;
use serde_json::{Value, json};

use super::{
    content::{Entry, Repo, Tree, stored_in, tree_json},
    faults::{Fault, Kind, refusal, spoil},
};

/// Who may write, and read what is private.
pub const TOKEN: &str = "hf_TestOnlyTokenThatMustNeverShow";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// With the query.
    pub path: String,
    pub range: Option<String>,
    pub authorized: bool,
    pub at_storage: bool,
}

struct Inner {
    repos: Mutex<BTreeMap<String, Repo>>,
    large: Mutex<BTreeMap<String, Vec<u8>>>,
    faults: Mutex<Vec<Fault>>,
    seen: Mutex<Vec<Seen>>,
    store: PathBuf,
    hub: SocketAddr,
    storage: SocketAddr,
}

/// A running Hub; it ends with the value.
pub struct TestHub {
    inner: Arc<Inner>,
    // Dropped last: the server's tasks end with it.
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl TestHub {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (hub, storage) = runtime.block_on(async {
            let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
            (bind().await.unwrap(), bind().await.unwrap())
        });
        let inner = Arc::new(Inner {
            repos: Mutex::default(),
            large: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            store: folder.path().join("store"),
            hub: hub.local_addr().unwrap(),
            storage: storage.local_addr().unwrap(),
        });
        for (listener, at_storage) in [(hub, false), (storage, true)] {
            let state = (inner.clone(), at_storage);
            let router = Router::new().fallback(answer).with_state(state);
            runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        }
        Self {
            inner,
            _runtime: runtime,
            _folder: folder,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.inner.hub)
    }

    /// Puts files into a repository (made if there is none) in one commit on `main`.
    pub fn put(&self, id: &str, files: &[(&str, &[u8])]) -> String {
        let mut repos = self.repos();
        let repo = repos
            .entry(id.into())
            .or_insert_with(|| Repo::created(false));
        let mut tree = repo.head().tree.clone();
        for (path, bytes) in files {
            let entry = Entry::new(path, *bytes);
            if entry.large {
                self.inner
                    .large
                    .lock()
                    .unwrap()
                    .insert(entry.etag(), entry.bytes.clone());
            }
            tree.insert((*path).into(), entry);
        }
        let commit = repo.add("put by the test", tree);
        repo.branches.insert("main".into(), commit.clone());
        commit
    }

    pub fn repos(&self) -> MutexGuard<'_, BTreeMap<String, Repo>> {
        self.inner.repos.lock().unwrap()
    }

    pub fn fail(&self, fault: Fault) {
        self.inner.faults.lock().unwrap().push(fault);
    }

    /// Ends all faults.
    pub fn forgive(&self) {
        self.inner.faults.lock().unwrap().clear();
    }

    /// Faults that no request has met.
    pub fn unmet(&self) -> usize {
        self.inner
            .faults
            .lock()
            .unwrap()
            .iter()
            .map(|fault| fault.times)
            .sum()
    }

    /// What has been asked since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.inner.seen.lock().unwrap())
    }
}

async fn answer(State((hub, at_storage)): State<(Arc<Inner>, bool)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = percent_decode(parts.uri.path());
    let query = parts.uri.query().unwrap_or_default().to_string();
    let header = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let authorized = header(header::AUTHORIZATION) == Some(&format!("Bearer {TOKEN}"));
    let range = header(header::RANGE).map(String::from);
    hub.seen.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        path: format!("{path}?{query}"),
        range: range.clone(),
        authorized: header(header::AUTHORIZATION).is_some(),
        at_storage,
    });
    let fault = next_fault(&hub, &parts.method, &path);
    if let Some(kind @ Kind::Status(..)) = &fault {
        return refusal(kind).unwrap();
    }
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    let asked = Asked {
        method: parts.method,
        path: &path,
        raw: parts.uri.path(),
        query: &query,
        authorized,
        body,
    };
    let proper = if at_storage {
        from_storage(&hub, &path)
    } else {
        route(&hub, asked.clone()).await
    };
    finish(proper, fault, range, asked.method == Method::HEAD).await
}

/// Cuts the range out, spoils what is to be spoilt and leaves the body out for HEAD.
async fn finish(
    proper: Response,
    fault: Option<Kind>,
    range: Option<String>,
    head: bool,
) -> Response {
    if let Some(kind @ Kind::Afterwards(_)) = &fault {
        return refusal(kind).unwrap();
    }
    let (mut parts, body) = proper.into_parts();
    let mut bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    let start = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    if let Some(start) = start.filter(|_| parts.status == StatusCode::OK) {
        if start >= bytes.len() {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let total = bytes.len();
        parts.status = StatusCode::PARTIAL_CONTENT;
        let told = format!("bytes {start}-{}/{total}", total - 1);
        parts
            .headers
            .insert(header::CONTENT_RANGE, HeaderValue::from_str(&told).unwrap());
        bytes.drain(..start);
    }
    let spoilt = match &fault {
        Some(kind) => spoil(kind, &mut parts.headers, bytes),
        None => {
            parts
                .headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            Body::from(bytes)
        }
    };
    Response::from_parts(parts, if head { Body::empty() } else { spoilt })
}

fn next_fault(hub: &Inner, method: &Method, path: &str) -> Option<Kind> {
    let mut faults = hub.faults.lock().unwrap();
    let fits = |fault: &&mut Fault| {
        fault.times > 0 && method.as_str() == fault.method && path.contains(fault.path)
    };
    let fault = faults.iter_mut().find(fits)?;
    fault.times -= 1;
    Some(fault.kind.clone())
}

#[derive(Clone)]
struct Asked<'a> {
    method: Method,
    path: &'a str,
    /// Still encoded: a revision with slashes is one segment of it.
    raw: &'a str,
    query: &'a str,
    authorized: bool,
    body: Vec<u8>,
}

impl Asked<'_> {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn query(&self, name: &str) -> Option<String> {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| percent_decode(value))
            .next()
    }
}

async fn route(hub: &Inner, asked: Asked<'_>) -> Response {
    let segments: Vec<String> = asked.raw.split('/').skip(1).map(percent_decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = asked.method.as_str();
    match (method, segments.as_slice()) {
        ("POST", ["api", "repos", "create"]) => create(hub, &asked),
        ("DELETE", ["api", "repos", "delete"]) => delete(hub, &asked),
        ("POST", ["api", "validate-yaml"]) => json_ok(json!({"errors": [], "warnings": []})),
        ("GET", ["api", "models"]) => list(hub, &asked),
        ("GET", ["api", "whoami-v2"]) => who(&asked),
        (_, ["api", "models", owner, name, rest @ ..]) => {
            api(hub, &asked, &format!("{owner}/{name}"), rest).await
        }
        ("POST", [_, _, "info", "lfs", "objects", "batch"]) => batch(&asked),
        ("GET" | "HEAD", [owner, name, "resolve", revision, file @ ..]) => resolve(
            hub,
            &asked,
            &format!("{owner}/{name}"),
            revision,
            &file.join("/"),
        ),
        _ => refuse(404, "", "no such route"),
    }
}

/// The user that a token belongs to, and who repositories without an organisation are made for.
pub const USER: &str = "me";

fn who(asked: &Asked) -> Response {
    match asked.authorized {
        true => json_ok(json!({"type": "user", "name": USER, "fullname": "Me", "orgs": []})),
        false => refuse(401, "", "Invalid credentials in Authorization header"),
    }
}

fn create(hub: &Inner, asked: &Asked) -> Response {
    if !asked.authorized {
        return refuse(401, "", "Invalid credentials in Authorization header");
    }
    let body = asked.json();
    let owner = body["organization"].as_str().unwrap_or(USER);
    let id = format!("{owner}/{}", body["name"].as_str().unwrap());
    let mut repos = hub.repos.lock().unwrap();
    if repos.contains_key(&id) {
        return refuse(409, "", "You already created this model repo");
    }
    repos.insert(id.clone(), Repo::created(body["private"] == true));
    json_ok(json!({"url": format!("http://{}/{id}", hub.hub), "name": id}))
}

fn delete(hub: &Inner, asked: &Asked) -> Response {
    let body = asked.json();
    let id = format!(
        "{}/{}",
        body["organization"].as_str().unwrap_or(USER),
        body["name"].as_str().unwrap()
    );
    match hub
        .repos
        .lock()
        .unwrap()
        .remove(&id)
        .filter(|_| asked.authorized)
    {
        Some(_) => json_ok(json!({})),
        None => refuse(404, "RepoNotFound", "Repository not found"),
    }
}

fn list(hub: &Inner, asked: &Asked) -> Response {
    let repos = hub.repos.lock().unwrap();
    let author = asked.query("author");
    let filter = asked.query("filter");
    let shown = repos.iter().filter_map(|(id, repo)| {
        let info = info_json(id, repo, repo.head().id.as_str());
        let tagged = |tag: &String| {
            info["tags"]
                .as_array()
                .unwrap()
                .iter()
                .any(|found| found == tag.as_str())
        };
        let fits = author
            .as_ref()
            .is_none_or(|author| id.starts_with(&format!("{author}/")))
            && filter.as_ref().is_none_or(tagged)
            && (!repo.private || asked.authorized);
        fits.then_some(info)
    });
    json_ok(shown.collect())
}

fn info_json(id: &str, repo: &Repo, commit: &str) -> Value {
    let mut card = repo.card_data();
    // The real Hub shows the results beside the card's data, not in it.
    let index = card
        .as_object_mut()
        .and_then(|card| card.remove("model-index"));
    let tree = &repo.at(commit).unwrap().tree;
    json!({
        "_id": "0", "id": id, "modelId": id, "author": id.split('/').next(), "sha": commit,
        "private": repo.private, "disabled": false, "downloads": repo.downloads, "likes": 0,
        "createdAt": "2026-01-01T00:00:00.000Z", "lastModified": "2026-01-01T00:00:00.000Z",
        "tags": card.get("tags").cloned().unwrap_or(json!([])), "cardData": card, "model-index": index,
        "siblings": tree.keys().map(|path| json!({"rfilename": path})).collect::<Value>(),
    })
}

async fn api(hub: &Inner, asked: &Asked<'_>, id: &str, rest: &[&str]) -> Response {
    if let ("POST", ["commit", revision]) = (asked.method.as_str(), rest) {
        return commit(hub, asked, id, revision).await;
    }
    let mut repos = hub.repos.lock().unwrap();
    let Some(repo) = repos
        .get_mut(id)
        .filter(|repo| !repo.private || asked.authorized)
    else {
        return refuse(
            if asked.authorized { 404 } else { 401 },
            "RepoNotFound",
            "Repository not found",
        );
    };
    let writes = asked.method != Method::GET
        || rest
            .first()
            .is_some_and(|first| first.starts_with("xet-write"));
    if writes && !asked.authorized {
        return refuse(401, "", "Invalid credentials in Authorization header");
    }
    let at = |revision: &str| repo.at(revision).map(|commit| commit.id.clone());
    match (asked.method.as_str(), rest) {
        ("GET", []) => json_ok(info_json(id, repo, &repo.head().id)),
        ("GET", ["refs"]) => refs(repo),
        ("POST", ["preupload", _]) => preupload(asked),
        ("POST", ["branch", name]) => {
            let body = asked.json();
            match at(body["startingPoint"].as_str().unwrap_or("main")) {
                Some(commit) => name_commit(&mut repo.branches, name, commit),
                None => refuse(404, "RevisionNotFound", "Invalid rev id"),
            }
        }
        (method, [verb, revision, ..]) => match (method, *verb, at(revision)) {
            (_, _, None) => refuse(404, "RevisionNotFound", "Invalid rev id"),
            ("GET", "revision", Some(commit)) => json_ok(info_json(id, repo, &commit)),
            ("GET", "tree", Some(commit)) => json_ok(tree_json(&repo.at(&commit).unwrap().tree)),
            ("GET", "xet-write-token" | "xet-read-token", _) => xet_token(hub),
            ("POST", "tag", Some(commit)) => name_commit(
                &mut repo.tags,
                asked.json()["tag"].as_str().unwrap(),
                commit,
            ),
            _ => refuse(404, "", "no such route"),
        },
        _ => refuse(404, "", "no such route"),
    }
}

fn name_commit(names: &mut BTreeMap<String, String>, name: &str, commit: String) -> Response {
    if names.contains_key(name) {
        return refuse(409, "", "Reference already exists");
    }
    names.insert(name.into(), commit);
    json_ok(json!({}))
}

fn refs(repo: &Repo) -> Response {
    let shown = |names: &BTreeMap<String, String>, kind: &str| -> Value {
        let named = names.iter().map(|(name, commit)| json!({"name": name, "ref": format!("refs/{kind}/{name}"), "targetCommit": commit}));
        named.collect()
    };
    json_ok(
        json!({"branches": shown(&repo.branches, "heads"), "tags": shown(&repo.tags, "tags"), "converts": []}),
    )
}

fn preupload(asked: &Asked) -> Response {
    let body = asked.json();
    let files = body["files"].as_array().unwrap().iter().map(|file| {
        let path = file["path"].as_str().unwrap();
        let mode = if Entry::new(path, []).large {
            "lfs"
        } else {
            "regular"
        };
        json!({"path": path, "uploadMode": mode, "shouldIgnore": false})
    });
    json_ok(json!({"files": files.collect::<Value>()}))
}

fn batch(asked: &Asked) -> Response {
    if !asked.authorized {
        return refuse(401, "", "Invalid credentials in Authorization header");
    }
    let body = asked.json();
    json_ok(json!({"transfer": "xet", "objects": body["objects"]}))
}

fn xet_token(hub: &Inner) -> Response {
    let store = format!("local://{}", hub.store.display());
    let expiry = 4_000_000_000_u64;
    let mut response = json_ok(json!({"accessToken": "xet-token", "exp": expiry, "casUrl": store}));
    let pairs = [
        ("x-xet-cas-url", store),
        ("x-xet-access-token", "xet-token".into()),
        ("x-xet-token-expiration", expiry.to_string()),
    ];
    for (name, value) in pairs {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_str(&value).unwrap());
    }
    response
}

async fn commit(hub: &Inner, asked: &Asked<'_>, id: &str, revision: &str) -> Response {
    let stored = stored_in(&hub.store).await;
    hub.large.lock().unwrap().extend(stored);
    let large = hub.large.lock().unwrap();
    let mut repos = hub.repos.lock().unwrap();
    let Some(repo) = repos.get_mut(id).filter(|_| asked.authorized) else {
        return refuse(401, "", "Invalid credentials in Authorization header");
    };
    let Some(parent) = repo.at(revision).cloned() else {
        return refuse(404, "RevisionNotFound", "Invalid rev id");
    };
    let text = String::from_utf8(asked.body.clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let header = &lines[0]["value"];
    if header["parentCommit"]
        .as_str()
        .is_some_and(|expected| expected != parent.id)
    {
        return refuse(
            412,
            "",
            "A commit has happened since. Please refresh and try again.",
        );
    }
    let mut tree = parent.tree;
    for line in &lines[1..] {
        if let Err(refusal) = apply(&mut tree, line, &large) {
            return *refusal;
        }
    }
    let new = repo.add(header["summary"].as_str().unwrap(), tree);
    let mut reply = json!({"success": true, "commitOid": new, "commitUrl": format!("http://{}/{id}/commit/{new}", hub.hub), "hookOutput": ""});
    if asked.query("create_pr").is_some() {
        let number = repo.pulls.len() + 1;
        repo.pulls.insert(format!("refs/pr/{number}"), new);
        reply["pullRequestUrl"] = format!("http://{}/{id}/discussions/{number}", hub.hub).into();
        reply["prUrl"] = reply["pullRequestUrl"].clone();
        reply["prNum"] = number.into();
    } else {
        repo.branches.insert(revision.into(), new);
    }
    json_ok(reply)
}

fn apply(
    tree: &mut Tree,
    line: &Value,
    large: &BTreeMap<String, Vec<u8>>,
) -> Result<(), Box<Response>> {
    let value = &line["value"];
    let path = value["path"].as_str().unwrap().to_string();
    match line["key"].as_str().unwrap() {
        "file" => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(value["content"].as_str().unwrap())
                .unwrap();
            tree.insert(
                path,
                Entry {
                    bytes,
                    large: false,
                },
            );
        }
        "lfsFile" => {
            let Some(bytes) = large.get(value["oid"].as_str().unwrap()) else {
                return Err(Box::new(refuse(
                    422,
                    "",
                    "LFS pointer pointed to a file that does not exist",
                )));
            };
            tree.insert(
                path,
                Entry {
                    bytes: bytes.clone(),
                    large: true,
                },
            );
        }
        "deletedFile" => drop(tree.remove(&path)),
        other => panic!("unknown operation {other}"),
    }
    Ok(())
}

fn resolve(hub: &Inner, asked: &Asked, id: &str, revision: &str, file: &str) -> Response {
    let mut repos = hub.repos.lock().unwrap();
    let Some(repo) = repos
        .get_mut(id)
        .filter(|repo| !repo.private || asked.authorized)
    else {
        return refuse(
            if asked.authorized { 404 } else { 401 },
            "RepoNotFound",
            "Repository not found",
        );
    };
    let Some(commit) = repo.at(revision).cloned() else {
        return refuse(404, "RevisionNotFound", "Invalid rev id");
    };
    let Some(entry) = commit.tree.get(file) else {
        let mut missing = refuse(404, "EntryNotFound", "Entry not found");
        missing
            .headers_mut()
            .insert("x-repo-commit", HeaderValue::from_str(&commit.id).unwrap());
        return missing;
    };
    if file == "config.json" && asked.method == Method::GET {
        repo.downloads += 1;
    }
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: String| {
        headers.insert(name, HeaderValue::from_str(&value).unwrap())
    };
    set("x-repo-commit", commit.id);
    let etag = entry.etag();
    if !entry.large {
        set("etag", format!("\"{etag}\""));
        return (headers, entry.bytes.clone()).into_response();
    }
    set("x-linked-etag", format!("\"{etag}\""));
    set("x-linked-size", entry.bytes.len().to_string());
    set(
        "location",
        format!(
            "http://{}/storage/{etag}?signature=secret-of-the-link",
            hub.storage
        ),
    );
    (StatusCode::FOUND, headers).into_response()
}

fn from_storage(hub: &Inner, path: &str) -> Response {
    let large = hub.large.lock().unwrap();
    match path
        .strip_prefix("/storage/")
        .and_then(|hash| large.get(hash))
    {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::FORBIDDEN.into_response(),
    }
}

fn json_ok(value: Value) -> Response {
    axum::Json(value).into_response()
}

fn refuse(status: u16, code: &str, message: &str) -> Response {
    let mut response = axum::Json(json!({"error": message})).into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert("x-error-message", HeaderValue::from_str(message).unwrap());
    if !code.is_empty() {
        response
            .headers_mut()
            .insert("x-error-code", HeaderValue::from_str(code).unwrap());
    }
    response
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}
