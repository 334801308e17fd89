//! What a reader of the tables must know.

use crate::reproduce::{plan::Plan, published::Published};

pub(super) fn notes(plan: &Plan, published: &Published, threads: Option<usize>) -> Vec<String> {
    let mut notes = vec![
        "AUROCs in percent. Ours: mean over the seeds ± their standard deviation; (k/n) where only k of the n categories of the data set or the plan were run.".to_string(),
        "Images a second and additional ms are medians on the machine that ran the cell, one image at a time".to_string()
            + &threads.map_or_else(String::new, |n| format!(", threads: {n}"))
            + "; the paper's on a GTX 1080 Ti. Parameters in millions.",
        format!("Paper: {}. anomalib: {}.", published.paper, published.anomalib),
    ];
    notes.extend(limit(plan));
    let elsewhere: Vec<&str> = [
        ("mvtec-ad", "tables 1, 2, 5, 7 and 8 (MVTec AD)"),
        ("btad", "table 3 (BTAD)"),
        ("cifar10", "table 4 (CIFAR-10)"),
    ]
    .into_iter()
    .filter(|(id, _)| *id != plan.dataset)
    .map(|(_, what)| what)
    .collect();
    notes.push(format!(
        "Other data sets' plans fill {}; table 6 of the paper lists the backbones.",
        elsewhere.join(", ")
    ));
    notes
}

/// What a reader must know of a plan that does not take all images.
fn limit(plan: &Plan) -> Option<String> {
    let of = |most: Option<usize>, what: &str| most.map(|most| format!("{most} {what}"));
    let limits = [
        of(plan.limit.train, "training images"),
        of(plan.limit.test, "test images"),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    (!limits.is_empty()).then(|| {
        format!(
            "Ours: of each category at most {}, evenly spread.",
            limits.join(" and ")
        )
    })
}
