//! JSON output: indented, one value, a newline at the end.

use serde::Serialize;

use crate::error::{CommandError, ErrorKind};

/// The value as indented JSON. A value that cannot be written as JSON is a bug of ours.
pub(crate) fn render_json(value: &impl Serialize) -> Result<String, CommandError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| CommandError::new(ErrorKind::Bug, error))?;
    text.push('\n');
    Ok(text)
}
