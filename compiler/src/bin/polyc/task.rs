//! `--task` and `--labels`, of `compile` and `evaluate` alike.

use anyhow::{Error, Result, bail};
use ir::input::options::assign;
use polyc::data::labels_of;
use polyc::task::{Asked, Found, Labels, Output, Task, Truths, find};

/// What outputs mean, and what is right.
#[derive(clap::Args)]
pub struct TaskArgs {
    /// What the output means: auto, classify, binary or regress [default: auto]; of one of several outputs
    /// as NAME=TASK
    ///
    /// classify: scores of classes, the first largest is the class, at every position of an output with more
    /// axes. binary: a score of the second of two classes, a sigmoid's probability judged at one half, others
    /// at zero. regress: numbers, judged by their error (RMSE, R², the largest), and against the network's by
    /// its share of their spread. auto: found from the network and the labels, and printed.
    #[arg(long, value_name = "[NAME=]TASK")]
    pub task: Vec<String>,
    /// Labels: .npy, or .npz with an array `y`; `none` for none
    ///
    /// By default those of the inputs' .npz, array `y`, where it has some; for images that lie in subfolders,
    /// the position of theirs among all, sorted by name (the convention of torchvision's ImageFolder). Those
    /// of several outputs are arrays of their names, or files of their own: --labels NAME=FILE for each. Whole
    /// numbers are classes, one per input or one per position of the output; other numbers are what a
    /// regression should answer, of the output's shape.
    #[arg(long, value_name = "[NAME=]FILE")]
    pub labels: Vec<String>,
}

/// What there is to judge.
pub struct Subject<'a> {
    /// The outputs.
    pub outputs: &'a [Output<'a>],
    /// Their tasks in a plan, which hold where nothing else is known.
    pub planned: Option<&'a [Task]>,
    /// The arguments that name the inputs' files.
    pub arguments: &'a [String],
    /// The inputs' labels by their folders.
    pub of_folder: Option<&'a Labels>,
    /// The number of inputs.
    pub inputs: usize,
}

impl TaskArgs {
    /// The tasks of outputs, and what is right of the inputs.
    pub fn read(&self, subject: &Subject<'_>) -> Result<(Vec<Task>, Truths)> {
        let Subject { outputs, planned, arguments, of_folder, inputs } = *subject;
        let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
        let asked = self.asked(&names)?;
        let labels = labels_of(&names, arguments, of_folder, &self.labels)?;
        let mut tasks = Vec::new();
        let mut truths = Vec::new();
        for (o, (output, labels)) in outputs.iter().zip(&labels).enumerate() {
            let task = match planned {
                Some(planned) if asked[o] == Asked::Auto && labels.is_none() => planned[o],
                _ => one(output, asked[o], labels.as_ref(), inputs)?,
            };
            tasks.push(task);
            let of_output = |labels: &Labels| labels.truths(task, output, inputs);
            truths.push(labels.as_ref().map(of_output).transpose()?);
        }
        Ok((tasks, truths))
    }

    /// The tasks of outputs of which there are no labels.
    pub fn of_network(&self, outputs: &[Output<'_>]) -> Result<Vec<Task>> {
        let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
        let asked = self.asked(&names)?;
        outputs.iter().zip(asked).map(|(output, asked)| one(output, asked, None, 0)).collect()
    }

    fn asked(&self, outputs: &[&str]) -> Result<Vec<Asked>> {
        let asked = |text: Option<&str>| {
            Ok(match text {
                None | Some("auto") => Asked::Auto,
                Some("classify") => Asked::Classify,
                Some("binary") => Asked::Binary,
                Some("regress") => Asked::Regress,
                Some(text) => bail!(
                    "--task {text}: expected auto, classify, binary or regress, behind NAME= for one of \
                     several outputs"
                ),
            })
        };
        let texts = assign(&self.task, outputs, "--task").map_err(Error::msg)?;
        texts.into_iter().map(asked).collect()
    }
}

fn one(output: &Output<'_>, asked: Asked, labels: Option<&Labels>, inputs: usize) -> Result<Task> {
    let Found { task, note } = find(asked, output, labels, inputs)?;
    if let Some(note) = note {
        note!("note: {note}");
    }
    Ok(task)
}
