//! `inspect bundle [ID]`: the directory that containerd made for a container, file by file.

use std::os::unix::ffi::OsStrExt as _;

use clap::{Args, ValueEnum};
use inspect_probes::Host;
use inspect_probes::bundle::{Bundle, explain_bundle};
use inspect_probes::process::ProcessTable;
use inspect_probes::spec::load_spec;

use super::container::{find_container, find_live};
use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::bundle::render_bundle;
use crate::render::json::render_json;
use crate::render::style::Style;

/// Explain every file of a container's bundle: spec, root file system, pid, options, shim, log, runtime state
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// Container: id, unique prefix, NAMESPACE/ID, container or pod name [default: the one that runs]
    #[arg(value_name = "ID")]
    container: Option<String>,
    /// Print the bundle's path alone, for scripts: cd "$(inspect bundle --path web)"
    #[arg(long, conflicts_with_all = ["print", "format"])]
    path: bool,
    /// Print a file of the bundle itself
    #[arg(long, value_enum, value_name = "FILE", conflicts_with = "format")]
    print: Option<Printed>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Printed {
    /// config.json, indented
    Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Finds the bundle and shows what was asked for.
pub(crate) fn run(args: &BundleArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let bundle = match &args.container {
        Some(query) => find_container(host, query)?,
        None => find_live(host)?,
    };
    if args.path {
        print_path(&bundle, output)?;
    } else if args.print.is_some() {
        let spec =
            load_spec(&host.resolve(&bundle.path.join("config.json"))).map_err(CommandError::trouble)?;
        output.print(&render_json(&spec.value)?)?;
    } else {
        let processes = ProcessTable::read(host).map_err(CommandError::trouble)?;
        let contents = explain_bundle(host, &bundle, &processes);
        output.print(&match args.format {
            Format::Json => render_json(&contents)?,
            Format::Text => render_bundle(&contents, Style::new(output.color()), output.width()),
        })?;
    }
    Ok(Status::Success)
}

/// The path as it is: a script needs it unescaped, and containerd's ids cannot hold what a terminal obeys.
fn print_path(bundle: &Bundle, output: &mut Output) -> Result<(), CommandError> {
    let path = String::from_utf8_lossy(bundle.path.as_os_str().as_bytes()).into_owned();
    output.print(&format!("{path}\n"))
}
