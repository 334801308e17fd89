//! Curves and histograms as SVG: training, ROC, PRO, scores.

use std::path::Path;

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    drawing::DrawingAreaErrorKind,
    prelude::*,
};

use crate::{Error, Result, files};

const SIZE: (u32, u32) = (520, 360);
const BINS: usize = 40;
/// Most ticks of an axis.
const TICKS: usize = 10;
/// Points nearer than this share of the chart to the one before are not drawn.
const FINEST: f64 = 1.0 / 1500.0;
const COLOURS: [RGBColor; 5] = [
    RGBColor(37, 99, 175),
    RGBColor(214, 84, 22),
    RGBColor(47, 140, 75),
    RGBColor(122, 79, 160),
    RGBColor(90, 90, 90),
];

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// (x, y); points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A chart; [`Chart::svg`] draws it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    title: String,
    axes: [String; 2],
    /// Of x and y; the data's own where none.
    ranges: [Option<(f64, f64)>; 2],
    series: Vec<Series>,
    /// Fill the lines down to the x axis (histograms).
    filled: bool,
    /// A labelled vertical line.
    mark: Option<(String, f64)>,
    diagonal: bool,
}

type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Plot<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Chart {
    /// Losses over epochs.
    pub fn training(series: Vec<Series>) -> Self {
        Self::lines("Training", ["epoch", "negative log-likelihood"], series)
    }

    /// True- over false-positive rate.
    pub fn roc(label: &str, points: Vec<(f64, f64)>, auroc: f64) -> Self {
        let series = vec![Series {
            label: format!("{label}: {auroc:.4}"),
            points,
        }];
        Self {
            ranges: [Some((0.0, 1.0)), Some((0.0, 1.0))],
            diagonal: true,
            ..Self::lines("ROC", ["false-positive rate", "true-positive rate"], series)
        }
    }

    /// Overlap with the regions over the pixels' false-positive rate, up to the integration `limit`.
    pub fn pro(points: Vec<(f64, f64)>, aupro: f64, limit: f64) -> Self {
        let series = vec![Series {
            label: format!("AUPRO: {aupro:.4}"),
            points,
        }];
        Self {
            ranges: [Some((0.0, limit)), Some((0.0, 1.0))],
            ..Self::lines(
                "PRO",
                ["false-positive rate of pixels", "per-region overlap"],
                series,
            )
        }
    }

    /// How often each score occurs in each group of images.
    pub fn histogram(groups: &[(&str, &[f32])], threshold: f64) -> Self {
        let finite = || {
            groups
                .iter()
                .flat_map(|(_, scores)| scores.iter())
                .filter(|score| score.is_finite())
        };
        let (lo, hi) = padded(extent(finite().map(|score| f64::from(*score))));
        let series = groups
            .iter()
            .map(|(label, scores)| Series {
                label: format!("{label} ({})", scores.len()),
                points: bars(scores, lo, hi),
            })
            .collect();
        Self {
            ranges: [Some((lo.min(threshold), hi.max(threshold))), None],
            filled: true,
            mark: Some(("threshold".into(), threshold)),
            ..Self::lines("Scores", ["score", "images"], series)
        }
    }

    /// Any lines, over the range of their points.
    pub fn lines(title: &str, axes: [&str; 2], series: Vec<Series>) -> Self {
        let (axes, title) = (axes.map(str::to_owned), title.to_owned());
        Self {
            title,
            axes,
            ranges: [None; 2],
            series,
            filled: false,
            mark: None,
            diagonal: false,
        }
    }

    /// What the chart shows.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The chart as a whole SVG document.
    ///
    /// # Errors
    /// When drawing fails.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let failed = |why: String| Error::Invalid(format!("chart `{}`: {why}", self.title));
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            self.draw(&area).map_err(|why| failed(why.to_string()))?;
            area.present().map_err(|why| failed(why.to_string()))?;
        }
        Ok(svg)
    }

    /// Writes the SVG document as a file.
    ///
    /// # Errors
    /// When drawing or writing fails.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_bytes(path, self.svg()?.as_bytes())
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        area.fill(&WHITE)?;
        let series: Vec<Series> = self.series.iter().map(Series::finite).collect();
        let points = || series.iter().flat_map(|series| &series.points);
        let of_data = [
            padded(extent(points().map(|point| point.0))),
            padded(extent(points().map(|point| point.1))),
        ];
        let [x, mut y] = [0, 1].map(|axis| self.ranges[axis].unwrap_or(of_data[axis]));
        if self.filled {
            y = (0.0, y.1.max(1.0));
        }
        // A count's axis has whole numbers only, each once.
        let ticks = match self.filled {
            true => (y.1 as usize + 1).min(TICKS),
            false => TICKS,
        };
        let mut plot = ChartBuilder::on(area)
            .margin(12)
            .caption(&self.title, ("sans-serif", 23))
            .x_label_area_size(46)
            .y_label_area_size(66)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        plot.configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(232, 232, 232))
            .axis_style(RGBColor(130, 130, 130))
            .label_style(("sans-serif", 17))
            .axis_desc_style(("sans-serif", 18))
            .y_labels(ticks)
            .x_desc(&self.axes[0])
            .y_desc(&self.axes[1])
            .x_label_formatter(&|value| tick(*value, x))
            .y_label_formatter(&|value| {
                if self.filled {
                    format!("{value:.0}")
                } else {
                    tick(*value, y)
                }
            })
            .draw()?;
        if self.diagonal {
            plot.draw_series(LineSeries::new(
                [(x.0, y.0), (x.1, y.1)],
                RGBColor(190, 190, 190),
            ))?;
        }
        for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
            self.draw_line(&mut plot, series, *colour, [x, y])?;
        }
        if let Some((label, at)) = &self.mark {
            let style = RGBColor(60, 60, 60).stroke_width(2);
            plot.draw_series(LineSeries::new([(*at, y.0), (*at, y.1)], style))?
                .label(format!("{label} {}", tick(*at, x)))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        plot.configure_series_labels()
            .position(if self.ranges[1].is_some() {
                SeriesLabelPosition::LowerRight
            } else {
                SeriesLabelPosition::UpperRight
            })
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 17))
            .draw()?;
        Ok(())
    }

    fn draw_line<'a>(
        &self,
        plot: &mut Plot<'a>,
        series: &Series,
        colour: RGBColor,
        [x, y]: [(f64, f64); 2],
    ) -> Drawn {
        let points = thinned(&series.points, x, y);
        if self.filled {
            let mut outline = points.clone();
            outline.push((points.last().map_or(x.0, |last| last.0), y.0));
            plot.draw_series([Polygon::new(outline, colour.mix(0.35))])?;
        }
        plot.draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(&series.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        Ok(())
    }
}

impl Series {
    fn finite(&self) -> Self {
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        Self {
            label: self.label.clone(),
            points: self.points.iter().copied().filter(finite).collect(),
        }
    }
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), value| {
        (lo.min(value), hi.max(value))
    })
}

/// A range with some air, also around a single value, or 0 to 1 around none.
fn padded((lo, hi): (f64, f64)) -> (f64, f64) {
    if lo > hi {
        return (0.0, 1.0);
    }
    let air = if hi > lo {
        0.03 * (hi - lo)
    } else {
        0.5 * lo.abs().max(1e-3)
    };
    (lo - air, hi + air)
}

/// The outline of a histogram.
fn bars(scores: &[f32], lo: f64, hi: f64) -> Vec<(f64, f64)> {
    let mut counts = [0.0; BINS];
    for score in scores.iter().filter(|score| score.is_finite()) {
        let bin = (f64::from(*score) - lo) / (hi - lo) * BINS as f64;
        counts[(bin as usize).min(BINS - 1)] += 1.0;
    }
    let edge = |bin: usize| lo + (hi - lo) * bin as f64 / BINS as f64;
    let steps = (0..BINS).flat_map(|bin| [(edge(bin), counts[bin]), (edge(bin + 1), counts[bin])]);
    std::iter::once((lo, 0.0))
        .chain(steps)
        .chain([(hi, 0.0)])
        .collect()
}

/// The points in the range, less those that the eye could not tell from their neighbours.
fn thinned(points: &[(f64, f64)], x: (f64, f64), y: (f64, f64)) -> Vec<(f64, f64)> {
    let within = |point: &&(f64, f64)| point.0 >= x.0 && point.0 <= x.1;
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut skipped = None;
    for point in points.iter().filter(within) {
        let near = kept.last().is_some_and(|last| {
            (point.0 - last.0).abs() < FINEST * (x.1 - x.0)
                && (point.1 - last.1).abs() < FINEST * (y.1 - y.0)
        });
        skipped = near.then_some(*point);
        if !near {
            kept.push(*point);
        }
    }
    kept.extend(skipped);
    kept
}

/// A tick's value with as many decimals as its axis needs.
fn tick(value: f64, (lo, hi): (f64, f64)) -> String {
    let decimals = (2.0 - (hi - lo).log10()).floor().clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn a_chart_shows_its_series() {
        let points = |slope: f64| {
            (0..50)
                .map(|x| (f64::from(x), slope * f64::from(x)))
                .collect()
        };
        let series = vec![
            Series {
                label: "training".into(),
                points: points(-3.0),
            },
            Series {
                label: "held out <b>".into(),
                points: points(-2.5),
            },
        ];
        let svg = Chart::training(series).svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("negative log-likelihood") && svg.contains("held out &lt;b&gt;"));
        assert!(svg.contains("#2563AF") && svg.contains("#D65416"));
    }

    #[test]
    fn odd_data_is_drawn_too() {
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0)],
        ] {
            let series = vec![Series {
                label: "loss".into(),
                points,
            }];
            let svg = Chart::training(series).svg().unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        Chart::histogram(&[("good", &[]), ("defective", &[1.0])], 2.0)
            .svg()
            .unwrap();
    }

    #[test]
    fn a_curve_of_many_points_stays_small() {
        let points: Vec<(f64, f64)> = (0..=200_000)
            .map(|at| f64::from(at) / 200_000.0)
            .map(|x| (x, x.sqrt()))
            .collect();
        let kept = thinned(&points, (0.0, 1.0), (0.0, 1.0));
        assert!(kept.len() < 3000, "{}", kept.len());
        assert_eq!((kept[0], *kept.last().unwrap()), ((0.0, 0.0), (1.0, 1.0)));
        assert!(
            Chart::roc("AUROC", points, 2.0 / 3.0)
                .svg()
                .unwrap()
                .contains("AUROC: 0.6667")
        );
    }

    #[test]
    fn histograms_count_every_score() {
        let scores: Vec<f32> = (0..100).map(|at| at as f32).collect();
        let bars = bars(&scores, 0.0, 99.0);
        let counted: f64 = bars[1..bars.len() - 1]
            .iter()
            .step_by(2)
            .map(|bar| bar.1)
            .sum();
        assert_eq!(counted, 100.0);
        let svg = Chart::histogram(&[("good", &scores), ("defective", &[f32::NAN])], 50.0)
            .svg()
            .unwrap();
        assert_eq!(count(&svg, "<polygon"), 2);
        assert!(svg.contains("good (100)"));
    }

    /// Labels of the y axis, from below.
    fn counts(groups: &[(&str, &[f32])]) -> Vec<usize> {
        let svg = Chart::histogram(groups, 0.5).svg().unwrap();
        let texts = svg.split("<text ").skip(1);
        let of_axis = texts.filter(|text| text.contains("text-anchor=\"end\""));
        let label = |text: &str| text.split(['>', '<']).nth(1)?.trim().parse().ok();
        let mut labels: Vec<usize> = of_axis.filter_map(label).collect();
        labels.sort_unstable();
        labels
    }

    #[test]
    fn the_axis_of_counts_has_whole_numbers_once_each() {
        for (largest, labels) in [
            (0, vec![0, 1]),
            (1, vec![0, 1]),
            (2, vec![0, 1, 2]),
            (4, vec![0, 1, 2, 3, 4]),
            (7, vec![0, 1, 2, 3, 4, 5, 6, 7]),
            (37, vec![0, 5, 10, 15, 20, 25, 30, 35]),
        ] {
            let mut scores = vec![0.1; largest];
            scores.extend([0.9].iter().take(largest));
            assert_eq!(counts(&[("good", &scores)]), labels, "{largest}");
        }
    }
}
