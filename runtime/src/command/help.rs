//! `--help` and `help`, laid out as runc's.

use std::fmt::Write as _;

use crate::cli::Topic;

const OPTIONS: &str = "[--root DIR] [--log FILE] [--log-format text|json] [--debug] [--systemd-cgroup] \
                       [--rootless true|false|auto]";

/// The usage of the program, or of one of its commands.
pub(super) fn text(topic: Option<&Topic>) -> String {
    let Some(topic) = topic else { return overview() };
    let Topic { name, usage, purpose } = topic;
    format!("NAME:\n   inspect-runtime {name} - {purpose}\n\nUSAGE:\n   inspect-runtime {name} {usage}\n",)
}

fn overview() -> String {
    let mut text = format!(
        "NAME:\n   inspect-runtime - an OCI runtime for Linux with cgroup v2, with runc's command line\n\n\
         USAGE:\n   inspect-runtime {OPTIONS} COMMAND\n\n\
         VERSION:\n   {}\n\nCOMMANDS:\n",
        env!("CARGO_PKG_VERSION")
    );
    for Topic { name, purpose, .. } in crate::cli::TOPICS {
        // A string takes whatever is written.
        writeln!(text, "   {name:<9}{purpose}").ok();
    }
    text.push_str("\n`inspect-runtime COMMAND --help` shows what a command takes.\n");
    text
}
