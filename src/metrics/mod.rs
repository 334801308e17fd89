//! Detection metrics, exact and with ties handled: scores are never clamped or binned.
