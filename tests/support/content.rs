//! Repositories in memory: commits of whole trees, branches, tags, pull requests.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use xet_client::cas_client::{DeletionControlableClient, DirectAccessClient, LocalClient};
use xet_runtime::core::XetContext;

/// A file's content, and whether it is a large file (SHA-256, storage) or in git (SHA-1).
#[derive(Clone)]
pub struct Entry {
    pub bytes: Vec<u8>,
    pub large: bool,
}

impl Entry {
    /// What the real Hub makes of a file of this name.
    pub fn new(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            large: path.ends_with(".safetensors"),
        }
    }

    pub fn etag(&self) -> String {
        if self.large {
            sha256(&self.bytes)
        } else {
            git_blob(&self.bytes)
        }
    }
}

pub type Tree = BTreeMap<String, Entry>;

#[derive(Clone)]
pub struct Commit {
    pub id: String,
    pub title: String,
    pub tree: Tree,
}

#[derive(Default)]
pub struct Repo {
    pub private: bool,
    pub downloads: u64,
    pub commits: Vec<Commit>,
    pub branches: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub pulls: BTreeMap<String, String>,
}

impl Repo {
    /// As the Hub makes it: one commit that holds only `.gitattributes`.
    pub fn created(private: bool) -> Self {
        let mut repo = Self {
            private,
            ..Self::default()
        };
        let attributes = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n";
        let tree = Tree::from([(".gitattributes".into(), Entry::new("", attributes))]);
        let id = repo.add("initial commit", tree);
        repo.branches.insert("main".into(), id);
        repo
    }

    pub fn add(&mut self, title: &str, tree: Tree) -> String {
        let mut hasher = Sha256::new();
        hasher.update(format!("{title} {} {}", self.commits.len(), self.private));
        for (path, entry) in &tree {
            hasher.update(format!("{path} {}", entry.etag()));
        }
        let id = hex(&hasher.finalize())[..40].to_string();
        let title = title.into();
        self.commits.push(Commit {
            id: id.clone(),
            title,
            tree,
        });
        id
    }

    /// The commit of a branch, tag, pull request or commit hash.
    pub fn at(&self, revision: &str) -> Option<&Commit> {
        let named = [&self.branches, &self.tags, &self.pulls];
        let id = named
            .iter()
            .find_map(|names| names.get(revision))
            .map_or(revision, String::as_str);
        self.commits.iter().find(|commit| commit.id == id)
    }

    pub fn head(&self) -> &Commit {
        self.at("main").unwrap()
    }

    /// The card's front matter, as the Hub shows it in listings.
    pub fn card_data(&self) -> Value {
        let card = self.head().tree.get("README.md");
        let text = card.map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned());
        let front = text
            .as_deref()
            .and_then(|text| text.split("---\n").nth(1))
            .unwrap_or("{}");
        serde_yaml_ng::from_str(front).unwrap_or(Value::Null)
    }
}

pub fn tree_json(tree: &Tree) -> Value {
    let entries = tree.iter().map(|(path, entry)| {
        let mut file = json!({"type": "file", "path": path, "size": entry.bytes.len(), "oid": git_blob(&entry.bytes)});
        if entry.large {
            let pointer = format!(
                "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
                entry.etag(),
                entry.bytes.len()
            );
            file["oid"] = git_blob(pointer.as_bytes()).into();
            file["lfs"] = json!({"oid": entry.etag(), "size": entry.bytes.len(), "pointerSize": pointer.len()});
        }
        file
    });
    entries.collect()
}

/// All files that clients have put into a content-addressed store in a folder, by SHA-256.
pub async fn stored_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    if !folder.exists() {
        return found;
    }
    // A copy: the client that asks for the commit may still hold its store locked.
    let copy = tempfile::tempdir().unwrap();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        let to = copy.path().join(entry.path().strip_prefix(folder).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(to).unwrap();
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
    let root = copy.path().join("xet/xorbs");
    let store = LocalClient::new(XetContext::default().unwrap(), root)
        .await
        .unwrap();
    for (file, _) in store.list_file_shard_entries().await.unwrap() {
        let bytes = store.get_file_data(&file, None).await.unwrap();
        found.insert(sha256(&bytes), bytes.to_vec());
    }
    found
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn git_blob(bytes: &[u8]) -> String {
    let header = format!("blob {}\0", bytes.len());
    hex(&Sha1::digest([header.as_bytes(), bytes].concat()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
