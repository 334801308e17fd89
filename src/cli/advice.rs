//! What the library's errors advise, said with the program's flags and verbs.

use std::path::Path;

use candle_fastflow::{Advice, Error, RoleOf};

/// An error with its causes, on one line, each said once: many errors say their cause themselves.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = match cause.downcast_ref::<Error>() {
            Some(error) => said(error),
            None => cause.to_string(),
        };
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line
}

/// An error of the library.
pub fn said(error: &Error) -> String {
    match error {
        Error::Advised { error, advice } => format!("{}; {}", said(error), words(*advice)),
        Error::GpuMemory(what) => {
            let advice = words(Advice::LessGpuMemory);
            format!("the GPU has no memory left ({what}); {advice}")
        }
        Error::Roles {
            path,
            reason,
            guess,
        } => {
            let path = path.display();
            format!(
                "{path}: {reason}; say it, for example: {}",
                role_flags(guess)
            )
        }
        other => other.to_string(),
    }
}

/// What photos are, as flags that can be typed.
fn role_flags(guess: &[RoleOf]) -> String {
    let flag = |role: &RoleOf| {
        let paths: Vec<String> = role.paths.iter().map(|path| typed(path)).collect();
        format!("--{} {}", role.field.replace('_', "-"), paths.join(" "))
    };
    guess.iter().map(flag).collect::<Vec<_>>().join(" ")
}

/// A path as a shell takes it.
fn typed(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn words(advice: Advice) -> String {
    let fixed = match advice {
        Advice::BackboneWeights => "give the weights with --backbone-weights FILE",
        Advice::KnownBackbones => return known_backbones(cfg!(feature = "hub")),
        Advice::BuildWith(feature) => {
            return format!("build it with cargo install --path . --features {feature}");
        }
        Advice::UseCpu => "--device cpu always works",
        Advice::LessGpuMemory => {
            "give a smaller --batch, close other programs that use it, or use --device cpu"
        }
        Advice::Train => "`fastflow train` makes one",
        Advice::CheckData => "`fastflow data check` lists all",
        Advice::NameData => "give the folder with --data DIR",
        Advice::Resume => "go on with --resume",
        Advice::StartAnew => "to start anew leave out --resume",
        Advice::SmallerSteps => "try a smaller --learning-rate or a --gradient-clip",
        // Advice that is newer than this list, in the library's words.
        other => return other.to_string(),
    };
    fixed.to_owned()
}

/// Where to see all backbones: the verb `list` where this build has it.
fn known_backbones(has_list: bool) -> String {
    if has_list {
        return "`fastflow list --backbones` shows all".to_owned();
    }
    let known = candle_fastflow::backbones::list();
    let known: Vec<_> = known.iter().map(|info| info.arch).collect();
    format!("all are {}", known.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_fastflow::backbones;

    #[test]
    fn advice_comes_with_flags() {
        let error = backbones::load("resnet18", None, &Device::Cpu)
            .err()
            .unwrap();
        let text = one_line(&anyhow::Error::from(error).context("eval"));
        assert!(
            text.starts_with("eval: backbone `resnet18.tv_in1k`"),
            "{text}"
        );
        assert!(text.contains("--backbone-weights FILE") && !text.contains("backbone_weights"));
        let full = said(&Error::GpuMemory("CUDA_ERROR_OUT_OF_MEMORY".into()));
        assert!(full.contains("--batch") && !full.contains('`'), "{full}");
    }

    #[test]
    fn roles_are_asked_with_flags_to_copy() {
        let role = |field, path: &str| RoleOf {
            field,
            paths: vec![path.into()],
        };
        let error = Error::Roles {
            path: "p".into(),
            reason: "it is not certain".into(),
            guess: vec![role("normal", "p/OK parts"), role("normal_test", "p/it's")],
        };
        assert_eq!(
            said(&error),
            r"p: it is not certain; say it, for example: --normal 'p/OK parts' --normal-test 'p/it'\''s'"
        );
        let text = error.to_string();
        assert!(text.ends_with(
            r#"dataset.toml, for example: normal = ["OK parts"], normal_test = ["it's"]"#
        ));
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = || Error::Invalid("no".into()).advise(Advice::Resume);
        let error = anyhow::Error::from(cause()).context(said(&cause()));
        assert_eq!(one_line(&error), "no; go on with --resume");
    }

    #[test]
    fn the_verb_list_is_advised_only_where_it_is() {
        let without = known_backbones(false);
        for info in backbones::list() {
            assert!(without.contains(info.arch), "{without}");
        }
        let text = said(&backbones::info("wide_resnet50").unwrap_err());
        assert_eq!(
            text.contains("`fastflow list --backbones`"),
            cfg!(feature = "hub")
        );
        assert!(text.contains("nearest known: wide_resnet50_2"), "{text}");
    }
}
