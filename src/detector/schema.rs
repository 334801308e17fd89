//! Older versions of `config.json`: each is turned into the next one's shape before it is read.

use serde_json::{Map, Value};

use super::{DetectorConfig, SCHEMA_VERSION};

/// What the first schema, which knew one method, kept beside the rest of the training record.
const OPTIMISATION: [&str; 9] = [
    "preset",
    "epochs",
    "batch",
    "learning_rate",
    "schedule",
    "weight_decay",
    "gradient_clip",
    "held_out_nll",
    "stopping",
];

/// Reads a config of any schema up to [`SCHEMA_VERSION`].
pub(super) fn parse(text: &str) -> serde_json::Result<DetectorConfig> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema_version: u32,
    }
    // A config of today's schema is read as it is, so that an error names line and column.
    let Version { schema_version } = serde_json::from_str(text)?;
    if schema_version != 1 {
        return serde_json::from_str(text);
    }
    let mut value: Value = serde_json::from_str(text)?;
    if let Value::Object(config) = &mut value {
        first_to_second(config);
    }
    serde_json::from_value(value)
}

/// Schema 2 has a tagged estimator where schema 1 had a flow, and keeps what only an optimiser knows apart.
fn first_to_second(config: &mut Map<String, Value>) {
    if let Some(Value::Object(mut flow)) = config.remove("flow") {
        flow.insert("kind".into(), "fastflow".into());
        config.insert("estimator".into(), Value::Object(flow));
    }
    if let Some(Value::Object(training)) = config.get_mut("training") {
        let own = OPTIMISATION.iter().filter_map(|&field| {
            let value = training.remove(field)?;
            Some((field.to_string(), value))
        });
        let own: Map<String, Value> = own.collect();
        training.insert("optimisation".into(), Value::Object(own));
    }
    config.insert("schema_version".into(), SCHEMA_VERSION.into());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The bundled detector's config as the first schema wrote it.
    const FIRST: &str = include_str!("../../tests/fixtures/artifact/config.schema-1.json");

    #[test]
    fn the_first_schema_is_read_as_the_second() {
        let config = parse(FIRST).unwrap();
        assert_eq!(config.schema_version, SCHEMA_VERSION);
        assert_eq!(
            config.estimator.method(),
            crate::estimators::Method::FastFlow
        );
        let first: Value = serde_json::from_str(FIRST).unwrap();
        let flow = serde_json::to_value(config.estimator.as_flow().unwrap()).unwrap();
        assert_eq!(flow, first["flow"]);
        let training = config.training.clone().unwrap();
        let optimisation = training.optimisation.unwrap();
        assert_eq!(optimisation.epochs as u64, first["training"]["epochs"]);
        assert_eq!(training.seed, first["training"]["seed"]);
        // What is written is read again as it is.
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""kind":"fastflow""#));
        assert_eq!(parse(&text).unwrap(), config);
    }

    #[test]
    fn fields_that_no_schema_knows_are_refused_in_both() {
        let with = |text: &str, field: &str| {
            let (head, tail) = text.split_once(field).unwrap();
            format!("{head}\"surprise\": 1, {field}{tail}")
        };
        let second = serde_json::to_string(&parse(FIRST).unwrap()).unwrap();
        for text in [FIRST, &second] {
            for field in ["\"schema_version\"", "\"steps\"", "\"data_hash\""] {
                let error = parse(&with(text, field)).unwrap_err().to_string();
                assert!(error.contains("surprise"), "{field}: {error}");
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = parse("{}").unwrap_err().to_string();
        assert!(error.contains("schema_version"), "{error}");
    }
}
