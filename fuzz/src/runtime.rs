//! The built-in runtime: the documents that it is given, and the state that it reads back.

use std::fs;
use std::path::{Path, PathBuf};

use inspect_probes::runtime_state::parse_runtime_state;
use inspect_runtime::acceptance::{check_config, check_process};
use inspect_runtime::cgroup::Driver;
use inspect_runtime::state::StateDirectory;

use super::edits::document;
use super::seeds::{PROCESSES, SPECS, STATES};

/// config.json: validated and planned, for each cgroup driver.
pub fn runtime_config(data: &[u8]) {
    let text = document(data, &SPECS);
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        check_config(&text, Path::new("/run/bundle"), "web", &driver).ok();
    }
}

/// process.json of `exec`.
pub fn runtime_process(data: &[u8]) {
    let text = document(data, &PROCESSES);
    check_process(&text).ok();
}

/// state.json: the runtime's own, read back by the runtime, and anybody's, read by the probe.
pub fn runtime_state(data: &[u8]) {
    let text = document(data, &STATES);
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let root = tempfile::tempdir_in(parent).expect("a temporary directory");
    let directory = StateDirectory::locate(root.path(), "web").expect("a good ID");
    directory.create().expect("a state directory");
    fs::write(directory.path().join("state.json"), &text).expect("a state file");
    if let Ok(state) = directory.load() {
        let status = state.status(&directory);
        let json = state.to_spec_json(state.init_process_pid, status.as_str());
        assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok(), "what hooks get is JSON");
        assert_eq!(state.scope().is_some(), state.cgroup_scope.is_some());
        directory.save(&state).expect("it can be written again");
        assert_eq!(directory.load().expect("and read again").id, state.id);
    }
    for name in ["state.json", "status"] {
        if let Ok(state) = parse_runtime_state(PathBuf::from("/run/runc/web").join(name), &text) {
            assert!(state.init_pid.is_none_or(|pid| pid.get() > 0), "a pid is positive");
        }
    }
}
