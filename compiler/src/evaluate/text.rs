//! The table that people read, at most a hundred columns wide.

use super::Evaluation;

/// Columns of the table.
const WIDTH: usize = 100;
/// How many inputs with another class are listed.
const MOST_CHANGED: usize = 20;

impl Evaluation {
    /// The table that people read.
    pub fn to_text(&self) -> String {
        let percent = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.2}%", 100.0 * x));
        let row = |title: &str, columns: [String; 3]| {
            let [float, fitted, plan] = columns;
            format!("{title:<15}{float:>9} {fitted:>9} {plan:>9}")
        };
        let title = format!("{} inputs", self.inputs);
        let mut lines = vec![row(&title, ["float", "fitted", "plan"].map(str::to_owned))];
        if let Some(a) = &self.accuracy {
            lines.push(row("  accuracy", [a.float, a.fitted, Some(a.plan)].map(percent)));
        }
        match &self.agreement {
            Some(a) => {
                lines.push(row("  same class", [None, Some(a.fitted), Some(a.plan)].map(percent)))
            }
            None => lines.push("  (the weights file holds no reference graphs: plan only)".into()),
        }
        if let Some(worst) = self.worst_difference {
            lines
                .push(format!("  largest difference of an output, plan against float: {worst:.4}"));
        }
        lines.push(format!(
            "  carries move an output by {:.5} (deviation); a run stays within {:.5} of the plan",
            self.carry_deviation, self.carry_bound
        ));
        lines.push(format!(
            "  simulated runs have the plan's class in {:.1}% of cases",
            100.0 * self.carry_agreement
        ));
        lines.extend(self.changed_lines());
        lines.extend(self.layer_lines());
        lines.join("\n")
    }

    fn changed_lines(&self) -> Vec<String> {
        let Some(most) = self.changed.len().checked_sub(1) else { return Vec::new() };
        let mut items: Vec<String> = self
            .changed
            .iter()
            .take(MOST_CHANGED)
            .map(|c| format!("{} ({}, {})", c.input, c.float, c.plan))
            .collect();
        if most >= MOST_CHANGED {
            items.push(format!("and {} more", self.changed.len() - MOST_CHANGED));
        }
        let mut lines = vec!["  another class than float, input (float, plan):".to_owned()];
        for item in items {
            match lines.last_mut() {
                Some(line) if line.chars().count() + item.len() < WIDTH => {
                    line.push(' ');
                    line.push_str(&item);
                }
                _ => lines.push(format!("    {item}")),
            }
        }
        lines
    }

    fn layer_lines(&self) -> Vec<String> {
        if self.layers.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "  {:<27} {:<22} {:>16} {:>8} {:>9} {:>8}",
            "layer", "fit", "interval", "escape", "imitation", "noise"
        )];
        for l in &self.layers {
            let percent = |x: Option<f64>, digits: usize| {
                x.map_or("-".into(), |x| format!("{:.digits$}%", 100.0 * x))
            };
            let interval =
                l.interval.map_or("-".into(), |(low, high)| format!("{low:.2} … {high:.2}"));
            lines.push(format!(
                "  {:<27} {:<22} {:>16} {:>8} {:>9} {:>8}",
                tail(&l.name, 27),
                tail(&l.fit, 22),
                interval,
                percent(l.beyond_half_turn.or(l.outside), 3),
                percent(l.imitation, 2),
                percent(l.noise, 2),
            ));
        }
        lines.push(
            "  escape: values beyond half a turn of the circle (harmonics) or outside the interval \
             (degrees)"
                .into(),
        );
        lines.push(
            "  imitation: error of the fitted network's values, noise: of truncations; over the values' \
             spread"
                .into(),
        );
        lines
    }
}

/// The last characters of a name that is too long for its column.
pub(crate) fn tail(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let end: String = name.chars().skip(count - width + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::super::{Agreement, Changed, Evaluation, LayerEvaluation};

    #[test]
    fn the_table_fits_a_hundred_columns() {
        let layer = LayerEvaluation {
            name: "/backbone/layer4/layer4.1/activation_of_the_block/Relu".into(),
            fit: "hardswish composite by 3 harmonics".into(),
            interval: Some((-1234.5, 1234.5)),
            outside: Some(1.0),
            beyond_half_turn: Some(1.0),
            escaped: 0,
            largest: 1e6,
            largest_error: Some(1e6),
            imitation: Some(12.0),
            noise: Some(1.5),
        };
        let changed = (0..40).map(|i| Changed { input: 4000 + i, float: 999, plan: 998 });
        let evaluation = Evaluation {
            inputs: 50_000,
            escaped: 0,
            accuracy: None,
            agreement: Some(Agreement { fitted: 1.0, plan: 1.0 }),
            worst_difference: Some(1234.5678),
            carry_deviation: 1234.5,
            carry_bound: 9876.5,
            carry_agreement: 0.98,
            changed: changed.collect(),
            layers: vec![layer],
            classes: vec![],
            logits: vec![],
        };
        let text = evaluation.to_text();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("4000 (999, 998)") && text.contains("and 20 more"), "{text}");
    }
}
