//! A bundle as text: each file with what it is for, and below it what it says.

use inspect_probes::bundle::{BundleContents, ExplainedFile};
use inspect_probes::escape::escape_bytes;

use super::style::Style;
use super::wrap::wrap;

/// The bundle for people.
pub(crate) fn render_bundle(contents: &BundleContents, style: Style, width: Option<usize>) -> String {
    let path = |path: &std::path::Path| escape_bytes(path.as_os_str().as_encoded_bytes()).into_owned();
    let mut text = format!("{}\n{}\n", style.strong(&contents.container), path(&contents.path));
    for file in &contents.files {
        push_file(&mut text, file, style, width);
    }
    text.push_str(&format!("\n{}\n{}\n", style.strong("runtime state"), path(&contents.state_directory)));
    for line in &contents.state {
        push_folded(&mut text, line, "  ", width);
    }
    for file in &contents.state_files {
        push_file(&mut text, file, style, width);
    }
    text
}

fn push_file(text: &mut String, file: &ExplainedFile, style: Style, width: Option<usize>) {
    text.push_str(&format!(
        "\n  {} {}\n",
        style.strong(&file.name),
        style.faint(&format!("{} {}", file.kind, file.mode))
    ));
    let mut meaning = String::new();
    push_folded(&mut meaning, file.meaning, "    ", width);
    for line in meaning.lines() {
        text.push_str(&format!("{}\n", style.faint(line)));
    }
    for line in &file.says {
        push_folded(text, line, "    → ", width);
    }
}

fn push_folded(text: &mut String, line: &str, lead: &str, width: Option<usize>) {
    let indent = " ".repeat(lead.chars().count());
    let room = width.map(|width| width.saturating_sub(indent.len()).max(20));
    for (number, part) in wrap(line, room).iter().enumerate() {
        text.push_str(if number == 0 { lead } else { &indent });
        text.push_str(part);
        text.push('\n');
    }
}
