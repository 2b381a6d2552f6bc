//! Podman of a plain user whose own systemd makes the cgroups, as after a login: the built-in runtime beside runc.

mod support;

use std::time::Duration;

use support::{Finished, sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(120);

/// The user's systemd and bus. The node has no PAM module that would start them, nor the package with the bus's units.
fn start_user_systemd() -> String {
    sh("id ann >/dev/null 2>&1 || useradd --create-home ann");
    let uid = sh("id -u ann");
    let units = "/home/ann/.config/systemd/user";
    sh(&format!(
        "mkdir -p {units}/sockets.target.wants; \
         printf '[Unit]\\nDescription=bus\\n[Socket]\\nListenStream=%%t/bus\\n' >{units}/dbus.socket; \
         printf '[Unit]\\nDescription=bus\\nRequires=dbus.socket\\n[Service]\\nType=notify\\nNotifyAccess=main\\n\
         ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation\\n' >{units}/dbus.service; \
         ln -sf ../dbus.socket {units}/sockets.target.wants/; chown -R ann: /home/ann/.config; \
         systemctl is-active -q ann-systemd || systemd-run --unit=ann-systemd --slice=user-{uid}.slice -p Requires=user-runtime-dir@{uid}.service -p After=user-runtime-dir@{uid}.service -p User=ann -p Delegate=yes -p Type=notify \
         -p Environment=XDG_RUNTIME_DIR=/run/user/{uid} /usr/lib/systemd/systemd --user"
    ));
    wait_until("ann's bus", BOUND, || {
        (try_sh(&format!("test -S /run/user/{uid}/bus")).status == 0).then_some(())
    });
    uid
}

fn as_ann(uid: &str, line: &str) -> Finished {
    let script = "/var/tmp/vm-rootless.sh";
    let environment = format!(
        "export XDG_RUNTIME_DIR=/run/user/{uid} DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus HOME=/home/ann; cd"
    );
    std::fs::write(script, format!("{environment}\n{line}\n")).expect("a scratch file");
    try_sh(&format!("su ann -s /bin/sh {script}"))
}

/// What a container's limits are, what an exec gives, which cgroup it is in, an update, and what is left of it: `$R` is the runtime.
const QUESTION: &str = "podman --runtime $R run --rm --network none --memory 64m --pids-limit 50 box sh -c \
     'id -u; cat /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; ls /dev; echo x >/dev/null && echo written'; \
     podman --runtime $R run -d --network none --memory 64m --name one box sleep 1000 >/dev/null; \
     podman --runtime $R exec one sh -c 'echo in; exit 5'; echo $?; \
     cat /proc/$(podman inspect --format '{{.State.Pid}}' one)/cgroup; systemctl --user list-units --no-legend --plain 'libpod-*' | grep -vc conmon; \
     podman --runtime $R update --memory 48m one >/dev/null 2>&1; podman --runtime $R exec one cat /sys/fs/cgroup/memory.max; \
     podman --runtime $R stop -t 0 one; podman inspect --format '{{.State.ExitCode}}' one; podman --runtime $R rm one; \
     systemctl --user list-units --no-legend --plain 'libpod-*' | grep -vc conmon";

fn without_ids(text: &str) -> String {
    text.split_inclusive(|letter: char| !letter.is_ascii_hexdigit())
        .map(|word| if word.len() >= 64 { "ID." } else { word })
        .collect()
}

#[test]
fn a_users_own_systemd_makes_the_cgroups() {
    let uid = start_user_systemd();
    sh(
        "mkdir -p /var/tmp/vm-rootless/bin && cd /var/tmp/vm-rootless && cp $(command -v busybox) bin/busybox && \
        for name in sh echo cat sleep id ls; do ln -sf busybox bin/$name; done && tar -c bin >/var/tmp/vm-rootless.tar",
    );
    as_ann(&uid, "podman import /var/tmp/vm-rootless.tar box").success();
    assert_eq!(as_ann(&uid, "podman info --format '{{.Host.CgroupManager}}'").success().trim(), "systemd");
    let ask = |runtime: &str| as_ann(&uid, &format!("R={runtime}; {QUESTION}")).stdout;
    let (expected, seen) = (ask("runc"), ask("/usr/local/bin/inspect-runtime"));
    assert!(expected.contains("67108864\n50\n") && expected.contains("50331648\n"), "{expected}");
    assert!(expected.contains("/ann-systemd.service/user.slice/libpod-"), "{expected}");
    assert_eq!(without_ids(&seen), without_ids(&expected));
    assert_eq!(sh(&format!("ls -A /run/user/{uid}/inspect-runtime | wc -l")), "0");
}
