//! What several benches begin with.

use polyrt::preprocess::Role;
use polyrt::preprocess::expand::Seed;
use polyrt::preprocess::transfer::{Transfers, setup};
use std::error::Error;

/// Whatever goes wrong ends a bench.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Both parties' transfers, behind their setup.
pub fn transfers() -> Result<(Transfers, Transfers), Failure> {
    let (begun0, first0) = setup::begin(Role::Party0, Seed::from_system()?);
    let (begun1, first1) = setup::begin(Role::Party1, Seed::from_system()?);
    let (chosen0, second0) = begun0.choose(&first1)?;
    let (chosen1, second1) = begun1.choose(&first0)?;
    let (grown0, third0) = chosen0.grow(&second1)?;
    let (grown1, third1) = chosen1.grow(&second0)?;
    Ok((grown0.finish(&third1)?, grown1.finish(&third0)?))
}
