//! The built-in runtime as the main process of a systemd service that says itself when it is ready: sd_notify(3).

#[path = "support/bundle.rs"]
mod bundle;
mod support;

use std::time::Duration;

use bundle::{Bundle, RUNTIME, shell};
use support::{sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(60);

/// Says that it is ready when it is told to, by systemd's own program, which waits until it was heard.
const PROGRAM: &str =
    "until [ -e /go ]; do sleep 0.1; done; systemd-notify --ready --status=within; exec sleep 1000";

/// A container of an ordinary user with the node's programs.
fn make(id: &str, filter: &str) -> Bundle {
    let usr = r#".mounts+=[{"destination":"/usr","type":"bind","source":"/usr","options":["rbind","ro"]}]"#;
    let user = ".process.user={uid:1000,gid:1000}";
    let bundle = Bundle::make(id, &format!("{} | {usr} | {user} | {filter}", shell(PROGRAM)));
    sh(&format!("cd {}/rootfs; ln -s usr/lib usr/lib64 .", bundle.path.display()));
    bundle
}

/// A service that is stopped with the test.
struct Service(String);

impl Service {
    /// `line` may use `$RUN`, the runtime with its options, and `$ID`.
    fn start(bundle: &Bundle, line: &str) -> Self {
        let (path, id) = (bundle.path.display(), &bundle.id);
        let service = Service(format!("{id}.service"));
        service.stop();
        // In a file: systemd expands variables in a command line itself.
        let script = format!("RUN='{RUNTIME} --root {path}/state'; ID={id}; {line}\n");
        std::fs::write(bundle.path.join("service"), script).expect("the bundle is the test's own");
        sh(&format!(
            "systemd-run --quiet --no-block --unit={id} -p Type=notify -p KillSignal=KILL -p WorkingDirectory={path} sh service"
        ));
        service
    }

    fn stop(&self) {
        drop(try_sh(&format!("systemctl stop {0}; systemctl reset-failed {0}", self.0)));
    }

    fn property(&self, name: &str) -> String {
        sh(&format!("systemctl show -P {name} {}", self.0))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The init process, as soon as it runs the container's program.
#[track_caller]
fn await_program(bundle: &Bundle) -> String {
    wait_until("the container's program", BOUND, || {
        let state = format!("{}/{}/state.json", bundle.root().display(), bundle.id);
        let pid = try_sh(&format!("jq -e 'select(.init_process_pid > 0).init_process_pid' {state}")).stdout;
        let pid = pid.trim();
        (try_sh(&format!("cat /proc/{pid}/comm")).stdout.trim() == "sh").then(|| pid.to_owned())
    })
}

/// The service that starts a container so is ready when the program is, and not before. Gives its main process and the container's.
#[track_caller]
fn assert_waits(bundle: &Bundle, line: &str) -> (Service, String, String) {
    let service = Service::start(bundle, line);
    let init = await_program(bundle);
    let wakes = sh("date +%s%N");
    wait_until("half a second more", BOUND, || {
        (sh(&format!("expr $(date +%s%N) - {wakes}")).parse::<u64>().is_ok_and(|past| past > 500_000_000))
            .then_some(())
    });
    assert_eq!(service.property("ActiveState"), "activating", "{line}");
    sh(&format!("touch {}/rootfs/go", bundle.path.display()));
    wait_until("the service to be ready", BOUND, || {
        (service.property("ActiveState") == "active").then_some(())
    });
    // The program goes on when it was heard.
    wait_until("the program to go on", BOUND, || {
        (sh(&format!("cat /proc/{init}/comm")) == "sleep").then_some(())
    });
    let main = service.property("MainPID");
    assert_eq!(service.property("StatusText"), "", "what else a container says is not for the manager");
    (service, main, init)
}

#[test]
fn in_the_foreground_the_service_is_ready_with_the_program() {
    for terminal in [false, true] {
        let bundle = make("notify-run", &format!(".process.terminal={terminal}"));
        let (_service, main, _) = assert_waits(&bundle, "exec $RUN run $ID");
        assert_eq!(sh(&format!("cat /proc/{main}/comm")), "inspect-runtime");
    }
}

#[test]
fn a_detached_program_becomes_the_services_process() {
    for line in ["exec $RUN run --detach $ID", "$RUN create $ID && exec $RUN start $ID"] {
        let bundle = make("notify-detached", ".");
        let (service, main, init) = assert_waits(&bundle, line);
        assert_eq!(main, init, "{line}");
        sh(&format!("kill -KILL {init}"));
        wait_until("the service's end", BOUND, || {
            (service.property("ActiveState") != "active").then_some(())
        });
    }
}

#[test]
fn a_program_that_ends_before_it_is_ready_ends_the_waiting() {
    let bundle = make("notify-ends", ".");
    let service = Service::start(&bundle, "exec $RUN run --detach $ID");
    sh(&format!("kill -KILL {}", await_program(&bundle)));
    wait_until("the service to fail", BOUND, || (service.property("ActiveState") == "failed").then_some(()));
    assert_eq!(service.property("Result"), "protocol");
}
