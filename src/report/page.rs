//! What all HTML pages have in common: the document around them and its style.

use minijinja::{Environment, value::Serde};
use serde::Serialize;

use crate::{Error, Result};

/// A self-contained page: `template`, an HTML template that extends `base.html`, filled with `content`.
///
/// # Errors
/// When the template asks for something that `content` does not have.
pub fn page(template: &'static str, content: impl Serialize) -> Result<String> {
    render(template, content)
        .map_err(|fault| Error::Invalid(format!("the report's page: {fault:#}")))
}

fn render(
    template: &'static str,
    content: impl Serialize,
) -> std::result::Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_global("version", env!("CARGO_PKG_VERSION"));
    environment.add_template("base.html", include_str!("base.html"))?;
    environment.add_template("page.html", template)?;
    environment
        .get_template("page.html")?
        .render(Serde(content))
}
