//! The answer to `inspect why ID`.

use std::path::PathBuf;

use inspect_probes::escape::escape;
use inspect_probes::runtime_choice::{
    ClientKind, ConfiguredDefault, DEFAULT_RUNTIME_COMMAND, LookupOutcome, RuntimeChoice, Strength,
};
use serde::Serialize;

use super::style::Style;
use super::wrap::wrap;
use crate::swap::StandInStatus;

/// The width of the labels before each paragraph.
const LABEL: usize = 12;

/// Which runtime made a container, and what the config says beside it.
#[derive(Debug, Serialize)]
pub(crate) struct RuntimeAnswer {
    #[serde(flatten)]
    pub(crate) choice: RuntimeChoice,
    /// The default in force by the daemon's config; `None` where it cannot be told.
    pub(crate) configured: Option<ConfiguredDefault>,
    /// The config that was read.
    pub(crate) config: PathBuf,
    /// Why there is no record of the daemon's, where there is none.
    pub(crate) daemon_note: Option<String>,
    /// What stands in for runc on this node (`swap-runtime --scope node`).
    pub(crate) stand_in: Option<StandInStatus>,
}

/// Paragraphs with a label in front, folded to the terminal.
struct Page {
    text: String,
    style: Style,
    columns: Option<usize>,
}

impl Page {
    fn paragraph(&mut self, label: &str, value: &str) {
        for (index, line) in wrap(value, self.columns.map(|columns| columns - LABEL)).iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.text.push_str(&format!("{}{line}\n", self.style.strong(&format!("{label:<LABEL$}"))));
        }
    }
}

/// The verdict, the chain, the evidence, what is configured beside it, and what would change it.
pub(crate) fn render_answer(answer: &RuntimeAnswer, style: Style, width: Option<usize>) -> String {
    let choice = &answer.choice;
    let columns = width.filter(|columns| *columns >= 40);
    let mut page = Page { text: String::new(), style, columns };
    page.paragraph("container", &format!("{}/{}", choice.bundle.containerd_namespace, choice.bundle.id));
    page.paragraph("runtime", &verdict(choice, style));
    page.text.push('\n');
    render_chain(answer, &mut page);
    page.text.push('\n');
    render_evidence(choice, &mut page);
    for surprise in &choice.surprises {
        page.paragraph("beware", &style.warning(&escape(surprise)));
    }
    page.paragraph("configured", &configured(answer));
    page.text.push('\n');
    for (index, line) in ways_to_change(choice).iter().enumerate() {
        page.paragraph(if index == 0 { "to change" } else { "" }, line);
    }
    page.text
}

fn verdict(choice: &RuntimeChoice, style: Style) -> String {
    let Some(family) = choice.family else {
        return style.warning("not known: nothing that is left tells which runtime made it");
    };
    let proven = choice.evidence.iter().any(|one| one.strength == Strength::Proof);
    let how =
        if proven { style.good("proven by its own state") } else { style.warning("by indications only") };
    format!("{}, {how}", style.strong(family.as_str()))
}

fn render_chain(answer: &RuntimeAnswer, page: &mut Page) {
    let choice = &answer.choice;
    let client = &choice.client;
    page.paragraph(
        "client",
        &format!("{} ({}: {})", client.kind.as_str(), escape(&client.evidence.source), client.evidence.says),
    );
    let requested = match (&choice.runtime_type, &answer.daemon_note) {
        (Some(name), _) => format!("{} (containerd's record)", escape(name)),
        (None, Some(note)) => escape(note).into_owned(),
        (None, None) => "not known".to_owned(),
    };
    page.paragraph("↳ type", &requested);
    let shim = choice.shim_binary.as_ref().map_or_else(
        || "its binary is not known".to_owned(),
        |path| escape(&path.to_string_lossy()).into_owned(),
    );
    let running = choice.shim_pid.map_or_else(|| "not running".to_owned(), |pid| format!("pid {pid}"));
    page.paragraph("↳ shim", &format!("{shim} ({running})"));
    page.paragraph("↳ binary", &binary(choice));
    page.paragraph("↳ file", &file(choice));
    if let (LookupOutcome::Found { found, .. }, Some(stand_in)) = (&choice.lookup.outcome, &answer.stand_in)
        && *found == stand_in.path
    {
        page.paragraph(
            "↳ stand-in",
            &format!(
                "`inspect swap-runtime --scope node` put it there: it makes containers with {}, and has every other verb done by the runtime that made the container",
                escape(&stand_in.create.to_string_lossy())
            ),
        );
    }
}

fn binary(choice: &RuntimeChoice) -> String {
    let options = choice.bundle.path.join("options.json");
    let source = escape(&options.to_string_lossy()).into_owned();
    match choice.binary_name.as_deref() {
        Some("") => format!(
            "no BinaryName in {source}: the shim falls back on the name `{DEFAULT_RUNTIME_COMMAND}` and looks it up in its PATH"
        ),
        Some(name) => format!("BinaryName `{}` ({source})", escape(name)),
        None => format!("{source} is missing: the name `{DEFAULT_RUNTIME_COMMAND}` is taken"),
    }
}

fn file(choice: &RuntimeChoice) -> String {
    let lookup = &choice.lookup;
    let command = escape(&lookup.command);
    let through = lookup.path.as_ref().map_or_else(String::new, |path| format!(" in PATH={}", escape(path)));
    match &lookup.outcome {
        LookupOutcome::Found { found, file, .. } => {
            let found_text = escape(&found.to_string_lossy()).into_owned();
            let link = if found == file {
                String::new()
            } else {
                format!(" → {}", escape(&file.to_string_lossy()))
            };
            let when = if through.is_empty() { "" } else { ", looked up now: inferred for when it was made" };
            format!("{found_text}{link} (`{command}`{through}{when})")
        }
        LookupOutcome::NotFound => format!("`{command}` is not found{through}"),
        LookupOutcome::Unknown => {
            format!(
                "not known: `{command}` would have to be looked up in the PATH of its shim, which cannot be read"
            )
        }
    }
}

fn render_evidence(choice: &RuntimeChoice, page: &mut Page) {
    for (index, one) in choice.evidence.iter().enumerate() {
        let worth = match one.strength {
            Strength::Proof => "proof",
            Strength::Indication => "indication",
            Strength::Inference => "inference",
        };
        let text = format!("{worth}: {} is {}", escape(&one.source), escape(&one.says));
        let text = if one.source.ends_with("keys") || one.source.ends_with("mountinfo") {
            format!("{worth}: {}: {}", escape(&one.source), escape(&one.says))
        } else {
            text
        };
        page.paragraph(if index == 0 { "evidence" } else { "" }, &text);
    }
    if choice.evidence.is_empty() {
        page.paragraph("evidence", "none: neither a state directory nor a running init is left");
    }
}

fn configured(answer: &RuntimeAnswer) -> String {
    let Some(configured) = &answer.configured else {
        let config = escape(&answer.config.to_string_lossy()).into_owned();
        return format!(
            "not known: {config} cannot be read as the daemon reads it, or the daemon did not say its version"
        );
    };
    let config = escape(&configured.config.to_string_lossy()).into_owned();
    let handler = escape(&configured.handler);
    let default = match configured.line {
        Some(line) => format!("{config}:{line}: default_runtime_name = \"{handler}\""),
        None => format!("{config}: no default_runtime_name (the built-in one is \"{handler}\")"),
    };
    let binary = configured
        .binary_name
        .as_ref()
        .map_or_else(String::new, |name| format!(", BinaryName = \"{}\"", escape(name)));
    let applies = if answer.choice.client.kind == ClientKind::Cri {
        "it applies to pods that name no runtime handler"
    } else {
        "it does not apply here: only the CRI plugin reads it, and this container did not come through the CRI plugin"
    };
    format!("{default}{binary}; {applies}")
}

/// What would give the next container another runtime. An existing container keeps the one that made it.
fn ways_to_change(choice: &RuntimeChoice) -> Vec<String> {
    let mut ways = match choice.client.kind {
        ClientKind::Cri => vec![
            "`inspect swap-runtime crun` makes another handler the default for new pods".to_owned(),
            "or a RuntimeClass whose `handler` is configured, named in the pod's runtimeClassName".to_owned(),
        ],
        ClientKind::Docker => vec![
            "`inspect swap-runtime crun --scope docker`, or `docker run --runtime NAME` with NAME in daemon.json".to_owned(),
        ],
        ClientKind::Nerdctl => {
            vec!["`nerdctl run --runtime crun …`: nerdctl takes the name or path of an OCI runtime there".to_owned()]
        }
        ClientKind::Plain => vec![
            "`ctr run --runc-binary /usr/bin/crun …` for one container (`--runtime` names a shim, not an OCI runtime)".to_owned(),
            "`inspect swap-runtime crun --scope node` for everything that asks for the shim's default".to_owned(),
        ],
    };
    ways.push("this container keeps the runtime that made it until it is made anew".to_owned());
    ways
}
