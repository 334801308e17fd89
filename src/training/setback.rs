//! Back to the last sound state of a run.

use serde_json::json;

use super::{
    Progress,
    guard::copied,
    optimise::{Optimisation, State},
};
use crate::{Advice, Error, Result};

impl Optimisation<'_> {
    /// Remembers a sound state to go back to.
    pub(super) fn keep(
        &self,
        state: &mut State,
        held_out_nll: f64,
        nll: Option<f64>,
    ) -> Result<()> {
        state.kept.sound = copied(state.model.tensors()?)?;
        state.position.guard.held_out_nll = Some(held_out_nll);
        state.position.guard.nll = nll;
        Ok(())
    }

    /// To the last sound state, with a fresh optimizer; the epoch is run again with smaller steps, or the run is over
    /// where that was tried often enough.
    pub(super) fn go_back(&self, state: &mut State, progress: &mut dyn Progress) -> Result<()> {
        let position = &mut state.position;
        let at = json!({ "epoch": position.epoch, "step": position.step });
        self.folder.event("setback", &at)?;
        let epoch = position.epoch + 1;
        (position.step, position.loss, position.gradient_norm) = (0, 0.0, 0.0);
        if position.guard.may_retry() {
            position.guard.setbacks += 1;
            let share = position.guard.factor();
            progress.note(&format!(
                "epoch {epoch} lost what was learnt: back to its start, with steps {share} times as large"
            ));
        } else if position.history.is_empty() {
            return Err(Error::Training(
                "held-out photos became less likely in the first epoch, with ever smaller steps"
                    .into(),
            )
            .advise(Advice::SmallerSteps));
        } else {
            position.epoch = self.config.epochs;
            progress.note(&format!(
                "epoch {epoch} lost what was learnt again: the state before it is kept"
            ));
        }
        let tensors = copied(state.kept.sound.clone())?;
        state.model = self.with_tensors(state.model.as_ref(), tensors)?;
        state.learner = self.learner(state.model.as_ref())?;
        Ok(())
    }
}
