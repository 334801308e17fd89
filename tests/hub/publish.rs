//! Publishing: all or nothing, repeatable, and the Hub gives back what it got.

use std::fs;

use candle_fastflow::{
    Error,
    hub::{DatasetFacts, Hub, PublishOptions, Published, RepoId},
    tensors,
};

use crate::{
    setup::{Setup, Trained, isolated, scores},
    support::faults::{Fault, Kind},
};

const REPO: &str = "zoo/fastflow-wavelet-cloth";

fn options() -> PublishOptions {
    PublishOptions {
        dataset: Some(DatasetFacts::named("Woven cloth")),
        ..Default::default()
    }
}

fn publish(hub: &Hub, trained: &Trained, options: &PublishOptions) -> Result<Published, Error> {
    hub.publish(&trained.folder, options, &|_| ())
}

/// Commits that change something, beside the one that makes the repository.
fn commits(setup: &Setup, repo: &str) -> usize {
    setup.server.repos()[repo].commits.len() - 1
}

#[test]
fn round_trip() {
    isolated("publish::round_trip", || {
        let setup = Setup::new();
        let trained = Trained::new();
        let tagged = PublishOptions {
            tag: Some("v1".into()),
            ..options()
        };
        let published = publish(&setup.author(), &trained, &tagged).unwrap();
        assert_eq!(
            (published.repo.as_str(), published.unchanged),
            (REPO, false)
        );
        {
            let repos = setup.server.repos();
            let repo = &repos[REPO];
            assert_eq!(repo.commits.len(), 2);
            assert_eq!(repo.tags["v1"], published.commit);
            let names: Vec<_> = repo.head().tree.keys().map(String::as_str).collect();
            assert_eq!(
                names,
                [
                    ".gitattributes",
                    "README.md",
                    "config.json",
                    "model.safetensors"
                ]
            );
            assert!(repo.head().tree["model.safetensors"].large);
        }

        let listed = setup.hub().list(&|_| ()).unwrap();
        let entry = listed.iter().find(|entry| entry.repo == REPO).unwrap();
        let metrics = candle_fastflow::detector::read_config(&trained.folder)
            .unwrap()
            .metrics;
        assert_eq!(entry.name, "cloth@wavelet");
        assert_eq!(entry.category.as_deref(), Some("cloth"));
        assert_eq!(entry.image_auroc, Some(metrics["image_auroc"]));
        assert_eq!(entry.pixel_auroc, Some(metrics["pixel_auroc"]));
        let bytes = ["config.json", "model.safetensors"]
            .map(|file| fs::metadata(trained.folder.join(file)).unwrap().len());
        assert_eq!(entry.bytes, Some(bytes.iter().sum()));
        assert_eq!((entry.published, entry.cached), (Some(true), false));

        let folder = setup
            .hub()
            .fetch_detector("cloth@wavelet", &|_| ())
            .unwrap();
        let photos = trained.test_photos();
        assert_eq!(scores(&folder, &photos), scores(&trained.folder, &photos));

        let mut offline = setup.options();
        offline.offline = true;
        let listed = Hub::new(offline).unwrap().list(&|_| ()).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].image_auroc, Some(metrics["image_auroc"]));
        assert_eq!((listed[0].published, listed[0].cached), (None, true));
    });
}

/// Faults that end a publication: the repository is as it was, and the same call works afterwards.
#[test]
fn a_failed_upload_leaves_nothing_and_can_be_repeated() {
    isolated(
        "publish::a_failed_upload_leaves_nothing_and_can_be_repeated",
        || {
            let trained = Trained::new();
            let always = 99;
            let status = |code| Kind::Status(code, None);
            for (fault, word) in [
                (Fault::new("POST", "repos/create", status(403)), "403"),
                (Fault::new("POST", "preupload", status(403)), "403"),
                (
                    Fault::new("POST", "objects/batch", status(500)).times(always),
                    "500",
                ),
                (Fault::new("GET", "xet-write-token", status(403)), "403"),
                (Fault::new("POST", "commit", status(401)), "401"),
                (Fault::new("POST", "commit", status(412)), "412"),
                (
                    Fault::new("POST", "commit", status(500)).times(always),
                    "500",
                ),
            ] {
                for exists in [false, true] {
                    if exists && fault.path == "repos/create" {
                        continue;
                    }
                    let setup = Setup::new();
                    if exists {
                        setup.server.put(REPO, &[("README.md", b"# soon")]);
                    }
                    let before = setup
                        .server
                        .repos()
                        .get(REPO)
                        .map(|repo| repo.head().id.clone());
                    setup.server.fail(fault.clone());
                    let error = publish(&setup.author(), &trained, &options())
                        .unwrap_err()
                        .to_string();
                    assert!(
                        error.contains(word) && error.contains("cloth") && !error.contains('\n'),
                        "{word}: {error}"
                    );
                    let after = setup
                        .server
                        .repos()
                        .get(REPO)
                        .map(|repo| repo.head().id.clone());
                    assert_eq!(after, before, "{word}: {}", fault.path);

                    setup.server.forgive();
                    publish(&setup.author(), &trained, &options()).unwrap();
                    assert_eq!(commits(&setup, REPO), 1 + usize::from(exists));
                }
            }
        },
    );
}

/// Faults that a publication survives, with exactly one commit.
#[test]
fn passing_faults_make_no_second_commit() {
    isolated("publish::passing_faults_make_no_second_commit", || {
        let trained = Trained::new();
        for fault in [
            Fault::new(
                "POST",
                "commit",
                Kind::Status(429, Some(("retry-after", "0"))),
            )
            .times(2),
            Fault::new("POST", "commit", Kind::Status(503, None)),
            // The work is done and the answer lost: once, and as often as it is tried.
            Fault::new("POST", "commit", Kind::Afterwards(500)),
            Fault::new("POST", "commit", Kind::Afterwards(500)).times(99),
            Fault::new("POST", "repos/create", Kind::Afterwards(500)),
            Fault::new("POST", "tag", Kind::Afterwards(500)),
            Fault::new("GET", "/storage/", Kind::Cut(1000)),
        ] {
            let setup = Setup::new();
            setup.server.fail(fault.clone());
            let tagged = PublishOptions {
                tag: Some("v1".into()),
                ..options()
            };
            let published = publish(&setup.author(), &trained, &tagged)
                .unwrap_or_else(|error| panic!("{}: {error}", fault.path));
            assert_eq!(commits(&setup, REPO), 1, "{}", fault.path);
            let repos = setup.server.repos();
            assert_eq!(
                (&repos[REPO].head().id, &repos[REPO].tags["v1"]),
                (&published.commit, &published.commit)
            );
        }
    });
}

/// What fails after the commit is taken up where it ended.
#[test]
fn a_later_call_finishes_what_an_earlier_began() {
    isolated(
        "publish::a_later_call_finishes_what_an_earlier_began",
        || {
            let trained = Trained::new();
            let tagged = PublishOptions {
                tag: Some("v1".into()),
                ..options()
            };
            for (fault, word) in [
                (Fault::new("GET", "/storage/", Kind::WrongBody), "hash"),
                (Fault::new("POST", "tag", Kind::Status(500, None)), "500"),
            ] {
                let setup = Setup::new();
                setup.server.fail(fault.times(99));
                let error = publish(&setup.author(), &trained, &tagged)
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(word), "{error}");
                assert!(
                    setup.server.repos()[REPO].tags.is_empty(),
                    "a tag on what was not verified"
                );
                setup.server.forgive();
                let published = publish(&setup.author(), &trained, &tagged).unwrap();
                assert!(published.unchanged);
                assert_eq!(commits(&setup, REPO), 1);
                assert_eq!(setup.server.repos()[REPO].tags["v1"], published.commit);
            }
        },
    );
}

#[test]
fn a_changed_detector_is_a_new_commit_and_needs_a_new_tag() {
    isolated(
        "publish::a_changed_detector_is_a_new_commit_and_needs_a_new_tag",
        || {
            let setup = Setup::new();
            let trained = Trained::new();
            let author = setup.author();
            let tagged = |tag: &str| PublishOptions {
                tag: Some(tag.into()),
                ..options()
            };
            let first = publish(&author, &trained, &tagged("v1")).unwrap();
            assert!(publish(&author, &trained, &tagged("v1")).unwrap().unchanged);
            trained.edit(|config| config["metrics"]["image_auroc"] = 0.5.into());
            let error = publish(&author, &trained, &tagged("v1"))
                .unwrap_err()
                .to_string();
            assert!(error.contains("tag `v1` exists"), "{error}");
            assert_eq!(commits(&setup, REPO), 1);
            let second = publish(&author, &trained, &tagged("v2")).unwrap();
            assert_ne!(first.commit, second.commit);
            assert_eq!(commits(&setup, REPO), 2);
            assert_eq!(setup.server.repos()[REPO].tags["v1"], first.commit);
        },
    );
}

#[test]
fn pull_requests_branches_and_private_repositories() {
    isolated(
        "publish::pull_requests_branches_and_private_repositories",
        || {
            let setup = Setup::new();
            let trained = Trained::new();
            setup.server.put(REPO, &[("README.md", b"# soon")]);
            let head = setup.server.repos()[REPO].head().id.clone();

            let request = PublishOptions {
                create_pr: true,
                ..options()
            };
            let published = publish(&setup.author(), &trained, &request).unwrap();
            assert!(published.pull_request.unwrap().ends_with("/discussions/1"));
            assert_eq!(
                setup.server.repos()[REPO].pulls["refs/pr/1"],
                published.commit
            );
            assert_eq!(setup.server.repos()[REPO].head().id, head);

            let branch = PublishOptions {
                revision: Some("next".into()),
                ..options()
            };
            let published = publish(&setup.author(), &trained, &branch).unwrap();
            assert_eq!(
                setup.server.repos()[REPO].branches["next"],
                published.commit
            );
            assert_eq!(setup.server.repos()[REPO].head().id, head);
            let folder = setup
                .hub()
                .fetch_detector(&format!("{REPO}@next"), &|_| ())
                .unwrap();
            assert_eq!(
                fs::read(folder.join("config.json")).unwrap(),
                fs::read(trained.folder.join("config.json")).unwrap()
            );

            let repo = RepoId::parse("zoo/secret").unwrap();
            let private = PublishOptions {
                repo: Some(repo),
                private: true,
                ..options()
            };
            publish(&setup.author(), &trained, &private).unwrap();
            assert!(setup.hub().fetch_detector("zoo/secret", &|_| ()).is_err());
            setup
                .author()
                .fetch_detector("zoo/secret", &|_| ())
                .unwrap();

            let both = PublishOptions {
                create_pr: true,
                tag: Some("v1".into()),
                ..options()
            };
            assert!(publish(&setup.author(), &trained, &both).is_err());
        },
    );
}

#[test]
fn without_a_token_nothing_is_made() {
    isolated("publish::without_a_token_nothing_is_made", || {
        let setup = Setup::new();
        let trained = Trained::new();
        let error = publish(&setup.hub(), &trained, &options())
            .unwrap_err()
            .to_string();
        assert!(error.contains("HF_TOKEN"), "{error}");
        assert!(!setup.server.repos().contains_key(REPO));
    });
}

#[test]
fn a_detector_that_does_not_work_is_not_published() {
    isolated(
        "publish::a_detector_that_does_not_work_is_not_published",
        || {
            let setup = Setup::new();
            let trained = Trained::new();
            let failed = || {
                publish(&setup.author(), &trained, &options())
                    .unwrap_err()
                    .to_string()
            };
            let path = trained.folder.join("model.safetensors");
            let sound = fs::read(&path).unwrap();

            trained.edit(|config| config["fixture_score"] = 123.0.into());
            assert!(failed().contains("test pattern"), "{}", failed());
            let fixture = candle_fastflow::detector::read_config(&trained.folder).unwrap();
            trained.edit(|config| drop(config.as_object_mut().unwrap().remove("fixture_score")));
            assert!(
                failed().contains("fixture_score is missing"),
                "{}",
                failed()
            );
            trained.edit(|config| config["fixture_score"] = fixture.fixture_score.into());

            let (mut tensors, _) = tensors::read(&path).unwrap();
            let (name, values) = tensors
                .iter()
                .find(|(_, values)| values.dtype().is_float())
                .unwrap();
            let (name, damaged) = (name.clone(), (values * f64::NAN).unwrap());
            tensors.insert(name.clone(), damaged);
            tensors::write(&path, &tensors, None).unwrap();
            let error = failed();
            assert!(error.contains(&name) && error.contains("finite"), "{error}");

            fs::write(&path, &sound[..sound.len() / 2]).unwrap();
            assert!(failed().contains("model.safetensors"), "{}", failed());
            assert!(
                setup.server.seen().is_empty(),
                "a check must not need the Hub"
            );
        },
    );
}
