//! QEMU's machine protocol over its standard input and output: a request, its reply, and events in between.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::LabError;
use crate::ssh;

/// A QEMU that answers.
#[derive(Debug)]
pub(crate) struct Qmp {
    to: ChildStdin,
    from: Receiver<Value>,
}

/// How long QEMU may take for a reply on a loaded machine.
const REPLY_BOUND: Duration = Duration::from_secs(60);

impl Qmp {
    /// Waits for the greeting and leaves capabilities negotiation.
    pub(crate) fn connect(to: ChildStdin, from: ChildStdout) -> Result<Self, LabError> {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str(&line) else { continue };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut qmp = Self { to, from: receiver };
        qmp.call("negotiate", "qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// One request, its `return` value.
    pub(crate) fn call(
        &mut self,
        verb: &'static str,
        execute: &str,
        arguments: &Value,
    ) -> Result<Value, LabError> {
        let failed = |reply: String| LabError::Qmp { verb, reply };
        let request = json!({ "execute": execute, "arguments": arguments });
        writeln!(self.to, "{request}").map_err(|error| failed(error.to_string()))?;
        let deadline = Instant::now() + REPLY_BOUND;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = match self.from.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return Err(failed("no reply".into())),
                Err(RecvTimeoutError::Disconnected) => return Err(failed("QEMU has ended".into())),
            };
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if message.get("error").is_some() {
                return Err(failed(message.to_string()));
            }
        }
    }

    /// Stops the guest and writes its memory and devices to a file.
    pub(crate) fn save(&mut self, memory: &Path) -> Result<(), LabError> {
        self.call("stop the guest", "stop", &json!({}))?;
        let unlimited = json!({ "max-bandwidth": 1_u64 << 40 });
        self.call("lift the limit of saving", "migrate-set-parameters", &unlimited)?;
        let uri = format!("exec:cat >{}", ssh::quote(&memory.display().to_string()));
        self.call("save the guest", "migrate", &json!({ "uri": uri }))?;
        self.poll("save the guest", "query-migrate", &["completed"])
    }

    /// Lets a guest run whose memory QEMU was told to read at its start (`-incoming`).
    pub(crate) fn resume(&mut self) -> Result<(), LabError> {
        self.poll("restore the guest", "query-status", &["paused", "running", "postmigrate"])?;
        self.call("resume the guest", "cont", &json!({})).map(drop)
    }

    /// Asks for a status until it is one of `wanted`; `failed` never becomes one.
    fn poll(&mut self, verb: &'static str, query: &str, wanted: &[&str]) -> Result<(), LabError> {
        let deadline = Instant::now() + REPLY_BOUND;
        loop {
            let reply = self.call(verb, query, &json!({}))?;
            let status = reply["status"].as_str().unwrap_or_default();
            if wanted.contains(&status) {
                return Ok(());
            }
            if status == "failed" || Instant::now() >= deadline {
                return Err(LabError::Qmp { verb, reply: reply.to_string() });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The port of 127.0.0.1 that QEMU forwards to the guest's sshd. QEMU was asked for port 0, so that the kernel chose
    /// a free one and nobody can take it in between.
    pub(crate) fn forwarded_port(&mut self) -> Result<u16, LabError> {
        let command = json!({ "command-line": "info usernet" });
        let reply = self.call("find the forwarded port", "human-monitor-command", &command)?;
        let text = reply.as_str().unwrap_or_default();
        parse_forwarded_port(text)
            .ok_or_else(|| LabError::Qmp { verb: "find the forwarded port", reply: text.into() })
    }
}

/// Reads `info usernet`: the row `TCP[HOST_FORWARD] FD SOURCE PORT DEST PORT …`.
fn parse_forwarded_port(text: &str) -> Option<u16> {
    let row = text.lines().find(|line| line.contains("TCP[HOST_FORWARD]"))?;
    row.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forwarded_port() {
        let text = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                    TCP[HOST_FORWARD]  13       127.0.0.1 41297       10.0.2.15    22     0     0\r\n";
        assert_eq!(parse_forwarded_port(text), Some(41297));
    }

    #[test]
    fn no_row_is_no_port() {
        assert_eq!(parse_forwarded_port("Hub -1 (n0):\r\n"), None);
    }
}
