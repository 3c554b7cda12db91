//! An evaluation as pictures: curves over k, rules side by side, results over training
//! trajectories. Self-contained SVG on a light ground; colours that the colour-blind tell
//! apart, and markers that differ. Labels are untrusted (names of models): control characters
//! and what turns the order of letters round are made visible here, and the back end escapes
//! markup.

use super::data::{Arm, Evaluation, TrainingPoint};
use super::text::rows;
use crate::trajectories::paint::harmless;
use gametape_schemas::event::Estimate;
use gametape_schemas::{Failure, FailureKind};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::collections::BTreeSet;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x26, 0x2b, 0x33);
const MUTED: RGBColor = RGBColor(0x66, 0x6d, 0x78);
const GRID: RGBColor = RGBColor(0xe6, 0xe8, 0xec);
const AXIS: RGBColor = RGBColor(0x9a, 0xa1, 0xab);
/// In the order of lines.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x3b, 0x73, 0xb9),
    RGBColor(0xe0, 0x7b, 0x1f),
    RGBColor(0x2f, 0x8f, 0x6b),
    RGBColor(0x8a, 0x5a, 0xa8),
    RGBColor(0xb9, 0x3b, 0x50),
    RGBColor(0x6f, 0x6a, 0x2c),
    RGBColor(0x3a, 0xa5, 0xb8),
    RGBColor(0x5b, 0x62, 0x6e),
];
/// Lines of one picture at most: more cannot be told apart.
const MOST_LINES: usize = COLORS.len();
/// Characters of a label at most.
const LABEL: usize = 48;
const WIDTH: u32 = 760;
const HEIGHT: u32 = 440;

/// A picture with its title and the name of its file.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// Name of the file, without its ending.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The picture.
    pub svg: String,
}

/// A line with its band.
struct Line {
    label: String,
    points: Vec<(f64, Estimate)>,
}

/// What a picture shows.
struct Chart {
    name: String,
    title: String,
    x: &'static str,
    /// Whether the horizontal axis is logarithmic, as powers of two.
    is_log: bool,
    lines: Vec<Line>,
}

/// All pictures of an evaluation; those without anything to show are left out.
///
/// # Errors
/// `GT-REPORT-PICTURE` when drawing fails, which is a defect.
pub fn figures(evaluation: &Evaluation) -> Result<Vec<Figure>, Failure> {
    let mut charts = vec![over_arms(evaluation, "pass", "Pass@k: any of k resolves")];
    charts.push(over_arms(
        evaluation,
        "verifier",
        "Best@k: the verifier's pick of k resolves",
    ));
    charts.extend(evaluation.arms.iter().zip(1..).map(over_rules));
    charts.extend(over_training(evaluation));
    charts
        .iter()
        .filter(|chart| chart.lines.iter().any(|line| line.points.len() > 1))
        .map(|chart| {
            let svg = draw(chart).map_err(|error| {
                Failure::new(
                    FailureKind::Internal,
                    "GT-REPORT-PICTURE",
                    format!("the picture `{}` could not be drawn: {error}", chart.title),
                )
                .with_help("the tables and evaluation.json have the same numbers")
            })?;
            Ok(Figure {
                name: chart.name.clone(),
                title: chart.title.clone(),
                svg,
            })
        })
        .collect()
}

fn over_arms(evaluation: &Evaluation, rule: &str, title: &str) -> Chart {
    let line = |arm: &Arm| {
        let points = arm.curves.get(rule)?;
        Some(Line {
            label: label(&arm.label),
            points: points.iter().map(|p| (p.k as f64, p.estimate)).collect(),
        })
    };
    Chart {
        name: rule.to_owned(),
        title: title.to_owned(),
        x: "attempts per task, k",
        is_log: true,
        lines: evaluation
            .arms
            .iter()
            .filter_map(line)
            .take(MOST_LINES)
            .collect(),
    }
}

fn over_rules((arm, number): (&Arm, usize)) -> Chart {
    let line = |(name, points): (String, &Vec<super::data::Point>)| Line {
        label: name,
        points: points.iter().map(|p| (p.k as f64, p.estimate)).collect(),
    };
    Chart {
        name: format!("rules-{number}"),
        title: format!("Selection rules: {}", label(&arm.label)),
        x: "attempts per task, k",
        is_log: true,
        lines: rows(arm).into_iter().map(line).take(MOST_LINES).collect(),
    }
}

fn over_training(evaluation: &Evaluation) -> Option<Chart> {
    let curve = evaluation.training_curve.as_ref()?;
    type Of<'f> = &'f dyn Fn(&TrainingPoint) -> Option<Estimate>;
    let of = |name: String, sample: Option<&str>, value: Of| {
        // A line of a way of sampling begins at the base and ends at the whole dataset.
        let points = curve
            .points
            .iter()
            .filter(|p| sample.is_none() || p.sample.is_none() || p.sample.as_deref() == sample);
        let points = points
            .filter_map(|p| Some((p.rows as f64, value(p)?)))
            .collect();
        Line {
            label: label(&name),
            points,
        }
    };
    let mut lines = Vec::new();
    let best = format!("Best@{}, verifier", curve.k);
    let samples: BTreeSet<&str> = curve
        .points
        .iter()
        .filter_map(|p| p.sample.as_deref())
        .collect();
    for sample in &samples {
        lines.push(of(format!("Pass@1, by {sample}"), Some(sample), &|p| {
            Some(p.pass)
        }));
    }
    for sample in &samples {
        lines.push(of(format!("{best}, by {sample}"), Some(sample), &|p| {
            p.best
        }));
    }
    if samples.is_empty() {
        lines.push(of("Pass@1".to_owned(), None, &|p| Some(p.pass)));
        lines.push(of(best, None, &|p| p.best));
    }
    lines.retain(|line| !line.points.is_empty());
    Some(Chart {
        name: "training".to_owned(),
        title: "Over the number of training trajectories".to_owned(),
        x: "trajectories trained on",
        is_log: false,
        lines,
    })
}

/// A label that fits and that is text alone.
fn label(text: &str) -> String {
    let clean = harmless(text);
    match clean.char_indices().nth(LABEL) {
        Some((end, _)) => format!("{}…", clean.get(..end).unwrap_or_default()),
        None => clean,
    }
}

fn draw(chart: &Chart) -> Result<String, Box<dyn std::error::Error>> {
    let mut image = String::new();
    draw_on(chart, &mut image)?;
    Ok(image)
}

fn draw_on(chart: &Chart, image: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let place = |x: f64| if chart.is_log { x.max(1.0).log2() } else { x };
    let all = || chart.lines.iter().flat_map(|line| &line.points);
    let most_x = all().map(|(x, _)| place(*x)).fold(1e-9, f64::max);
    let top = all().map(|(_, e)| e.high).fold(0.0, f64::max);
    let top = ((top * 1.08 * 20.0).ceil() / 20.0).clamp(0.05, 1.05);
    let root = SVGBackend::with_string(image, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let left = Pos::new(HPos::Left, VPos::Center);
    let title = (FONT, 17.0).into_font().color(&INK).pos(left);
    root.draw_text(&chart.title, &title, (20, 22))?;
    let (_, body) = root.split_vertically(36);
    let margin = most_x * 0.03;
    let mut panel = ChartBuilder::on(&body)
        .margin_left(8)
        .margin_right(24)
        .margin_top(10)
        .margin_bottom(6)
        .x_label_area_size(46)
        .y_label_area_size(52)
        .build_cartesian_2d(-margin..most_x + margin, 0.0..top)?;
    let is_log = chart.is_log;
    let ticks = if is_log {
        most_x.floor() as usize + 1
    } else {
        8
    };
    panel
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .x_labels(ticks)
        .x_label_formatter(&move |x| match is_log {
            true if (x - x.round()).abs() < 1e-6 && *x > -1e-6 => format!("{:.0}", x.exp2()),
            true => String::new(),
            false => format!("{x:.0}"),
        })
        .y_labels(6)
        .y_label_formatter(&|y| format!("{:.0}%", y * 100.0))
        .x_desc(chart.x)
        .y_desc("tasks resolved")
        .axis_desc_style((FONT, 13).into_font().color(&MUTED))
        .label_style((FONT, 12).into_font().color(&MUTED))
        .draw()?;
    for ((line, color), number) in chart.lines.iter().zip(COLORS).zip(0_usize..) {
        let middle: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(x, e)| (place(*x), e.mean))
            .collect();
        // Bands of many lines would hide one another.
        if chart.lines.len() <= 3 && line.points.len() > 1 {
            let low = line.points.iter().map(|(x, e)| (place(*x), e.low));
            let high = line.points.iter().rev().map(|(x, e)| (place(*x), e.high));
            let band: Vec<(f64, f64)> = low.chain(high).collect();
            panel.draw_series([Polygon::new(band, color.mix(0.12))])?;
        }
        panel
            .draw_series(LineSeries::new(middle.clone(), color.stroke_width(2)))?
            .label(line.label.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        for point in middle {
            match number % 3 {
                0 => panel.draw_series([Circle::new(point, 4, color.filled())])?,
                1 => panel.draw_series([TriangleMarker::new(point, 6, color.filled())])?,
                _ => panel.draw_series([Cross::new(point, 5, color.stroke_width(2))])?,
            };
        }
    }
    panel
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(10)
        .legend_area_size(24)
        .background_style(WHITE.mix(0.85))
        .border_style(TRANSPARENT)
        .label_font((FONT, 12).into_font().color(&INK))
        .draw()?;
    root.present()?;
    Ok(())
}
