//! What an image's config says of the process, put into a spec as the image spec's "Conversion to OCI Runtime
//! Configuration" has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use super::SpecError;
use super::value::{get, put, texts};
use crate::accounts::Account;

/// What replaces parts of what the image wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ImageProcess {
    /// The image's entrypoint and cmd.
    #[default]
    AsIs,
    /// The image's entrypoint with these arguments in place of cmd.
    Arguments(Vec<String>),
    /// These words and nothing of the image's.
    Whole(Vec<String>),
}

/// Puts the image's process, environment, working directory, user and annotations into the spec.
///
/// # Errors
/// Where the image says nothing to run, or works in no absolute path.
pub fn apply_image(
    spec: &mut Value,
    image: &ImageConfiguration,
    account: &Account,
    process: &ImageProcess,
) -> Result<(), SpecError> {
    let config = image.config().clone().unwrap_or_default();
    let cmd = config.cmd().clone().unwrap_or_default();
    let entrypoint = config.entrypoint().clone().unwrap_or_default();
    let args = match process {
        ImageProcess::AsIs => [entrypoint, cmd].concat(),
        ImageProcess::Arguments(arguments) => [entrypoint, arguments.clone()].concat(),
        ImageProcess::Whole(words) => words.clone(),
    };
    if args.is_empty() {
        return Err(SpecError::NoCommand);
    }
    put(spec, &["process", "args"], json!(args))?;
    let own = config.env().clone().unwrap_or_default();
    let env = merge_env(&texts(spec, &["process", "env"]), &own);
    put(spec, &["process", "env"], json!(env))?;
    let cwd = config.working_dir().clone().filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') {
        return Err(SpecError::WorkingDirectory { path: PathBuf::from(cwd) });
    }
    put(spec, &["process", "cwd"], json!(cwd))?;
    let user = json!({"uid": account.uid, "gid": account.gid, "additionalGids": account.additional_gids});
    put(spec, &["process", "user"], user)?;
    let annotations = annotations(image);
    if !annotations.is_empty() {
        put(spec, &["annotations"], json!(annotations))?;
    }
    drop_unwanted_capabilities(spec, account)
}

/// The image's variables, then those of the default that the image does not set.
fn merge_env(default: &[String], own: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut env = own.to_vec();
    env.extend(default.iter().filter(|one| !own.iter().any(|other| name(other) == name(one))).cloned());
    env
}

/// A process that is not root starts without effective and permitted capabilities, as after setuid(2).
fn drop_unwanted_capabilities(spec: &mut Value, account: &Account) -> Result<(), SpecError> {
    if account.uid == 0 {
        return Ok(());
    }
    for set in ["effective", "permitted"] {
        if get(spec, &["process", "capabilities", set]).is_some() {
            put(spec, &["process", "capabilities", set], json!([]))?;
        }
    }
    Ok(())
}

/// The image's labels, and under `org.opencontainers.image.*` what else the conversion names. Labels win.
fn annotations(image: &ImageConfiguration) -> BTreeMap<String, String> {
    let config = image.config().clone().unwrap_or_default();
    let mut ports = config.exposed_ports().clone().unwrap_or_default();
    ports.sort();
    let implied = [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("stopSignal", config.stop_signal().clone()),
        ("exposedPorts", Some(ports.join(","))),
    ];
    let mut all: BTreeMap<String, String> = implied
        .into_iter()
        .filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    all.extend(config.labels().clone().unwrap_or_default());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Like, default_spec};

    fn image(text: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{text}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn account(uid: u32) -> Account {
        Account { uid, gid: uid, additional_gids: vec![uid], home: None }
    }

    #[test]
    fn the_image_says_what_runs() {
        let config = image(
            r#"{"Entrypoint":["/e"],"Cmd":["a","b"],"Env":["PATH=/x","A=1"],"WorkingDir":"/w",
            "ExposedPorts":{"80/tcp":{},"443/tcp":{}},"Labels":{"k":"v"}}"#,
        );
        let mut spec = default_spec(Like::Runc);
        apply_image(&mut spec, &config, &account(33), &ImageProcess::AsIs).unwrap();
        assert_eq!(spec["process"]["args"], json!(["/e", "a", "b"]));
        assert_eq!(spec["process"]["env"], json!(["PATH=/x", "A=1", "TERM=xterm"]));
        assert_eq!(spec["process"]["cwd"], "/w");
        assert_eq!(spec["process"]["user"]["uid"], 33);
        assert_eq!(spec["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(spec["annotations"]["org.opencontainers.image.exposedPorts"], "443/tcp,80/tcp");
        assert_eq!(spec["annotations"]["k"], "v");
    }

    #[test]
    fn arguments_replace_cmd_and_words_replace_all() {
        let config = image(r#"{"Entrypoint":["/e"],"Cmd":["a"]}"#);
        let args = |process| {
            let mut spec = default_spec(Like::Containerd);
            apply_image(&mut spec, &config, &account(0), &process).unwrap();
            spec["process"]["args"].clone()
        };
        assert_eq!(args(ImageProcess::Arguments(vec!["x".to_owned()])), json!(["/e", "x"]));
        assert_eq!(args(ImageProcess::Whole(vec!["x".to_owned()])), json!(["x"]));
    }

    #[test]
    fn an_image_without_a_command_is_refused() {
        let mut spec = default_spec(Like::Containerd);
        let error = apply_image(&mut spec, &image("null"), &account(0), &ImageProcess::AsIs).unwrap_err();
        assert!(matches!(error, SpecError::NoCommand));
    }
}
