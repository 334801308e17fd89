//! Downloads and uploads on a terminal: a bar a file, notices as lines.

use std::sync::Mutex;

use candle_fastflow::hub::Event;
use indicatif::ProgressBar;

use super::progress;

/// Shows what a transfer tells; silent where standard error is not a terminal, or when `quiet`.
pub struct Transfer {
    quiet: bool,
    /// The bar in use and the file it shows.
    shown: Mutex<Option<(String, ProgressBar)>>,
}

impl Transfer {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            shown: Mutex::new(None),
        }
    }

    /// For the library to call.
    pub fn show(&self, event: Event) {
        match event {
            Event::Download { file, done, total } => self.advance(file, done, total),
            Event::Upload { done, total } => self.advance("uploading", done, Some(total)),
            Event::Downloaded { .. } => self.clear(),
            // Also where the rest is silent: a script's log should say what a run waits for, or does without.
            Event::Notice(text) => self.note(text),
            Event::Waiting { seconds: 0 } => self.clear(),
            Event::Waiting { seconds } => self.wait(seconds),
            Event::Unnamed { .. } if self.quiet => {}
            Event::Unnamed { namespace } => self.note(&format!(
                "without FASTFLOW_NAMESPACE, --repo or HF_TOKEN this is shown as a repository of {namespace}"
            )),
            _ => {}
        }
    }

    fn advance(&self, file: &str, done: u64, total: Option<u64>) {
        let Ok(mut shown) = self.shown.lock() else {
            return;
        };
        let quiet = self.quiet;
        let fresh = || {
            let template = "{msg} [{bar:24}] {bytes}/{total_bytes}  {bytes_per_sec}  eta {eta}";
            let bar = progress::bar(quiet, template);
            bar.set_message(file.to_string());
            (file.to_string(), bar)
        };
        match &*shown {
            Some((current, _)) if current == file => {}
            _ => *shown = Some(fresh()),
        }
        if let Some((_, bar)) = &*shown {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }

    fn clear(&self) {
        if let Ok(mut shown) = self.shown.lock()
            && let Some((_, bar)) = shown.take()
        {
            bar.finish_and_clear();
        }
    }

    /// A countdown in the bar's place; on a terminal only.
    fn wait(&self, seconds: u64) {
        const WAITING: &str = "waiting";
        let Ok(mut shown) = self.shown.lock() else {
            return;
        };
        if !matches!(&*shown, Some((current, _)) if current == WAITING) {
            *shown = Some((WAITING.into(), progress::bar(self.quiet, "{msg}")));
        }
        if let Some((_, bar)) = &*shown {
            bar.set_message(format!("waiting for the Hub: {seconds} s"));
            bar.tick();
        }
    }

    fn note(&self, text: &str) {
        match self.shown.lock().as_deref() {
            Ok(Some((_, bar))) => bar.suspend(|| eprintln!("{text}")),
            _ => eprintln!("{text}"),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.clear();
    }
}
