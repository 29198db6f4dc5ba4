//! Options about a model's inputs as users write them, for both programs: `VALUE` for all inputs, or
//! `NAME=VALUE` for one.

use super::{Layout, Preprocessing};
use crate::element::ElementType;

/// What the options say of preprocessing; empty where nothing was given.
#[derive(Clone, Debug, Default)]
pub struct PreprocessingOptions {
    /// `M,…` or `NAME=M,…`.
    pub mean: Vec<String>,
    /// `S,…` or `NAME=S,…`.
    pub std: Vec<String>,
    /// Leaves bytes as they are.
    pub raw: bool,
    /// `nchw`, `nhwc`, `auto`, or one of them behind `NAME=`.
    pub layout: Vec<String>,
}

impl PreprocessingOptions {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.mean.is_empty() && self.std.is_empty() && !self.raw && self.layout.is_empty()
    }

    /// As [`Self::resolve`], where what the options leave open is as it was planned.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_over(
        &self,
        inputs: &[(&str, ElementType)],
        planned: &[&Preprocessing],
    ) -> Result<Vec<Preprocessing>, String> {
        let mut resolved = self.resolve(inputs)?;
        let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
        let layouts = assign(&self.layout, &names, "--layout")?;
        for (i, (given, planned)) in resolved.iter_mut().zip(planned).enumerate() {
            if given.mean.is_empty() {
                given.mean.clone_from(&planned.mean);
            }
            if given.std.is_empty() {
                given.std.clone_from(&planned.std);
            }
            if layouts[i].is_none() {
                given.layout = planned.layout;
            }
            given.raw |= planned.raw;
        }
        Ok(resolved)
    }

    /// How each of these inputs is read. Integers stay what they are.
    ///
    /// # Errors
    /// One line: an option that is malformed, or names no input.
    pub fn resolve(&self, inputs: &[(&str, ElementType)]) -> Result<Vec<Preprocessing>, String> {
        let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
        let means = assign(&self.mean, &names, "--mean")?;
        let stds = assign(&self.std, &names, "--std")?;
        let layouts = assign(&self.layout, &names, "--layout")?;
        let mut resolved = Vec::new();
        for (i, (name, element)) in inputs.iter().enumerate() {
            let preprocessing = Preprocessing {
                mean: means[i].map_or(Ok(vec![]), |v| numbers(v, "--mean"))?,
                std: stds[i].map_or(Ok(vec![]), |v| numbers(v, "--std"))?,
                raw: self.raw || element.is_whole(),
                layout: layouts[i].map_or(Ok(Layout::Auto), layout)?,
            };
            if element.is_whole()
                && !(preprocessing.mean.is_empty() && preprocessing.std.is_empty())
            {
                return Err(format!(
                    "input {name} takes {element} elements as they are: --mean and --std are for reals"
                ));
            }
            resolved.push(preprocessing);
        }
        Ok(resolved)
    }
}

/// The argument for each of these inputs: that behind its name, or the one without a name.
///
/// # Errors
/// One line: two arguments for one input.
pub fn assign<'a>(
    arguments: &'a [String],
    inputs: &[&str],
    option: &str,
) -> Result<Vec<Option<&'a str>>, String> {
    let mut found: Vec<Option<&str>> = vec![None; inputs.len()];
    let mut of_all = None;
    for argument in arguments {
        // A name may hold `=` itself: the longest one that fits is meant.
        let named = inputs
            .iter()
            .enumerate()
            .filter_map(|(i, name)| Some((i, argument.strip_prefix(*name)?.strip_prefix('=')?)))
            .min_by_key(|(_, value)| value.len());
        let (place, what) = match named {
            Some((i, value)) => (found[i].replace(value), inputs[i]),
            None => (of_all.replace(argument.as_str()), "all of them"),
        };
        if place.is_some() {
            return Err(format!(
                "{option} is given twice for {what}; write {option} NAME=… for one"
            ));
        }
    }
    Ok(found.into_iter().map(|value| value.or(of_all)).collect())
}

fn numbers(text: &str, option: &str) -> Result<Vec<f32>, String> {
    let number = |part: &str| {
        part.trim().parse().map_err(|_| {
            format!("{option} {text}: {part:?} is no number and names no input; expected M,… or NAME=M,…")
        })
    };
    text.split(',').map(number).collect()
}

fn layout(text: &str) -> Result<Layout, String> {
    match text {
        "auto" => Ok(Layout::Auto),
        "nchw" => Ok(Layout::Nchw),
        "nhwc" => Ok(Layout::Nhwc),
        _ => Err(format!("--layout {text}: expected auto, nchw or nhwc, perhaps behind NAME=")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| v.to_string()).collect()
    }

    #[test]
    fn arguments_are_for_all_inputs_or_for_the_one_that_they_name() {
        let arguments = texts(&["b=2", "1"]);
        assert_eq!(assign(&arguments, &["a", "b"], "--o"), Ok(vec![Some("1"), Some("2")]));
        let paths = texts(&["b=dir/x=1.npy"]);
        assert_eq!(assign(&paths, &["a", "b"], "--o"), Ok(vec![None, Some("dir/x=1.npy")]));
        assert_eq!(assign(&texts(&["a=b=3"]), &["a", "a=b"], "--o"), Ok(vec![None, Some("3")]));
        assert!(assign(&texts(&["a=1", "a=2"]), &["a"], "--o").is_err());
        assert!(assign(&texts(&["1", "2"]), &["a", "b"], "--o").is_err());
    }

    #[test]
    fn integers_stay_what_they_are() {
        let byte = ElementType::Integer { bits: 8, signed: false };
        let inputs = [("image", ElementType::Real), ("ids", byte)];
        let mut options = PreprocessingOptions {
            mean: texts(&["image=.5,.25"]),
            layout: texts(&["nhwc"]),
            ..PreprocessingOptions::default()
        };
        let resolved = options.resolve(&inputs).unwrap();
        assert_eq!(resolved[0].mean, [0.5, 0.25]);
        assert!(!resolved[0].raw && resolved[1].raw && resolved[1].mean.is_empty());
        assert_eq!(resolved[1].layout, Layout::Nhwc);
        options.mean = texts(&["0.5"]);
        assert!(options.resolve(&inputs).unwrap_err().contains("ids"));
        options.mean = texts(&["x=0.5"]);
        assert!(options.resolve(&inputs).unwrap_err().contains("names no input"));
    }
}
