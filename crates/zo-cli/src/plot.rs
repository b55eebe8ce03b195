//! `training.svg`: loss and score over the steps.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use zo_llm::finetune::FoundRate;

use crate::output::write;
use crate::run::{Curves, Point, finite, smooth, thin};

type Failure = Box<dyn std::error::Error>;

/// More points do not show.
const POINTS: usize = 2000;

/// What training looks like: curves of the loss to the left, of the score to the right.
const LOSS: RGBColor = RGBColor(37, 99, 165);
const SCORE: RGBColor = RGBColor(200, 80, 30);

/// Text of the legend.
const LEGEND: (&str, u32) = ("sans-serif", 14);

/// The ends of an axis that shows all of `values`, with some room.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let ends = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    match ends {
        (low, high) if low > high => 0.0..1.0,
        (low, high) => {
            let room = (0.06 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
            low - room..high + room
        }
    }
}

/// The values of the raw curve that decide how high the axis is: all but the highest hundredth, unless nothing else is there.
fn common(points: &[Point]) -> impl Iterator<Item = f64> {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    values.truncate(values.len() - values.len() / 100);
    values.into_iter()
}

/// Writes the plot: faint points and a running mean for the training loss, dots for the held-out rows.
///
/// # Errors
/// If the file cannot be written.
pub fn training(path: &Path, title: &str, curves: &Curves) -> Result<(), Failure> {
    // Points that are not finite cannot be plotted.
    let at = |points: Vec<Point>| points.into_iter().map(|(step, y)| (step as u64, y));
    let losses = finite(&curves.losses);
    let smoothed = smooth(&losses);
    let (eval_losses, scores) = (finite(&curves.eval_losses), finite(&curves.scores));
    let last = [&losses, &eval_losses, &scores];
    let last = last.iter().filter_map(|points| points.last()).map(|p| p.0);
    let last = last.fold(1.0, f64::max) as u64;
    // A reward may be anything, the others are shares.
    let shares = curves.score_name() != "reward";
    let right = match shares {
        true => -0.03..1.03,
        false => range(scores.iter().map(|point| point.1)),
    };
    let shown = smoothed.iter().chain(&eval_losses).map(|point| point.1);
    let heights = range(common(&losses).chain(shown));
    let inside = heights.clone();

    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (960, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(64);
    let middle = Pos::new(HPos::Center, VPos::Center);
    let style = ("sans-serif", 18).into_text_style(&head).pos(middle);
    head.draw(&Text::new(title, (480, 20), style))?;
    legend(&head, curves.score_name())?;
    let mut chart = ChartBuilder::on(&body)
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .right_y_label_area_size(64)
        .build_cartesian_2d(0..last, heights)?
        .set_secondary_coord(0..last, right);
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss")
        .x_label_formatter(&|step| step.to_string())
        .bold_line_style(BLACK.mix(0.08))
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK.mix(0.5))
        .label_style(("sans-serif", 13))
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc(format!("{} on held-out rows", curves.score_name()))
        .y_labels(6)
        .y_label_formatter(&|score| match shares {
            true => format!("{score:.1}"),
            false => score.to_string(),
        })
        .axis_style(BLACK.mix(0.5))
        .label_style(("sans-serif", 13))
        .draw()?;
    // Those outside would be drawn at the edge.
    let raw = at(thin(&losses, POINTS)).filter(|point| inside.contains(&point.1));
    chart.draw_series(raw.map(|point| Circle::new(point, 2, LOSS.mix(0.22).filled())))?;
    let score = SCORE.mix(0.45);
    chart.draw_secondary_series(LineSeries::new(at(scores.clone()), score))?;
    let mean = at(thin(&smoothed, POINTS));
    chart.draw_series(LineSeries::new(mean, LOSS.stroke_width(2)))?;
    chart.draw_series(at(eval_losses).map(|point| Circle::new(point, 4, LOSS.filled())))?;
    chart.draw_secondary_series(at(scores).map(|point| Circle::new(point, 4, SCORE.filled())))?;
    root.present()?;
    drop(chart);
    drop((head, body));
    drop(root);
    Ok(write(path, &svg)?)
}

/// The legend, above the curves.
fn legend(head: &DrawingArea<SVGBackend<'_>, Shift>, score: &str) -> Result<(), Failure> {
    let style = LEGEND
        .into_text_style(head)
        .pos(Pos::new(HPos::Left, VPos::Center));
    let (y, mut x) = (50, 70);
    let mut name = |text: &str| {
        let width = head
            .estimate_text_size(text, &style)
            .map(|size| size.0 as i32);
        head.draw(&Text::new(text.to_owned(), (x + 26, y), style.clone()))?;
        let at = x;
        x += 26 + width.unwrap_or(150) + 28;
        Ok::<_, Failure>(at)
    };
    let at = name("training loss of a step")?;
    head.draw(&Circle::new((at + 10, y), 2, LOSS.mix(0.4).filled()))?;
    let at = name("its running mean")?;
    let ends = [(at, y), (at + 20, y)];
    head.draw(&PathElement::new(ends, LOSS.stroke_width(2)))?;
    let at = name("loss on held-out rows")?;
    head.draw(&Circle::new((at + 10, y), 4, LOSS.filled()))?;
    let at = name(&format!("{score} on held-out rows (right)"))?;
    let ends = [(at, y), (at + 20, y)];
    head.draw(&PathElement::new(ends, SCORE.mix(0.45)))?;
    head.draw(&Circle::new((at + 10, y), 4, SCORE.filled()))?;
    Ok(())
}

/// Writes a plot of one row for each name: a bar to the mean of its values, and a dot for each.
///
/// # Errors
/// If the file cannot be written.
pub fn comparison(path: &Path, title: &str, rows: &[(&str, Vec<f64>)]) -> Result<(), Failure> {
    let height = 90 + 26 * rows.len() as u32;
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (800, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let finite = rows
        .iter()
        .flat_map(|(_, values)| values)
        .filter(|v| v.is_finite());
    let right = finite.copied().fold(1e-6, f64::max) * 1.05;
    let count = rows.len();
    // The first row is at the top.
    let name = |segment: &SegmentValue<usize>| match segment {
        SegmentValue::CenterOf(place) if *place < count => rows[count - 1 - place].0.to_owned(),
        _ => String::new(),
    };
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(130)
        .build_cartesian_2d(0.0..right, (0..count.saturating_sub(1)).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(count)
        .y_label_formatter(&name)
        .draw()?;
    for (place, (_, values)) in rows.iter().rev().enumerate() {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if mean.is_finite() {
            let corners = [
                (0.0, SegmentValue::Exact(place)),
                (mean, SegmentValue::Exact(place + 1)),
            ];
            let mut bar = Rectangle::new(corners, BLUE.mix(0.3).filled());
            bar.set_margin(4, 4, 0, 0);
            chart.draw_series([bar])?;
        }
        let dots = values.iter().filter(|v| v.is_finite());
        let at = SegmentValue::CenterOf(place);
        chart.draw_series(dots.map(|v| Circle::new((*v, at.clone()), 3, RED.filled())))?;
    }
    root.present()?;
    drop(chart);
    drop(root);
    Ok(write(path, &svg)?)
}

/// Writes a plot of a search: the loss against the rate, and a line at the rate that was found.
///
/// # Errors
/// If the file cannot be written.
pub fn rates(path: &Path, title: &str, found: &FoundRate) -> Result<(), Failure> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let ends = found
        .climb
        .iter()
        .fold((found.lr, found.lr), |(low, high), point| {
            (low.min(point.lr), high.max(point.lr))
        });
    // The last point is far above the others.
    let inner = found.climb.iter().rev().skip(1);
    let heights = range(
        inner
            .map(|point| point.loss)
            .filter(|loss| loss.is_finite()),
    );
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((ends.0..ends.1 * 1.1).log_scale(), heights.clone())?;
    chart
        .configure_mesh()
        .x_desc("learning rate")
        .y_desc("loss of the batch")
        .x_label_formatter(&|lr| format!("{lr:.0e}"))
        .bold_line_style(BLACK.mix(0.08))
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK.mix(0.5))
        .label_style(("sans-serif", 13))
        .draw()?;
    let shown = found.climb.iter().filter(|point| point.loss.is_finite());
    let shown = shown.map(|point| (point.lr, point.loss.min(heights.end)));
    chart.draw_series(LineSeries::new(shown, LOSS.stroke_width(2)))?;
    let at = [(found.lr, heights.start), (found.lr, heights.end)];
    chart.draw_series([PathElement::new(at, SCORE.stroke_width(2))])?;
    root.present()?;
    drop(chart);
    drop(root);
    Ok(write(path, &svg)?)
}
