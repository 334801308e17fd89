//! The layouts of BTAD, VisA and CIFAR-10, and lists.

use std::fs;
use std::path::Path;

use candle_fastflow::datasets;

use super::{add, describe, fails, numbered, tree, with_normals};

#[test]
fn btad() {
    let dir = with_normals(
        "train/ok",
        4,
        &[
            "test/ok/0000.bmp",
            "test/ko/0000.bmp",
            "test/ko/0001.bmp",
            "ground_truth/ko/0001.png",
        ],
    );
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(data.train.len(), 4);
    assert_eq!(
        describe(&data, &data.test),
        [
            "test/ko/0000.bmp ko -",
            "test/ko/0001.bmp ko ground_truth/ko/0001.png",
            "test/ok/0000.bmp - -",
        ]
    );
}

/// Two categories in VisA's layout; only `candle` has annotations.
fn visa() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut split = String::from("object,split,label,image,mask\n");
    for category in ["candle", "pcb1"] {
        for (i, name) in numbered(&format!("{category}/Data/Images/Normal"), 6)
            .iter()
            .enumerate()
        {
            add(dir.path(), name, 0);
            split += &format!(
                "{category},{},normal,{name},\n",
                if i < 4 { "train" } else { "test" }
            );
        }
        let image = format!("{category}/Data/Images/Anomaly/000.JPG");
        let mask = format!("{category}/Data/Masks/Anomaly/000.png");
        add(dir.path(), &image, 1);
        add(dir.path(), &mask, 1);
        split += &format!("{category},test,anomaly,{image},{mask}\n");
    }
    fs::create_dir(dir.path().join("split_csv")).unwrap();
    fs::write(dir.path().join("split_csv/1cls.csv"), split).unwrap();
    let annotations =
        "image,label,mask\ncandle/Data/Images/Anomaly/000.JPG,\"chunk of wax, burnt\",x.png\n";
    fs::write(dir.path().join("candle/image_anno.csv"), annotations).unwrap();
    dir
}

#[test]
fn visa_with_its_split_and_annotations() {
    let dir = visa();
    let categories = datasets::categories(dir.path()).unwrap();
    assert_eq!(
        categories,
        [dir.path().join("candle"), dir.path().join("pcb1")]
    );
    let candle = datasets::open(&categories[0]).unwrap();
    assert_eq!((candle.name.as_str(), candle.train.len()), ("candle", 4));
    assert_eq!(
        describe(&candle, &candle.test)[2],
        "Data/Images/Anomaly/000.JPG chunk of wax, burnt Data/Masks/Anomaly/000.png"
    );
    let pcb = datasets::open(&categories[1]).unwrap();
    assert_eq!(pcb.test.len(), 3);
    assert_eq!(pcb.test[2].defect.as_deref(), Some("anomaly"));

    fs::remove_file(dir.path().join("split_csv/1cls.csv")).unwrap();
    fails(
        datasets::open(&categories[0]),
        "split_csv/1cls.csv: VisA's split is missing",
    );
}

/// Six records a file; record `i` is of class `i % 3`, its red is `i`, its last blue pixel 200.
fn cifar10() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let batch = (0..6_u8).flat_map(|i| {
        let mut record = vec![0; 3073];
        record[0] = i % 3;
        record[1..1025].fill(i);
        record[3072] = 200;
        record
    });
    let batch: Vec<u8> = batch.collect();
    for name in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ] {
        fs::write(dir.path().join(name).with_extension("bin"), &batch).unwrap();
    }
    dir
}

#[test]
fn cifar10_with_one_class_normal_or_one_class_defective() {
    let dir = cifar10();
    assert_eq!(datasets::categories(dir.path()).unwrap().len(), 10);
    fails(datasets::open(dir.path()), "airplane");

    let bird = datasets::open(&dir.path().join("bird")).unwrap();
    assert_eq!(
        (bird.name.as_str(), bird.train.len(), bird.test.len()),
        ("bird", 10, 6)
    );
    let defects: Vec<_> = bird
        .test
        .iter()
        .map(|s| s.defect.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(
        defects,
        ["airplane", "automobile", "-", "airplane", "automobile", "-"]
    );
    let image = bird.train[1].read().unwrap();
    assert_eq!(image.dimensions(), (32, 32));
    assert_eq!(
        (image.get_pixel(3, 30).0, image.get_pixel(31, 31).0),
        ([5, 0, 0], [5, 0, 200])
    );
    assert_eq!(bird.train[1].name(&bird.root), "data_batch_1.bin#5");

    let inverse = datasets::open(&dir.path().join("not-bird")).unwrap();
    assert_eq!(
        (inverse.name.as_str(), inverse.train.len()),
        ("not-bird", 20)
    );
    let defects: Vec<_> = inverse
        .test
        .iter()
        .filter_map(|s| s.defect.as_deref())
        .collect();
    assert_eq!(defects, ["bird", "bird"]);
    assert_ne!(bird.hash().unwrap(), inverse.hash().unwrap());

    fails(
        datasets::open(&dir.path().join("frog")),
        "holds no normal images to train on",
    );
    fs::write(dir.path().join("test_batch.bin"), vec![0; 3072]).unwrap();
    fails(
        datasets::open(&dir.path().join("bird")),
        "not whole records",
    );
    fs::write(dir.path().join("test_batch.bin"), vec![11; 3073]).unwrap();
    fails(
        datasets::open(&dir.path().join("bird")),
        "record 0 has the class 11",
    );
}

/// Four images to train on and one to test on of every class, whose red is the label.
fn cifar10_folders() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (label, class) in datasets::cifar10::CLASSES.iter().enumerate() {
        for (split, count, blue) in [("train", 4, 0), ("test", 1, 1)] {
            let folder = dir.path().join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let colour = image::Rgb([label as u8, index, blue]);
                let photo = image::RgbImage::from_pixel(32, 32, colour);
                photo.save(folder.join(format!("{index:04}.png"))).unwrap();
            }
        }
    }
    dir
}

#[test]
fn cifar10_as_class_folders_is_the_same_data_set() {
    let dir = cifar10_folders();
    assert_eq!(datasets::categories(dir.path()).unwrap().len(), 10);
    fails(datasets::open(dir.path()), "airplane");
    let path = dir.path().join("bird");
    let bird = datasets::open(&path).unwrap();
    assert_eq!(
        (bird.name.as_str(), bird.train.len(), bird.test.len()),
        ("bird", 4, 10)
    );
    let normal: Vec<_> = bird.test.iter().filter(|s| !s.is_defective()).collect();
    assert_eq!(normal[0].name(&bird.root), "test/bird/0000.png");
    assert_eq!(normal.len(), 1);
    assert_eq!(bird.test[9].defect.as_deref(), Some("truck"));
    let red = |sample: &datasets::Sample| sample.read().unwrap().get_pixel(3, 3).0[0];
    assert!(bird.train.iter().all(|sample| red(sample) == 2));
    let inverse = datasets::open(&dir.path().join("not-bird")).unwrap();
    assert_eq!(inverse.train.len(), 36);
    assert!(inverse.train.iter().all(|sample| red(sample) != 2));
    assert_eq!(datasets::recognise(&path).unwrap().id, "cifar10");
    let report = datasets::check(&path, &|_, _| ()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);

    // Without one of the classes it is any other folder.
    fs::remove_dir_all(dir.path().join("test/truck")).unwrap();
    fails(datasets::open(&path), "no such folder");
}

#[test]
fn a_list_names_labels_splits_and_masks() {
    let dir = tree(&[
        "a.png",
        "b.png",
        "x/c.png",
        "d.png",
        "e.png",
        "f.png",
        "f_truth.png",
    ]);
    let list = |rows: &str| {
        let path = dir.path().join("manifest.csv");
        fs::write(&path, format!("image,label,split,mask,operator\n{rows}")).unwrap();
        path
    };
    let good = "a.png,,,,Ann\nb.png,good,,,\nx/c.png,OK,train,,\nd.png,normal,,,\ne.png,,test,,\n";
    let path = list(&format!("{good}f.png,dent,test,f_truth.png,Bob\n"));
    let data = datasets::open(dir.path()).unwrap();
    assert_eq!(data, datasets::open(&path).unwrap());
    assert_eq!(describe(&data, &data.train)[2], "x/c.png - -");
    assert_eq!(
        describe(&data, &data.test),
        ["e.png - -", "f.png dent f_truth.png"]
    );

    for (row, says) in [
        ("g.png,,,,", "manifest.csv: line 7: there is no file"),
        (
            "f.png,dent,test,g.png,",
            "manifest.csv: line 7: there is no file",
        ),
        (
            "f.png,,valid,,",
            "split must be train or test, found `valid`",
        ),
        (
            "f.png,dent,train,,",
            "a defective image (`dent`) cannot be trained on",
        ),
        ("f.png,dent", "found record with 2 fields"),
    ] {
        list(&format!("{good}{row}\n"));
        fails(datasets::open(dir.path()), says);
    }
    add(dir.path(), "NG parts/g.png", 99);
    list(&format!("{good}NG parts/g.png,,,,\n"));
    fails(
        datasets::open(dir.path()),
        "line 7: has no label and lies in a folder called `NG parts`",
    );
    list(&format!("{good}NG parts/g.png,good,,,\n"));
    assert_eq!(datasets::open(dir.path()).unwrap().train.len(), 5);
    fs::write(dir.path().join("manifest.csv"), "file,label\na.png,\n").unwrap();
    fails(datasets::open(dir.path()), "missing field `image`");
    fails(
        datasets::open(Path::new("absent.csv")),
        "there is no such folder",
    );
}
