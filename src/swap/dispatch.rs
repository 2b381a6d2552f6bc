//! What stands in for `runc` when a swap's scope is the node: every verb on an existing container goes to the runtime
//! that made it, known by its state directory; what makes a container goes to the new runtime.
//!
//! Without this, a swap of the name `runc` would leave running containers that can be neither killed nor entered: one
//! runtime cannot read another's state.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use inspect_probes::runtime_state::parse_runtime_state;
use serde::{Deserialize, Serialize};

/// The name under which the stand-in is found.
pub(crate) const NAME: &str = "runc";
/// Which runtimes it hands on to.
pub(crate) const RULES: &str = "/var/lib/inspect/stand-in.json";
/// runc's own default of `--root`.
const DEFAULT_ROOT: &str = "/run/runc";
/// runc's global flags that take a value in the next argument.
const FLAGS_WITH_VALUE: [&str; 5] = ["--root", "--log", "--log-format", "--criu", "--rootless"];
/// runc's status for a failure of its own.
const FAILURE: u8 = 1;

/// Which runtime does what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// Where the stand-in is.
    pub(crate) link: PathBuf,
    /// Makes containers.
    pub(crate) create: PathBuf,
    /// The `runc` that the name led to before.
    pub(crate) original: PathBuf,
    /// By the name of the family whose state directory a container has.
    pub(crate) families: BTreeMap<String, PathBuf>,
}

/// What is needed of a runtime's command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct CommandLine {
    root: Option<PathBuf>,
    log: Option<PathBuf>,
    verb: Option<String>,
    rest: Vec<OsString>,
}

/// Acts as the stand-in if this program runs under its name; `None` when it does not.
pub(crate) fn run_as_stand_in() -> Option<ExitCode> {
    let own = std::env::current_exe().ok()?;
    if own.file_name() != Some(OsStr::new(NAME)) {
        return None;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let line = parse(&arguments);
    let reason = match load_rules() {
        Ok(rules) => {
            let runtime = choose(&line, &rules, family_of);
            let error = Command::new(&runtime).args(&arguments).exec();
            format!("cannot execute `{}`: {error}", runtime.display())
        }
        Err(reason) => reason,
    };
    Some(report(&line, &format!("inspect's stand-in for runc: {reason}")))
}

fn load_rules() -> Result<Rules, String> {
    let bytes = std::fs::read(RULES).map_err(|error| format!("cannot read `{RULES}`: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("cannot parse `{RULES}`: {error}"))
}

/// The shim reads the error from the log; a person reads it from standard error.
fn report(line: &CommandLine, reason: &str) -> ExitCode {
    let entry = serde_json::json!({ "level": "error", "msg": reason });
    let log =
        line.log.as_ref().and_then(|log| std::fs::File::options().append(true).create(true).open(log).ok());
    if let Some(mut log) = log {
        // Nobody else could be told: standard error follows.
        match writeln!(log, "{entry}") {
            Ok(()) | Err(_) => {}
        }
    }
    crate::output::note_without_terminal(reason);
    ExitCode::from(FAILURE)
}

fn parse(arguments: &[OsString]) -> CommandLine {
    let mut line = CommandLine::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if !text.starts_with('-') {
            line.verb = Some(text.into_owned());
            break;
        }
        let (flag, inline) = match text.split_once('=') {
            Some((flag, _)) => {
                (flag.to_owned(), Some(OsStr::from_bytes(&argument.as_bytes()[flag.len() + 1..])))
            }
            None => (text.into_owned(), None),
        };
        let takes_value = FLAGS_WITH_VALUE.contains(&flag.as_str());
        let value = match inline {
            Some(value) => Some(value.to_owned()),
            None if takes_value => arguments.next().cloned(),
            None => None,
        };
        match flag.as_str() {
            "--root" => line.root = value.map(PathBuf::from),
            "--log" => line.log = value.map(PathBuf::from),
            _ => {}
        }
    }
    line.rest = arguments.cloned().collect();
    line
}

/// The runtime for a command line. `family` tells whose state a directory holds.
fn choose(line: &CommandLine, rules: &Rules, family: impl Fn(&Path) -> Option<String>) -> PathBuf {
    let makes =
        matches!(line.verb.as_deref(), None | Some("create" | "run" | "restore" | "spec" | "features"));
    if makes {
        return rules.create.clone();
    }
    let root = line.root.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
    // The id is the argument that has a state directory; flags' values have none, and the id comes before a signal.
    let named = |argument: &&OsString| {
        let bytes = argument.as_bytes();
        !bytes.starts_with(b"-") && !bytes.contains(&b'/') && !matches!(bytes, b"" | b"." | b"..")
    };
    let family = line.rest.iter().filter(named).find_map(|id| family(&root.join(id)));
    match family {
        Some(family) => rules.families.get(&family).unwrap_or(&rules.original).clone(),
        None => rules.create.clone(),
    }
}

fn family_of(directory: &Path) -> Option<String> {
    ["state.json", "status"].into_iter().find_map(|name| {
        let path = directory.join(name);
        let bytes = std::fs::read(&path).ok()?;
        Some(parse_runtime_state(path, &bytes).ok()?.family.as_str().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            link: "/opt/bin/runc".into(),
            create: "/new".into(),
            original: "/runc".into(),
            families: [("runc".to_owned(), "/runc".into()), ("crun".to_owned(), "/crun".into())].into(),
        }
    }

    fn chosen(line: &str) -> PathBuf {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let family = |path: &Path| match path.to_str() {
            Some("/r/ns/old" | "/run/runc/old") => Some("runc".to_owned()),
            Some("/r/ns/mid") => Some("crun".to_owned()),
            Some("/r/ns/odd") => Some("youki".to_owned()),
            _ => None,
        };
        choose(&parse(&arguments), &rules(), family)
    }

    #[test]
    fn what_makes_a_container_is_the_new_runtime() {
        for line in [
            "--root /r/ns --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid old",
            "run -b /b x",
            "--version",
            "features",
        ] {
            assert_eq!(chosen(line), Path::new("/new"), "{line}");
        }
    }

    #[test]
    fn an_existing_container_keeps_the_runtime_that_made_it() {
        for (line, runtime) in [
            ("--root /r/ns --log /b/log.json --log-format json start old", "/runc"),
            ("--root=/r/ns --systemd-cgroup kill --all mid 9", "/crun"),
            ("--root /r/ns exec --process /tmp/p --detach --pid-file /b/x.pid mid", "/crun"),
            ("--root /r/ns delete --force odd", "/runc"),
            ("state old", "/runc"),
            ("--root /r/ns delete --force gone", "/new"),
        ] {
            assert_eq!(chosen(line), Path::new(runtime), "{line}");
        }
    }

    #[test]
    fn the_log_is_found_for_the_shim() {
        let arguments: Vec<OsString> = ["--log", "/b/log.json", "kill", "x"].map(OsString::from).into();
        assert_eq!(parse(&arguments).log.as_deref(), Some(Path::new("/b/log.json")));
    }
}
