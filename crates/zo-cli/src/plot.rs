//! `training.svg`: loss and accuracy over steps.

use std::path::Path;

use plotters::prelude::*;
use zo_llm::replace::replace_bytes;

type Failure = Box<dyn std::error::Error>;

/// Half the window of the running mean, in steps.
fn smooth(losses: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (losses.len() / 40).max(1);
    (0..losses.len())
        .map(|i| {
            let window = &losses[i.saturating_sub(half)..(i + half + 1).min(losses.len())];
            (
                losses[i].0,
                window.iter().map(|l| l.1).sum::<f64>() / window.len() as f64,
            )
        })
        .collect()
}

/// Writes the plot. `losses` and `accuracies` are (step, value) pairs in order of steps.
///
/// # Errors
/// If the file cannot be written.
pub fn training(
    path: &Path,
    title: &str,
    losses: &[(f64, f64)],
    accuracies: &[(f64, f64)],
) -> Result<(), Failure> {
    // Points that are not finite cannot be plotted.
    let finite = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let points = points.iter().copied();
        points.filter(|point| point.1.is_finite()).collect()
    };
    let (losses, accuracies) = (&finite(losses)[..], &finite(accuracies)[..]);
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (960, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let last = losses.last().map_or(1.0, |l| l.0).max(1.0);
    let top = losses
        .iter()
        .map(|l| l.1)
        .filter(|l| l.is_finite())
        .fold(0.1, f64::max)
        * 1.05;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .right_y_label_area_size(56)
        .build_cartesian_2d(0.0..last, 0.0..top)?
        .set_secondary_coord(0.0..last, 0.0..1.0);
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss")
        .light_line_style(WHITE)
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("accuracy on held-out rows")
        .draw()?;
    let faint = BLUE.mix(0.25);
    chart.draw_series(LineSeries::new(losses.iter().copied(), faint))?;
    chart
        .draw_series(LineSeries::new(smooth(losses), BLUE.stroke_width(2)))?
        .label("loss (running mean)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE.stroke_width(2)));
    chart
        .draw_secondary_series(LineSeries::new(
            accuracies.iter().copied(),
            RED.stroke_width(2),
        ))?
        .label("accuracy")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RED.stroke_width(2)));
    let dots = accuracies
        .iter()
        .map(|point| Circle::new(*point, 4, RED.filled()));
    chart.draw_secondary_series(dots)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    drop(chart);
    drop(root);
    Ok(replace_bytes(path, svg.as_bytes())?)
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
    Ok(replace_bytes(path, svg.as_bytes())?)
}
