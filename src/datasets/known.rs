//! Data sets that the project knows by name, with their licences: for detectors' records and cards.

use std::path::Path;

use super::{cifar10, generated, visa};

/// A published data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownDataset {
    /// Short id, for example `mvtec-ad`.
    pub id: &'static str,
    /// Its proper name.
    pub name: &'static str,
    /// SPDX id of its licence, if it states one.
    pub licence: Option<&'static str>,
    /// Where it is to be had; none where this program makes it.
    pub url: Option<&'static str>,
}

const MVTEC_AD: KnownDataset = KnownDataset {
    id: "mvtec-ad",
    name: "MVTec AD",
    licence: Some("CC-BY-NC-SA-4.0"),
    url: Some("https://www.mvtec.com/company/research/datasets/mvtec-ad"),
};
const BTAD: KnownDataset = KnownDataset {
    id: "btad",
    name: "BTAD",
    licence: Some("CC-BY-NC-SA-4.0"),
    url: Some("https://avires.dimi.uniud.it/papers/btad/btad.zip"),
};
const VISA: KnownDataset = KnownDataset {
    id: "visa",
    name: "VisA",
    licence: Some("CC-BY-4.0"),
    url: Some("https://github.com/amazon-science/spot-diff"),
};
const CIFAR10: KnownDataset = KnownDataset {
    id: "cifar10",
    name: "CIFAR-10",
    licence: None,
    url: Some("https://www.cs.toronto.edu/~kriz/cifar.html"),
};
const GENERATED: KnownDataset = KnownDataset {
    id: "generated",
    name: "fastflow data generate",
    licence: Some("MIT OR Apache-2.0"),
    url: None,
};

/// The data set of this id or name, in any spelling of case and punctuation.
pub fn known(name: &str) -> Option<&'static KnownDataset> {
    const ALL: [KnownDataset; 5] = [MVTEC_AD, BTAD, VISA, CIFAR10, GENERATED];
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|c| c.to_ascii_lowercase()).collect()
    };
    let asked = plain(name);
    ALL.iter()
        .find(|set| [plain(set.id), plain(set.name)].contains(&asked))
}

/// Which known data set lies in a folder (one category of it), by files that no other has. A layout
/// alone is not enough where others use it too: MVTec AD's and BTAD's are copied everywhere.
pub fn recognise(dir: &Path) -> Option<&'static KnownDataset> {
    let says_mvtec = || {
        std::fs::read_to_string(dir.join("readme.txt"))
            .is_ok_and(|text| text.contains("MVTec Software GmbH"))
    };
    if dir.join(generated::RECORD).is_file() {
        Some(&GENERATED)
    } else if cifar10::class_at(dir).is_some() {
        Some(&CIFAR10)
    } else if visa::is_here(dir) {
        Some(&VISA)
    } else {
        (dir.join("train/good").is_dir() && says_mvtec()).then_some(&MVTEC_AD)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn a_set_is_known_by_id_and_name() {
        for name in ["mvtec-ad", "MVTec AD", "mvtec_ad"] {
            assert_eq!(known(name).unwrap().licence, Some("CC-BY-NC-SA-4.0"));
        }
        assert_eq!(known("Woven cloth"), None);
        assert_eq!(known(""), None);
    }

    #[test]
    fn a_folder_is_recognised_by_what_only_that_set_has() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        fs::create_dir_all(dir.join("train/good")).unwrap();
        assert_eq!(recognise(dir), None);
        fs::write(dir.join("readme.txt"), "Copyright 2019 MVTec Software GmbH").unwrap();
        assert_eq!(recognise(dir).unwrap().id, "mvtec-ad");
        fs::write(dir.join("generated.json"), "{}").unwrap();
        assert_eq!(recognise(dir).unwrap().id, "generated");
    }
}
