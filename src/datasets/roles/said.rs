//! What one name says of the photos below it.

use super::word::Word;
use super::words::words;

/// What the photos are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::datasets) enum Label {
    Normal,
    Defective,
    Mask,
    /// Perhaps masks (`label`, `annotation`): their looks must confirm it.
    MaybeMask,
    /// A label that contradicts itself, or says that nobody knows.
    Unsure,
}

/// Which part of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::datasets) enum Split {
    Train,
    Test,
    Validation,
}

/// What a name without a label is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::datasets) enum Kind {
    /// `images`, `parts`: says nothing.
    Neutral,
    /// A date, a lot, a camera: more of the same.
    Serial,
    /// One digit alone: a number, or a class.
    Digit,
    /// Anything else; a class perhaps.
    Other,
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::datasets) struct Said {
    pub label: Option<Label>,
    pub split: Option<Split>,
    pub kind: Kind,
    /// Whether every word is known.
    pub certain: bool,
}

impl Said {
    /// What a folder's or file's name says.
    pub fn of(name: &str) -> Self {
        let words = words(name);
        Self {
            label: label(&words),
            split: split(&words),
            kind: kind(&words),
            certain: !words
                .iter()
                .any(|w| matches!(w, Word::Other | Word::Letter)),
        }
    }
}

/// Words between `not` and what it turns around, at most: `not so good`.
const REACH: usize = 2;

fn label(words: &[Word]) -> Option<Label> {
    let pure = !words.iter().any(|w| matches!(w, Word::Other | Word::Class));
    let mut normal: Vec<bool> = Vec::new();
    let (mut mask, mut maybe_mask) = (false, false);
    let hedged = words.contains(&Word::Hedge);
    let mut unsure = words.contains(&Word::Unsure);
    let mut turned: Option<usize> = None;
    for (i, word) in words.iter().enumerate() {
        let said = match word {
            Word::Normal => Some(true),
            Word::Defective => Some(false),
            Word::WeakNormal if pure => Some(true),
            Word::WeakDefective if pure => Some(false),
            _ => None,
        };
        if let Some(said) = said {
            normal.push(said != turned.take().is_some());
            continue;
        }
        match word {
            Word::Not => turned = turned.xor(Some(0)),
            Word::Free => match normal.last_mut() {
                Some(last) if follows_label(&words[..i]) => *last = !*last,
                _ => turned = Some(0),
            },
            Word::Number(_) => turned = None,
            Word::Mask | Word::WeakMask if turned.take().is_some() => unsure = true,
            Word::Mask => mask = true,
            Word::WeakMask => maybe_mask = true,
            _ => turned = turned.map(|far| far + 1).filter(|far| *far <= REACH),
        }
    }
    let conflict = normal.contains(&true) && normal.contains(&false);
    match normal.first() {
        _ if mask && !unsure => Some(Label::Mask),
        Some(_) if hedged => Some(Label::Unsure),
        _ if unsure || conflict && !maybe_mask => Some(Label::Unsure),
        _ if maybe_mask => Some(Label::MaybeMask),
        Some(true) => Some(Label::Normal),
        Some(false) => Some(Label::Defective),
        None => None,
    }
}

/// Whether the last word that is not neutral is a label's.
fn follows_label(words: &[Word]) -> bool {
    let last = words.iter().rev().find(|w| **w != Word::Neutral);
    matches!(
        last,
        Some(Word::Defective | Word::Normal | Word::WeakDefective)
    )
}

fn split(words: &[Word]) -> Option<Split> {
    words.iter().find_map(|word| match word {
        Word::Train => Some(Split::Train),
        Word::Test => Some(Split::Test),
        Word::Validation => Some(Split::Validation),
        _ => None,
    })
}

fn kind(words: &[Word]) -> Kind {
    let has = |what: fn(&Word) -> bool| words.iter().any(what);
    let serial = has(|w| matches!(w, Word::Serial));
    let speaks = |w: &Word| {
        matches!(
            w,
            Word::Other
                | Word::Class
                | Word::WeakMask
                | Word::Not
                | Word::Free
                | Word::Unsure
                | Word::Hedge
        )
    };
    if words.iter().any(speaks) || has(|w| matches!(w, Word::Letter)) && !serial {
        return Kind::Other;
    }
    match words {
        [Word::Number(1)] => Kind::Digit,
        _ if serial || has(|w| matches!(w, Word::Number(_))) => Kind::Serial,
        _ => Kind::Neutral,
    }
}

/// Whether folders beside each other hold more of the same: dates, lots and cameras, or one name with different numbers.
pub(in crate::datasets) fn one_kind(names: &[&str]) -> bool {
    let kinds: Vec<Kind> = names.iter().map(|name| Said::of(name).kind).collect();
    let plain_numbers = |name: &&&str| name.chars().all(|c| c.is_ascii_digit());
    let counts_on = names.iter().filter(plain_numbers).any(|n| n.len() > 1);
    let same = |kind: &Kind| match kind {
        Kind::Neutral | Kind::Serial => true,
        Kind::Digit => counts_on,
        Kind::Other => false,
    };
    kinds.iter().all(same) || numbered(names)
}

/// `kos01`, `kos02`; not `class1`, `class2`, nor `c0`, `c1`.
fn numbered(names: &[&str]) -> bool {
    let template = |name: &str| -> String {
        let letters = name.chars().filter(|c| !c.is_ascii_digit());
        letters.flat_map(char::to_lowercase).collect()
    };
    let Some(first) = names.first().map(|name| template(name)) else {
        return false;
    };
    let has_number = |name: &&str| name.chars().any(|c| c.is_ascii_digit());
    let letters = first.chars().filter(|c| c.is_alphabetic()).count();
    let speaks = |w: &Word| {
        matches!(
            w,
            Word::Class | Word::WeakMask | Word::Not | Word::Free | Word::Unsure | Word::Hedge
        )
    };
    letters > 2
        && names.iter().all(has_number)
        && names.iter().all(|name| template(name) == first)
        && !words(names[0]).iter().any(speaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &str, expected: Option<Label>) {
        for name in names.split(',').map(str::trim) {
            let said = Said::of(name);
            assert_eq!(said.label, expected, "{name}: {said:?} {:?}", words(name));
        }
    }

    #[test]
    fn good_ones_in_many_languages() {
        labels(
            "good, OK, OK parts, ok_parts, OKParts, goodparts, Normal images, normal_dir, NORMAL, no_defect, defect-free, \
             non_defective, nondefective, Non-Defective, without defects, parts without any defects, free of defects, \
             no anomaly, not_abnormal, not bad, zero defects, pass, passed, accept, accepted, i.O., iO, IO, \
             Gutteile, gut, fehlerfrei, ohne Fehler, nicht defekt, bonnes pièces, sans défaut, pas de défaut, \
             pas mauvais, bueno, buenas piezas, sin defectos, buoni, senza difetti, sem defeitos, normais, goed, zonder fouten, \
             dobre, bez wad, dobré, bez vad, хорошие, без дефектов, годные, 良品, 正常, 合格, 无缺陷, 没有缺陷, 正常图片, 傷なし, \
             正常品, OK品, 양품, 정상, 정상 이미지, 무결함, iyi, sağlam, hatasız, good_2024, good bottles, 01_good, in Ordnung, \
             MT_defect_free, kusurlu değil, v pořádku",
            Some(Label::Normal),
        );
    }

    #[test]
    fn defective_ones_in_many_languages() {
        labels(
            "bad, NG, NG parts, NGParts, ng_003, not_good, not good, NotGood, notgood, no good, nogood, NOK, not ok, non ok, non-OK, n.i.O., \
             niO, NIO, KO, abnormal_dir, Abnormal images, fail, failed, reject, rejected, not so good, not accepted, unacceptable, isn't good, never good, BADIMG, \
             defects, Defective, anomalies, faulty, broken_large, scratches, nicht gut, nicht in Ordnung, Schlechtteile, Ausschuss, \
             fehlerhaft, défauts, défectueux, De\u{301}fauts, non conforme, pas bon, defectuosos, malas, no bueno, sin aprobado, difettosi, scarti, non conformi, \
             defeituosas, não conforme, ruim, slecht, afgekeurd, niet goed, wadliwe, uszkodzone, złe, vadné, zmetky, špatné, брак, не годные, \
             дефекты, плохие, 不良品, 不良, 异常, 異常, 缺陷, 不合格, 不正常, 非正常, 有缺陷, NG品, 欠陥, 불량, 불량품, 비정상, hatalı, \
             kusurlu, def_front, iyi değil",
            Some(Label::Defective),
        );
    }

    #[test]
    fn parts_of_words_and_unclear_names_say_nothing() {
        labels(
            "unbroken, okra, goodyear, Normandy, okapi, badminton, nokia, kotlin, passport, first_pass_optics, defend, failsafe, \
             gutschein, crackers, anomaloscope, bonsai, testament, 0, 1, positive, negative, true, false, half, other, before, A, class_0, 2024-05-01, \
             lot_17, monday, bottle, images, .tmpaNGx3, normandie, masked, abadan, no_5, 3bad4f9",
            None,
        );
        labels(
            "good_and_bad, ok-ng, maybe good, almost_good, good_but_scratched, unsorted, no_mask, fake good, false_ng, half-good",
            Some(Label::Unsure),
        );
        labels(
            "mask, masks, mask_dir, Masken, ground_truth, Ground Truth, groundtruth, GT, masque, máscaras, 掩码, マスク, gt_bad, mask2",
            Some(Label::Mask),
        );
        labels(
            "label, Labels, annotations, good_labels",
            Some(Label::MaybeMask),
        );
    }

    #[test]
    fn parts_of_a_data_set_are_named_too() {
        let split = |name: &str| Said::of(name).split;
        for name in [
            "train",
            "Training",
            "train_good",
            "Trainingsdaten",
            "训练集",
            "学習用",
            "eğitim",
            "обучение",
        ] {
            assert_eq!(split(name), Some(Split::Train), "{name}");
        }
        for name in [
            "test",
            "test_public",
            "normal_test",
            "Test",
            "prüfung",
            "测试",
            "テスト",
        ] {
            assert_eq!(split(name), Some(Split::Test), "{name}");
        }
        assert_eq!(Said::of("normal_test").label, Some(Label::Normal));
        assert_eq!(split("val"), Some(Split::Validation));
        assert_eq!(split("testament"), None);
        assert_eq!(split("trainers"), None);
    }

    #[test]
    fn dates_lots_and_cameras_are_of_one_kind_and_classes_are_not() {
        for names in [
            "2024-05-01 2024-05-02",
            "20240501 20240502T1200",
            "lot_17 lot_18",
            "batch3 batch4",
            "line2 line3",
            "cam1 cam2",
            "monday tuesday",
            "shift_A shift_B",
            "kos01 kos02",
            "9f3ab2 00c1d4",
            "00 01",
            "1 2 10",
            "Montag Dienstag",
            "partie1 partie2",
            "front back",
            "2024-05-01 lot_17",
            "批次1 批次2",
            "KW21 KW22",
            "monday images",
        ] {
            assert!(one_kind(&names.split(' ').collect::<Vec<_>>()), "{names}");
        }
        for names in [
            "0 1",
            "1 2",
            "a b",
            "A B C",
            "class0 class1",
            "type_1 type_2",
            "screw nut",
            "crack1 hole2",
            "c0 c1",
            "raw processed",
            "positive negative",
            "crazing patches",
            "grade1 grade2",
            "label_0 label_1",
            "monday broken-ish",
            "no_1x hole",
        ] {
            assert!(!one_kind(&names.split(' ').collect::<Vec<_>>()), "{names}");
        }
    }
}
