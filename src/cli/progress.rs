//! Bars on standard error for a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_fastflow::training::{EpochRecord, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar with a fixed look; invisible where standard error is not a terminal, or when `quiet`.
pub fn bar(quiet: bool, template: &str) -> ProgressBar {
    let target = if quiet || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// A counting bar: `what  [####----]  12/40  eta 3s`.
pub fn counter(quiet: bool, what: &str, total: usize) -> ProgressBar {
    let bar = bar(quiet, "{msg:12} [{bar:32}] {pos}/{len}  eta {eta}");
    bar.set_length(total as u64);
    bar.set_message(what.to_string());
    bar
}

/// Training on a terminal.
pub struct TrainingProgress {
    quiet: bool,
    bar: Option<ProgressBar>,
    interrupted: Arc<AtomicBool>,
}

impl TrainingProgress {
    /// Also takes over Ctrl-C and termination, so that a run ends with a checkpoint.
    pub fn new(quiet: bool) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            // The second time the user means it.
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            eprintln!("\nstopping after this step (again to stop at once) ...");
        })?;
        Ok(Self {
            quiet,
            bar: None,
            interrupted,
        })
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => eprintln!("{text}"),
        }
    }
}

impl Progress for TrainingProgress {
    fn features(&mut self, done: usize, total: usize) {
        let quiet = self.quiet;
        let bar = self
            .bar
            .get_or_insert_with(|| counter(quiet, "features", total));
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if done == total {
            bar.finish_and_clear();
            self.bar = None;
        }
    }

    fn step(&mut self, epoch: usize, epochs: usize, step: usize, steps: usize, loss: f64) {
        let quiet = self.quiet;
        let total = (epochs * steps) as u64;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = bar(quiet, "epoch {msg} [{bar:32}] {percent}%  eta {eta}");
            bar.set_length(total);
            bar.reset_eta();
            bar
        });
        bar.set_position(((epoch - 1) * steps + step) as u64);
        bar.set_message(format!(
            "{epoch}/{epochs}  step {step}/{steps}  loss {loss:.0}"
        ));
    }

    fn epoch(&mut self, record: &EpochRecord, epochs: usize) {
        let synthetic = record.synthetic_auroc.map_or_else(String::new, |auroc| {
            format!("  synthetic defects {auroc:.4}")
        });
        self.line(&format!(
            "epoch {:>3}/{epochs}  nats a value: train {:.4}  held out {:.4}{synthetic}  ({:.1} s)",
            record.epoch, record.nll, record.held_out_nll, record.seconds
        ));
        if record.epoch == epochs
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}
