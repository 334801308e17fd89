//! A staged detector onto the Hub: one commit, downloaded again and compared, then tagged.

use std::{sync::mpsc, thread, time::Duration};

use hf_hub::{
    HFClientSync, HFRepositorySync,
    progress::{ProgressEvent, ProgressHandler, UploadEvent},
    repository::{CommitOperation, RepoTreeEntry, RepoTypeModel},
};

use serde::Serialize;

use super::{
    client::Client,
    digest::Digest,
    download::Wanted,
    failure::{Failure, Missing, Outcome},
    progress::{Event, Progress},
    stage::{PublishOptions, Staged},
};
use crate::Error;

/// Where a published detector is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Repository, `owner/name`.
    pub repo: String,
    /// The commit that holds the detector.
    pub commit: String,
    /// The page to look at.
    pub url: String,
    /// The pull request, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// The tag, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The Hub had the same files already; no commit was made.
    pub unchanged: bool,
}

/// A commit on the Hub.
struct Commit {
    id: String,
    pull_request: Option<String>,
}

/// One staged detector on its way.
pub(super) struct Upload<'a> {
    client: &'a Client,
    api: HFClientSync,
    model: HFRepositorySync<RepoTypeModel>,
    staged: &'a Staged,
    options: &'a PublishOptions,
    progress: Progress<'a>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        client: &'a Client,
        staged: &'a Staged,
        options: &'a PublishOptions,
        progress: Progress<'a>,
    ) -> Outcome<Self> {
        let api = client.api()?;
        let model = api.model(staged.repo.owner(), staged.repo.name());
        Ok(Self {
            client,
            api,
            model,
            staged,
            options,
            progress,
        })
    }

    pub(super) fn run(&self) -> Outcome<Published> {
        let made = self.make_repo()?;
        let result = self.fill_repo();
        if result.is_err() && made {
            self.remove_if_empty();
        }
        result
    }

    fn fill_repo(&self) -> Outcome<Published> {
        let branch = self.options.revision.as_deref().unwrap_or("main");
        let parent = self.head_of(branch)?;
        self.check_tag()?;
        let unchanged = self.holds(&parent)?;
        let commit = match unchanged {
            true => Commit {
                id: parent,
                pull_request: None,
            },
            false => self.commit(branch, &parent)?,
        };
        self.compare(&commit.id)?;
        self.tag(&commit.id)?;
        let page = format!("{}/{}", self.client.options.endpoint, self.staged.repo);
        Ok(Published {
            repo: self.staged.repo.to_string(),
            url: format!("{page}/tree/{}", commit.id),
            commit: commit.id,
            pull_request: commit.pull_request,
            tag: self.options.tag.clone(),
            unchanged,
        })
    }

    /// Whether the repository had to be made.
    fn make_repo(&self) -> Outcome<bool> {
        if self
            .client
            .call(self.progress, || self.model.exists().send())
            .or_else(hidden)?
        {
            return Ok(false);
        }
        let id = self.staged.repo.to_string();
        let make = || {
            let create = self
                .api
                .create_repository()
                .repo_id(&id)
                .repo_type(RepoTypeModel);
            create.private(self.options.private).send()
        };
        match self.client.call(self.progress, make) {
            Ok(_) => Ok(true),
            // Made in between, by somebody else or by an attempt whose answer was lost.
            Err(Failure::Conflict(_)) => Ok(false),
            Err(Failure::Missing(_)) => Err(Failure::Denied(
                "this token may not make the repository".into(),
            )),
            Err(failure) => Err(failure),
        }
    }

    /// The branch's commit; the branch is made from `main` where there is none.
    fn head_of(&self, branch: &str) -> Outcome<String> {
        match self.find_head(branch) {
            Err(Failure::Missing(Missing::Revision))
                if branch != "main" && !self.options.create_pr =>
            {
                let make = || self.model.create_branch().branch(branch).send();
                match self.client.call(self.progress, make) {
                    Ok(()) | Err(Failure::Conflict(_)) => self.find_head(branch),
                    Err(failure) => Err(failure),
                }
            }
            other => other,
        }
    }

    fn find_head(&self, branch: &str) -> Outcome<String> {
        let info = self
            .client
            .call(self.progress, || self.model.info().revision(branch).send())?;
        info.sha
            .ok_or_else(|| Failure::Refused("the Hub names no commit for the branch".into()))
    }

    /// A tag that exists must not come as a surprise after the upload.
    fn check_tag(&self) -> Outcome<()> {
        let Some(tag) = &self.options.tag else {
            return Ok(());
        };
        let Some(target) = self.find_tag(tag)? else {
            return Ok(());
        };
        if self.holds(&target)? {
            return Ok(());
        }
        Err(Failure::Refused(format!(
            "tag `{tag}` exists and holds another detector; choose a new one"
        )))
    }

    fn find_tag(&self, tag: &str) -> Outcome<Option<String>> {
        let refs = self
            .client
            .call(self.progress, || self.model.list_refs().send())?;
        let found = refs.tags.into_iter().find(|found| found.name == tag);
        Ok(found.map(|found| found.target_commit))
    }

    /// Whether a revision holds exactly the staged files.
    fn holds(&self, revision: &str) -> Outcome<bool> {
        for file in &self.staged.files {
            match self
                .client
                .look_up(&self.staged.repo, revision, &file.name, self.progress)
            {
                Ok(remote) if remote.digest.is_of(&self.staged.path(file))? => {}
                Ok(_) | Err(Failure::Missing(_)) => return Ok(false),
                Err(failure) => return Err(failure),
            }
        }
        Ok(true)
    }

    fn commit(&self, branch: &str, parent: &str) -> Outcome<Commit> {
        if self.options.create_pr {
            // A second attempt could open a second pull request.
            return self.send(branch, parent);
        }
        let sent = self
            .client
            .retried(self.progress, || self.send(branch, parent));
        let Err(failure) = sent else {
            return sent;
        };
        // The answer may have been lost after the work was done.
        match self.find_head(branch) {
            Ok(head) if head != parent && self.holds(&head)? => Ok(Commit {
                id: head,
                pull_request: None,
            }),
            _ => Err(failure),
        }
    }

    /// One attempt at the commit. hf-hub reports progress from threads of its own; it is handed on
    /// from here.
    fn send(&self, branch: &str, parent: &str) -> Outcome<Commit> {
        let files = self.staged.files.iter();
        let operations =
            files.map(|file| CommitOperation::add_file(&file.name, self.staged.path(file)));
        let operations: Vec<_> = operations.collect();
        let config = &self.staged.config;
        let default = || {
            format!(
                "Publish the {} detector on {}",
                config.name, config.backbone.id
            )
        };
        let message = self.options.message.clone().unwrap_or_else(default);
        let (sender, events) = mpsc::channel();
        let sent = thread::scope(|scope| {
            let running = scope.spawn(|| {
                let commit = self
                    .model
                    .create_commit()
                    .operations(operations)
                    .commit_message(message);
                let commit = commit
                    .revision(branch)
                    .parent_commit(parent)
                    .create_pr(self.options.create_pr);
                commit.progress(Sent(sender)).send()
            });
            while !running.is_finished() {
                if let Ok((done, total)) = events.recv_timeout(Duration::from_millis(50)) {
                    (self.progress)(Event::Upload { done, total });
                }
            }
            running
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let info = sent.map_err(|error| self.client.sorted(error))?;
        let no_commit = || Failure::Refused("the Hub names no commit for what was sent".into());
        Ok(Commit {
            id: info.commit_oid.ok_or_else(no_commit)?,
            pull_request: info.pr_url,
        })
    }

    /// Fetches every file into a cache of its own and compares it with what was sent.
    fn compare(&self, commit: &str) -> Outcome<()> {
        let empty = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        let mut options = self.client.options.clone();
        options.cache = empty.path().into();
        let fresh = Client::new(options)?;
        for file in &self.staged.files {
            let wanted = Wanted {
                repo: &self.staged.repo,
                revision: commit,
                file: &file.name,
                sha256: None,
            };
            let found = fresh.fetch(wanted, self.progress)?;
            if Digest::sha256(&found.path)?.as_str() != file.sha256 {
                return Err(Failure::Refused(format!(
                    "{}: the Hub gives back other bytes than were sent",
                    file.name
                )));
            }
        }
        let path = empty.path().to_path_buf();
        empty.close().map_err(Error::io(path))?;
        Ok(())
    }

    fn tag(&self, commit: &str) -> Outcome<()> {
        let Some(tag) = &self.options.tag else {
            return Ok(());
        };
        let make = || self.model.create_tag().tag(tag).revision(commit).send();
        match self.client.call(self.progress, make) {
            Err(Failure::Conflict(reason)) => match self.find_tag(tag)? {
                Some(target) if self.holds(&target)? => Ok(()),
                _ => Err(Failure::Conflict(reason)),
            },
            other => other,
        }
    }

    /// Takes back a repository that this call has made and left without a detector.
    fn remove_if_empty(&self) {
        let listed = self.client.call(self.progress, || {
            self.model.list_tree().recursive(true).send()
        });
        let ours = |path: &str| self.staged.files.iter().any(|file| file.name == path);
        let empty = listed.is_ok_and(|tree| {
            tree.iter().all(|entry| match entry {
                RepoTreeEntry::File { path, .. } => !ours(path),
                RepoTreeEntry::Directory { .. } => false,
            })
        });
        if !empty {
            return;
        }
        let id = self.staged.repo.to_string();
        let delete = || {
            self.api
                .delete_repository()
                .repo_id(&id)
                .repo_type(RepoTypeModel)
                .send()
        };
        if self.client.call(self.progress, delete).is_err() {
            tracing::warn!("{id}: the new, empty repository could not be removed again");
        }
    }
}

/// Without the right to see it, a repository looks as if it did not exist.
fn hidden(failure: Failure) -> Outcome<bool> {
    match failure {
        Failure::Missing(_) => Ok(false),
        other => Err(other),
    }
}

/// hf-hub's reports, sent on.
struct Sent(mpsc::Sender<(u64, u64)>);

impl ProgressHandler for Sent {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Upload(UploadEvent::Progress {
            bytes_completed,
            total_bytes,
            ..
        }) = event
        {
            // Nobody listens any more: then nobody is to be told.
            let _ = self.0.send((*bytes_completed, *total_bytes));
        }
    }
}
