//! Which folder is what: read rightly, or refused with what would say it.

use std::fs;
use std::path::{Path, PathBuf};

use candle_fastflow::datasets::{self, Dataset, Roles};
use candle_fastflow::{Error, Result};
use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

use super::describe;

const WIDTH: u32 = 16;
const HEIGHT: u32 = 12;

/// A small photo, bright and with texture; another one for each path.
fn photo(dir: &Path, path: &str) {
    let path = made(dir, path);
    let seed = path
        .to_str()
        .unwrap()
        .bytes()
        .fold(7_u32, |h, b| h.wrapping_mul(31) ^ u32::from(b));
    let shade = |x: u32, y: u32| 90 + (x * 7 + y * 13 + seed % 97) % 120;
    let mut picture = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let shade = shade(x, y) as u8;
        Rgb([shade, shade / 2 + 40, shade / 3 + 20])
    });
    let [a, b, c, _] = seed.to_le_bytes();
    picture.put_pixel(0, 0, Rgb([a, b, c]));
    picture.save(path).unwrap();
}

/// A mask with so many white columns from the left, beginning at `from`.
fn mask(dir: &Path, path: &str, from: u32, columns: u32) {
    let white = |x: u32| (from..from + columns).contains(&x);
    GrayImage::from_fn(WIDTH, HEIGHT, |x, _| Luma([255 * u8::from(white(x))]))
        .save(made(dir, path))
        .unwrap();
}

fn made(dir: &Path, path: &str) -> PathBuf {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// Photos at `count` numbered places: the `#` of `pattern` is the number.
fn photos(dir: &Path, pattern: &str, count: usize) {
    for i in 0..count {
        photo(dir, &pattern.replace('#', &format!("{i:03}")));
    }
}

/// A folder filled by lines of a pattern and a count.
fn folder(fill: &[(&str, usize)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (pattern, count) in fill {
        photos(dir.path(), pattern, *count);
    }
    dir
}

/// Photos to train on, good ones to test on, defective ones.
fn counts(data: &Dataset) -> (usize, usize, usize) {
    let bad = data.test.iter().filter(|s| s.is_defective()).count();
    (data.train.len(), data.test.len() - bad, bad)
}

fn classes(data: &Dataset) -> Vec<&str> {
    let mut classes: Vec<&str> = data
        .test
        .iter()
        .filter_map(|s| s.defect.as_deref())
        .collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// What is refused, and the guess: `field: paths inside the folder` of each field.
fn refused(dir: &Path, opened: Result<Dataset>) -> (String, String) {
    let error = opened.unwrap_err();
    let Error::Roles { reason, guess, .. } = &error else {
        panic!("{error:?}");
    };
    let inside = |path: &PathBuf| {
        let inside = path.strip_prefix(dir).unwrap_or(path).to_str().unwrap();
        if inside.is_empty() {
            ".".into()
        } else {
            inside.to_string()
        }
    };
    let said = |role: &candle_fastflow::RoleOf| {
        let paths: Vec<String> = role.paths.iter().map(inside).collect();
        format!("{}: {}", role.field, paths.join(" "))
    };
    assert!(!error.to_string().contains('\n'));
    let guess: Vec<String> = guess.iter().map(said).collect();
    (reason.clone(), guess.join("; "))
}

#[test]
fn class_folders_beside_good_are_defects_where_their_masks_are() {
    let dir = folder(&[("good/g#.png", 12), ("crack/#.jpg", 3), ("colour/#.jpg", 3)]);
    for class in ["crack", "colour"] {
        for i in 0..3 {
            mask(dir.path(), &format!("mask/{class}/00{i}.png"), i, 2);
        }
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (10, 2, 6));
    assert_eq!(
        describe(&data, &data.test)[..3],
        [
            "good/g004.png - -",
            "good/g009.png - -",
            "colour/000.jpg colour mask/colour/000.png"
        ]
    );
    assert_eq!(classes(&data), ["colour", "crack"]);
    assert!(
        data.test
            .iter()
            .filter(|s| s.is_defective())
            .all(|s| s.masks.len() == 1)
    );
    // Without masks nothing says what they are.
    fs::remove_dir_all(dir.path().join("mask")).unwrap();
    let (why, guess) = refused(dir.path(), datasets::open(dir.path()));
    assert!(
        why.ends_with(
            "what they hold: colour (3 photos), crack (3 photos, defective), good (12 photos, good)"
        ),
        "{why}"
    );
    assert_eq!(guess, "normal: good; abnormal: colour crack");
}

#[test]
fn another_tools_folder_names() {
    let dir = folder(&[("normal_dir/image#.png", 12)]);
    for i in 90..93 {
        photo(dir.path(), &format!("abnormal_dir/image{i}.png"));
        mask(dir.path(), &format!("mask_dir/mask{i}.png"), 1, 3);
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (10, 2, 3));
    assert_eq!(
        describe(&data, &data.test)[2],
        "abnormal_dir/image90.png abnormal_dir mask_dir/mask90.png"
    );
}

#[test]
fn kolektor_sdd_with_masks_beside_all_photos() {
    let dir = tempfile::tempdir().unwrap();
    for item in 0..4 {
        for part in 0..3 {
            photo(dir.path(), &format!("kos0{item}/Part{part}.jpg"));
            let white = u32::from(item > 1 && part == 2) * 4;
            mask(
                dir.path(),
                &format!("kos0{item}/Part{part}_label.bmp"),
                3,
                white,
            );
        }
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (8, 2, 2));
    let bad: Vec<String> = describe(&data, &data.test)
        .into_iter()
        .filter(|s| !s.contains(" - "))
        .collect();
    assert_eq!(
        bad,
        [
            "kos02/Part2.jpg defect kos02/Part2_label.bmp",
            "kos03/Part2.jpg defect kos03/Part2_label.bmp"
        ]
    );
    // One photo without a mask: is it good? That is asked.
    fs::remove_file(dir.path().join("kos00/Part0_label.bmp")).unwrap();
    let (why, _) = refused(dir.path(), datasets::open(dir.path()));
    assert!(
        why.contains("11 photos have a mask and 1 have none"),
        "{why}"
    );
}

#[test]
fn kolektor_sdd2_keeps_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    for (part, bad) in [("train", 2), ("test", 3)] {
        for i in 0..8_u32 {
            photo(dir.path(), &format!("{part}/1000{i}.png"));
            mask(
                dir.path(),
                &format!("{part}/1000{i}_GT.png"),
                i,
                5 * u32::from(i < bad),
            );
        }
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (6, 5, 3));
    assert!(
        data.test
            .iter()
            .all(|s| s.image.starts_with(dir.path().join("test")))
    );
    // Where there is no part for tests, the defective ones of the other are tested on.
    let train = TempDir::new().unwrap();
    fs::rename(dir.path().join("train"), train.path().join("train")).unwrap();
    let data = datasets::open(train.path()).unwrap();
    assert_eq!(counts(&data), (5, 1, 2));
}

#[test]
fn mvtec_loco_unites_the_masks_of_a_photo() {
    let dir = folder(&[
        ("train/good/#.png", 5),
        ("validation/good/#.png", 2),
        ("test/good/#.png", 1),
        ("test/logical_anomalies/#.png", 2),
        ("test/structural_anomalies/#.png", 1),
    ]);
    mask(
        dir.path(),
        "ground_truth/logical_anomalies/000/000.png",
        0,
        2,
    );
    mask(
        dir.path(),
        "ground_truth/logical_anomalies/000/001.png",
        1,
        4,
    );
    mask(
        dir.path(),
        "ground_truth/logical_anomalies/001/000.png",
        0,
        1,
    );
    mask(
        dir.path(),
        "ground_truth/structural_anomalies/000/000.png",
        0,
        3,
    );
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (7, 1, 3));
    let both =
        "ground_truth/logical_anomalies/000/000.png+ground_truth/logical_anomalies/000/001.png";
    assert_eq!(
        describe(&data, &data.test)[1],
        format!("test/logical_anomalies/000.png logical_anomalies {both}")
    );
    let area = |i: usize| {
        data.test[i]
            .read_mask(WIDTH, HEIGHT)
            .unwrap()
            .unwrap()
            .area()
    };
    assert_eq!((area(1), area(2), area(3)), (5 * 12, 12, 3 * 12));
    let report = datasets::check(dir.path(), &|_, _| {}).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    assert_eq!(report.masks, 3);
    let one = data.hash().unwrap();
    mask(
        dir.path(),
        "ground_truth/logical_anomalies/000/001.png",
        1,
        5,
    );
    assert_ne!(one, data.hash().unwrap());
}

#[test]
fn mvtec_ad_2_and_3d() {
    let dir = folder(&[
        ("train/good/#_regular.png", 4),
        ("validation/good/#_regular.png", 1),
        ("test_public/good/#_regular.png", 2),
        ("test_public/bad/#_overexposed.png", 2),
        ("test_private/#_regular.png", 3),
    ]);
    mask(
        dir.path(),
        "test_public/ground_truth/bad/000_overexposed_mask.png",
        0,
        2,
    );
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (5, 2, 2));
    assert_eq!(
        describe(&data, &data.test)[..2],
        [
            "test_public/bad/000_overexposed.png bad test_public/ground_truth/bad/000_overexposed_mask.png",
            "test_public/bad/001_overexposed.png bad -"
        ]
    );
    let dir = folder(&[
        ("train/good/rgb/#.png", 4),
        ("test/good/rgb/#.png", 1),
        ("test/hole/rgb/#.png", 1),
    ]);
    fs::create_dir_all(dir.path().join("train/good/xyz")).unwrap();
    fs::write(
        dir.path().join("train/good/xyz/000.tiff"),
        "a cloud of points",
    )
    .unwrap();
    mask(dir.path(), "test/hole/gt/000.png", 0, 1);
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (4, 1, 1));
    assert_eq!(
        describe(&data, &data.test)[1],
        "test/hole/rgb/000.png hole test/hole/gt/000.png"
    );
}

#[test]
fn dagm() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["Class1", "Class2"] {
        for (part, bad) in [("Train", 1), ("Test", 2)] {
            photos(dir.path(), &format!("{class}/{part}/0#.PNG"), 6);
            for i in 0..bad {
                mask(
                    dir.path(),
                    &format!("{class}/{part}/Label/000{i}_label.PNG"),
                    2,
                    2,
                );
            }
        }
    }
    let found = datasets::categories(dir.path()).unwrap();
    assert_eq!(
        found,
        [dir.path().join("Class1"), dir.path().join("Class2")]
    );
    let data = datasets::open(&found[0]).unwrap();
    assert_eq!(counts(&data), (5, 4, 2));
    assert_eq!(
        describe(&data, &data.test)[1],
        "Test/0001.PNG defect Test/Label/0001_label.PNG"
    );
}

#[test]
fn masks_in_other_places_and_known_by_their_looks() {
    // Magnetic tiles: photos as JPEG, masks as PNG of the same name.
    let dir = tempfile::tempdir().unwrap();
    for (class, white) in [("MT_Free", 0), ("MT_Blowhole", 3), ("MT_Crack", 2)] {
        photos(dir.path(), &format!("{class}/Imgs/exp1_num_#.jpg"), 5);
        for i in 0..5 {
            mask(
                dir.path(),
                &format!("{class}/Imgs/exp1_num_00{i}.png"),
                i,
                white,
            );
        }
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (4, 1, 10));
    assert_eq!(classes(&data), ["MT_Blowhole", "MT_Crack"]);
    // Two folders beside each other, of which one holds the masks and does not say so.
    let dir = folder(&[("images/#.png", 6)]);
    for i in 0..6 {
        mask(dir.path(), &format!("drawn/00{i}.png"), i, u32::from(i > 4));
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(counts(&data), (4, 1, 1));
    assert_eq!(
        describe(&data, &data.test)[1],
        "images/005.png defect drawn/005.png"
    );
    // Names that repeat in classes, below a folder that the masks do not have.
    let dir = folder(&[
        ("good/#.png", 5),
        ("bad/crack/#.png", 2),
        ("bad/hole/#.png", 2),
    ]);
    for class in ["crack", "hole"] {
        mask(dir.path(), &format!("masks/{class}/001.png"), 0, 2);
    }
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(
        describe(&data, &data.test)[1..],
        [
            "bad/crack/000.png crack -",
            "bad/crack/001.png crack masks/crack/001.png",
            "bad/hole/000.png hole -",
            "bad/hole/001.png hole masks/hole/001.png",
        ]
    );
    // A mask that marks something in a photo that is said to be good.
    let dir = folder(&[("ok/#.png", 6)]);
    mask(dir.path(), "ok/003-mask.png", 0, 2);
    let (why, _) = refused(dir.path(), datasets::open(dir.path()));
    assert!(why.contains("ok/003.png lies among the good ones"), "{why}");
    // A photo of a label is no mask.
    let dir = folder(&[("#.png", 6), ("#_label.png", 6)]);
    let (why, guess) = refused(dir.path(), datasets::open(dir.path()));
    assert!(why.contains("the folder itself (12 photos)"), "{why}");
    assert_eq!(guess, "normal: .");
    // Faces with masks: a folder of nothing but masks.
    let dir = folder(&[("masks/#.png", 6)]);
    assert_eq!(
        refused(dir.path(), datasets::open(dir.path())).1,
        "normal: ."
    );
}

/// A folder as it comes: what it holds, and what becomes of it.
type Walk<'a> = (
    &'a [(&'a str, usize)],
    std::result::Result<(usize, usize, usize), &'a str>,
);

#[test]
fn a_strangers_walk() {
    let walks: [Walk; 28] = [
        // Read rightly.
        (&[("#.jpg", 9)], Ok((9, 0, 0))),
        (
            &[
                ("2024-05-01/#.jpg", 4),
                ("2024-05-02/#.jpg", 4),
                ("lot_17/a/#.jpg", 1),
            ],
            Ok((9, 0, 0)),
        ),
        (&[("cam1/#.png", 3), ("cam2/#.png", 3)], Ok((6, 0, 0))),
        (
            &[("OK parts/#.png", 10), ("NG parts/#.png", 3)],
            Ok((8, 2, 3)),
        ),
        (&[("good/#.png", 10), ("not_good/#.png", 3)], Ok((8, 2, 3))),
        (
            &[("Normal images/#.png", 10), ("Abnormal images/#.png", 3)],
            Ok((8, 2, 3)),
        ),
        (&[("pass/#.png", 10), ("fail/#.png", 3)], Ok((8, 2, 3))),
        (
            &[("Gutteile/#.png", 10), ("Ausschuss/Kratzer/#.png", 3)],
            Ok((8, 2, 3)),
        ),
        (&[("良品/#.png", 10), ("不良品/#.png", 3)], Ok((8, 2, 3))),
        (
            &[
                ("train/ok_front/#.png", 6),
                ("train/def_front/#.png", 2),
                ("test/ok_front/#.png", 2),
                ("test/def_front/#.png", 2),
            ],
            Ok((6, 2, 4)),
        ),
        (&[("good_#.png", 10), ("scratched_#.png", 3)], Ok((8, 2, 3))),
        (
            &[
                ("defect-dataset/ok/#.png", 10),
                ("defect-dataset/ng/#.png", 3),
            ],
            Ok((8, 2, 3)),
        ),
        (&[("#.png", 10), ("bad/#.png", 3)], Ok((8, 2, 3))),
        // Refused, with what to say.
        (
            &[("0/#.png", 3), ("1/#.png", 9)],
            Err("normal: 1; abnormal: 0"),
        ),
        (
            &[("screw/#.png", 5), ("nut/#.png", 4)],
            Err("normal: screw; abnormal: nut"),
        ),
        (
            &[("positive/#.png", 4), ("negative/#.png", 5)],
            Err("normal: negative; abnormal: positive"),
        ),
        (
            &[("good/#.png", 9), ("hole/#.png", 3)],
            Err("normal: good; abnormal: hole"),
        ),
        (
            &[("good/#.png", 9), ("#.png", 3)],
            Err("normal: good; abnormal: ."),
        ),
        (
            &[("bad/#.png", 2), ("hole/#.png", 3), ("plain/#.png", 9)],
            Err("normal: plain; abnormal: bad hole"),
        ),
        (
            &[("train/a/#.png", 4), ("train/b/#.png", 3)],
            Err("normal: train/a; abnormal: train/b"),
        ),
        (
            &[("train/#.png", 6), ("test/#.png", 3)],
            Err("normal: train; abnormal: test"),
        ),
        (
            &[("#.png", 9), ("#_defect.png", 2)],
            Err("normal: .; abnormal: *defect*"),
        ),
        (
            &[
                ("train/#.png", 9),
                ("test/good_#.png", 2),
                ("test/loose_#.png", 2),
            ],
            Err("normal: train; abnormal: test; normal_test: test/*good*"),
        ),
        (
            &[("ok/#.png", 9), ("good_and_bad/#.png", 2)],
            Err("normal: ok; abnormal: good_and_bad"),
        ),
        (&[("ng/ok/#.png", 9)], Err("normal: ng/ok")),
        (
            &[("defects/#.png", 9)],
            Err("normal: FOLDER_OF_GOOD_PHOTOS; abnormal: defects"),
        ),
        (
            &[("test/good/#.png", 4), ("test/hole/#.png", 4)],
            Err("normal: FOLDER_OF_GOOD_PHOTOS; abnormal: test/hole; normal_test: test/good"),
        ),
        (
            &[("raw/#.png", 9), ("raw_masks/x#a.png", 2)],
            Err("normal: raw"),
        ),
    ];
    for (fill, expected) in walks {
        let dir = folder(fill);
        let opened = datasets::open(dir.path());
        match expected {
            Ok(expected) => assert_eq!(counts(&opened.unwrap()), expected, "{fill:?}"),
            Err(guess) => assert_eq!(refused(dir.path(), opened).1, guess, "{fill:?}"),
        }
    }
}

#[test]
fn a_folder_called_bad_is_not_trained_on() {
    let dir = folder(&[("NG/#.png", 6), ("ok_parts_1/#.png", 6)]);
    let (why, guess) = refused(dir.path(), datasets::open(&dir.path().join("NG")));
    assert!(why.starts_with("the folder is called as if"), "{why}");
    assert_eq!(guess, "normal: NG");
    assert_eq!(
        counts(&datasets::open(&dir.path().join("ok_parts_1")).unwrap()),
        (6, 0, 0)
    );
    let mvtec = folder(&[("train/good/#.png", 6), ("train/good/not ok/#.png", 1)]);
    let error = datasets::open(mvtec.path()).unwrap_err().to_string();
    assert!(
        error.contains("not ok: is called defective and lies among the photos to train on"),
        "{error}"
    );
}

fn roles(normal: &[&Path], abnormal: &[&Path]) -> Roles {
    let paths = |paths: &[&Path]| paths.iter().map(PathBuf::from).collect();
    Roles {
        normal: paths(normal),
        abnormal: paths(abnormal),
        ..Roles::default()
    }
}

#[test]
fn what_is_said_counts() {
    let dir = folder(&[
        ("0/#.png", 10),
        ("1/hole/#.png", 2),
        ("1/#.png", 1),
        ("2/#.png", 4),
    ]);
    let at = |path: &str| dir.path().join(path);
    let (zero, one, two) = (at("0"), at("1"), at("2"));
    let data = datasets::open_as(None, &roles(&[&zero], &[&one])).unwrap();
    assert_eq!(
        (data.root.as_path(), counts(&data)),
        (dir.path(), (8, 2, 3))
    );
    assert_eq!(classes(&data), ["1", "hole"]);
    // Paths inside the folder, patterns, and good ones to test on.
    let said = Roles {
        normal_test: vec!["2".into()],
        ..roles(&[Path::new("[0]")], &[Path::new("1/*")])
    };
    let data = datasets::open_as(Some(dir.path()), &said).unwrap();
    assert_eq!(counts(&data), (10, 4, 3));
    // The deeper one counts.
    let data = datasets::open_as(None, &roles(&[dir.path()], &[&one])).unwrap();
    assert_eq!(counts(&data), (12, 2, 3));
    // Masks that belong to nothing.
    mask(dir.path(), "drawn/x.png", 0, 2);
    let said = Roles {
        masks: vec!["drawn".into()],
        ..roles(&[&zero], &[&one])
    };
    let error = datasets::open_as(Some(dir.path()), &said)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("drawn: `masks`: none is called as a photo is"),
        "{error}"
    );
    // The same folder twice, nothing there, a pattern of nothing.
    let wrong = |said: &Roles| {
        datasets::open_as(Some(dir.path()), said)
            .unwrap_err()
            .to_string()
    };
    assert!(
        wrong(&roles(&[&zero], &[&zero])).contains("named twice, in `normal` and in `abnormal`")
    );
    assert!(wrong(&roles(&[Path::new("x")], &[])).contains("`normal`: there is no such folder"));
    assert!(
        wrong(&roles(&[&two, Path::new("x*")], &[])).contains("`normal`: there is no such folder")
    );
    assert!(wrong(&roles(&[], &[&one])).contains("`normal` is missing"));
}

#[test]
fn a_bad_folder_or_a_mask_inside_a_good_one_is_not_trained_on() {
    let dir = folder(&[("all/ok/#.png", 8), ("all/ng/#.png", 2)]);
    let (all, bad) = (dir.path().join("all"), dir.path().join("all/ng"));
    let (why, guess) = refused(dir.path(), datasets::open_as(None, &roles(&[&all], &[])));
    assert!(why.contains("is called defective and lies in"), "{why}");
    assert_eq!(guess, "normal: all; abnormal: all/ng");
    assert_eq!(
        counts(&datasets::open_as(None, &roles(&[&all], &[&bad])).unwrap()),
        (7, 1, 2)
    );
    assert_eq!(
        counts(&datasets::open_as(None, &roles(&[&all, &bad], &[])).unwrap()),
        (10, 0, 0)
    );
    // What is named as defective may hold whatever it likes.
    photos(dir.path(), "all/x/bad/#.png", 2);
    let (why, guess) = refused(
        dir.path(),
        datasets::open_as(None, &roles(&[&all], &[&bad])),
    );
    assert!(why.contains("all/x/bad is called defective"), "{why}");
    assert_eq!(guess, "normal: all; abnormal: all/ng all/x/bad");
    let x = dir.path().join("all/x");
    assert_eq!(
        counts(&datasets::open_as(None, &roles(&[&all], &[&bad, &x])).unwrap()),
        (7, 1, 4)
    );
    let dir = folder(&[("photos/#.png", 8)]);
    mask(dir.path(), "drawn/002.png", 0, 2);
    mask(dir.path(), "drawn/003.png", 0, 0);
    let said = Roles {
        masks: vec![dir.path().join("drawn")],
        ..roles(&[&dir.path().join("photos")], &[])
    };
    let data = datasets::open_as(None, &said).unwrap();
    assert_eq!(counts(&data), (6, 1, 1));
    assert!(
        describe(&data, &data.test).contains(&"photos/002.png defect drawn/002.png".to_string())
    );
}

#[test]
fn a_file_in_the_folder_says_it() {
    let dir = folder(&[("A/#.png", 10), ("B/#.png", 3), ("C/#.png", 2)]);
    let file = dir.path().join("dataset.toml");
    let opened = |text: &str| {
        fs::write(&file, text).unwrap();
        datasets::open(dir.path())
    };
    let data = opened("name = \"caps\"\nnormal = [\"A\"]\nabnormal = \"[BC]\"\n").unwrap();
    assert_eq!((data.name.as_str(), counts(&data)), ("caps", (8, 2, 5)));
    assert_eq!(classes(&data), ["B", "C"]);
    let wrong = |text: &str| opened(text).unwrap_err().to_string();
    assert!(
        wrong("normal = \"A\"\nbad = \"B\"").contains("dataset.toml: line 2: unknown field `bad`")
    );
    assert!(wrong("abnormal = \"B\"").contains("`normal` is missing"));
    assert!(wrong("normal = 3").contains("line 1"));
    // With a name alone the folder is read as always.
    assert!(matches!(
        opened("name = \"caps\""),
        Err(Error::Roles { .. })
    ));
    fs::remove_dir_all(dir.path().join("B")).unwrap();
    fs::rename(dir.path().join("C"), dir.path().join("rejected")).unwrap();
    fs::rename(dir.path().join("A"), dir.path().join("accepted")).unwrap();
    let data = opened("name = \"caps\"").unwrap();
    assert_eq!((data.name.as_str(), counts(&data)), ("caps", (8, 2, 2)));
}

#[test]
fn what_was_taken_is_told() {
    let dir = folder(&[("2024-05-01/#.jpg", 4), ("2024-05-02/#.jpg", 3)]);
    let told = |dir: &TempDir| datasets::open(dir.path()).unwrap().summary();
    assert_eq!(
        told(&dir),
        "7 photos in 2 folders, all as good: 2024-05-01, 2024-05-02"
    );
    assert_eq!(told(&folder(&[("#.jpg", 7)])), "7 photos, all as good");
    let dir = folder(&[("OK/#.jpg", 10), ("NG/dent/#.jpg", 2), ("NG/#.jpg", 1)]);
    assert_eq!(
        told(&dir),
        "8 photos of good products (OK); to test on 2 good and 3 defective (NG, dent)"
    );
    let folders = datasets::check(dir.path(), &|_, _| {}).unwrap().folders;
    let folders: Vec<String> = folders
        .iter()
        .map(|f| format!("{} {} {}", f.folder, f.files, f.role.words()))
        .collect();
    assert_eq!(
        folders,
        [
            "OK 8 good, to train on",
            "OK 2 good, to test on",
            "NG 1 defective",
            "NG/dent 2 defective"
        ]
    );
}

#[test]
fn copies_are_counted() {
    let dir = folder(&[("a.png", 1)]);
    let copies = || datasets::open(dir.path()).unwrap().copies().unwrap();
    assert_eq!(copies(), None);
    for i in 0..7 {
        fs::copy(
            dir.path().join("a.png"),
            dir.path().join(format!("{i}.png")),
        )
        .unwrap();
    }
    assert_eq!(copies(), Some(1));
    photos(dir.path(), "x#.png", 7);
    assert_eq!(copies(), None);
}
