//! Which photos are what: what the program takes, asks, and how it is told.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

use super::{json, refuse, run, succeed, text, told, train_args};

/// Photos of a striped cloth, each another one.
fn photos(folder: &Path, count: usize) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let shade = |x: u32, y: u32| (100 + (x * 5 + y * 3 + 11 * i as u32) % 60) as u8;
        RgbImage::from_fn(64, 64, |x, y| Rgb([shade(x, y); 3]))
            .save(folder.join(format!("{i}.png")))
            .unwrap();
    }
}

/// The flags at the end of an error, as a shell would pass them.
fn flags(errors: &str) -> Vec<String> {
    let (_, flags) = errors.trim().split_once("say it, for example: ").unwrap();
    flags
        .split(' ')
        .map(|word| word.trim_matches('\'').to_string())
        .collect()
}

#[test]
fn unclear_folders_stop_training_with_flags_that_work() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("caps");
    photos(&data.join("0"), 6);
    photos(&data.join("1"), 2);
    let out = dir.path().join("out");
    let args = train_args(text(&data), text(&out), "1");
    let asked = format!("--normal {0}/0 --abnormal {0}/1", text(&data));
    let counts = "0 (6 photos), 1 (2 photos)";
    refuse(
        &args,
        &[
            "it is not certain which are of good products",
            counts,
            &asked,
        ],
    );
    assert!(!out.exists());
    refuse(&["data", "check", text(&data)], &[counts, &asked]);

    let output = run(&args);
    let flags = flags(&told(&output));
    let said: Vec<&str> = flags.iter().map(String::as_str).collect();
    let report = json(&[&["data", "check", "--json"], &said[..]].concat());
    assert_eq!(
        (report["train"].as_u64(), report["defects"]["1"].as_u64()),
        (Some(5), Some(2))
    );
    assert_eq!(report["folders"][0]["folder"], "0");
    let without_data = [&["train"], &args[3..], &said[..]].concat();
    json(&without_data);
    assert!(out.join("config.json").exists());
    let metrics = json(&[&["eval", text(&out), "--json"], &said[..]].concat());
    assert_eq!(metrics["images"], 3);
    // The same in a file, for a program that is only given the folder.
    fs::write(
        data.join("dataset.toml"),
        "normal = \"0\"\nabnormal = \"1\"\n",
    )
    .unwrap();
    let again = json(&["eval", text(&out), "--json", "--data", text(&data)]);
    assert_eq!(again, metrics);
    let tuned = dir.path().join("tuned");
    let from = [
        "train",
        "--from",
        text(&out),
        "--data",
        text(&data),
        "--out",
        text(&tuned),
    ];
    json(&[&from[..], &["--epochs", "1", "--batch", "4", "--json"]].concat());
}

#[test]
fn flags_without_the_good_ones_are_refused() {
    let output = run(&["train", "--abnormal", "x", "--out", "y"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told(&output).contains("--normal <DIR>..."),
        "{}",
        told(&output)
    );
    let output = run(&["train", "--out", "y"]);
    assert!(told(&output).contains("--data <DIR>"), "{}", told(&output));
    refuse(
        &["data", "check", "--normal", "no/where*"],
        &["`normal`: there is no such folder or file"],
    );
}

#[test]
fn training_tells_what_it_took_and_of_copies() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("caps");
    photos(&data.join("2024-05-01"), 3);
    photos(&data.join("2024-05-02"), 3);
    let train = |out: &str| {
        let out = dir.path().join(out);
        let mut args = train_args(text(&data), text(&out), "1");
        args.pop();
        let output = run(&args);
        assert!(output.status.success(), "{}", told(&output));
        told(&output)
    };
    let errors = train("a");
    assert!(
        errors.contains("caps: 6 photos in 2 folders, all as good: 2024-05-01, 2024-05-02\n"),
        "{errors}"
    );
    // The second folder's photos are the first's.
    assert!(
        errors.contains("note: of 6 photos to train on only 3 are different"),
        "{errors}"
    );
    for i in 0..8 {
        let (one, copy) = (
            data.join("2024-05-01/0.png"),
            data.join(format!("2024-05-02/{i}.png")),
        );
        fs::copy(one, copy).unwrap();
    }
    fs::remove_file(data.join("2024-05-01/1.png")).unwrap();
    fs::remove_file(data.join("2024-05-01/2.png")).unwrap();
    let errors = train("b");
    assert!(
        errors.contains("note: of 9 photos to train on only 1 is different, byte for byte"),
        "{errors}"
    );
    fs::remove_dir_all(data.join("2024-05-02")).unwrap();
    photos(&data.join("2024-05-01"), 6);
    assert!(!train("c").contains("note:"));
}

#[test]
fn a_contact_sheet_shows_what_was_taken() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("caps");
    photos(&data.join("OK parts"), 30);
    photos(&data.join("NG <b>parts"), 2);
    let sheet = dir.path().join("pages/sheet.html");
    let printed = succeed(&["data", "check", text(&data), "--report", text(&sheet)]);
    for line in [
        "caps: 24 normal images to train on; to test on 6 good, 2 defective",
        "  OK parts/         24  good, to train on\n",
        "  OK parts/          6  good, to test on\n",
        "  NG <b>parts/       2  defective: NG <b>parts\n",
        "sheet.html",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let page = fs::read_to_string(&sheet).unwrap();
    assert!(page.contains("NG &lt;b&gt;parts") && !page.contains("<b>"));
    // 24 of the first, 6 and 2.
    assert_eq!(
        page.matches("<img src=\"data:image/jpeg;base64,").count(),
        32
    );
    assert!(!page.contains("http://") && !page.contains("https://"));
    let wrong = ["data", "check", text(&data), "--report", text(dir.path())];
    refuse(&wrong, &["--report", "is a folder"]);
}
