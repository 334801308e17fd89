//! Files as people have them: their own photos stay, broken links and odd names stop nothing and hide nothing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use candle_fastflow::imaging;
use image::{Rgb, RgbImage};
use serde_json::Value;

#[path = "support/program.rs"]
mod program;
use program::{fastflow, parsed, run, succeed, text, told};

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

/// Two good photos and a defective one, as they would come from a camera: `png` or `jpg`.
fn photos(folder: &Path, end: &str) {
    fs::create_dir_all(folder).unwrap();
    for name in ["good_1", "good_2", "stain"] {
        let photo = image::open(bundled("images").join(format!("{name}.jpg"))).unwrap();
        photo.save(folder.join(format!("{name}.{end}"))).unwrap();
    }
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.path().is_file());
    let mut all: Vec<_> = files
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn infer(folder: &Path, more: &[&str]) -> Output {
    let detector = bundled("fabric-detector");
    let args = ["infer", text(&detector), text(folder)];
    run(&[&args[..], more].concat())
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The folder itself, by another name, through a link, from within: nothing is inspected, nothing is changed.
#[test]
fn overlays_do_not_replace_photos() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("photos");
    photos(&own, "png");
    let before = contents(&own);
    let mut outs = vec![
        own.clone(),
        own.join("."),
        own.join("..").join("photos"),
        own.join("new/.."),
    ];
    fs::create_dir(own.join("new")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&own, folder.path().join("link")).unwrap();
        outs.push(folder.path().join("link"));
    }
    for out in &outs {
        let output = infer(&own, &["--out", text(out)]);
        assert_eq!(output.status.code(), Some(2), "{out:?}");
        assert_eq!(printed(&output), "", "{out:?}");
        let errors = told(&output);
        let words = ["--out", "good_1.png", "is there already", "2 more like it"];
        for word in words {
            assert!(errors.contains(word), "{word}: {errors}");
        }
        assert_eq!(contents(&own), before);
    }
    let mut command = fastflow(&[
        "infer",
        text(&bundled("fabric-detector")),
        ".",
        "--out",
        ".",
    ]);
    let output = command.current_dir(&own).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(contents(&own), before);
}

/// Where the names differ, overlays may lie among the photos: they are told apart the next time.
#[test]
fn overlays_of_an_earlier_run_are_not_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("photos");
    photos(&own, "jpg");
    let inside = own.join("overlays");
    let first = printed(&infer(&own, &["--json"]));
    assert_eq!(first.lines().count(), 3);
    for out in [&own, &inside, &own] {
        let output = infer(&own, &["--json", "--out", text(out)]);
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(printed(&output).lines().count(), 3);
    }
    assert_eq!(contents(&inside).len(), 3);
    let again = infer(&own, &["--json"]);
    assert_eq!(printed(&again), first);
    let said = told(&again);
    assert_eq!(
        said.matches("passed over 6 overlays that this program wrote, the first ")
            .count(),
        1,
        "{said}"
    );
    // Training does not take them for photos either.
    assert_eq!(imaging::list_images(&own).unwrap().len(), 3);
    let only = infer(&own.join("stain.png"), &[]);
    assert_eq!(only.status.code(), Some(2));
    assert!(told(&only).contains("no photo to inspect: passed over 1 overlay"));
}

#[test]
fn pages_cards_and_tensors_do_not_replace_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (detector, photo) = (bundled("fabric-detector"), bundled("images/stain.jpg"));
    let (detector, photo) = (text(&detector), text(&photo));
    let (page, card, maps) = (at("page.html"), at("README.md"), at("maps.safetensors"));
    let verbs = [
        (
            &page,
            vec!["explain", detector, photo, "--out", text(&page)],
        ),
        (&card, vec!["card", detector, "--out", text(&card)]),
        (
            &maps,
            vec![
                "features",
                photo,
                "--backbone",
                "wavelet",
                "--output",
                text(&maps),
            ],
        ),
    ];
    for (path, args) in verbs {
        fs::write(path, "mine").unwrap();
        let output = run(&args);
        let errors = told(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            errors.contains(text(path)) && errors.contains("move it away"),
            "{errors}"
        );
        assert_eq!(fs::read(path).unwrap(), b"mine");
        fs::remove_file(path).unwrap();
        // What it wrote itself it writes again.
        succeed(&args);
        let written = fs::read(path).unwrap();
        succeed(&args);
        assert_eq!(fs::read(path).unwrap(), written);
    }
    // Samples that are there already stay, another photo of their name is not replaced.
    let samples = at("samples");
    let generate = ["data", "generate", "--samples", "--out", text(&samples)];
    succeed(&generate);
    succeed(&generate);
    fs::write(samples.join("stain.jpg"), "mine").unwrap();
    assert_eq!(run(&generate).status.code(), Some(2));
    assert_eq!(fs::read(samples.join("stain.jpg")).unwrap(), b"mine");
}

/// Asks for `args` and sees that it is refused, with `words`, and that the file is as it was.
fn refused(args: &[&str], file: &Path, words: &str) {
    let before = fs::read(file).unwrap();
    let output = run(args);
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    let named = errors.contains(words) && errors.contains(text(file));
    assert!(named, "{args:?}: {errors}");
    assert_eq!(fs::read(file).unwrap(), before, "{args:?}");
}

/// Reports, of folders of photos and of detectors.
#[test]
fn reports_do_not_replace_other_pages() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("good");
    photos(&own, "jpg");
    fs::create_dir(folder.path().join("bad")).unwrap();
    let bad = folder.path().join("bad/stain.jpg");
    fs::rename(own.join("stain.jpg"), bad).unwrap();
    let test = own.join("good_1.jpg");
    let (detector, page) = (bundled("fabric-detector"), folder.path().join("page.html"));
    let data = text(folder.path());
    let check = ["data", "check", data, "--report", text(&page)];
    let eval = [
        "eval",
        text(&detector),
        "--data",
        data,
        "--report",
        text(&page),
    ];
    let roles = ["--normal", "good", "--abnormal", "bad", "--normal-test"];
    let eval = [&eval[..], &roles, &[text(&test)]].concat();
    fs::write(&page, "<html>mine").unwrap();
    refused(&check, &page, "--report");
    refused(&eval, &page, "--report");
    fs::remove_file(&page).unwrap();
    // Each replaces the other's.
    succeed(&check);
    succeed(&eval);
    assert!(fs::read_to_string(&page).unwrap().contains("AUROC"));
    succeed(&check);
    assert!(!fs::read_to_string(&page).unwrap().contains("AUROC"));
}

/// Weights and logs of somebody's, where a detector is to go to.
#[test]
fn detectors_do_not_replace_other_weights() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir_all(out.join("run")).unwrap();
    let detector = bundled("fabric-detector");
    let good = folder.path().join("good");
    photos(&good, "jpg");
    fs::remove_file(good.join("stain.jpg")).unwrap();
    let train = ["train", "--normal", text(&good), "--out", text(&out)];
    let small = ["--backbone", "wavelet", "--size", "64"];
    let train = [&train[..], &small].concat();
    let calibrate = ["calibrate", text(&detector), "--normals", text(&good)];
    let calibrate = [&calibrate[..], &["--out", text(&out)]].concat();
    let (weights, log) = (out.join("model.safetensors"), out.join("run/events.jsonl"));
    fs::write(&weights, "mine").unwrap();
    fs::write(&log, "{\"time\":1}\n").unwrap();
    refused(&train, &weights, "--out");
    refused(&calibrate, &weights, "--out");
    fs::remove_file(&weights).unwrap();
    refused(&train, &log, "--out");
    fs::remove_file(&log).unwrap();
    // Anything else there may stay.
    fs::write(out.join("run/notes.txt"), "mine").unwrap();
    succeed(&train);
    assert_eq!(fs::read(out.join("run/notes.txt")).unwrap(), b"mine");
    assert!(told(&run(&train)).contains("holds a detector already"));
    // A run that was broken off before its end may be begun again.
    fs::remove_file(out.join("run/notes.txt")).unwrap();
    fs::remove_file(out.join("config.json")).unwrap();
    succeed(&train);

    let plan = folder.path().join("plan.toml");
    let runs = folder.path().join("runs");
    fs::create_dir_all(runs.join("results")).unwrap();
    fs::write(runs.join("results/notes.json"), "{}").unwrap();
    fs::write(runs.join("tables.md"), "mine").unwrap();
    fs::copy(bundled("plans/cloth.toml"), &plan).unwrap();
    let sets = folder.path().join("sets");
    photos(&sets.join("cloth/train/good"), "jpg");
    let reproduce = ["reproduce", text(&plan), "--data", text(&sets)];
    let reproduce = [&reproduce[..], &["--out", text(&runs)]].concat();
    refused(&reproduce, &runs.join("tables.md"), "--out");
}

#[test]
fn a_file_is_no_folder_for_overlays() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("photos");
    photos(&own, "jpg");
    let file = folder.path().join("notes");
    fs::write(&file, "mine").unwrap();
    let args = ["infer", text(&bundled("fabric-detector"))].map(String::from);
    let args = [&args[0], &args[1], text(&own), "--out", text(&file)];
    refused(&args, &file, "is a file; name a folder");
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::{ffi::OsStrExt, fs::symlink};

    use super::*;

    /// `photos` with a lock of an editor, a circle, a link to nothing, and a link to a photo that is gone.
    #[test]
    fn broken_links_are_told_of_and_stop_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("photos");
        photos(&own, "jpg");
        symlink("somebody@host.1234:1", own.join(".#good_1.jpg")).unwrap();
        let output = infer(&own, &[]);
        assert!(output.status.success());
        assert_eq!(told(&output), "");

        fs::create_dir(own.join("lot")).unwrap();
        symlink("..", own.join("lot/up")).unwrap();
        symlink("/nowhere/notes", own.join("notes")).unwrap();
        symlink("itself.txt", own.join("itself.txt")).unwrap();
        let output = infer(&own, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let dead = "note: passed over 2 links that lead nowhere, the first ";
        let circle = "note: passed over 1 link to a folder that it lies in: ";
        let said = told(&output);
        assert!(
            said.contains(dead) && said.contains("photos/itself.txt"),
            "{said}"
        );
        assert!(said.contains(circle) && said.contains("lot/up"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");

        // A photo is lost: the others are inspected, the exit code tells.
        symlink("/nowhere/part.png", own.join("part.png")).unwrap();
        let output = infer(&own, &["--json"]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(printed(&output).lines().count(), 3);
        let said = told(&output);
        assert!(said.contains("passed over 3 links"), "{said}");
        assert!(
            said.contains("1 of 4 images could not be inspected"),
            "{said}"
        );
        // The check goes on too, and names it.
        let output = run(&["data", "check", "--normal", text(&own)]);
        assert_eq!(output.status.code(), Some(2));
        let found = printed(&output);
        assert!(found.starts_with("photos: 3 normal images"), "{found}");
        assert!(found.contains("part.png: a photo that is not there"));
        assert_eq!(found.matches("error:").count(), 1, "{found}");
        assert!(told(&output).contains("passed over 3 links"));
    }

    /// A link to the folder around: its photos, and those beside, are not inspected a second time.
    #[test]
    fn a_link_to_a_folder_above_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("photos");
        photos(&own, "jpg");
        photos(&folder.path().join("others"), "jpg");
        symlink("..", own.join("up")).unwrap();
        symlink("/", own.join("everything")).unwrap();
        // Another folder may be linked to as before.
        symlink("../others", own.join("beside")).unwrap();
        let (images, unread) = imaging::survey(&own).unwrap();
        assert_eq!(images.len(), 6, "{images:?}");
        let notes = unread.notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].starts_with("passed over 2 links to folders that they lie in, the first ")
        );
    }

    /// A list that an old system wrote, and the photos it names.
    #[test]
    fn a_list_of_names_that_are_no_utf8_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("photos");
        photos(&own, "jpg");
        let odd = |name: &[u8]| own.join(OsStr::from_bytes(name));
        if fs::rename(own.join("stain.jpg"), odd(b"fehl\xfcr.jpg")).is_err() {
            return; // A file system that keeps no such names.
        }
        fs::copy(own.join("good_1.jpg"), odd(b"gut\xe9.jpg")).unwrap();
        let list = b"image,label,split\ngut\xe9.jpg,good,train\ngood_2.jpg,good,test\nfehl\xfcr.jpg,Fl\xe4che,test\n";
        fs::write(own.join("manifest.csv"), list).unwrap();
        let checked = parsed(&succeed(&["data", "check", text(&own), "--json"]));
        assert_eq!(checked["train"], 1);
        assert_eq!(checked["defects"]["Fl\u{fffd}che"], 1);
        let detector = bundled("fabric-detector");
        let eval = ["eval", text(&detector), "--data", text(&own)];
        let found = parsed(&succeed(&[&eval[..], &["--json", "--scores"]].concat()));
        let scores = found["scores"].as_array().unwrap();
        assert_eq!(scores.len(), 2);
        assert_eq!(scores[1]["image"], "fehl\u{fffd}r.jpg");
        assert_eq!(scores[1]["image_bytes"], "6665686cfc722e6a7067");
        assert!(scores[0].get("image_bytes").is_none());
        // What is not there is named.
        fs::write(own.join("manifest.csv"), b"image\nf\xf6hlt.jpg\n").unwrap();
        let output = run(&["data", "check", text(&own)]);
        assert_eq!(output.status.code(), Some(2));
        assert!(told(&output).contains("line 2: there is no file"));
        assert!(told(&output).contains("f\u{fffd}hlt.jpg"));
    }

    /// Root may read everything: then there is nothing to see.
    #[test]
    fn a_closed_folder_is_told_of() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("photos");
        photos(&own, "jpg");
        let closed = own.join("lost+found");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let (images, unread) = imaging::survey(&own).unwrap();
        assert_eq!(images.len(), 3);
        if fs::read_dir(&closed).is_err() {
            let notes = unread.notes();
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert!(notes[0].contains("1 folder or file that may not be read"));
            assert!(unread.lost_photos().is_empty());
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Latin-1, as old cameras and archives write it: `café.jpg`, of a defective product.
    #[test]
    fn names_that_are_no_utf8_are_inspected_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("photos");
        photos(&own, "jpg");
        let odd = own.join(OsStr::from_bytes(b"caf\xe9.jpg"));
        if fs::rename(own.join("stain.jpg"), &odd).is_err() {
            return; // A file system that keeps no such names.
        }
        let out = folder.path().join("overlays");
        let plain = infer(&own, &["--fail-on-anomaly"]);
        assert_eq!(plain.status.code(), Some(1), "{}", told(&plain));
        assert!(
            printed(&plain).contains("DEFECTIVE") && printed(&plain).contains("caf\u{fffd}.jpg")
        );

        let output = infer(&own, &["--json", "--out", text(&out)]);
        assert!(output.status.success(), "{}", told(&output));
        let lines: Vec<Value> = printed(&output).lines().map(parsed).collect();
        let (odd_lines, others): (Vec<&Value>, Vec<&Value>) = lines
            .iter()
            .partition(|line| line["verdict"] == "defective");
        assert_eq!((odd_lines.len(), others.len()), (1, 2));
        let name = odd_lines[0]["image"].as_str().unwrap();
        assert!(name.ends_with("photos/caf\u{fffd}.jpg"), "{name}");
        let digits = |path: &Path| -> String {
            let bytes = path.as_os_str().as_bytes().iter();
            bytes.map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(odd_lines[0]["image_bytes"], digits(&odd));
        assert!(others.iter().all(|line| line.get("image_bytes").is_none()));
        let overlay = odd_lines[0]["overlay"].as_str().unwrap();
        assert!(overlay.ends_with("caf\u{fffd}.png") && Path::new(overlay).is_file());

        // The check sees it, and names it when it is damaged.
        let check = ["data", "check", "--normal", text(&own), "--json"];
        assert_eq!(parsed(&succeed(&check))["train"], 3);
        fs::write(&odd, "no photo").unwrap();
        let output = run(&check);
        assert_eq!(output.status.code(), Some(2));
        let report = parsed(&printed(&output));
        let problem = &report["problems"][0];
        assert!(
            problem["path"]
                .as_str()
                .unwrap()
                .ends_with("caf\u{fffd}.jpg")
        );
        assert_eq!(problem["path_bytes"], digits(&odd));
    }

    fn train(data: &Path, out: &Path) -> Output {
        let args = ["train", "--data", text(data), "--out", text(out)];
        let rest = ["--backbone", "wavelet", "--size", "64", "--epochs", "1"];
        let more = ["--batch", "4", "--preset", "paper", "--json"];
        run(&[&args[..], &rest, &more].concat())
    }

    /// Odd names and links that lead nowhere among the photos to train on.
    #[test]
    fn training_takes_odd_names_and_names_all_that_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("photos");
        fs::create_dir(&own).unwrap();
        let save = |name: &[u8], shift: u32| {
            let photo = RgbImage::from_fn(64, 64, |x, y| {
                Rgb([
                    (x * 3 + shift) as u8,
                    (y * 3) as u8,
                    ((x + y) % 7 * 30) as u8,
                ])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            photo.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            let path = own.join(OsStr::from_bytes(name));
            fs::write(&path, bytes.get_ref()).map(|()| path)
        };
        for index in 0..8 {
            save(format!("{index}.png").as_bytes(), index).unwrap();
        }
        let odd = [&b"caf\xe9.png"[..], b"caf\xe8.png"].map(|name| save(name, 9).is_ok());
        symlink("/nowhere/9.png", own.join("9.png")).unwrap();
        let out = folder.path().join("detector");
        let output = train(&own, &out);
        assert!(output.status.success(), "{}", told(&output));
        let config = parsed(&fs::read_to_string(out.join("config.json")).unwrap());
        let odd = odd.iter().filter(|saved| **saved).count();
        let training = &config["training"];
        let held_out = training["held_out"].as_array().unwrap().len();
        assert_eq!(
            training["images"].as_u64().unwrap() as usize + held_out,
            8 + odd
        );
        assert_eq!(told(&output).matches("passed over 1 link").count(), 1);

        // One has a wrong beginning, two are cut short behind a sound header.
        fs::write(own.join("1.png"), "no photo").unwrap();
        for name in ["3.png", "6.png"] {
            let bytes = fs::read(own.join(name)).unwrap();
            fs::write(own.join(name), &bytes[..bytes.len() - 40]).unwrap();
        }
        let again = folder.path().join("again");
        for mended in [false, true] {
            let output = train(&own, &again);
            assert_eq!(output.status.code(), Some(2));
            let errors = told(&output);
            for name in ["3.png", "6.png"] {
                assert!(errors.contains(name), "{name}: {errors}");
            }
            assert_eq!(errors.contains("/1.png"), !mended, "{errors}");
            let count = if mended { 2 } else { 3 };
            let words = format!("{count} files cannot be used");
            assert!(errors.contains(&words), "{errors}");
            fs::copy(own.join("2.png"), own.join("1.png")).unwrap();
        }
        assert!(!again.join("config.json").exists());
    }
}
