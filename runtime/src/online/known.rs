//! What party 1 needs in the loop: the masks that must be known before it begins, and the correlations of every
//! interactive step.

use super::missing;
use crate::Error;
use crate::layout::{fill_online, to_online};
use crate::preprocess::item::Party1Item;
use crate::preprocess::{MaterialError, masks};
use crate::secret::{Elements, SecretTensor};
use crate::steps::{Record1, needs_masks, record1};
use crate::words::{Words, WordsMut, each_slice};
use ir::plan::{Interactive, Plan, Step};
use ir::word::Word;
use ir::{Shape, Tensor};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Party 1's material of an interactive step.
pub struct StepMaterial {
    /// The operands' masks, if its kind needs them, in the order online.
    pub masks: Vec<Elements>,
    /// The fresh masks of its value; with the shares added, the response.
    pub fresh: Zeroizing<Words>,
    /// Its correlations.
    pub record: Record1,
}

impl StepMaterial {
    /// Takes it from every item; `known` are the masks that were computed before.
    pub fn take(
        plan: &Plan,
        kind: &Interactive,
        index: usize,
        items: &mut [Party1Item<'_>],
        known: KnownMasks,
    ) -> Result<Self, Error> {
        let step = &plan.steps[index];
        let shape = &step.shape;
        let all = shape.elements() * items.len();
        let mut fresh = Zeroizing::new(Words::zeros(step.ring, all));
        let rooms = fresh.part_mut(0..all).chunks(shape.elements());
        if known.fresh.is_empty() {
            let mut work: Vec<(_, WordsMut<'_>)> = items.iter_mut().zip(rooms).collect();
            work.par_iter_mut().try_for_each(|(item, room)| item.fresh(index, room.borrow()))?;
        } else {
            let pairs = known.fresh.iter().zip(rooms);
            pairs.for_each(|(mask, room)| write_mask(shape, mask, room));
        }
        let record = record1(kind, step, index, items)?;
        let online = |masks: &Vec<SecretTensor>| {
            let items = masks.iter().flat_map(|mask| to_online(&mask.shape, 1, &mask.data));
            Zeroizing::new(items.collect())
        };
        Ok(Self { masks: known.operands.iter().map(online).collect(), fresh, record })
    }
}

/// Party 1's masks that must be computed before the loop begins.
pub struct Known {
    /// Of the input.
    pub input: Zeroizing<Words>,
    /// Of the output.
    pub output: Zeroizing<Words>,
    /// Of the steps.
    pub steps: Vec<KnownMasks>,
}

/// Masks of an interactive step, by item.
#[derive(Default)]
pub struct KnownMasks {
    /// Of its operands, if its kind needs them.
    pub operands: Vec<Vec<SecretTensor>>,
    /// The fresh ones of its value, if other masks follow from them.
    pub fresh: Vec<SecretTensor>,
}

impl Known {
    /// Takes them from every item.
    pub fn new(plan: &Plan, items: &mut [Party1Item<'_>]) -> Result<Self, Error> {
        let needs = |step: &&Step| step.op.interactive().is_some_and(needs_masks);
        let operands = plan.steps.iter().filter(needs).flat_map(|step| &step.operands);
        let output = plan.output.index();
        let kept: Vec<usize> = operands.map(|o| o.index()).chain([0, output]).collect();
        let wanted = masks::with_origins(plan, kept.iter().copied());
        let of_item = |item: &mut Party1Item<'_>| {
            let mut found: Vec<Option<SecretTensor>> = plan.steps.iter().map(|_| None).collect();
            masks::walk_to(
                plan,
                &wanted,
                |step| item.mask(step),
                |index, _, mask| {
                    let is_fresh = plan.steps[index].op.is_interactive();
                    if is_fresh || kept.contains(&index) {
                        found[index] = Some(SecretTensor::new(mask.clone()));
                    }
                    Ok(())
                },
            )?;
            Ok(found)
        };
        let mut found: Vec<Vec<Option<SecretTensor>>> =
            items.par_iter_mut().map(of_item).collect::<Result<_, MaterialError>>()?;
        let mut steps: Vec<KnownMasks> = plan.steps.iter().map(|_| KnownMasks::default()).collect();
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| needs(step)) {
            for operand in step.operands.iter().map(|o| o.index()) {
                let of = |item: &Vec<Option<SecretTensor>>| {
                    let mask = item[operand].as_ref().ok_or_else(|| missing(operand))?;
                    Ok(SecretTensor::new(Tensor::clone(mask)))
                };
                steps[index].operands.push(found.iter().map(of).collect::<Result<_, Error>>()?);
            }
        }
        let of_step = |index: usize| {
            let step = &plan.steps[index];
            let all = step.shape.elements() * found.len();
            let mut masks = Zeroizing::new(Words::zeros(step.ring, all));
            let rooms = masks.part_mut(0..all).chunks(step.shape.elements());
            for (item, room) in found.iter().zip(rooms) {
                if let Some(mask) = &item[index] {
                    write_mask(&step.shape, mask, room);
                }
            }
            masks
        };
        let (input, output) = (of_step(0), of_step(output));
        for (index, known) in steps.iter_mut().enumerate() {
            if plan.steps[index].op.is_interactive() {
                known.fresh = found.iter_mut().filter_map(|item| item[index].take()).collect();
            }
        }
        Ok(Self { input, output, steps })
    }
}

/// Writes an item's mask in the order online.
fn write_mask(shape: &Shape, mask: &Tensor<u64>, room: WordsMut<'_>) {
    let mut left = mask.data.as_slice();
    each_slice!(WordsMut, room, room => fill_online(shape, 1, room, |next| {
        let (now, later) = left.split_at(next.len());
        next.iter_mut().zip(now).for_each(|(to, v)| *to = Word::low(*v));
        left = later;
    }));
}
