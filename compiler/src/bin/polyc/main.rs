//! `polyc`: compiles ONNX models to plans for two-party computation.

/// Prints a line to the terminal; a reader that went away is no error.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

/// Prints a line beside the output; a reader that went away is no error.
macro_rules! note {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}

mod compile;
mod evaluate;
mod files;
mod memory;
mod report;
mod task;

use clap::{Parser, Subcommand};
use polyc::error::CompileError;
use polyc::onnx::ImportError;
use std::process::ExitCode;

/// Compiles ONNX models to two-party computation.
///
/// A company has a classifier that it will not give away, a client an input that it will not show.
/// `polyc compile` turns the classifier into a public plan and secret weights; `polyrt` runs the plan
/// between the two parties, and the client alone learns the answer.
///
///   polyc compile model.onnx -o plan.bin --calibrate images.npz
///   polyc report plan.bin
///   polyc evaluate plan.bin --inputs test.npz --labels test.npz
///
/// Exit status: 0 done; 1 failed (the disk, a defect of polyc); 2 wrong usage, or a model, file or option
/// that cannot be used.
#[derive(Parser)]
#[command(name = "polyc", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compile(Box<compile::Args>),
    Evaluate(evaluate::Args),
    Report(report::Args),
    /// Lists the ONNX operators that compile
    Operators,
    /// Evaluates a model for `polyc compile`, which asks on standard input
    #[command(hide = true)]
    Oracle,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compile(args) => compile::run(*args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Report(args) => report::run(args),
        Command::Oracle => polyc::oracle::answer(),
        Command::Operators => {
            for operator in polyc::onnx::supported_operators() {
                say!("{:<37} {}", operator.name, operator.note);
            }
            Ok(())
        }
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    note!("polyc: {error:#}");
    let is_internal = |e: &CompileError| {
        matches!(e, CompileError::Internal { .. } | CompileError::Import(ImportError::Internal(_)))
    };
    let is_failure = error.downcast_ref::<CompileError>().is_some_and(is_internal)
        || error.is::<files::CannotWrite>();
    if is_failure { ExitCode::FAILURE } else { ExitCode::from(2) }
}
