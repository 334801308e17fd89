//! What a detector is called: `bottle`, `bottle@cait`, `bottle@resnet18-patchcore`, `org/repo`, `org/repo@revision` or a
//! folder.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{Error, Result, estimators::Method, spelling::nearest};

/// The organisation of short names when `FASTFLOW_NAMESPACE` is not set. Reading only: what is
/// published without a name goes to the token's owner.
pub const DEFAULT_NAMESPACE: &str = "candle-fastflow";

/// The backbone of a short name without one. ResNet-18 is the one that any machine can run.
pub const DEFAULT_BACKBONE: &str = "resnet18";

/// The file with a backbone's weights, in timm's repositories and in folders.
pub(super) const BACKBONE_FILE: &str = "model.safetensors";

/// Repositories of detectors are called `fastflow-<backbone>-<category>`, of another method than FastFlow
/// `fastflow-<backbone>-<method>-<category>`: the program's name in front, whatever the method.
const PREFIX: &str = "fastflow-";

/// Short spellings of timm architectures; every other backbone is spelt as timm does.
const SHORT_BACKBONES: [(&str, &str); 4] = [
    ("cait", "cait_m48_448"),
    ("deit", "deit_base_distilled_patch16_384"),
    ("dinov2", "vit_base_patch14_dinov2"),
    ("wrn50", "wide_resnet50_2"),
];

/// A repository on the Hub, `owner/name`, both spelt as the Hub allows. The spelling is checked
/// once, here, so that a repository's name can always be part of a path or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId {
    owner: String,
    name: String,
}

impl RepoId {
    /// Checks and makes an id.
    ///
    /// # Errors
    /// When a part is empty, longer than 96 characters, or spelt as the Hub does not allow.
    pub fn new(owner: &str, name: &str) -> Result<Self> {
        for part in [owner, name] {
            if !is_hub_name(part) {
                return Err(not_a_repo(&format!("{owner}/{name}")));
            }
        }
        Ok(Self {
            owner: owner.into(),
            name: name.into(),
        })
    }

    /// Reads `owner/name`.
    ///
    /// # Errors
    /// As [`RepoId::new`], and when there is not exactly one slash.
    pub fn parse(id: &str) -> Result<Self> {
        match id.split_once('/') {
            Some((owner, name)) => Self::new(owner, name),
            None => Err(not_a_repo(id)),
        }
    }

    /// The repository of the detector of a method for `category` on `backbone` (an architecture or `arch.tag`).
    ///
    /// # Errors
    /// As [`RepoId::new`].
    pub fn of_detector(
        namespace: &str,
        backbone: &str,
        method: Method,
        category: &str,
    ) -> Result<Self> {
        let arch = backbone.split('.').next().unwrap_or(backbone);
        // FastFlow is named only where the category alone would be read as another method's.
        let method = match method {
            Method::FastFlow if without_method(category).is_none() => String::new(),
            method => format!("{method}-"),
        };
        Self::new(namespace, &format!("{PREFIX}{arch}-{method}{category}"))
    }

    /// User or organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Backbone architecture, method and category, if the repository is named as a detector's is.
    pub fn detector_parts(&self) -> Option<(&str, Method, &str)> {
        let (arch, rest) = self.name.strip_prefix(PREFIX)?.split_once('-')?;
        let (method, category) = without_method(rest).unwrap_or((Method::FastFlow, rest));
        Some((arch, method, category))
    }

    /// What [`DetectorName::parse`] understands as this repository: the category, with what is not usual after an
    /// `@`; a method always beside its backbone.
    pub fn short_name(&self, namespace: &str) -> String {
        match self.detector_parts() {
            Some((arch, method, category)) if self.owner == namespace => {
                match (shortened(arch), method) {
                    (DEFAULT_BACKBONE, Method::FastFlow) => category.into(),
                    (short, Method::FastFlow) => format!("{category}@{short}"),
                    (short, method) => format!("{category}@{short}-{method}"),
                }
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Where a detector is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectorName {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A repository on the Hub.
    Repo {
        /// The repository.
        repo: RepoId,
        /// Branch, tag or commit; none for the main branch.
        revision: Option<String>,
    },
}

impl DetectorName {
    /// Reads a name. What looks like a path (`./x`, `/x`, `~/x`, `x/y/z`, `x/`) is a folder, and so
    /// is any existing folder that holds a `config.json`; everything else names a repository.
    ///
    /// # Errors
    /// When the name is neither a path nor spelt as the Hub allows, or names a method that there is not.
    pub fn parse(name: &str, namespace: &str) -> Result<Self> {
        if looks_like_path(name) || Path::new(name).join("config.json").is_file() {
            return Ok(Self::Folder(PathBuf::from(name)));
        }
        let (id, after_at) = match name.split_once('@') {
            Some((id, after)) => (id, Some(after)),
            None => (name, None),
        };
        if id.contains('/') {
            let revision = after_at.map(checked_revision).transpose()?;
            let repo = RepoId::parse(id)?;
            return Ok(Self::Repo { repo, revision });
        }
        let (backbone, method) = match after_at {
            None => (DEFAULT_BACKBONE, Method::FastFlow),
            Some(after) => backbone_and_method(after)?,
        };
        let repo = RepoId::of_detector(namespace, expanded(backbone), method, id).map_err(|_| {
            Error::Invalid(format!(
                "`{name}` is not a detector's name; expected bottle, bottle@cait, bottle@resnet18-patchcore, org/repo, org/repo@revision or a folder"
            ))
        })?;
        Ok(Self::Repo {
            repo,
            revision: None,
        })
    }
}

/// A branch, tag or commit, if git and the cache's folders can hold its spelling.
///
/// # Errors
/// When it is empty or holds `..`, empty parts, or other than letters, digits and `-_./`.
pub fn checked_revision(revision: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let parts_fit = revision
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(".."));
    if parts_fit && revision.chars().all(plain) && !revision.starts_with('-') {
        return Ok(revision.into());
    }
    Err(Error::Invalid(format!(
        "`{revision}` is not a revision: a branch, a tag or a commit of 40 hexadecimal digits is expected"
    )))
}

/// What stands after the `@` of a short name: a backbone, `backbone-method`, or a method on the default backbone. No
/// backbone's id holds a `-`.
fn backbone_and_method(after: &str) -> Result<(&str, Method)> {
    let named = |word: &str| Method::ALL.into_iter().find(|method| method.word() == word);
    if let Some(method) = named(after) {
        return Ok((DEFAULT_BACKBONE, method));
    }
    let Some((backbone, word)) = after.rsplit_once('-') else {
        return Ok((after, Method::FastFlow));
    };
    let method = named(word).ok_or_else(|| {
        let words = Method::ALL.map(Method::word);
        let close = nearest(word, words).join(", ");
        let hint = match close.is_empty() {
            true => format!("the methods are {}", words.join(", ")),
            false => format!("did you mean {close}?"),
        };
        Error::Unknown {
            kind: "method",
            name: word.escape_debug().to_string(),
            hint,
        }
    })?;
    Ok((backbone, method))
}

/// The method that a text begins with, and what follows it: of a repository's name the category.
fn without_method(text: &str) -> Option<(Method, &str)> {
    let (word, rest) = text.split_once('-')?;
    let method = Method::ALL
        .into_iter()
        .find(|method| method.word() == word)?;
    Some((method, rest))
}

fn expanded(backbone: &str) -> &str {
    let found = SHORT_BACKBONES.iter().find(|(short, _)| *short == backbone);
    found.map_or(backbone, |(_, arch)| arch)
}

fn shortened(arch: &str) -> &str {
    let found = SHORT_BACKBONES.iter().find(|(_, long)| *long == arch);
    found.map_or(arch, |(short, _)| short)
}

fn looks_like_path(name: &str) -> bool {
    let first = name.chars().next().unwrap_or('.');
    ".~/\\".contains(first)
        || name.ends_with('/')
        || name.contains('\\')
        || Path::new(name).is_absolute()
        || name.split('@').next().unwrap_or(name).matches('/').count() > 1
}

fn not_a_repo(id: &str) -> Error {
    Error::Invalid(format!(
        "`{}` is not a repository; expected org/name of letters, digits, `-`, `_` and single dots",
        id.escape_debug()
    ))
}

/// The Hub's rule for one part of a repository's id.
pub(super) fn is_hub_name(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c: char| "-.".contains(c);
    !part.is_empty()
        && part.len() <= 96
        && part.chars().all(plain)
        && !part.starts_with(ends)
        && !part.ends_with(ends)
        && !part.contains("--")
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn repo(name: &str) -> (String, Option<String>) {
        match DetectorName::parse(name, "zoo").unwrap() {
            DetectorName::Repo { repo, revision } => (repo.to_string(), revision),
            DetectorName::Folder(path) => panic!("{name} is a folder: {}", path.display()),
        }
    }

    #[test]
    fn every_spelling_of_a_repository() {
        for (name, id, revision) in [
            ("bottle", "zoo/fastflow-resnet18-bottle", None),
            ("bottle@cait", "zoo/fastflow-cait_m48_448-bottle", None),
            (
                "metal_nut@wide_resnet50_2",
                "zoo/fastflow-wide_resnet50_2-metal_nut",
                None,
            ),
            (
                "bottle@resnet18.tv_in1k",
                "zoo/fastflow-resnet18-bottle",
                None,
            ),
            (
                "bottle@resnet18-patchcore",
                "zoo/fastflow-resnet18-patchcore-bottle",
                None,
            ),
            ("bottle@padim", "zoo/fastflow-resnet18-padim-bottle", None),
            (
                "bottle@cait-fastflow",
                "zoo/fastflow-cait_m48_448-bottle",
                None,
            ),
            (
                "my-bottle@wrn50-mahalanobis",
                "zoo/fastflow-wide_resnet50_2-mahalanobis-my-bottle",
                None,
            ),
            ("org/repo", "org/repo", None),
            ("org/repo@v1.0", "org/repo", Some("v1.0")),
            ("org/repo@refs/pr/3", "org/repo", Some("refs/pr/3")),
        ] {
            assert_eq!(
                repo(name),
                (id.into(), revision.map(String::from)),
                "{name}"
            );
        }
    }

    #[test]
    fn paths_are_folders() {
        for name in [
            "./bottle", "../x", "/tmp/x", "~/x", "runs/a/b", "bottle/", ".", "a\\b",
        ] {
            let parsed = DetectorName::parse(name, "zoo").unwrap();
            assert_eq!(parsed, DetectorName::Folder(name.into()), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let name = folder.path().to_str().unwrap();
        assert_eq!(
            DetectorName::parse(name, "zoo").unwrap(),
            DetectorName::Folder(name.into())
        );
    }

    #[test]
    fn misspelt_names_are_refused() {
        for name in [
            "bot tle",
            "bottle@",
            "bottle@a/b@c",
            "bottle\n",
            "org/re--po",
            "org/-x",
            "org/x.",
            "org/a..b",
            "org/repo@",
            "org/repo@../../etc",
            "org/repo@/abs",
            "org/repo@a//b",
            "org/repo@a b",
            "org/repo@.git",
        ] {
            let parsed = DetectorName::parse(name, "zoo");
            assert!(parsed.is_err(), "{name:?}: {parsed:?}");
        }
    }

    #[test]
    fn short_names_lead_back() {
        for name in [
            "bottle",
            "bottle@cait",
            "metal_nut@wrn50",
            "tile@wavelet",
            "bottle@resnet18-patchcore",
            "my-bottle@cait-padim",
            // Categories that are called as methods are.
            "patchcore",
            "patchcore-box",
            "fastflow-box@wavelet",
            "padim-box@cait-patchcore",
            "other/repo",
        ] {
            let DetectorName::Repo { repo, .. } = DetectorName::parse(name, "zoo").unwrap() else {
                panic!("{name} is a folder")
            };
            assert_eq!(repo.short_name("zoo"), name);
        }
    }

    #[test]
    fn every_method_leads_back_and_no_two_detectors_are_one_repository() {
        let mut seen = std::collections::BTreeSet::new();
        for method in Method::ALL {
            for category in ["bottle", "patchcore-bottle", "fastflow-bottle"] {
                let repo = RepoId::of_detector("zoo", "resnet18", method, category).unwrap();
                assert_eq!(repo.detector_parts(), Some(("resnet18", method, category)));
                assert!(seen.insert(repo.clone()), "{repo}");
            }
        }
    }

    #[test]
    fn a_misspelt_method_is_told_with_the_nearest() {
        let error = |name| DetectorName::parse(name, "zoo").unwrap_err().to_string();
        let found = error("bottle@resnet18-patchcor");
        assert!(
            found.contains("`patchcor`") && found.contains("did you mean patchcore"),
            "{found}"
        );
        let found = error("bottle@resnet18-zzz");
        assert!(found.contains("fastflow, patchcore"), "{found}");
    }
}
