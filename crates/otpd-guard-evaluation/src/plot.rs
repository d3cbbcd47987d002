//! Line charts with logarithmic axes, as SVG.

use std::fmt::Write as _;

const STYLE: &str = "<style>
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.quiet { fill: #57606a; } .grid { stroke: #d0d7de; }
.line-0 { stroke: #0969da; } .line-1 { stroke: #bc4c00; } .line-2 { stroke: #1a7f37; }
.dot-0 { fill: #0969da; } .dot-1 { fill: #bc4c00; } .dot-2 { fill: #1a7f37; }
polyline { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
.line-0 { stroke: #4493f8; } .line-1 { stroke: #f0883e; } .line-2 { stroke: #3fb950; }
.dot-0 { fill: #4493f8; } .dot-1 { fill: #f0883e; } .dot-2 { fill: #3fb950; }
}
</style>
";
const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 48.0;
const PANEL: f64 = 420.0;

/// Axis with ticks and their labels.
#[derive(Clone, Debug)]
pub struct ChartAxis {
    /// Name.
    pub title: &'static str,
    /// Ticks; the first and the last are the ends of the axis.
    pub ticks: Vec<(f64, &'static str)>,
    /// True for a logarithmic axis.
    pub is_logarithmic: bool,
}

impl ChartAxis {
    /// Returns the place of a value between 0 and 1; values outside the axis are at its ends.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| {
            if self.is_logarithmic {
                value.ln()
            } else {
                value
            }
        };
        let first = self.ticks.first().map_or(0.0, |tick| tick.0);
        let last = self.ticks.last().map_or(1.0, |tick| tick.0);
        let value = value.clamp(first, last);
        (scale(value) - scale(first)) / (scale(last) - scale(first))
    }
}

/// Panel of a chart.
#[derive(Clone, Debug)]
pub struct ChartPanel {
    /// Title.
    pub title: String,
    /// Lines, in the order of the legend.
    pub lines: Vec<Vec<(f64, f64)>>,
}

/// Returns a chart of panels with the same axes.
pub fn chart(
    label: &str,
    x: &ChartAxis,
    y: &ChartAxis,
    legend: &[&str],
    panels: &[ChartPanel],
) -> String {
    let count = f64::from(u32::try_from(panels.len()).unwrap_or(1));
    let (width, height) = (PANEL * count, TOP + HEIGHT + 50.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n{STYLE}"
    );
    let mut offset = 0.0;
    for panel in panels {
        draw(&mut svg, panel, offset, x, y);
        offset += PANEL;
    }
    let mut place = LEFT;
    for (number, name) in legend.iter().enumerate() {
        line(
            &mut svg,
            &format!("<circle cx=\"{place:.1}\" cy=\"12\" r=\"5\" class=\"dot-{number}\"/>"),
        );
        text(&mut svg, place + 10.0, 16.0, "start", "", name);
        let letters = u32::try_from(name.len()).unwrap_or_default();
        place += 40.0 + f64::from(letters) * 7.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &ChartPanel, offset: f64, x: &ChartAxis, y: &ChartAxis) {
    let left = offset + LEFT;
    let bottom = TOP + HEIGHT;
    text(svg, left, 38.0, "start", "quiet", &panel.title);
    for (value, label) in &y.ticks {
        let place = bottom - y.place(*value) * HEIGHT;
        let right = left + WIDTH;
        line(
            svg,
            &format!(
                "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{place:.1}\" y2=\"{place:.1}\" class=\"grid\"/>"
            ),
        );
        text(svg, left - 6.0, place + 4.0, "end", "quiet", label);
    }
    for (value, label) in &x.ticks {
        let place = left + x.place(*value) * WIDTH;
        text(svg, place, bottom + 18.0, "middle", "quiet", label);
    }
    text(svg, left + WIDTH, bottom + 38.0, "end", "quiet", x.title);
    text(svg, left, bottom + 38.0, "start", "quiet", y.title);
    for (number, points) in panel.lines.iter().enumerate() {
        let places: Vec<(f64, f64)> = points
            .iter()
            .map(|(h, v)| (left + x.place(*h) * WIDTH, bottom - y.place(*v) * HEIGHT))
            .collect();
        let list: Vec<String> = places
            .iter()
            .map(|(h, v)| format!("{h:.1},{v:.1}"))
            .collect();
        let list = list.join(" ");
        line(
            svg,
            &format!("<polyline points=\"{list}\" class=\"line-{number}\"/>"),
        );
        for (h, v) in places {
            line(
                svg,
                &format!("<circle cx=\"{h:.1}\" cy=\"{v:.1}\" r=\"3\" class=\"dot-{number}\"/>"),
            );
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, content: &str) {
    line(
        svg,
        &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{content}</text>"
        ),
    );
}

fn line(svg: &mut String, content: &str) {
    let _ = writeln!(svg, "{content}");
}
