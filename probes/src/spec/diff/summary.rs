//! How the five things that everybody looks at first are shown.

use serde_json::Value;

use super::capabilities::counted;
use super::pair::Node;
use super::text::show;
use crate::spec::change::{Change, Section};

/// A row of the headline.
pub(in crate::spec) struct Row {
    pub(in crate::spec) subject: &'static str,
    section: Section,
    only: Option<&'static str>,
    pub(in crate::spec) show: fn(&Value) -> String,
}

impl Row {
    /// Whether a change is about this row.
    pub(in crate::spec) fn concerns(&self, change: &Change) -> bool {
        change.section == self.section && self.only.is_none_or(|only| change.subject == only)
    }
}

/// The rows, in their order.
pub(in crate::spec) const ROWS: [Row; 5] = [
    Row {
        subject: "ociVersion",
        section: Section::Version,
        only: None,
        show: |spec| at(spec, "/ociVersion"),
    },
    Row {
        subject: "args",
        section: Section::Process,
        only: Some("args"),
        show: |spec| at(spec, "/process/args"),
    },
    Row { subject: "user", section: Section::User, only: None, show: show_user },
    Row { subject: "terminal", section: Section::Process, only: Some("terminal"), show: show_terminal },
    Row { subject: "capabilities", section: Section::Capabilities, only: None, show: show_capabilities },
];

fn at(spec: &Value, pointer: &str) -> String {
    spec.pointer(pointer).map_or_else(|| "-".to_owned(), show)
}

fn show_user(spec: &Value) -> String {
    let number =
        |name: &str| spec.pointer(&format!("/process/user/{name}")).and_then(Value::as_u64).unwrap_or(0);
    format!("uid {}, gid {}", number("uid"), number("gid"))
}

fn show_terminal(spec: &Value) -> String {
    spec.pointer("/process/terminal").and_then(Value::as_bool).unwrap_or(false).to_string()
}

/// The bounding set: what no process of the container can ever have more of.
fn show_capabilities(spec: &Value) -> String {
    counted(&Node::new(String::new(), spec.pointer("/process/capabilities/bounding")))
}
