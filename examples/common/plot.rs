//! `training.svg`: loss and accuracy over steps.

use std::path::Path;

use plotters::prelude::*;

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
    let root = SVGBackend::new(path, (960, 540)).into_drawing_area();
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
    Ok(())
}
