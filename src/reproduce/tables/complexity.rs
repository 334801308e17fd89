//! Table 1: speed, additional time and parameters beside the AUROCs.

use super::{IMAGE, Maker, Own, PIXEL, arch, exact, heads};
use crate::{
    evaluation::Metrics,
    reproduce::{
        plan::BASE,
        table::{Entry, Table},
    },
    speed::{Speed, median},
};

impl Maker<'_> {
    /// Table 1, or its like on another data set: others' figures are of MVTec AD.
    pub(super) fn complexity(&self) -> Table {
        let mvtec = self.plan.dataset == "mvtec-ad";
        let mut rows = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for row in self.published.complexity.iter().filter(|_| mvtec) {
            if !seen.contains(&&*row.backbone) {
                seen.push(&row.backbone);
                for id in self.ids(&row.backbone) {
                    rows.extend(self.own_complexity(self.label(id, &row.name), id));
                }
            }
            let figures = [row.fps, row.ms, row.params, row.image, row.pixel];
            let texts = [&row.name, &row.method].map(|t| Entry::Text(t.clone()));
            rows.push(texts.into_iter().chain(figures.map(Entry::from)).collect());
        }
        for id in &self.plan.backbones {
            if !seen.contains(&arch(id)) {
                rows.extend(self.own_complexity(self.label(id, arch(id)), id));
            }
        }
        Table {
            number: mvtec.then_some(1),
            title: "Speed, additional time and parameters, AUROC".into(),
            columns: heads(&[
                "backbone",
                "method",
                "images/s",
                "additional ms",
                "additional M",
                Metrics::label("image_auroc"),
                Metrics::label("pixel_auroc"),
            ]),
            decimals: vec![0, 0, 2, 1, if mvtec { 1 } else { 3 }, 1, 1],
            rows,
        }
    }

    /// A row of ours for each method; of the base also where the plan lacks the backbone.
    fn own_complexity(&self, name: &str, backbone: &str) -> Vec<Vec<Entry>> {
        let methods = self.methods().into_iter();
        methods
            .filter(|own| own.variant.name == BASE || own.is_on(backbone))
            .map(|own| self.complexity_of(&own, name, backbone))
            .collect()
    }

    /// Speed and parameters are those of the trained detectors; without any, those that were measured for themselves.
    fn complexity_of(&self, own: &Own<'_>, name: &str, backbone: &str) -> Vec<Entry> {
        let variant = own.variant.name.as_str();
        let cells: Vec<&Speed> = self
            .of(variant, backbone)
            .map(|s| &s.result.speed)
            .collect();
        let alone = self
            .speeds
            .iter()
            .find(|s| cells.is_empty() && s.variant == variant && s.backbone == backbone);
        let speed = |pick: fn(&Speed) -> f64| {
            let all = cells.iter().copied().chain(alone.map(|s| &s.speed));
            let all: Vec<f64> = all.map(pick).collect();
            match all.is_empty() {
                true => Entry::Empty,
                false => exact(median(all)),
            }
        };
        let random = match alone {
            Some(alone) if alone.weights == "random" => " (speed with random weights)",
            _ => "",
        };
        vec![
            Entry::Text(name.into()),
            Entry::Text(format!("{}, ours{random}", own.title)),
            speed(|s| s.fps),
            speed(|s| s.additional_ms),
            speed(|s| s.additional_params as f64 / 1e6),
            self.mean_of_one_protocol(variant, backbone, IMAGE),
            self.mean_of_one_protocol(variant, backbone, PIXEL),
        ]
    }
}
