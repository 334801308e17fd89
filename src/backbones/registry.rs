//! From an id to a backbone.

use std::path::Path;

use candle_core::Device;

use super::{
    Backbone, BackboneInfo, FeatureShape, cait, eva, resnet,
    row::{Row, Source},
    taps::Taps,
    vit, wavelet,
    weights::Weights,
};
use crate::{Advice, Error, Result, spelling::nearest};

/// Every family's rows, in the order of a listing.
static FAMILIES: &[&[Row]] = &[
    wavelet::ROWS,
    resnet::ROWS,
    vit::ROWS,
    cait::ROWS,
    eva::ROWS,
];

fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().copied().flatten()
}

/// Opens the backbone `id` with its default taps; `weights` is a safetensors file with timm's tensor names,
/// and may be none only where [`needs_weights`] says so.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id, [`Error::Tensor`] or [`Error::Config`] for a file that does not fit.
pub fn load(id: &str, weights: Option<&Path>, device: &Device) -> Result<Box<dyn Backbone>> {
    load_with(id, None, weights, device)
}

/// [`load`] with other taps than the default ones; what lies behind the last is neither built nor read.
///
/// # Errors
/// As [`load`], and [`Error::Invalid`] for taps that the backbone has not.
pub fn load_with(
    id: &str,
    taps: Option<&Taps>,
    weights: Option<&Path>,
    device: &Device,
) -> Result<Box<dyn Backbone>> {
    let (row, tag) = find(id)?;
    row.check_built()?;
    let info = row.info(tag, taps)?;
    let weights = weights
        .map(|path| Weights::open(path, device))
        .transpose()?;
    row.network.build(info, &Source { weights, device })
}

/// The backbone `id` with seeded random weights: for measuring speed, never for detecting.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn load_random(id: &str, seed: u64, device: &Device) -> Result<Box<dyn Backbone>> {
    load_random_with(id, None, seed, device)
}

/// [`load_random`] with other taps than the default ones.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id, [`Error::Invalid`] for taps that the backbone has not.
pub fn load_random_with(
    id: &str,
    taps: Option<&Taps>,
    seed: u64,
    device: &Device,
) -> Result<Box<dyn Backbone>> {
    let (row, tag) = find(id)?;
    row.check_built()?;
    let weights = Some(Weights::random(seed, device));
    row.network
        .build(row.info(tag, taps)?, &Source { weights, device })
}

/// What the backbone `id` is with its default taps.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn info(id: &str) -> Result<BackboneInfo> {
    info_with(id, None)
}

/// [`info`] with other taps than the default ones.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id, [`Error::Invalid`] for taps that the backbone has not.
pub fn info_with(id: &str, taps: Option<&Taps>) -> Result<BackboneInfo> {
    let (row, tag) = find(id)?;
    row.info(tag, taps)
}

/// Shapes of the maps of backbone `id` for an input of `height` x `width` pixels, finest first: what
/// [`Backbone::shapes`] says, without its weights.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id, and when the input size does not fit the architecture.
pub fn shapes(id: &str, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
    shapes_with(id, None, height, width)
}

/// [`shapes`] with other taps than the default ones.
///
/// # Errors
/// As [`shapes`], and [`Error::Invalid`] for taps that the backbone has not.
pub fn shapes_with(
    id: &str,
    taps: Option<&Taps>,
    height: usize,
    width: usize,
) -> Result<Vec<FeatureShape>> {
    let (row, tag) = find(id)?;
    row.check_built()?;
    let info = row.info(tag, taps)?;
    row.network.shapes(&info.taps, height, width)
}

/// The taps that the backbone `id` has unless others are asked for.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn default_taps(id: &str) -> Result<Vec<usize>> {
    Ok(find(id)?.0.default_taps.to_vec())
}

/// Every tap that the backbone `id` has. Those of a file may be fewer: its last blocks or stage may be cut off.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn all_taps(id: &str) -> Result<Vec<usize>> {
    Ok(find(id)?.0.all_taps())
}

/// Every architecture that this build can load, with its default tag and taps.
pub fn list() -> Vec<BackboneInfo> {
    let built = rows().filter(|row| row.lacks.is_none());
    // The default taps are there: the tests ask every row.
    built
        .filter_map(|row| row.info(row.default_tag(), None).ok())
        .collect()
}

/// The full `arch.tag` of an id that may be an architecture alone.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn resolve_id(id: &str) -> Result<String> {
    Ok(info(id)?.id)
}

/// Whether the backbone `id` is read from a file; unknown ids do.
pub fn needs_weights(id: &str) -> bool {
    find(id).map_or(true, |(row, _)| !row.tags.is_empty())
}

/// The row and the tag that `id` means.
fn find(id: &str) -> Result<(&'static Row, Option<&str>)> {
    let (arch, tag) = match id.split_once('.') {
        Some((arch, tag)) => (arch, Some(tag)),
        None => (id, None),
    };
    let row = rows().find(|row| row.arch == arch);
    match (row, tag) {
        (Some(row), None) => Ok((row, row.default_tag())),
        (Some(row), Some(tag)) if !row.tags.is_empty() && !tag.is_empty() => Ok((row, Some(tag))),
        _ => Err(Error::Unknown {
            kind: "backbone",
            name: id.to_owned(),
            hint: hint(arch),
        }
        .advise(Advice::KnownBackbones)),
    }
}

/// The known architectures most like `arch`.
fn hint(arch: &str) -> String {
    let built = rows().filter(|row| row.lacks.is_none());
    let known: Vec<_> = built.map(|row| row.arch).collect();
    match nearest(arch, known).join(", ") {
        none if none.is_empty() => "no known one is spelt like it".to_owned(),
        close => format!("nearest known: {close}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backbones::row::UNKNOWN_LICENCE;

    #[test]
    fn a_bare_architecture_means_the_default_tag() {
        for (arch, id) in [
            ("resnet18", "resnet18.tv_in1k"),
            ("resnet34", "resnet34.tv_in1k"),
            ("resnet50", "resnet50.tv_in1k"),
            ("resnet101", "resnet101.tv_in1k"),
            ("wide_resnet50_2", "wide_resnet50_2.racm_in1k"),
            ("wavelet", "wavelet"),
        ] {
            assert_eq!(resolve_id(arch).unwrap(), id);
        }
    }

    #[test]
    fn any_tag_of_a_known_architecture_is_accepted() {
        let known = info("resnet18.a1_in1k").unwrap();
        assert_eq!((known.licence, known.arch), ("Apache-2.0", "resnet18"));
        assert_eq!(known.hub_repo.as_deref(), Some("timm/resnet18.a1_in1k"));
        assert_eq!(info("resnet18.mine").unwrap().licence, UNKNOWN_LICENCE);
    }

    #[test]
    fn unknown_ids_suggest_the_nearest() {
        for id in [
            "resnet81",
            "resnet18x.tv_in1k",
            "wavelet.tag",
            "resnet18.",
            "",
        ] {
            let error = info(id).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("unknown backbone `{id}`")),
                "{error}"
            );
        }
        let error = info("wide_resnet50").unwrap_err().to_string();
        assert!(error.contains("nearest known: wide_resnet50_2"), "{error}");
    }

    #[test]
    fn what_cannot_be_loaded_is_known_but_neither_listed_nor_suggested() {
        let eva = "eva02_base_patch14_448";
        let built = cfg!(feature = "transformers");
        assert_eq!(list().iter().any(|info| info.arch == eva), built);
        assert_eq!(hint("eva02").contains(eva), built);
        assert_eq!(info(eva).unwrap().licence, "MIT");
        if !built {
            let error = load_random(eva, 0, &Device::Cpu).err().unwrap().to_string();
            assert!(error.contains("feature `transformers`"), "{error}");
            assert!(shapes(eva, 448, 448).is_err());
        }
    }

    #[test]
    fn the_registry_is_consistent() {
        let listed = list().len();
        assert_eq!(listed, rows().filter(|row| row.lacks.is_none()).count());
        for row in rows() {
            let info = row.info(row.default_tag(), None).unwrap();
            assert_eq!(resolve_id(&info.id).unwrap(), info.id);
            assert_eq!(needs_weights(&info.id), info.hub_repo.is_some());
            assert_eq!(rows().filter(|other| other.arch == info.arch).count(), 1);
            assert_eq!((&info.taps, info.chosen_taps()), (&info.default_taps, None));
            assert_eq!(info.taps, default_taps(&info.id).unwrap());
            let all = Taps::new(all_taps(row.arch).unwrap()).unwrap();
            assert_eq!(
                info_with(row.arch, Some(&all)).unwrap().taps,
                all.as_slice()
            );
            let none = "999".parse().unwrap();
            let error = info_with(row.arch, Some(&none)).unwrap_err().to_string();
            assert!(error.contains("999") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn shapes_need_no_weights() {
        for (id, taps, side) in [
            ("wavelet", None, 64),
            ("resnet18", None, 100),
            ("resnet18", Some("2,4"), 100),
            ("resnet50", Some("1"), 64),
            ("wide_resnet50_2", None, 64),
            ("deit_tiny_patch16_224", None, 64),
            ("deit_tiny_patch16_224", Some("0,2"), 64),
            ("vit_small_patch14_dinov2", None, 56),
            ("cait_xxs24_224", None, 64),
        ] {
            let taps = taps.map(|taps| taps.parse::<Taps>().unwrap());
            let backbone = load_random_with(id, taps.as_ref(), 0, &Device::Cpu).unwrap();
            let found = shapes_with(id, taps.as_ref(), side, 2 * side).unwrap();
            assert_eq!(found, backbone.shapes(side, 2 * side).unwrap(), "{id}");
            assert_eq!(found.len(), backbone.info().taps.len(), "{id}");
            assert_eq!(backbone.info().chosen_taps(), taps, "{id}");
        }
        assert!(shapes("wavelet", 65, 64).is_err() && shapes("cait_m48_448", 100, 96).is_err());
    }

    #[test]
    fn weights_are_asked_for_by_name() {
        let error = load("resnet18", None, &Device::Cpu)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("resnet18.tv_in1k") && error.contains("`backbone_weights`"));
    }
}
