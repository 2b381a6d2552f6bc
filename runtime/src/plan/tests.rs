//! Plans by example.

use super::*;

#[test]
fn the_last_of_two_variables_counts() {
    let environment = ["A=1", "B=2", "A=3"].map(str::to_owned);
    assert_eq!(deduplicate(&environment), ["B=2", "A=3"]);
}

#[test]
fn programs_are_looked_for_along_the_path() {
    let found = candidates("sh", &["PATH=/bin::/usr/bin".to_owned()]).unwrap();
    assert_eq!(found, [c"/bin/sh".to_owned(), c"./sh".to_owned(), c"/usr/bin/sh".to_owned()]);
    assert_eq!(candidates("./a", &[]).unwrap(), [c"./a".to_owned()]);
    for without in [vec![], vec!["PATH=".to_owned()]] {
        assert!(candidates("sh", &without).unwrap().is_empty());
    }
}

#[test]
fn two_devices_cannot_be_in_one_place() {
    let devices = |list: serde_json::Value| {
        let mut spec = serde_json::to_value(crate::default_spec::default_spec(None)).unwrap();
        spec["linux"]["devices"] = list;
        let spec = serde_json::from_value(spec).unwrap();
        let plan = plan(&spec, Path::new("/b"), Path::new("/b/rootfs"), PlanOptions::default());
        plan.map(|plan| plan.rootfs.devices.unwrap().len()).map_err(|error| error.to_string())
    };
    let device =
        |path: &str, minor: i64| serde_json::json!({"type": "c", "path": path, "major": 1, "minor": minor});
    let defaults = devices(serde_json::json!([])).unwrap();
    let twice = serde_json::json!([device("/dev/null", 3), device("/dev/x", 3), device("/dev/./x", 3)]);
    assert_eq!(devices(twice), Ok(defaults + 1));
    let other = serde_json::json!([device("/dev/null", 3), device("/dev/x", 3), device("/dev/x", 5)]);
    assert!(devices(other).unwrap_err().contains("`linux.devices[2].path`"));
}

#[test]
fn descriptors_of_a_listener_are_told_to_the_program() {
    let options = PlanOptions { listen_fds: 2, ..PlanOptions::default() };
    let mut spec = serde_json::to_value(crate::default_spec::default_spec(None)).unwrap();
    spec["process"]["env"] = serde_json::json!(["LISTEN_PID=7", "A=1"]);
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let environment = |options| {
        let plan = plan(&spec, Path::new("/b"), Path::new("/b/rootfs"), options).unwrap();
        format!("{:?}", plan.process.environment)
    };
    let told = environment(options);
    assert!(
        told.contains("\"LISTEN_FDS=2\"") && told.contains("\"LISTEN_PID=1\"") && !told.contains("=7"),
        "{told}"
    );
    assert!(environment(PlanOptions::default()).contains("LISTEN_PID=7"));
}

#[test]
fn a_destination_may_start_with_the_roots_own_path() {
    let target = |destination: &str| {
        let mount = serde_json::json!({"destination": destination, "type": "bind", "source": "/x"});
        let mount: Mount = serde_json::from_value(mount).unwrap();
        let options = MountOptions::from_spec(&mount);
        plan_target("f", &mount, &options, Path::new("/b/rootfs")).map_err(|error| error.to_string())
    };
    assert_eq!(target("/b//rootfs/./mnt/x"), Ok(c"mnt/x".to_owned()));
    assert_eq!(target("/b/rootfs2/mnt"), Ok(c"b/rootfs2/mnt".to_owned()));
    assert_eq!(target("/b/rootfs/../mnt"), Ok(c"b/mnt".to_owned()));
    assert!(target("/b/rootfs/proc/self").unwrap_err().contains("inside /proc"));
    assert!(target("/b/rootfs").unwrap_err().contains("over the root"));
}

#[test]
fn paths_are_cleaned_as_inside_a_root() {
    assert_eq!(relative("f", Path::new("/../a/./b/../c//d")).unwrap(), c"a/c/d".to_owned());
    assert_eq!(relative("f", Path::new("/")).unwrap(), c"".to_owned());
}

#[test]
fn sysctls_are_written_either_way() {
    assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
    assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.x"), "net/ipv4/conf/eth0.1/x");
    assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
}
