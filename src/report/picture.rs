//! The report as one picture (SVG, self-contained, light background): bars of the main
//! estimates with their 95% intervals, and curves over the number of attempts.

use super::Report;
use gametape_schemas::event::Estimate;
use gametape_schemas::{Failure, FailureKind};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 1120;
const HEIGHT: u32 = 500;
const HEADER: u32 = 64;
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(0x26, 0x2b, 0x33);
const MUTED: RGBColor = RGBColor(0x66, 0x6d, 0x78);
const GRID: RGBColor = RGBColor(0xe6, 0xe8, 0xec);
const AXIS: RGBColor = RGBColor(0x9a, 0xa1, 0xab);
// Told apart by the colour-blind too, and by lightness in grey print.
const BASE: RGBColor = RGBColor(0x9a, 0xa1, 0xab);
const TUNED: RGBColor = RGBColor(0x3b, 0x73, 0xb9);
const PICKED: RGBColor = RGBColor(0xe0, 0x7b, 0x1f);
const ORACLE: RGBColor = RGBColor(0x2f, 0x8f, 0x6b);
const RANDOM: RGBColor = RGBColor(0x9d, 0xbb, 0xdd);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Panel<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Two lines of label, colour, estimate.
type Bar = (String, String, RGBColor, Estimate);

/// A line over k with its band.
struct Curve {
    label: String,
    color: RGBColor,
    points: Vec<(u32, Estimate)>,
}

/// Draws the report. A report without held-out estimates gives a picture that says so.
///
/// # Errors
/// `GT-REPORT-PICTURE` when drawing fails, which is a defect.
pub fn svg(report: &Report) -> Result<String, Failure> {
    let mut image = String::new();
    draw(report, &mut image).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            "GT-REPORT-PICTURE",
            format!("the picture of the results could not be drawn: {error}"),
        )
        .with_help("the tables and report.json have the same numbers")
    })?;
    // Titles for people who do not see the picture.
    let titled = image.replacen('>', ">\n<title>gametape: held-out results</title>", 1);
    Ok(titled)
}

fn draw(report: &Report, image: &mut String) -> Drawn {
    let root = SVGBackend::with_string(image, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    header(report, &root)?;
    let bars = bars(report);
    if bars.is_empty() {
        let style = text_style(18.0, MUTED, HPos::Center);
        let middle = (WIDTH as i32 / 2, HEIGHT as i32 / 2);
        root.draw_text("no held-out estimates on this tape yet", &style, middle)?;
        root.present()?;
        return Ok(());
    }
    let (_, body) = root.split_vertically(HEADER);
    let (left, right) = body.split_horizontally(560);
    let curves = curves(report);
    let points = curves.iter().flat_map(|curve| &curve.points);
    // One axis for both panels: what is equal lies equally high.
    let top = ceiling(
        points
            .map(|p| p.1.high)
            .chain(bars.iter().map(|b| b.3.high)),
    );
    draw_bars(&left, &bars, top)?;
    draw_curves(&right, &curves, top)?;
    root.present()?;
    Ok(())
}

fn text_style(size: f64, color: RGBColor, side: HPos) -> TextStyle<'static> {
    (FONT, size)
        .into_font()
        .color(&color)
        .pos(Pos::new(side, VPos::Center))
}

fn header(report: &Report, root: &Area) -> Drawn {
    let packages: Vec<&str> = report
        .packages
        .iter()
        .filter(|p| p.validated.contains_key("held_out"))
        .map(|p| p.package.as_str())
        .collect();
    let title = match (
        report.estimate("base.pass@1"),
        report.estimate("tuned.pass@1"),
    ) {
        (Some(base), Some(tuned)) => format!(
            "Held-out Pass@1: {} for the base, {} after fine-tuning",
            percent(base.mean),
            percent(tuned.mean)
        ),
        _ => "gametape: held-out results".to_owned(),
    };
    let detail = format!(
        "{} tasks of {} that nothing was trained on · {} attempts each · lines and bands: 95% intervals, bootstrap over tasks",
        report.evaluation.tasks,
        if packages.is_empty() {
            "a package".to_owned()
        } else {
            packages.join(", ")
        },
        report.evaluation.k,
    );
    root.draw_text(&title, &text_style(20.0, INK, HPos::Left), (28, 26))?;
    root.draw_text(&detail, &text_style(13.0, MUTED, HPos::Left), (28, 50))?;
    Ok(())
}

fn bars(report: &Report) -> Vec<Bar> {
    let k = report.evaluation.k;
    [
        ("base", "Pass@1".to_owned(), BASE, "base.pass@1".to_owned()),
        (
            "tuned",
            "Pass@1".to_owned(),
            TUNED,
            "tuned.pass@1".to_owned(),
        ),
        (
            "tuned, random",
            format!("pick of {k}"),
            RANDOM,
            format!("tuned.best@{k}.random"),
        ),
        (
            "tuned, verifier",
            format!("Best@{k}"),
            PICKED,
            format!("tuned.best@{k}.verifier"),
        ),
        (
            "tuned, any",
            format!("Pass@{k}"),
            ORACLE,
            format!("tuned.pass@{k}"),
        ),
    ]
    .into_iter()
    .filter_map(|(who, what, color, name)| {
        Some((who.to_owned(), what, color, report.estimate(&name)?))
    })
    .collect()
}

fn draw_bars(area: &Area, bars: &[Bar], top: f64) -> Drawn {
    let mut panel = ChartBuilder::on(area)
        .margin_left(20)
        .margin_right(16)
        .margin_top(14)
        .margin_bottom(8)
        .x_label_area_size(58)
        .y_label_area_size(52)
        .build_cartesian_2d(-0.6..bars.len() as f64 - 0.4, 0.0..top)?;
    panel
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .y_labels(6)
        .y_label_formatter(&|y| format!("{:.0}%", y * 100.0))
        .y_desc("held-out tasks resolved")
        .axis_desc_style((FONT, 13).into_font().color(&MUTED))
        .label_style((FONT, 12).into_font().color(&MUTED))
        .draw()?;
    for (at, (_, _, color, estimate)) in bars.iter().enumerate() {
        let x = at as f64;
        panel.draw_series([Rectangle::new(
            [(x - 0.32, 0.0), (x + 0.32, estimate.mean)],
            color.filled(),
        )])?;
        draw_interval(&mut panel, x, 0.06, *estimate, INK)?;
    }
    panel.draw_series([PathElement::new(
        vec![(-0.6, 0.0), (bars.len() as f64 - 0.4, 0.0)],
        AXIS,
    )])?;
    // Labels by pixel, on the panel's own area: two lines below the axis and the value
    // above the interval.
    let value = text_style(14.0, INK, HPos::Center);
    let who = text_style(13.0, INK, HPos::Center);
    let what = text_style(12.0, MUTED, HPos::Center);
    let origin = area.get_base_pixel();
    for (at, (first, second, _, estimate)) in bars.iter().enumerate() {
        let (x, above) = relative(panel.backend_coord(&(at as f64, estimate.high)), origin);
        let (_, axis) = relative(panel.backend_coord(&(at as f64, 0.0)), origin);
        area.draw_text(&percent(estimate.mean), &value, (x, above - 12))?;
        area.draw_text(first, &who, (x, axis + 18))?;
        area.draw_text(second, &what, (x, axis + 36))?;
    }
    Ok(())
}

/// A vertical line from low to high with caps of `cap` to either side.
fn draw_interval(panel: &mut Panel, x: f64, cap: f64, e: Estimate, color: RGBColor) -> Drawn {
    for line in [
        [(x, e.low), (x, e.high)],
        [(x - cap, e.low), (x + cap, e.low)],
        [(x - cap, e.high), (x + cap, e.high)],
    ] {
        panel.draw_series([PathElement::new(line, color.stroke_width(1))])?;
    }
    Ok(())
}

fn relative((x, y): (i32, i32), origin: (i32, i32)) -> (i32, i32) {
    (x - origin.0, y - origin.1)
}

fn curves(report: &Report) -> Vec<Curve> {
    let curve = |label: &str, color, prefix, suffix| Curve {
        label: label.to_owned(),
        color,
        points: report.curve(prefix, suffix),
    };
    [
        curve("tuned, Pass@k (any of k)", ORACLE, "tuned.pass@", ""),
        curve(
            "tuned, Best@k (verifier's pick)",
            PICKED,
            "tuned.best@",
            ".verifier",
        ),
        curve("base, Pass@k", BASE, "base.pass@", ""),
    ]
    .into_iter()
    .filter(|curve| !curve.points.is_empty())
    .collect()
}

fn draw_curves(area: &Area, curves: &[Curve], top: f64) -> Drawn {
    let points = curves.iter().flat_map(|curve| &curve.points);
    let most = points.map(|(k, _)| *k).max().unwrap_or(1).max(2);
    let mut panel = ChartBuilder::on(area)
        .margin_left(12)
        .margin_right(28)
        .margin_top(14)
        .margin_bottom(20)
        .x_label_area_size(46)
        .y_label_area_size(52)
        .build_cartesian_2d(0.8..f64::from(most) + 0.2, 0.0..top)?;
    panel
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .x_labels(most.min(16) as usize)
        .x_label_formatter(&|x| {
            if (x - x.round()).abs() < 1e-6 {
                format!("{x:.0}")
            } else {
                String::new()
            }
        })
        .y_labels(6)
        .y_label_formatter(&|y| format!("{:.0}%", y * 100.0))
        .x_desc("attempts per task, k")
        .y_desc("held-out tasks resolved")
        .axis_desc_style((FONT, 13).into_font().color(&MUTED))
        .label_style((FONT, 12).into_font().color(&MUTED))
        .draw()?;
    for curve in curves {
        draw_curve(&mut panel, curve)?;
    }
    panel
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(12)
        .legend_area_size(26)
        .background_style(WHITE.mix(0.85))
        .border_style(TRANSPARENT)
        .label_font((FONT, 13).into_font().color(&INK))
        .draw()?;
    Ok(())
}

fn draw_curve(panel: &mut Panel, curve: &Curve) -> Drawn {
    let color = curve.color;
    let at = |get: fn(&Estimate) -> f64| {
        curve
            .points
            .iter()
            .map(move |(k, estimate)| (f64::from(*k), get(estimate)))
    };
    if curve.points.len() > 1 {
        let mut band: Vec<(f64, f64)> = at(|e| e.high).collect();
        band.extend(at(|e| e.low).collect::<Vec<_>>().into_iter().rev());
        panel.draw_series([Polygon::new(band, color.mix(0.13))])?;
    } else {
        for (k, e) in &curve.points {
            draw_interval(panel, f64::from(*k), 0.05, *e, color)?;
        }
    }
    panel
        .draw_series(LineSeries::new(at(|e| e.mean), color.stroke_width(2)))?
        .label(&curve.label)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(3)));
    panel.draw_series(at(|e| e.mean).map(|point| Circle::new(point, 4, color.filled())))?;
    Ok(())
}

/// The top of an axis of shares that holds these values with room for a label.
fn ceiling(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.fold(0.0, f64::max);
    // Steps of 5 points up to a fifth, of 10 above.
    let step = if most < 0.2 { 0.05 } else { 0.1 };
    (((most * 1.12) / step).ceil() * step).clamp(step, 1.1)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::synthetic::{Plan, tape};

    /// Names of the elements, when every tag is closed in order and attributes are quoted.
    fn elements(svg: &str) -> Result<Vec<String>, String> {
        let (mut open, mut all, mut rest) = (Vec::new(), Vec::new(), svg);
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').ok_or("a tag has no end")?;
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop().as_deref() != Some(name.trim()) {
                    return Err(format!("</{name}> closes nothing"));
                }
            } else if !tag.starts_with(['?', '!']) {
                if tag.matches('"').count() % 2 != 0 {
                    return Err(format!("unbalanced quotes in <{tag}>"));
                }
                let name: String = tag.chars().take_while(|c| c.is_alphanumeric()).collect();
                all.push(name.clone());
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
        }
        match open.pop() {
            Some(name) => Err(format!("<{name}> is not closed")),
            None => Ok(all),
        }
    }

    #[test]
    fn it_is_well_formed_and_labelled() {
        for plan in [Plan::small(), Plan::shown()] {
            let image = svg(&Report::from_records(&tape(&plan))).unwrap();
            let elements = elements(&image).unwrap();
            assert_eq!(elements.first().map(String::as_str), Some("svg"));
            assert!(elements.iter().filter(|e| *e == "rect").count() >= 6);
            for label in [
                "Pass@1".to_owned(),
                format!("Best@{}", plan.k),
                format!("Pass@{}", plan.k),
                "tuned, random".to_owned(),
                "attempts per task, k".to_owned(),
                "held-out tasks resolved".to_owned(),
                "tuned, Best@k (verifier".to_owned(),
                "base, Pass@k".to_owned(),
                "95% intervals".to_owned(),
            ] {
                assert!(image.contains(&label), "{label}");
            }
            assert!(
                !image.contains("http://") || image.contains("xmlns"),
                "self-contained"
            );
        }
    }

    #[test]
    fn axes_hold_their_values() {
        for most in [0.0, 0.01, 0.19, 0.31, 0.9, 1.0] {
            let top = ceiling([most].into_iter());
            assert!(top > most && top <= 1.1 + 1e-9, "{most}: {top}");
        }
    }
}
