//! From an id to a backbone: the one match that builds it.

use std::path::Path;

use candle_core::Device;

use super::{
    Backbone, BackboneInfo, Family, FeatureShape,
    cait::{self, Cait},
    catalogue::{Network, ROWS, Row, UNKNOWN_LICENCE},
    resnet::ResNet,
    transformer::map_shape,
    vit::{self, Vit},
    wavelet::{self, Wavelet},
    weights::Weights,
};
use crate::{Error, Result, imaging::Preprocessing};

/// Opens the backbone `id`; `weights` is a safetensors file with timm's tensor names, and may be none only
/// where [`needs_weights`] says so.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id, [`Error::Tensor`] or [`Error::Config`] for a file that does not fit.
pub fn load(id: &str, weights: Option<&Path>, device: &Device) -> Result<Box<dyn Backbone>> {
    let (row, tag) = find(id)?;
    let info = row.info(tag);
    let weights = match weights {
        Some(path) => Some(Weights::open(path, device)?),
        None => None,
    };
    row.build(info, weights, device)
}

/// The backbone `id` with seeded random weights: for measuring speed, never for detecting.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn load_random(id: &str, seed: u64, device: &Device) -> Result<Box<dyn Backbone>> {
    let (row, tag) = find(id)?;
    row.build(row.info(tag), Some(Weights::random(seed, device)), device)
}

/// What the backbone `id` is.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id.
pub fn info(id: &str) -> Result<BackboneInfo> {
    let (row, tag) = find(id)?;
    Ok(row.info(tag))
}

/// Shapes of the maps of backbone `id` for an input of `height` x `width` pixels, finest first: what
/// [`Backbone::shapes`] says, without its weights.
///
/// # Errors
/// [`Error::Unknown`] for an unknown id, and when the input size does not fit the architecture.
pub fn shapes(id: &str, height: usize, width: usize) -> Result<Vec<FeatureShape>> {
    let (row, tag) = find(id)?;
    match &row.network {
        Network::ResNet(config) => Ok(config.shapes(height, width)),
        Network::Vit(config) => Ok(vec![map_shape(config.patch, config.width, height, width)?]),
        Network::Cait(config) => Ok(vec![map_shape(cait::PATCH, config.width, height, width)?]),
        Network::Eva {
            width: channels, ..
        } => eva_shapes(&row.info(tag).id, *channels, (height, width)),
        Network::Wavelet => wavelet::shapes(height, width),
    }
}

/// Every architecture with its default tag.
pub fn list() -> Vec<BackboneInfo> {
    ROWS.iter().map(|row| row.info(row.default_tag())).collect()
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

impl Row {
    fn default_tag(&self) -> Option<&'static str> {
        self.tags.first().map(|(tag, _)| *tag)
    }

    fn info(&self, tag: Option<&str>) -> BackboneInfo {
        let id = match tag {
            Some(tag) => format!("{}.{tag}", self.arch),
            None => self.arch.to_owned(),
        };
        let known = self.tags.iter().find(|(known, _)| Some(*known) == tag);
        let licence = match (tag, known) {
            (None, _) => "MIT OR Apache-2.0",
            (Some(_), Some((_, licence))) => licence,
            (Some(_), None) => UNKNOWN_LICENCE,
        };
        BackboneInfo {
            hub_repo: tag.map(|_| format!("timm/{id}")),
            id,
            arch: self.arch,
            family: self.network.family(),
            preprocessing: self.network.preprocessing(self.size),
            tap: self.network.tap(),
            licence,
        }
    }

    fn build(
        &self,
        info: BackboneInfo,
        weights: Option<Weights>,
        device: &Device,
    ) -> Result<Box<dyn Backbone>> {
        let id = info.id.clone();
        let weights = move || {
            weights.ok_or_else(|| {
                Error::Invalid(format!(
                    "backbone `{id}` needs its weights: give --backbone-weights FILE (timm/{id}, model.safetensors)"
                ))
            })
        };
        Ok(match &self.network {
            Network::ResNet(config) => Box::new(ResNet::new(info, config, &weights()?)?),
            Network::Vit(config) => Box::new(Vit::new(info, config, &weights()?)?),
            Network::Cait(config) => Box::new(Cait::new(info, config, &weights()?)?),
            Network::Eva { width, tap } => eva(info, *width, *tap, &weights()?)?,
            Network::Wavelet => Box::new(Wavelet::new(info, device)),
        })
    }
}

#[cfg(feature = "transformers")]
fn eva(
    info: BackboneInfo,
    width: usize,
    tap: usize,
    weights: &Weights,
) -> Result<Box<dyn Backbone>> {
    Ok(Box::new(super::eva::Eva::new(info, width, tap, weights)?))
}

#[cfg(feature = "transformers")]
fn eva_shapes(id: &str, channels: usize, input: (usize, usize)) -> Result<Vec<FeatureShape>> {
    super::eva::shapes(id, channels, input)
}

#[cfg(not(feature = "transformers"))]
fn eva(info: BackboneInfo, _: usize, _: usize, _: &Weights) -> Result<Box<dyn Backbone>> {
    Err(not_built(&info.id))
}

#[cfg(not(feature = "transformers"))]
fn eva_shapes(id: &str, _: usize, _: (usize, usize)) -> Result<Vec<FeatureShape>> {
    Err(not_built(id))
}

#[cfg(not(feature = "transformers"))]
fn not_built(id: &str) -> Error {
    Error::Invalid(format!(
        "backbone `{id}` is in builds with the feature `transformers` only: cargo install --path . --features transformers"
    ))
}

impl Network {
    fn family(&self) -> Family {
        match self {
            Network::ResNet(_) => Family::ResNet,
            Network::Vit(_) | Network::Cait(_) | Network::Eva { .. } => Family::Vit,
            Network::Wavelet => Family::Wavelet,
        }
    }

    fn preprocessing(&self, size: usize) -> Preprocessing {
        let imagenet = Preprocessing::imagenet(size);
        match self {
            Network::Wavelet => Preprocessing {
                mean: [0.0; 3],
                std: [1.0; 3],
                ..imagenet
            },
            _ => imagenet,
        }
    }

    fn tap(&self) -> String {
        match self {
            Network::ResNet(_) => "stages 1-3".into(),
            Network::Vit(vit::Config { tap, .. }) | Network::Cait(cait::Config { tap, .. }) => {
                format!("block {tap} (from 0), final norm")
            }
            Network::Eva { tap, .. } => format!("block {tap} (from 0)"),
            Network::Wavelet => "strides 4, 8, 16".into(),
        }
    }
}

/// The row and the tag that `id` means.
fn find(id: &str) -> Result<(&'static Row, Option<&str>)> {
    let (arch, tag) = match id.split_once('.') {
        Some((arch, tag)) => (arch, Some(tag)),
        None => (id, None),
    };
    let row = ROWS.iter().find(|row| row.arch == arch);
    match (row, tag) {
        (Some(row), None) => Ok((row, row.default_tag())),
        (Some(row), Some(tag)) if !row.tags.is_empty() && !tag.is_empty() => Ok((row, Some(tag))),
        _ => Err(Error::Unknown {
            kind: "backbone",
            name: id.to_owned(),
            hint: nearest(arch),
        }),
    }
}

/// The known architectures most like `arch`, as a hint.
fn nearest(arch: &str) -> String {
    let mut known: Vec<_> = ROWS
        .iter()
        .map(|row| (strsim::jaro_winkler(row.arch, arch), row.arch))
        .collect();
    known.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<_> = known.iter().take(3).map(|(_, arch)| *arch).collect();
    format!(
        "nearest known: {}; `fastflow list --backbones` shows all",
        names.join(", ")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_architecture_means_the_default_tag() {
        assert_eq!(resolve_id("resnet18").unwrap(), "resnet18.tv_in1k");
        assert_eq!(
            resolve_id("wide_resnet50_2").unwrap(),
            "wide_resnet50_2.racm_in1k"
        );
        assert_eq!(resolve_id("wavelet").unwrap(), "wavelet");
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
    fn the_registry_is_consistent() {
        let all = list();
        for info in &all {
            assert_eq!(resolve_id(&info.id).unwrap(), info.id);
            assert_eq!(needs_weights(&info.id), info.hub_repo.is_some());
            assert_eq!(
                all.iter().filter(|other| other.arch == info.arch).count(),
                1
            );
        }
    }

    #[test]
    fn shapes_need_no_weights() {
        for (id, side) in [
            ("wavelet", 64),
            ("resnet18", 100),
            ("wide_resnet50_2", 64),
            ("deit_tiny_patch16_224", 64),
            ("vit_small_patch14_dinov2", 56),
            ("cait_xxs24_224", 64),
        ] {
            let backbone = load_random(id, 0, &Device::Cpu).unwrap();
            let found = shapes(id, side, 2 * side).unwrap();
            assert_eq!(found, backbone.shapes(side, 2 * side).unwrap(), "{id}");
        }
        assert!(shapes("wavelet", 65, 64).is_err() && shapes("cait_m48_448", 100, 96).is_err());
    }

    #[test]
    fn weights_are_asked_for_by_name() {
        let error = load("resnet18", None, &Device::Cpu)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("resnet18.tv_in1k") && error.contains("--backbone-weights"));
    }
}
