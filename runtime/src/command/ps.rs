//! `ps`.

use std::io::Write;
use std::process::Command;

use crate::context::Context;
use crate::error::RuntimeError;

/// Lists the container's processes: as JSON their pids, else the lines of ps(1) about them.
pub(super) fn run(
    id: &str,
    json: bool,
    arguments: &[String],
    context: &Context,
    output: &mut dyn Write,
) -> Result<u8, RuntimeError> {
    let (_, state) = super::load(id, context)?;
    let processes = super::open_cgroup(&state)?.processes()?;
    let pids: Vec<i32> = processes.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    if json {
        return super::write(output, &format!("{}\n", serde_json::json!(pids)));
    }
    let default = ["-ef".to_owned()];
    let arguments = if arguments.is_empty() { &default[..] } else { arguments };
    let listed = Command::new("ps").args(arguments).output();
    let listed =
        listed.map_err(|source| RuntimeError::File { operation: "run", path: "ps".into(), source })?;
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr);
        let said = said.lines().find(|line| !line.is_empty()).unwrap_or_default();
        let reason = format!("it ended with {}: {said}", listed.status);
        return Err(RuntimeError::Refused { operation: "list processes with ps", reason });
    }
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    super::write(output, &select(&text, &pids)?)
}

/// The header and the lines whose column `PID` is one of the container's.
fn select(text: &str, pids: &[i32]) -> Result<String, RuntimeError> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or("");
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        return Err(RuntimeError::Refused {
            operation: "read the output of ps",
            reason: "couldn't find PID field in ps output".to_owned(),
        });
    };
    let is_own = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let own = lines.filter(is_own).fold(String::new(), |text, line| text + line + "\n");
    Ok(format!("{header}\n{own}"))
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn only_the_containers_lines_stay() {
        let text = "UID PID CMD\nroot 1 init\nroot 22 sleep 1\n";
        assert_eq!(select(text, &[22]).unwrap(), "UID PID CMD\nroot 22 sleep 1\n");
        assert!(select("UID CMD\n", &[1]).is_err());
    }
}
