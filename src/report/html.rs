//! A self-contained page about one evaluation: opens offline, in any browser.

use std::{collections::BTreeSet, path::Path};

use serde::Serialize;

use super::{Chart, ColourScale, Outcome, ReportItem, number, page};
use crate::{Result, files};

/// Most images that a group of section 7 shows; the gallery has all.
const WORST: usize = 12;

/// All that a page shows.
#[derive(Debug, Clone)]
pub struct ReportInput {
    /// For example "screw, resnet18.tv_in1k".
    pub title: String,
    /// What was evaluated on what and how: name and value.
    pub facts: Vec<(String, String)>,
    /// Figures, as they should be read: name and value.
    pub metrics: Vec<(String, String)>,
    /// More figures, of each class for example.
    pub tables: Vec<Table>,
    /// Charts beside the histogram of the scores, which the page adds.
    pub charts: Vec<Chart>,
    /// Images that score more are said to be defective.
    pub threshold: f32,
    /// The scale of the items' heat maps.
    pub scale: ColourScale,
    /// The images, in any order.
    pub items: Vec<ReportItem>,
}

/// Rows of text under a header.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// As many cells each.
    pub rows: Vec<Vec<String>>,
}

/// What the template is filled with.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    facts: &'a [(String, String)],
    metrics: &'a [(String, String)],
    tables: &'a [Table],
    charts: Vec<String>,
    groups: Vec<Group<'a>>,
    gallery: Vec<Card<'a>>,
    classes: BTreeSet<&'a str>,
    /// Whether the truth is known of any image.
    known: bool,
    stops: Vec<Stop>,
    ends: [String; 3],
    threshold: String,
    threshold_place: f32,
}

#[derive(Serialize)]
struct Group<'a> {
    title: &'static str,
    about: &'static str,
    none: &'static str,
    count: usize,
    cards: Vec<Card<'a>>,
}

#[derive(Serialize)]
struct Card<'a> {
    #[serde(flatten)]
    item: &'a ReportItem,
    outcome: Outcome,
    verdict: &'static str,
    shown_score: String,
    /// Where the score lies between the lowest and the highest of the page, in percent.
    place: f32,
}

#[derive(Serialize)]
struct Stop {
    percent: usize,
    colour: String,
}

impl ReportInput {
    /// The page.
    ///
    /// # Errors
    /// When a chart cannot be drawn.
    pub fn html(&self) -> Result<String> {
        let mut charts = vec![self.histogram().svg()?];
        for chart in &self.charts {
            charts.push(chart.svg()?);
        }
        let mut gallery: Vec<Card> = self.items.iter().map(|item| self.card(item)).collect();
        gallery.sort_by(|one, other| other.item.score.total_cmp(&one.item.score));
        let classes: BTreeSet<&str> = self
            .items
            .iter()
            .filter_map(|item| item.class.as_deref())
            .collect();
        let known = self.items.iter().any(|item| item.defective.is_some());
        page(
            include_str!("page.html"),
            Page {
                title: &self.title,
                facts: &self.facts,
                metrics: &self.metrics,
                tables: &self.tables,
                charts,
                groups: if known { self.groups() } else { Vec::new() },
                gallery,
                classes,
                known,
                stops: self.stops(),
                ends: [self.scale.lo, self.scale.middle(), self.scale.hi].map(number),
                threshold: number(self.threshold),
                threshold_place: self.place(self.threshold),
            },
        )
    }

    /// Writes the page as a file.
    ///
    /// # Errors
    /// As [`ReportInput::html`], and when the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_bytes(path, self.html()?.as_bytes())
    }

    fn histogram(&self) -> Chart {
        let scores = |defective| -> Vec<f32> {
            self.items
                .iter()
                .filter(|item| item.defective == defective)
                .map(|item| item.score)
                .collect()
        };
        let (good, defective, unknown) = (scores(Some(false)), scores(Some(true)), scores(None));
        let groups = [
            ("good", &*good),
            ("defective", &*defective),
            ("not labelled", &*unknown),
        ];
        let present: Vec<(&str, &[f32])> = groups
            .into_iter()
            .filter(|group| !group.1.is_empty())
            .collect();
        Chart::histogram(&present, f64::from(self.threshold))
    }

    /// The paper's section 7: where the detector and the labels disagree.
    fn groups(&self) -> Vec<Group<'_>> {
        let with = |outcome| {
            self.items
                .iter()
                .filter(move |item| item.outcome(self.threshold) == outcome)
        };
        let mut missed: Vec<&ReportItem> = with(Outcome::Missed).collect();
        missed.sort_by(|one, other| one.score.total_cmp(&other.score));
        let mut alarms: Vec<&ReportItem> = with(Outcome::FalseAlarm).collect();
        alarms.sort_by(|one, other| other.score.total_cmp(&one.score));
        let mut doubtful: Vec<&ReportItem> = with(Outcome::Found)
            .filter(|item| item.doubt.is_some())
            .collect();
        doubtful.sort_by(|one, other| {
            other
                .doubt
                .unwrap_or(0.0)
                .total_cmp(&one.doubt.unwrap_or(0.0))
        });
        vec![
            self.group("Missed", "Defective, but scored no more than the threshold; the lowest first.", "No defect was missed.", missed),
            self.group("False alarms", "Good, but scored above the threshold; the highest first.", "No false alarm.", alarms),
            self.group(
                "Doubtful labels",
                "Found, but the map is highest outside the mask: look there for a defect that nobody marked. The clearest first.",
                "The map is highest at the marked place wherever a defect was found.",
                doubtful,
            ),
        ]
    }

    fn group<'a>(
        &self,
        title: &'static str,
        about: &'static str,
        none: &'static str,
        items: Vec<&'a ReportItem>,
    ) -> Group<'a> {
        let count = items.len();
        let cards = items
            .into_iter()
            .take(WORST)
            .map(|item| self.card(item))
            .collect();
        Group {
            title,
            about,
            none,
            count,
            cards,
        }
    }

    fn card<'a>(&self, item: &'a ReportItem) -> Card<'a> {
        let outcome = item.outcome(self.threshold);
        let verdict = match outcome {
            Outcome::Found => "found",
            Outcome::Passed => "passed",
            Outcome::Missed => "missed",
            Outcome::FalseAlarm => "false alarm",
            Outcome::Unknown if item.alarm(self.threshold) => "defective",
            Outcome::Unknown => "ok",
        };
        Card {
            item,
            outcome,
            verdict,
            shown_score: number(item.score),
            place: self.place(item.score),
        }
    }

    fn place(&self, score: f32) -> f32 {
        let scores = || {
            self.items
                .iter()
                .map(|item| item.score)
                .chain([self.threshold])
                .filter(|score| score.is_finite())
        };
        let (lo, hi) = (
            scores().fold(f32::INFINITY, f32::min),
            scores().fold(f32::NEG_INFINITY, f32::max),
        );
        let place = 100.0 * (score - lo) / (hi - lo).max(f32::MIN_POSITIVE);
        if place.is_nan() {
            100.0
        } else {
            place.clamp(0.0, 100.0)
        }
    }

    /// The colour scale as a gradient, as it looks over a grey photo.
    fn stops(&self) -> Vec<Stop> {
        let stop = |step: usize| {
            let score = self.scale.lo + (self.scale.hi - self.scale.lo) * step as f32 / 20.0;
            let (opacity, colour) = (self.scale.opacity(score), self.scale.colour(score));
            let [red, green, blue] = colour
                .map(|channel| (128.0 * (1.0 - opacity) + f32::from(channel) * opacity) as u8);
            Stop {
                percent: 5 * step,
                colour: format!("rgb({red},{green},{blue})"),
            }
        };
        (0..=20).map(stop).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{Rgb, RgbImage};

    use super::*;
    use crate::{
        imaging::Mask,
        report::{MapView, Series, Subject},
    };

    fn report() -> ReportInput {
        let scale = ColourScale::around(0.0, 0.5).unwrap();
        let photo = RgbImage::from_pixel(40, 30, Rgb([120; 3]));
        let mut mask = Mask::empty(40, 30);
        (0..10).for_each(|x| mask.set(x, 0, true));
        let item = |name, defective, class, score, map: &[f32]| {
            let mask = (defective == Some(true)).then_some(&mask);
            let map = MapView::new(map, 2, 1).unwrap();
            ReportItem::new(
                &Subject {
                    name,
                    defective,
                    class,
                    photo: &photo,
                    map,
                    mask,
                    score,
                },
                &scale,
            )
            .unwrap()
        };
        let roc = Chart::lines(
            "ROC",
            ["x", "y"],
            vec![Series {
                label: "r".into(),
                points: vec![(0.0, 0.0), (1.0, 1.0)],
            }],
        );
        ReportInput {
            title: "bolt & <nut>".into(),
            facts: vec![("images".into(), "5".into())],
            metrics: vec![("image AUROC".into(), "0.9000".into())],
            tables: vec![Table {
                header: vec!["class".into(), "images".into()],
                rows: vec![vec!["dent".into(), "2".into()]],
            }],
            charts: vec![roc],
            threshold: 0.5,
            scale,
            items: vec![
                item("missed.png", Some(true), Some("dent"), 0.3, &[0.3, 0.1]),
                item("found.png", Some(true), Some("dent"), 0.8, &[0.8, 0.1]),
                item(
                    "doubtful.png",
                    Some(true),
                    Some("scratch"),
                    0.9,
                    &[0.2, 0.9],
                ),
                item("alarm.png", Some(false), None, 0.6, &[0.6, 0.1]),
                item("passed.png", Some(false), None, 0.1, &[0.1, 0.1]),
            ],
        }
    }

    fn section<'a>(html: &'a str, from: &str, to: &str) -> &'a str {
        html.split_once(from).unwrap().1.split_once(to).unwrap().0
    }

    #[test]
    fn images_are_in_the_group_where_they_belong() {
        let html = report().html().unwrap();
        let groups = [
            ("Missed", "missed.png"),
            ("False alarms", "alarm.png"),
            ("Doubtful labels", "doubtful.png"),
        ];
        for (group, name) in groups {
            let section = section(&html, &format!("<h2>{group}"), "</section>");
            assert_eq!(section.matches("<figure").count(), 1, "{group}");
            assert!(section.contains(name), "{group}");
        }
    }

    #[test]
    fn the_gallery_is_sorted_by_score() {
        let html = report().html().unwrap();
        let gallery = section(&html, "id=\"gallery\"", "</section>");
        let at = |name| gallery.find(name).unwrap();
        let order = [
            "doubtful.png",
            "found.png",
            "alarm.png",
            "missed.png",
            "passed.png",
        ];
        assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])));
        assert_eq!(gallery.matches("data:image/jpeg;base64,").count(), 2 * 5);
        assert_eq!(gallery.matches("data:image/png;base64,").count(), 3);
    }

    #[test]
    fn the_page_needs_nothing_from_outside_and_escapes_names() {
        let html = report().html().unwrap();
        assert!(html.contains("bolt &amp; &lt;nut&gt;") && !html.contains("<nut>"));
        for outside in ["<link", "src=\"http", "url(http", "@import", "<script src"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains("<td>dent</td><td>2</td>"));
    }

    #[test]
    fn a_report_without_truth_has_no_groups() {
        let mut report = report();
        report
            .items
            .iter_mut()
            .for_each(|item| item.defective = None);
        let html = report.html().unwrap();
        assert!(!html.contains("<h2>Missed") && html.contains("not labelled (5)"));
        report.items.clear();
        report.html().unwrap();
    }

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.123456, "0.1235"),
            (12.3456, "12.35"),
            (1234.5, "1234"),
            (0.0, "0.000"),
            (-0.00123456, "-0.001235"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
