//! The reliability curve: how often attempts of a score resolved. Self-contained SVG.

use gametape_schemas::{Failure, FailureKind};
use gametape_verifier::validate::Report;
use plotters::prelude::*;

const SIDE: u32 = 420;
const INK: RGBColor = RGBColor(0x26, 0x2b, 0x33);
const MUTED: RGBColor = RGBColor(0xa9, 0xb0, 0xba);
const LINE: RGBColor = RGBColor(0x3b, 0x73, 0xb9);

/// Draws it. The area of a point is its share of the attempts.
///
/// # Errors
/// `GT-REPORT-PICTURE` when drawing fails, which is a defect.
pub fn reliability(report: &Report) -> Result<String, Failure> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            "GT-REPORT-PICTURE",
            format!("the reliability curve could not be drawn: {error}"),
        )
        .with_help("the table has the same numbers")
    })?;
    Ok(svg)
}

fn draw(report: &Report, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (SIDE, SIDE)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .x_label_area_size(38)
        .y_label_area_size(46)
        .caption("Reliability", ("sans-serif", 15).into_font().color(&INK))
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(MUTED.mix(0.4))
        .x_desc("score")
        .y_desc("share resolved")
        .draw()?;
    let ideal = [(0.0, 0.0), (1.0, 1.0)];
    chart.draw_series(LineSeries::new(ideal, MUTED.stroke_width(1)))?;
    let points: Vec<(f64, f64)> = report
        .reliability
        .iter()
        .map(|bin| (bin.score, bin.resolved))
        .collect();
    chart.draw_series(LineSeries::new(
        points.iter().copied(),
        LINE.stroke_width(2),
    ))?;
    let all = report.attempts.max(1) as f64;
    let circles = report.reliability.iter().map(|bin| {
        let radius = 3.0 + 18.0 * (bin.attempts as f64 / all).sqrt();
        Circle::new(
            (bin.score, bin.resolved),
            radius as i32,
            LINE.mix(0.45).filled(),
        )
    });
    chart.draw_series(circles)?;
    root.present()?;
    Ok(())
}
