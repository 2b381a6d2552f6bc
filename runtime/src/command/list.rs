//! `list`.

use std::fmt::Write as _;
use std::io::Write;

use crate::context::Context;
use crate::error::RuntimeError;
use crate::state::StateDirectory;

/// Lists the containers below the root, by name. Those of other runtimes are left out.
pub(super) fn run(
    json: bool,
    quiet: bool,
    context: &Context,
    output: &mut dyn Write,
) -> Result<u8, RuntimeError> {
    let mut found = Vec::new();
    for id in names(context)? {
        let Ok(directory) = StateDirectory::locate(&context.root, &id) else { continue };
        // A container that is deleted meanwhile is no error.
        let Ok(state) = directory.load() else { continue };
        found.push(super::state::describe(&directory, &state));
    }
    if json {
        return super::write(output, &format!("{}\n", serde_json::Value::Array(found)));
    }
    let field = |value: &serde_json::Value, name: &str| match &value[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if quiet {
        let ids = found.iter().fold(String::new(), |text, one| text + &field(one, "id") + "\n");
        return super::write(output, &ids);
    }
    let columns = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![columns.map(str::to_uppercase)];
    rows.extend(found.iter().map(|one| columns.map(|name| field(one, name))));
    super::write(output, &align(&rows))
}

fn names(context: &Context) -> Result<Vec<String>, RuntimeError> {
    let entries = match std::fs::read_dir(&context.root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(RuntimeError::File { operation: "list", path: context.root.clone(), source });
        }
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn align(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(8) + 4;
    let widths: [usize; 6] = std::array::from_fn(width);
    rows.iter().fold(String::new(), |mut text, row| {
        let mut line = String::new();
        for (field, width) in row.iter().zip(widths) {
            write!(line, "{field:width$}").ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}
