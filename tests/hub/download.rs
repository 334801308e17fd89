//! Downloads: verified, resumed, shared with other processes, and never a bad file in the cache.

use std::{fs, path::Path, sync::Mutex, time::Duration};

use candle_fastflow::{
    detector::BackboneRecord,
    hub::{Event, Hub, Token},
};

use crate::{
    setup::{CARD, CONFIG, REPO, Setup, weights},
    support::{
        content::sha256,
        faults::{Fault, Kind},
        server::{TOKEN, TestHub},
    },
};

fn assert_detector(folder: &Path) {
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), CONFIG);
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(fs::read(folder.join("README.md")).unwrap(), CARD);
}

#[test]
fn a_name_becomes_a_verified_folder() {
    let setup = Setup::new();
    let folder = setup.pull().unwrap();
    assert_detector(&folder);
    setup.assert_sound();

    // The second time one question is asked, about the commit; no content moves.
    setup.server.seen();
    assert_eq!(setup.pull().unwrap(), folder);
    let seen = setup.server.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].method, "HEAD");
}

#[test]
fn all_spellings_lead_to_the_same_files() {
    let setup = Setup::new();
    let commit = setup.server.repos()[REPO].head().id.clone();
    setup
        .server
        .repos()
        .get_mut(REPO)
        .unwrap()
        .tags
        .insert("v1".into(), commit.clone());
    let hub = setup.hub();
    let folder = hub.fetch_detector("bottle", &|_| ()).unwrap();
    for name in [
        REPO.to_string(),
        format!("{REPO}@v1"),
        format!("{REPO}@{commit}"),
        "bottle@resnet18".into(),
    ] {
        assert_eq!(
            hub.fetch_detector(&name, &|_| ()).unwrap(),
            folder,
            "{name}"
        );
    }
    assert_eq!(
        hub.fetch_detector(folder.to_str().unwrap(), &|_| ())
            .unwrap(),
        folder
    );
}

#[test]
fn a_commit_needs_no_network_once_cached() {
    let setup = Setup::new();
    let commit = setup.server.repos()[REPO].head().id.clone();
    let name = format!("{REPO}@{commit}");
    let hub = setup.hub();
    let folder = hub.fetch_detector(&name, &|_| ()).unwrap();
    setup.server.seen();
    assert_eq!(hub.fetch_detector(&name, &|_| ()).unwrap(), folder);
    assert!(setup.server.seen().is_empty());
}

#[test]
fn a_new_commit_on_the_branch_is_seen() {
    let setup = Setup::new();
    setup.pull().unwrap();
    setup
        .server
        .put(REPO, &[("config.json", b"{\"schema_version\": 2}")]);
    let folder = setup.pull().unwrap();
    assert_eq!(
        fs::read(folder.join("config.json")).unwrap(),
        b"{\"schema_version\": 2}"
    );
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn works_inside_an_asynchronous_program() {
    let setup = Setup::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let folder = runtime.block_on(async { setup.pull() });
    assert_detector(&folder.unwrap());
}

/// Faults that go away by themselves: the pull succeeds in the end.
#[test]
fn passing_faults_are_ridden_out() {
    let stall = Kind::Stall(Duration::from_secs(2));
    let slow = Kind::Slow(Duration::from_millis(100));
    for (what, fault) in [
        (
            "429",
            Fault::new(
                "HEAD",
                "config.json",
                Kind::Status(429, Some(("retry-after", "0"))),
            )
            .times(3),
        ),
        (
            "429 until a date that is over",
            Fault::new(
                "HEAD",
                "config.json",
                Kind::Status(429, Some(("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"))),
            )
            .times(2),
        ),
        (
            "429 without a time",
            Fault::new("GET", "config.json", Kind::Status(429, None)).times(2),
        ),
        (
            "500",
            Fault::new("HEAD", "model.safetensors", Kind::Status(500, None)).times(2),
        ),
        (
            "503 from the storage",
            Fault::new("GET", "/storage/", Kind::Status(503, None)).times(3),
        ),
        ("cut", Fault::new("GET", "/storage/", Kind::Cut(100_000))),
        (
            "cut of a small file",
            Fault::new("GET", "config.json", Kind::Cut(3)),
        ),
        ("silence", Fault::new("GET", "/storage/", stall)),
        ("slow", Fault::new("GET", "/storage/", slow)),
        (
            "wrong body of the right length",
            Fault::new("GET", "/storage/", Kind::WrongBody),
        ),
        (
            "wrong small body",
            Fault::new("GET", "config.json", Kind::WrongBody),
        ),
        (
            "stale etag",
            Fault::new("HEAD", "model.safetensors", Kind::StaleEtag),
        ),
        (
            "stale etag of a small file",
            Fault::new("HEAD", "config.json", Kind::StaleEtag),
        ),
    ] {
        let setup = Setup::new();
        setup.server.fail(fault);
        let folder = setup
            .pull()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_detector(&folder);
        assert_eq!(setup.server.unmet(), 0, "{what}: the fault was never met");
        setup.assert_sound();
        let left: Vec<_> = walkdir::WalkDir::new(setup.cache.path())
            .into_iter()
            .flatten()
            .collect();
        assert!(
            left.iter()
                .all(|entry| !entry.file_name().to_string_lossy().contains("incomplete")),
            "{what}"
        );
    }
}

/// Faults that stay: a one-line error that names the file and says why, and nothing bad is kept.
#[test]
fn lasting_faults_are_errors_and_leave_no_bad_file() {
    let always = 99;
    for (fault, words) in [
        (
            Fault::new("HEAD", "config.json", Kind::Status(401, None)),
            ["bottle", "HF_TOKEN"],
        ),
        (
            Fault::new(
                "HEAD",
                "model.safetensors",
                Kind::Status(403, Some(("x-error-message", "gated"))),
            ),
            ["model.safetensors", "gated"],
        ),
        (
            Fault::new("GET", "/storage/", Kind::Status(403, None)),
            ["model.safetensors", "403"],
        ),
        (
            Fault::new("GET", "/storage/", Kind::Status(404, None)),
            ["model.safetensors", "404"],
        ),
        (
            Fault::new(
                "HEAD",
                "config.json",
                Kind::Status(429, Some(("retry-after", "4000"))),
            ),
            ["config.json", "4000 s"],
        ),
        (
            Fault::new(
                "HEAD",
                "config.json",
                Kind::Status(429, Some(("ratelimit", "\"api\";r=0;t=3000"))),
            ),
            ["config.json", "3001 s"],
        ),
        (
            Fault::new("GET", "config.json", Kind::Status(500, None)),
            ["config.json", "500"],
        ),
        (
            Fault::new("GET", "/storage/", Kind::Cut(0)),
            ["model.safetensors", "cut"],
        ),
        (
            Fault::new("GET", "/storage/", Kind::WrongBody),
            ["model.safetensors", "hash"],
        ),
        (
            Fault::new("GET", "config.json", Kind::WrongBody),
            ["config.json", "hash"],
        ),
        (
            Fault::new("HEAD", "model.safetensors", Kind::StaleEtag),
            ["model.safetensors", "hash"],
        ),
        (
            Fault::new("HEAD", "model.safetensors", Kind::WildEtag),
            ["model.safetensors", "hash"],
        ),
        (
            Fault::new("HEAD", "config.json", Kind::WildCommit),
            ["config.json", "commit"],
        ),
    ] {
        let setup = Setup::new();
        setup.server.fail(fault.times(always));
        let error = setup.pull().unwrap_err().to_string();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{words:?}: {error}"
        );
        assert!(!error.contains('\n'), "{error}");
        setup.assert_sound();

        // Once the fault is gone, the same call works.
        let healed = Setup {
            server: TestHub::start(),
            cache: setup.cache,
        };
        healed.server.put(
            REPO,
            &[
                ("config.json", CONFIG),
                ("model.safetensors", &weights()),
                ("README.md", CARD),
            ],
        );
        assert_detector(&healed.pull().unwrap());
    }
}

#[test]
fn a_cut_transfer_goes_on_where_it_ended() {
    let setup = Setup::new();
    setup
        .server
        .fail(Fault::new("GET", "/storage/", Kind::Cut(100_000)));
    setup.pull().unwrap();
    let ranges: Vec<_> = setup
        .server
        .seen()
        .into_iter()
        .filter(|seen| seen.at_storage)
        .map(|seen| seen.range)
        .collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".into())]);
}

#[test]
fn a_later_process_goes_on_where_an_earlier_was_cut() {
    let setup = Setup::new();
    setup
        .server
        .fail(Fault::new("GET", "/storage/", Kind::Cut(200_000)));
    let mut impatient = setup.options();
    impatient.attempts = 1;
    let error = Hub::new(impatient)
        .unwrap()
        .fetch_detector("bottle", &|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("cut"), "{error}");
    setup.assert_sound();

    setup.server.seen();
    assert_detector(&setup.pull().unwrap());
    let ranges: Vec<_> = setup
        .server
        .seen()
        .into_iter()
        .filter(|seen| seen.at_storage)
        .map(|seen| seen.range)
        .collect();
    assert_eq!(ranges, [Some("bytes=200000-".into())]);
}

#[test]
fn a_wrong_beginning_is_thrown_away() {
    let setup = Setup::new();
    let blobs = setup
        .cache
        .path()
        .join(format!("hub/models--{}/blobs", REPO.replace('/', "--")));
    fs::create_dir_all(&blobs).unwrap();
    let incomplete = blobs.join(format!("{}.incomplete", sha256(&weights())));
    for beginning in [vec![7; 1000], vec![7; 300_000], vec![7; 400_000]] {
        fs::write(&incomplete, beginning).unwrap();
        assert_detector(&setup.pull().unwrap());
        assert!(!incomplete.exists());
        fs::remove_file(blobs.join(sha256(&weights()))).unwrap();
    }
}

#[test]
fn a_poisoned_cache_is_repaired() {
    for name in ["bottle".to_string(), format!("{REPO}@{{commit}}")] {
        let setup = Setup::new();
        let name = name.replace("{commit}", &setup.server.repos()[REPO].head().id);
        let hub = setup.hub();
        let folder = hub.fetch_detector(&name, &|_| ()).unwrap();
        for file in ["config.json", "model.safetensors"] {
            // What hf-hub 1.0.0 does when the storage answers 403: the error page becomes the file.
            fs::write(folder.join(file), "<html>403</html>").unwrap();
            let notices = Mutex::new(Vec::new());
            let note = |event: Event| {
                if let Event::Notice(text) = event {
                    notices.lock().unwrap().push(text.to_string());
                }
            };
            assert_detector(&hub.fetch_detector(&name, &note).unwrap());
            assert!(
                notices
                    .into_inner()
                    .unwrap()
                    .iter()
                    .any(|text| text.contains("damaged")),
                "{file}"
            );
        }
        setup.assert_sound();
    }
}

#[test]
fn offline_serves_what_is_sound_and_nothing_else() {
    let setup = Setup::new();
    let mut options = setup.options();
    options.offline = true;
    let offline = Hub::new(options).unwrap();
    let error = offline
        .fetch_detector("bottle", &|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");

    let folder = setup.pull().unwrap();
    setup.server.seen();
    assert_eq!(offline.fetch_detector("bottle", &|_| ()).unwrap(), folder);
    assert!(setup.server.seen().is_empty());

    fs::write(folder.join("model.safetensors"), "rotten").unwrap();
    let error = offline
        .fetch_detector("bottle", &|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn an_unreachable_hub_leaves_the_cached_copy() {
    let setup = Setup::new();
    let folder = setup.pull().unwrap();
    let mut options = setup.options();
    options.endpoint = "http://127.0.0.1:9".into();
    let away = Hub::new(options).unwrap();
    assert_eq!(away.fetch_detector("bottle", &|_| ()).unwrap(), folder);
    let error = away
        .fetch_detector("cable", &|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cable") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let setup = Setup::new();
    let hub = setup.hub();
    let failed = |name: &str| hub.fetch_detector(name, &|_| ()).unwrap_err().to_string();
    let error = failed("botle");
    assert!(
        error.contains("unknown detector `botle`") && error.contains("bottle"),
        "{error}"
    );
    let error = failed(&format!("{REPO}@v9"));
    assert!(error.contains("no such revision"), "{error}");
    setup.server.put("zoo/empty", &[("README.md", CARD)]);
    let error = failed("zoo/empty");
    assert!(
        error.contains("config.json") && error.contains("no such file"),
        "{error}"
    );
    let error = failed("./nowhere");
    assert!(
        error.contains("nowhere") && error.contains("config.json"),
        "{error}"
    );
}

/// Mirrors and proxies answer 404 without the Hub's own codes.
#[test]
fn a_bare_404_is_looked_into() {
    for (id, bare, word) in [
        ("zoo/nothing", "nothing/resolve", "no such repository"),
        (REPO, "config.json", "no such file"),
    ] {
        let setup = Setup::new();
        setup
            .server
            .fail(Fault::new("HEAD", bare, Kind::Status(404, None)).times(9));
        let mut options = setup.options();
        options.token = Token::new(TOKEN);
        let error = Hub::new(options)
            .unwrap()
            .fetch_detector(id, &|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let setup = Setup::new();
    setup.server.repos().get_mut(REPO).unwrap().private = true;
    let error = setup.pull().unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN"), "{error}");

    let mut options = setup.options();
    options.token = Token::new(TOKEN);
    setup.server.seen();
    assert_detector(
        &Hub::new(options)
            .unwrap()
            .fetch_detector("bottle", &|_| ())
            .unwrap(),
    );
    let seen = setup.server.seen();
    assert!(seen.iter().any(|seen| seen.at_storage));
    for request in seen {
        assert_ne!(request.authorized, request.at_storage, "{request:?}");
    }
}

#[test]
fn two_threads_at_once_move_the_content_once() {
    let setup = Setup::new();
    setup.server.fail(Fault::new(
        "GET",
        "/storage/",
        Kind::Slow(Duration::from_millis(60)),
    ));
    let pulled: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(|| setup.pull())).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .collect()
    });
    pulled.iter().for_each(|folder| assert_detector(folder));
    let transfers = setup
        .server
        .seen()
        .iter()
        .filter(|seen| seen.at_storage)
        .count();
    assert_eq!(transfers, 1);
}

#[test]
fn backbone_weights_are_pinned_at_first_use() {
    let setup = Setup::new();
    let repo = "timm/resnet18.tv_in1k";
    let commit = setup.server.put(repo, &[("model.safetensors", &weights())]);
    let hub = setup.hub();
    let unpinned = BackboneRecord::embedded("resnet18.tv_in1k");
    let (path, pinned) = hub.fetch_backbone(&unpinned, &|_| ()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), weights());
    assert_eq!(pinned.repo.as_deref(), Some(repo));
    assert_eq!(pinned.revision.as_deref(), Some(commit.as_str()));
    assert_eq!(pinned.sha256, Some(sha256(&weights())));

    // The repository moves on; the pin still gives the same bytes, also to an empty cache.
    setup
        .server
        .put(repo, &[("model.safetensors", b"other weights")]);
    let fresh = tempfile::tempdir().unwrap();
    let mut options = setup.options();
    options.cache = fresh.path().into();
    let (path, record) = Hub::new(options)
        .unwrap()
        .fetch_backbone(&pinned, &|_| ())
        .unwrap();
    assert_eq!((fs::read(path).unwrap(), &record), (weights(), &pinned));

    // Another file than the recorded one is refused, unless it was recorded as local.
    let moved = BackboneRecord {
        revision: Some("main".into()),
        ..pinned.clone()
    };
    let error = hub.fetch_backbone(&moved, &|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("trained with") && error.contains(&sha256(&weights())),
        "{error}"
    );
    let local = BackboneRecord {
        repo: None,
        revision: None,
        ..pinned
    };
    let (path, _) = hub.fetch_backbone(&local, &|_| ()).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"other weights");
}

/// The Hub's own header: waited for as long as it says, counted down, and told once.
#[test]
fn the_hubs_limit_is_waited_for() {
    let setup = Setup::new();
    let limit = Kind::Status(429, Some(("ratelimit", "\"api\";r=0;t=1")));
    setup.server.fail(Fault::new("HEAD", "config.json", limit));
    let told = Mutex::new((Vec::new(), Vec::new()));
    let note = |event: Event| match event {
        Event::Notice(text) => told.lock().unwrap().0.push(text.to_string()),
        Event::Waiting { seconds } => told.lock().unwrap().1.push(seconds),
        _ => {}
    };
    let start = std::time::Instant::now();
    assert_detector(&setup.hub().fetch_detector("bottle", &note).unwrap());
    assert!(start.elapsed() >= Duration::from_secs(2));
    let (notices, seconds) = told.into_inner().unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(
        notices[0].ends_with("429; trying again in 2 s"),
        "{notices:?}"
    );
    assert_eq!(seconds, [2, 1, 0]);
}

/// hf-hub does not hand the header on: it is asked for.
#[test]
fn the_limit_of_a_listing_is_waited_for_too() {
    let setup = Setup::new();
    let limit = || Kind::Status(429, Some(("ratelimit", "\"api\";r=0;t=0")));
    setup.server.fail(Fault::new("GET", "/api/models", limit()));
    setup
        .server
        .fail(Fault::new("HEAD", "/api/models", limit()));
    let notices = Mutex::new(Vec::new());
    let note = |event: Event| {
        if let Event::Notice(text) = event {
            notices.lock().unwrap().push(text.to_string());
        }
    };
    let listed = setup.hub().list(&note).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(setup.server.unmet(), 0);
    let notices = notices.into_inner().unwrap();
    assert!(notices[0].ends_with("trying again in 1 s"), "{notices:?}");
}

/// `cp -rL` of a snapshot, a network share, Windows: snapshots hold files, and there are no blobs.
#[test]
fn a_cache_copied_without_links_works_offline() {
    let setup = Setup::new();
    let folder = setup.pull().unwrap();
    let repo = folder.parent().unwrap().parent().unwrap();
    for file in ["config.json", "model.safetensors", "README.md"] {
        let bytes = fs::read(folder.join(file)).unwrap();
        fs::remove_file(folder.join(file)).unwrap();
        fs::write(folder.join(file), bytes).unwrap();
    }
    fs::remove_dir_all(repo.join("blobs")).unwrap();
    let mut options = setup.options();
    options.offline = true;
    setup.server.seen();
    let offline = Hub::new(options).unwrap();
    assert_eq!(offline.fetch_detector("bottle", &|_| ()).unwrap(), folder);
    assert!(setup.server.seen().is_empty());
    assert_detector(&folder);
    // With the Hub it is compared, and not moved again where it is the same.
    assert_eq!(setup.pull().unwrap(), folder);
    let seen = setup.server.seen();
    assert!(seen.iter().all(|asked| asked.method == "HEAD"), "{seen:?}");
    // What is not the same comes anew.
    fs::write(folder.join("model.safetensors"), "rotten").unwrap();
    assert_detector(&setup.pull().unwrap());
    setup.assert_sound();
}

/// `fabric` where only `fabric@wavelet` is published; with two nobody can know.
#[test]
fn a_single_variant_is_taken_and_told() {
    let setup = Setup::new();
    let put = |repo: &str| {
        let files = [
            ("config.json", CONFIG),
            ("model.safetensors", &weights()),
            ("README.md", CARD),
        ];
        setup.server.put(repo, &files);
    };
    put("zoo/fastflow-wavelet-fabric");
    let notices = Mutex::new(Vec::new());
    let note = |event: Event| {
        if let Event::Notice(text) = event {
            notices.lock().unwrap().push(text.to_string());
        }
    };
    let folder = setup.hub().fetch_detector("fabric", &note).unwrap();
    assert_detector(&folder);
    assert!(folder.to_string_lossy().contains("fastflow-wavelet-fabric"));
    let mut options = setup.options();
    options.offline = true;
    let offline = Hub::new(options).unwrap();
    assert_eq!(offline.fetch_detector("fabric", &note).unwrap(), folder);
    // So where the Hub cannot be reached.
    let mut options = setup.options();
    options.endpoint = "http://127.0.0.1:1".into();
    options.attempts = 1;
    let alone = Hub::new(options).unwrap();
    assert_eq!(alone.fetch_detector("fabric", &|_| ()).unwrap(), folder);
    assert_eq!(
        notices.into_inner().unwrap(),
        [
            "fabric: fabric@wavelet is the only one published, and is taken",
            "fabric: fabric@wavelet is the only one in the cache, and is taken",
        ]
    );
    put("zoo/fastflow-resnet18-patchcore-fabric");
    let error = setup.hub().fetch_detector("fabric", &|_| ()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("did you mean fabric@wavelet"), "{error}");
    // Who names a backbone means it.
    assert!(setup.hub().fetch_detector("fabric@cait", &|_| ()).is_err());
}
