//! The table that people read, at most a hundred columns wide.

use super::{Columns, Evaluation, Judged};
use crate::text::{tail, thousands};
use ir::plan::Task;

/// Columns of the table.
const WIDTH: usize = 100;
/// What the columns of layers are.
const LEGEND: [&str; 2] = [
    "  escape: values beyond half a turn of the circle (harmonics) or outside the interval (degrees)",
    "  imitation: error of the fitted network's values, noise: of truncations; over the values' spread",
];
/// How many inputs with another class are listed.
const MOST_CHANGED: usize = 20;

impl Evaluation {
    /// The table that people read.
    pub fn to_text(&self) -> String {
        let mut lines = Vec::new();
        for output in &self.outputs {
            lines.push(self.task_line(output));
            lines.extend(output.table(self.inputs));
        }
        let has_float = self.outputs.iter().any(|o| o.relative_error.is_some());
        if !has_float {
            lines.push("  (the weights file holds no reference graphs: plan only)".into());
        }
        lines.push(format!(
            "  plan: what {} simulated {} of two parties answer, roundings and carries of masks included",
            self.runs,
            if self.runs == 1 { "run" } else { "runs" }
        ));
        lines.push(format!(
            "  carries move an output by {:.5} (deviation); a run stays within {:.5} of the plan",
            self.carry_deviation, self.carry_bound
        ));
        lines.extend(self.layer_lines());
        lines.join("\n")
    }

    /// What may be said of a plan that was measured on made-up inputs: what became of its layers.
    pub fn to_text_without_promises(&self) -> String {
        let mut lines: Vec<String> = self.outputs.iter().map(|o| self.task_line(o)).collect();
        lines.push(
            "  made-up inputs tell nothing of accuracy: measure it with polyc evaluate and real ones"
                .into(),
        );
        lines.extend(self.layer_lines());
        lines.join("\n")
    }

    fn task_line(&self, output: &Judged) -> String {
        let of = match self.outputs.len() {
            1 => String::new(),
            _ => format!(" of {}", tail(&output.name, 30)),
        };
        let positions = match (output.positions, output.meaning) {
            (1, _) => String::new(),
            (n, Task::Regress) => format!(", {} of every input", thousands(n)),
            (n, _) => format!(", at {} positions of every input", thousands(n)),
        };
        format!("task{of}: {}{positions}", output.meaning)
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
        if self.layers.iter().any(|l| l.outside.is_some() || l.imitation.is_some()) {
            lines.extend(LEGEND.map(str::to_owned));
        }
        lines
    }
}

impl Judged {
    fn table(&self, inputs: usize) -> Vec<String> {
        let row = |title: &str, columns: [String; 3]| {
            let [float, fitted, plan] = columns;
            format!("{title:<15}{float:>10} {fitted:>10} {plan:>10}")
        };
        let title = format!("{inputs} input{}", if inputs == 1 { "" } else { "s" });
        let mut lines = vec![row(&title, ["float", "fitted", "plan"].map(str::to_owned))];
        if let Some(a) = &self.accuracy {
            lines.push(row("  accuracy", [a.float, a.fitted, Some(a.plan)].map(percent)));
        }
        if let Some(a) = &self.agreement {
            lines.push(row("  same class", [None, Some(a.fitted), Some(a.plan)].map(percent)));
        }
        if let Some(e) = &self.error {
            let columns = |c: Columns| [c.float, c.fitted, c.plan];
            lines.push(row("  RMSE", columns(e.rmse).map(number)));
            lines.push(row("  R²", columns(e.r2).map(share)));
            lines.push(row("  largest error", columns(e.largest).map(number)));
        }
        if let (Some(e), Task::Regress) = (&self.relative_error, self.meaning) {
            let (fitted, plan) = (Some(e.fitted_rms), Some(e.plan_rms));
            lines.push(row("  off float by", [None, fitted, plan].map(number)));
            lines.push(row("  of its spread", [None, e.fitted, e.plan].map(percent)));
        }
        if let Some(worst) = self.worst_difference {
            lines
                .push(format!("  largest difference of an output, plan against float: {worst:.4}"));
        }
        if let Some(kept) = self.carry_agreement {
            lines.push(format!(
                "  simulated runs have the class of the plan without carries in {:.1}% of cases",
                100.0 * kept
            ));
        }
        lines.extend(self.changed_lines());
        lines
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
}

fn percent(x: Option<f64>) -> String {
    x.map_or("-".into(), |x| format!("{:.2}%", 100.0 * x))
}

fn share(x: Option<f64>) -> String {
    x.map_or("-".into(), |x| format!("{x:.4}"))
}

/// Five significant digits, at most ten characters.
fn number(x: Option<f64>) -> String {
    x.map_or("-".into(), ir::plan::five_digits)
}

#[cfg(test)]
mod tests {
    use super::super::{
        Agreement, Changed, Columns, Counted, Evaluation, Judged, LayerEvaluation, NumberErrors,
        RelativeError,
    };
    use ir::plan::Task;

    fn judged() -> Judged {
        let changed = (0..40).map(|i| Changed { input: 4000 + i, float: 999, plan: 998 });
        Judged {
            name: "scores".into(),
            task: "classify",
            class_axis: Some(1),
            threshold: None,
            positions: 1_048_576,
            accuracy: None,
            agreement: Some(Agreement { fitted: 1.0, plan: 1.0, rounded: 1.0 }),
            error: None,
            relative_error: None,
            loss: Some(0.0),
            worst_difference: Some(1234.5678),
            carry_agreement: Some(0.98),
            changed: changed.collect(),
            classes: vec![],
            counted: Counted::default(),
            meaning: Task::Classify { axis: 1 },
        }
    }

    fn evaluation(outputs: Vec<Judged>) -> Evaluation {
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
        Evaluation {
            inputs: 50_000,
            runs: 50_000,
            escaped: 0,
            carry_deviation: 1234.5,
            carry_bound: 9876.5,
            layers: vec![layer],
            outputs,
            logits: vec![],
        }
    }

    #[test]
    fn the_table_fits_a_hundred_columns() {
        let evaluation = evaluation(vec![judged(), judged()]);
        let text = evaluation.to_text();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("4000 (999, 998)") && text.contains("and 20 more"), "{text}");
        assert!(text.contains("task of scores: classify"), "{text}");
        let json = evaluation.to_json().unwrap();
        assert_eq!(json["agreement"], json["outputs"][1]["agreement"]);
        assert_eq!((&json["task"], &json["inputs"]), (&"classify".into(), &50_000.into()));
        let text = evaluation.without_promises().to_text_without_promises();
        assert!(text.contains("by 3 harmonics") && !text.contains('%'), "{text}");
    }

    #[test]
    fn numbers_are_told_in_their_unit() {
        let columns = |x: f64| Columns { float: Some(x), fitted: Some(x), plan: Some(-x) };
        let regress = Judged {
            meaning: Task::Regress,
            agreement: None,
            carry_agreement: None,
            changed: vec![],
            error: Some(NumberErrors {
                rmse: columns(-1234567.8),
                r2: columns(-0.123456),
                largest: columns(1.0),
            }),
            relative_error: Some(RelativeError {
                fitted_rms: 0.0123456,
                plan_rms: 123.0,
                fitted: None,
                plan: Some(0.5),
            }),
            ..judged()
        };
        let text = evaluation(vec![regress]).to_text();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("  of its spread         -          -     50.00%"), "{text}");
        assert!(text.contains("-1.2346e6") && !text.contains("class"), "{text}");
    }
}
