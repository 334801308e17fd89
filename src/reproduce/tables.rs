//! The paper's tables with our figures beside it.

use std::path::Path;

use super::{
    aggregate::{Measured, Sample, measured, results, samples},
    line::{Figures, line},
    plan::{BASE, Plan, Variant},
    published::{Ablation, ByCategory, Published, published},
    speeds::{MethodSpeed, speeds},
    table::{Entry, Table, Tables},
};
use crate::{Result, datasets, datasets::cifar10, evaluation::Metrics};

mod complexity;
mod notes;

use notes::notes;

/// The tables of `plan` from the results below `out`; what was not run is empty.
///
/// # Errors
/// Only when the program's own published figures are broken.
pub fn tables(plan: &Plan, out: &Path) -> Result<Tables> {
    let (published, results) = (published()?, results(plan, out));
    let (samples, speeds) = (samples(plan, &results), speeds(plan, out));
    let maker = Maker {
        plan,
        samples: &samples,
        speeds: &speeds,
        published,
    };
    let tables = match plan.dataset.as_str() {
        "mvtec-ad" => vec![
            maker.complexity(),
            maker.by_category(
                2,
                "MVTec AD: image and pixel AUROC",
                &published.mvtec,
                &["image", "pixel"],
            ),
            maker.ablation(
                5,
                "Kernels of the subnets",
                "kernels",
                &["kernels"],
                &published.kernels,
                |s, row| {
                    let flow = s.result.estimator.as_flow();
                    let kernels = flow.and_then(|flow| serde_json::to_value(flow.kernels).ok());
                    kernels.is_some_and(|kernels| kernels == *row.what)
                },
            ),
            maker.ablation(
                7,
                "Hidden width of the subnets, in the paper's ratios",
                "ratio",
                &["hidden"],
                &published.hidden,
                |s, row| {
                    let flow = s.result.estimator.as_flow();
                    flow.is_some_and(|flow| row.first == flow.hidden.first().copied())
                },
            ),
            maker.ablation(
                8,
                "Augmentation",
                "augmentation",
                &["views"],
                &published.augmentation,
                |s, row| (s.result.inputs.settings.views > 1) == (row.what == "with"),
            ),
        ],
        "btad" => vec![
            maker.by_category(3, "BTAD: pixel AUROC", &published.btad, &["pixel"]),
            maker.complexity(),
        ],
        "cifar10" => vec![maker.cifar(), maker.complexity()],
        _ => vec![maker.complexity(), maker.own_categories()],
    };
    let variants = (plan.variants.len() > 1).then(|| maker.variants());
    Ok(Tables {
        dataset: datasets::known(&plan.dataset)
            .map_or(&*plan.dataset, |set| set.name)
            .into(),
        cells: plan.cells().len(),
        done: results.len(),
        notes: notes(plan, published, maker.threads()),
        tables: tables.into_iter().chain(variants).collect(),
    })
}

/// One of the plan's methods: the base, or a variant that changes nothing else.
struct Own<'a> {
    variant: &'a Variant,
    /// As tables call it.
    title: String,
}

struct Maker<'a> {
    plan: &'a Plan,
    samples: &'a [Sample<'a>],
    speeds: &'a [MethodSpeed],
    published: &'a Published,
}

impl Maker<'_> {
    /// Samples of a variant on one backbone, by its full id: tags of one architecture are other weights.
    fn of<'s>(&'s self, variant: &'s str, id: &'s str) -> impl Iterator<Item = &'s Sample<'s>> {
        let samples = self.samples.iter();
        samples.filter(move |s| s.variant == variant && s.cell.backbone == id)
    }

    /// The plan's methods, the base first.
    fn methods(&self) -> Vec<Own<'_>> {
        let methods = self.plan.variants.iter().filter(|v| v.is_of_a_method());
        let own = methods.map(|variant| Own {
            variant,
            title: self.title(variant),
        });
        own.collect()
    }

    /// The same with the backbones that each is for, method by method.
    fn method_pairs(&self) -> Vec<(Own<'_>, &str)> {
        let mut pairs = Vec::new();
        for id in &self.plan.backbones {
            let of = self.methods().into_iter();
            pairs.extend(of.filter(|own| own.is_on(id)).map(|own| (own, id.as_str())));
        }
        pairs
    }

    /// The method's title, whether anything was run or not.
    fn title(&self, variant: &Variant) -> String {
        let category = self.plan.categories.first().map_or("", String::as_str);
        let named = || {
            let settings = self.plan.settings(variant, category).ok()?;
            let config = settings.resolve(variant.backbones.first()?, 0).ok()?;
            let title = config.estimator.title();
            Some(match settings.chosen_method() {
                None => format!("default recipe ({title})"),
                Some(_) if variant.name == BASE || variant.is_plain() => title.to_string(),
                Some(_) => format!("{title} ({})", variant.name),
            })
        };
        named().unwrap_or_else(|| variant.name.clone())
    }

    /// Worker threads of the first measurement.
    fn threads(&self) -> Option<usize> {
        let cell = self.samples.first().map(|s| s.result.speed.threads);
        cell.or(self.speeds.first().map(|s| s.speed.threads))
    }

    /// The plan's backbones of an architecture; where it has none the architecture, of which no sample is.
    fn ids<'s>(&'s self, of: &'s str) -> Vec<&'s str> {
        let all = self.plan.backbones.iter().map(String::as_str);
        let ids: Vec<&str> = all.filter(|id| arch(id) == of).collect();
        if ids.is_empty() { vec![of] } else { ids }
    }

    /// What a backbone is called beside others: `name`, or its full id where the plan has its architecture twice.
    fn label<'s>(&self, id: &'s str, name: &'s str) -> &'s str {
        match self.ids(arch(id)).len() {
            1 => name,
            _ => id,
        }
    }

    /// Categories that a mean must be over to stand beside the paper's: its, or the plan's where those are more.
    fn categories(&self, planned: usize) -> usize {
        let published = match self.plan.dataset.as_str() {
            "mvtec-ad" => self.published.mvtec.categories.len(),
            "btad" => self.published.btad.categories.len(),
            "cifar10" => cifar10::CLASSES.len(),
            _ => 0,
        };
        planned.max(published)
    }

    /// The mean over all categories.
    fn mean<'s>(&self, samples: impl Iterator<Item = &'s Sample<'s>>, metric: &str) -> Entry {
        let value = |sample: &Sample| sample.percent(metric);
        let of = self.categories(self.plan.categories.len());
        measured(samples, value, of).into()
    }

    /// The same without CIFAR-10's second protocol, which is another test.
    fn mean_of_one_protocol(&self, variant: &str, backbone: &str, metric: &str) -> Entry {
        let first = |category: &str| !category.starts_with(cifar10::INVERSE);
        let samples = self.of(variant, backbone);
        let samples = samples.filter(|s| first(&s.cell.category));
        let of = self.plan.categories.iter().filter(|c| first(c)).count();
        measured(samples, |s| s.percent(metric), self.categories(of)).into()
    }

    /// Tables 2 and 3: a row a category, a column (or two) a method.
    fn by_category<T: Copy + Figures>(
        &self,
        number: u8,
        title: &str,
        theirs: &ByCategory<T>,
        kinds: &[&str],
    ) -> Table {
        // The paper's own method comes first, so that ours stand beside it.
        let (first, others) = theirs.methods.split_at(theirs.methods.len().min(1));
        let pairs = self.method_pairs();
        let ours = pairs
            .iter()
            .map(|(own, id)| format!("ours, {}, {}", own.title, self.label(id, arch(id))));
        let methods = first
            .iter()
            .cloned()
            .chain(ours)
            .chain(others.iter().cloned());
        let mut columns = vec!["category".to_string()];
        for method in methods {
            columns.extend(kinds.iter().map(|kind| format!("{method}: {kind}")));
        }
        let theirs_only = theirs
            .categories
            .keys()
            .filter(|c| !self.plan.categories.contains(c));
        let mut rows: Vec<Vec<Entry>> = Vec::new();
        for category in self.plan.categories.iter().chain(theirs_only) {
            let figures = theirs
                .categories
                .get(category)
                .map_or(&[][..], Vec::as_slice);
            let ours = self.own_figures(Some(category), kinds);
            rows.push(line(category, ours, figures, theirs.methods.len()));
        }
        let ours = self.own_figures(None, kinds);
        rows.push(line("mean", ours, &theirs.mean, theirs.methods.len()));
        Table {
            number: Some(number),
            title: title.into(),
            decimals: vec![1; columns.len()],
            columns,
            rows,
        }
    }

    /// Figures of every backbone and method, for one category or their mean.
    fn own_figures(&self, category: Option<&str>, kinds: &[&str]) -> Vec<Entry> {
        let mut row = Vec::new();
        for (own, backbone) in self.method_pairs() {
            for kind in kinds {
                let metric = format!("{kind}_auroc");
                let samples = self.of(&own.variant.name, backbone);
                row.push(match category {
                    None => self.mean(samples, &metric),
                    Some(category) => {
                        let samples = samples.filter(|s| s.cell.category == category);
                        measured(samples, |s| s.percent(&metric), 1).into()
                    }
                });
            }
        }
        row
    }

    /// The categories of a data set that the paper does not have.
    fn own_categories(&self) -> Table {
        let none: ByCategory<f64> = ByCategory {
            methods: Vec::new(),
            mean: Vec::new(),
            categories: Default::default(),
        };
        Table {
            number: None,
            ..self.by_category(0, "Categories", &none, &["image", "pixel"])
        }
    }

    /// Table 4: ours in the plan's protocols, each the mean of its classes.
    fn cifar(&self) -> Table {
        let mut rows = Vec::new();
        for (inverse, what) in [(false, "one class normal"), (true, "one class anomalous")] {
            let is = |category: &str| category.starts_with(cifar10::INVERSE) == inverse;
            if !self.plan.categories.iter().any(|category| is(category)) {
                continue;
            }
            for (own, backbone) in self.method_pairs() {
                let samples = self.of(&own.variant.name, backbone);
                let samples = samples.filter(|s| is(&s.cell.category));
                let figure = measured(samples, |s| s.percent(IMAGE), cifar10::CLASSES.len());
                let backbone = self.label(backbone, arch(backbone));
                let name = format!("{}, ours, {backbone}, {what}", own.title);
                rows.push(vec![Entry::Text(name), figure.into()]);
            }
        }
        let theirs = &self.published.cifar;
        for (method, mean) in theirs.methods.iter().zip(&theirs.mean) {
            rows.push(vec![Entry::Text(method.clone()), Entry::Published(*mean)]);
        }
        Table {
            number: Some(4),
            title: "CIFAR-10: image AUROC, mean of the ten classes".into(),
            columns: heads(&["method", Metrics::label("image_auroc")]),
            decimals: vec![0, 1],
            rows,
        }
    }

    /// Tables 5, 7 and 8: what `is` the row's setting, nothing but `changes` differing from the plan's settings.
    fn ablation(
        &self,
        number: u8,
        title: &str,
        what: &str,
        changes: &[&str],
        theirs: &[Ablation],
        is: impl Fn(&Sample, &Ablation) -> bool,
    ) -> Table {
        let with_params = theirs.iter().any(|row| row.params.is_some());
        let mut rows = Vec::new();
        let pairs = theirs.iter().flat_map(|row| {
            let ids = self.ids(&row.backbone).into_iter();
            ids.map(move |id| (row, id))
        });
        for (row, id) in pairs {
            let alike =
                |s: &&Sample| s.cell.backbone == id && s.changes_only(changes) && is(s, row);
            let ours = || self.samples.iter().filter(alike);
            let mut entries = [self.label(id, &row.name), &row.what]
                .map(|text| Entry::Text(text.into()))
                .to_vec();
            if with_params {
                let params = ours().next().map(parameters);
                entries.extend([params.map_or(Entry::Empty, exact), row.params.into()]);
            }
            entries.extend([
                self.mean(ours(), IMAGE),
                Entry::Published(row.image),
                self.mean(ours(), PIXEL),
                Entry::Published(row.pixel),
            ]);
            rows.push(entries);
        }
        let mut columns = heads(&["backbone", what]);
        if with_params {
            columns.extend(heads(&["additional M, ours", "paper"]));
        }
        columns.extend(heads(&[
            "image AUROC, ours",
            "paper",
            "pixel AUROC, ours",
            "paper",
        ]));
        Table {
            number: Some(number),
            title: title.into(),
            decimals: vec![1; columns.len()],
            columns,
            rows,
        }
    }

    /// Every variant beside the base.
    fn variants(&self) -> Table {
        let mut rows = Vec::new();
        for backbone in &self.plan.backbones {
            for variant in self
                .plan
                .variants
                .iter()
                .filter(|v| v.backbones.contains(backbone))
            {
                let of = |s: &&Sample| s.variant == variant.name && s.cell.backbone == *backbone;
                let ours = || self.samples.iter().filter(of);
                rows.push(vec![
                    Entry::Text(self.label(backbone, arch(backbone)).into()),
                    Entry::Text(variant.name.clone()),
                    ours().next().map_or(Entry::Empty, |s| exact(parameters(s))),
                    self.mean(ours(), IMAGE),
                    self.mean(ours(), PIXEL),
                    self.mean(ours(), "aupro"),
                ]);
            }
        }
        Table {
            number: None,
            title: "Variants of the plan".into(),
            columns: heads(&[
                "backbone",
                "variant",
                "additional M",
                Metrics::label("image_auroc"),
                Metrics::label("pixel_auroc"),
                Metrics::label("aupro"),
            ]),
            decimals: vec![0, 0, 3, 1, 1, 1],
            rows,
        }
    }
}

impl Own<'_> {
    fn is_on(&self, backbone: &str) -> bool {
        self.variant.backbones.iter().any(|id| id == backbone)
    }
}

const IMAGE: &str = "image_auroc";
const PIXEL: &str = "pixel_auroc";

fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// timm's name without the tag: the paper's networks have other weights under the same name.
fn arch(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

/// In millions.
fn parameters(sample: &Sample) -> f64 {
    sample.result.speed.additional_params as f64 / 1e6
}

/// A figure that no seed changes.
fn exact(mean: f64) -> Entry {
    Entry::Measured(Measured {
        mean,
        std: None,
        seeds: 1,
        categories: 1,
        of: 1,
    })
}

#[cfg(test)]
mod tests;
