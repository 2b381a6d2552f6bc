//! Which OCI runtime really made a container, and why that one: the chain from the client to the binary, each link with
//! its evidence.
//!
//! The runtime has exited long before anybody asks. What it left: a state directory in its own format, a bundle written by
//! shim and runtime, mounts and keyrings that each family makes in its own way. Nothing records the binary's path when it was
//! asked for by name, so the lookup is repeated in the shim's PATH and labelled as what it is: an inference.

mod client;
mod configured;
mod fingerprint;
mod lookup;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::client::{Client, ClientKind};
pub use self::configured::{ConfiguredDefault, read_configured_default};
pub use self::lookup::{BinaryLookup, LookupOutcome};
use crate::Host;
use crate::bundle::{Bundle, read_spec_excerpt};
use crate::containerd::{RuntimeRecord, ShimProcess};
use crate::name::Pid;
use crate::runtime_state::{RuntimeFamily, RuntimeState, read_runtime_state};

/// What go-runc runs when a container's options name no runtime (go-runc's DefaultCommand).
pub const DEFAULT_RUNTIME_COMMAND: &str = "runc";

/// How much a piece of evidence proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// Written by the runtime itself, or held by the kernel for this container.
    Proof,
    /// Typical for one family, but something else could look alike.
    Indication,
    /// True of the node now; what was true when the container was made is inferred.
    Inference,
}

/// One thing that was read, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The file or API call.
    pub source: String,
    /// What it says, escaped.
    pub says: String,
    /// What it is worth.
    pub strength: Strength,
    /// The family that it speaks for, where it does.
    pub family: Option<RuntimeFamily>,
}

impl Evidence {
    fn new(source: impl Into<String>, says: impl Into<String>, strength: Strength) -> Self {
        Self { source: source.into(), says: says.into(), strength, family: None }
    }

    fn of(mut self, family: RuntimeFamily) -> Self {
        self.family = Some(family);
        self
    }
}

/// What is known about one container's runtime.
#[derive(Debug, Clone, Serialize)]
pub struct RuntimeChoice {
    /// The bundle that was looked at.
    pub bundle: Bundle,
    /// Who made the container.
    pub client: Client,
    /// `runtime_type` as containerd recorded it; `None` when the daemon did not answer.
    pub runtime_type: Option<String>,
    /// The shim's binary: `shim-binary-path` of the bundle, or the running shim's executable.
    pub shim_binary: Option<PathBuf>,
    /// The running shim.
    pub shim_pid: Option<Pid>,
    /// `BinaryName` as it was asked for; empty when the options name none; `None` when there are no options to read.
    pub binary_name: Option<String>,
    /// Where the command leads to in the shim's PATH now.
    pub lookup: BinaryLookup,
    /// Which family really made it, by the strongest evidence.
    pub family: Option<RuntimeFamily>,
    /// Everything that speaks for a family.
    pub evidence: Vec<Evidence>,
    /// What does not fit together, one sentence each.
    pub surprises: Vec<String>,
}

/// What the caller already knows of the node.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The shim that serves the container, when it runs.
    pub shim: Option<&'a ShimProcess>,
    /// containerd's record, when the daemon answered.
    pub record: Option<&'a RuntimeRecord>,
    /// The labels of the record.
    pub has_cri_label: bool,
    /// A program that hands every verb on a container to the runtime that made it (`swap-runtime --scope node`).
    pub stand_in: Option<&'a Path>,
}

/// Gathers the chain and its evidence for the container of `bundle`.
#[must_use]
pub fn explain_runtime(host: &Host, bundle: &Bundle, known: Known<'_>) -> RuntimeChoice {
    let spec = read_spec_excerpt(host, bundle).ok().flatten().unwrap_or_default();
    let state = read_runtime_state(host, bundle).ok().flatten();
    let binary_name = requested_binary(bundle, known.record);
    let command = binary_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_RUNTIME_COMMAND);
    let lookup = lookup::find_command(host, command, known.shim.map(|shim| shim.pid));
    let evidence = fingerprint::gather(host, bundle, state.as_ref());
    let family = strongest_family(&evidence);
    let mut choice = RuntimeChoice {
        client: client::tell_client(bundle, &spec, known.has_cri_label),
        runtime_type: known.record.map(|record| record.name.clone()),
        shim_binary: bundle.shim_binary.clone().or_else(|| known.shim.and_then(|shim| shim.exe.clone())),
        shim_pid: known.shim.map(|shim| shim.pid),
        bundle: bundle.clone(),
        binary_name,
        lookup,
        family,
        evidence,
        surprises: Vec::new(),
    };
    choice.surprises = find_surprises(&choice, state.as_ref(), known.stand_in);
    choice
}

/// `BinaryName`: the bundle's options.json, else its `runtime` file, else containerd's record (field 6 of the options).
fn requested_binary(bundle: &Bundle, record: Option<&RuntimeRecord>) -> Option<String> {
    let from_options = bundle.options.as_ref().map(|options| options.binary_name.clone());
    let from_file = || bundle.runtime.clone();
    let from_record = || record.map(|record| decode_binary_name(&record.options).unwrap_or_default());
    from_options.or_else(from_file).or_else(from_record)
}

/// `containerd.runc.v1.Options`, of which only `binary_name` matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

fn decode_binary_name(options: &[u8]) -> Option<String> {
    use prost::Message as _;
    RuncOptions::decode(options).ok().map(|options| options.binary_name)
}

/// A proof decides; otherwise the family that most of the rest speaks for, when nothing contradicts it.
fn strongest_family(evidence: &[Evidence]) -> Option<RuntimeFamily> {
    let proof = evidence.iter().find(|one| one.strength == Strength::Proof).and_then(|one| one.family);
    proof.or_else(|| {
        let mut families = evidence.iter().filter_map(|one| one.family);
        let first = families.next()?;
        families.all(|family| family == first).then_some(first)
    })
}

fn find_surprises(
    choice: &RuntimeChoice,
    state: Option<&RuntimeState>,
    stand_in: Option<&Path>,
) -> Vec<String> {
    let mut surprises = Vec::new();
    let stands_in = matches!(&choice.lookup.outcome, LookupOutcome::Found { found, .. } if Some(found.as_path()) == stand_in);
    if let (Some(family), Some(expected)) = (choice.family, choice.lookup.family())
        && family != expected
        && !stands_in
    {
        surprises.push(format!(
            "{} made this container, but `{}` leads to {} now: exec, kill and delete go to a runtime that cannot read the \
             other's state",
            family.as_str(),
            choice.lookup.command,
            expected.as_str()
        ));
    }
    if let LookupOutcome::NotFound = choice.lookup.outcome {
        surprises.push(format!(
            "`{}` cannot be found any more: exec, kill and delete of this container fail until it is back",
            choice.lookup.command
        ));
    }
    let created = state.and_then(|state| state.created.as_deref());
    if let (Some(created), Some(changed)) = (created, choice.lookup.changed_rfc3339())
        && changed.as_str() > created
        && !stands_in
    {
        surprises.push(format!(
            "the file at the end of the chain changed at {changed}, after the container was created ({created}): it was made by \
             an earlier version of that file"
        ));
    }
    let disagreeing =
        choice.evidence.iter().filter(|one| one.family.is_some() && one.family != choice.family);
    surprises.extend(disagreeing.map(|one| format!("{} disagrees: {}", one.source, one.says)));
    surprises
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_outweighs_indications() {
        let proof = Evidence::new("state.json", "x", Strength::Proof).of(RuntimeFamily::Crun);
        let other = Evidence::new("init.pid", "x", Strength::Indication).of(RuntimeFamily::Runc);
        assert_eq!(strongest_family(&[other.clone(), proof]), Some(RuntimeFamily::Crun));
        assert_eq!(strongest_family(std::slice::from_ref(&other)), Some(RuntimeFamily::Runc));
        let third = Evidence::new("x", "x", Strength::Indication).of(RuntimeFamily::Crun);
        assert_eq!(strongest_family(&[other, third]), None);
        assert_eq!(strongest_family(&[]), None);
    }

    #[test]
    fn the_binary_name_is_read_off_the_wire() {
        assert_eq!(decode_binary_name(b"\x32\x0d/usr/bin/crun").as_deref(), Some("/usr/bin/crun"));
        assert_eq!(decode_binary_name(b"").as_deref(), Some(""));
        assert_eq!(decode_binary_name(b"\xff"), None);
    }
}
