//! Where features leave a network: a choice among the places that an architecture has.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::BackboneInfo;
use crate::{Error, Result};

/// The places whose output becomes a feature map, one map each, as timm's `out_indices`: stages of a ResNet
/// from 1, blocks of a transformer from 0, strides of the wavelet bank. Ascending, at least one; as text `2,3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<usize>", into = "Vec<usize>")]
pub struct Taps(Vec<usize>);

impl Taps {
    /// Taps in ascending order; whether a network has them shows when it is asked.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, and for taps that repeat or descend.
    pub fn new(taps: Vec<usize>) -> Result<Self> {
        let ascending = taps.windows(2).all(|pair| pair[0] < pair[1]);
        if taps.is_empty() || !ascending {
            return Err(refused(&joined(&taps)));
        }
        Ok(Self(taps))
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for Taps {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| part.trim().parse().map_err(|_| refused(text));
        Self::new(text.split(',').map(number).collect::<Result<_>>()?)
    }
}

impl fmt::Display for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.0))
    }
}

impl TryFrom<Vec<usize>> for Taps {
    type Error = Error;

    fn try_from(taps: Vec<usize>) -> Result<Self> {
        Self::new(taps)
    }
}

impl From<Taps> for Vec<usize> {
    fn from(taps: Taps) -> Self {
        taps.0
    }
}

fn refused(found: &str) -> Error {
    Error::Invalid(format!(
        "taps `{}`: expected numbers that ascend, with commas between them, as `2,3`",
        found.escape_debug()
    ))
}

/// `1,2,3`
pub(super) fn joined(taps: &[usize]) -> String {
    let numbers: Vec<_> = taps.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

/// Which taps an architecture lets a caller take.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    /// Some of these.
    Among(RangeInclusive<usize>),
    /// The default ones, all of them.
    Fixed,
}

impl Choice {
    /// Refuses taps of the backbone `id` that are not there.
    pub(super) fn check(&self, id: &str, taps: &[usize], default: &[usize]) -> Result<()> {
        match self {
            Self::Among(all) => match taps.iter().find(|tap| !all.contains(tap)) {
                None => Ok(()),
                Some(tap) => Err(Error::Invalid(format!(
                    "backbone `{id}` has no tap {tap}: there are {} to {}, by default it is {}",
                    all.start(),
                    all.end(),
                    joined(default)
                ))),
            },
            Self::Fixed if taps == default => Ok(()),
            Self::Fixed => Err(Error::Invalid(format!(
                "backbone `{id}` cannot be tapped at {}: its taps are {}, all of them",
                joined(taps),
                joined(default)
            ))),
        }
    }
}

/// The last of the taps in force, which must be ascending and in `all`: for a network that is built by hand.
pub(super) fn last(info: &BackboneInfo, all: RangeInclusive<usize>) -> Result<usize> {
    let taps = Taps::new(info.taps.clone())?;
    Choice::Among(all).check(&info.id, taps.as_slice(), &info.default_taps)?;
    Ok(info.taps[info.taps.len() - 1])
}

/// Taps in words: `block 7`, `stages 1-3`, `stages 2, 4`.
pub(super) fn described(noun: &str, taps: &[usize]) -> String {
    match taps {
        [tap] => format!("{noun} {tap}"),
        [first, .., last] if last - first + 1 == taps.len() => format!("{noun}s {first}-{last}"),
        _ => format!("{noun}s {}", joined(taps).replace(',', ", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_and_json_are_taps_and_back() {
        let taps: Taps = "2, 3".parse().unwrap();
        assert_eq!(taps.as_slice(), [2, 3]);
        assert_eq!(taps.to_string(), "2,3");
        let json = serde_json::to_string(&taps).unwrap();
        assert_eq!(json, "[2,3]");
        assert_eq!(serde_json::from_str::<Taps>(&json).unwrap(), taps);
    }

    #[test]
    fn what_is_no_ascending_list_is_refused() {
        for text in ["", "x", "1,,2", "3,2", "2,2", "-1", "1.5"] {
            let error = text.parse::<Taps>().unwrap_err().to_string();
            assert!(error.contains(&format!("taps `{text}`")), "{error}");
        }
        for json in ["[]", "[3,2]", "[1,1]", "[-1]"] {
            assert!(serde_json::from_str::<Taps>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_tap_that_is_not_there_is_told_with_those_that_are() {
        let check = |choice: Choice, taps: &[usize]| choice.check("net", taps, &[2, 3]);
        assert!(check(Choice::Among(1..=4), &[1, 4]).is_ok());
        assert!(check(Choice::Fixed, &[2, 3]).is_ok());
        let error = check(Choice::Among(1..=4), &[3, 5])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no tap 5") && error.contains("1 to 4"),
            "{error}"
        );
        let error = check(Choice::Fixed, &[3]).unwrap_err().to_string();
        assert!(error.contains("its taps are 2,3"), "{error}");
    }

    #[test]
    fn words_for_a_listing() {
        assert_eq!(described("block", &[7]), "block 7");
        assert_eq!(described("stage", &[1, 2, 3]), "stages 1-3");
        assert_eq!(described("stage", &[2, 4]), "stages 2, 4");
    }
}
