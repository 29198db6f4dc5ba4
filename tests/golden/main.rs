//! Golden texts of graphs and plans: what passes and lowering make of the shipped models and of one small
//! graph per pass. `UPDATE_EXPECT=1 cargo test --workspace --test golden` rewrites them; look at the
//! difference before it is committed.
//!
//! Graphs are printed without the numbers of the model. Plans are fitted to the digits that the README
//! compiles with. Sums of floats differ in their last bits between processors with vectors of other widths, so of
//! a plan only whole numbers are printed (rings, shifts, bits and harmonics, bytes), which are far above that
//! unless a choice is nearly a tie. On an emulated processor without AVX-512 the plans were the same bytes.

mod models;
mod passes;
