//! What the shipped systemd units promise, where `systemd-analyze verify` (tests/packaging/deb) cannot see it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use pullgate::config::Config;

#[test]
fn e7_failed_starts_are_never_used_up() {
    let (service, socket) = (unit("pullgate.service"), unit("pullgate.socket"));
    assert_eq!(service["Service/Restart"], ["always"]);
    assert_eq!(service["Service/RestartSec"], ["1"]);
    assert_eq!(service["Unit/StartLimitIntervalSec"], ["0"]);
    assert_eq!(socket["Socket/TriggerLimitIntervalSec"], ["0"]);
}

#[test]
fn e7_no_unit_takes_another_along() {
    for unit in [unit("pullgate.service"), unit("pullgate.socket")] {
        for key in ["Requires", "Requisite", "BindsTo", "PartOf", "PropagatesStopTo", "Conflicts"] {
            assert_eq!(unit.get(&format!("Unit/{key}")), None);
        }
        assert_eq!(unit["Unit/Before"], ["kubelet.service"]);
    }
    assert_eq!(unit("pullgate.service")["Unit/After"], ["pullgate.socket containerd.service"]);
}

#[test]
fn e7_the_socket_outlives_the_service() {
    let (service, socket) = (unit("pullgate.service"), unit("pullgate.socket"));
    assert_eq!(service["Service/Type"], ["notify"]);
    assert_eq!(service["Service/RuntimeDirectoryPreserve"], ["yes"]);
    assert_eq!(service["Service/RuntimeDirectoryMode"], socket["Socket/DirectoryMode"]);
    assert_eq!(socket["Socket/SocketMode"], ["0660"]);
    assert!(service.contains_key("Service/WatchdogSec"));
}

#[test]
fn a_crash_leaves_no_memory_on_disk() {
    assert_eq!(unit("pullgate.service")["Service/LimitCORE"], ["0"]);
}

#[test]
fn the_units_agree_with_the_defaults_of_the_configuration() {
    let (service, socket) = (unit("pullgate.service"), unit("pullgate.socket"));
    let config = Config::with_policies(Vec::new());
    assert_eq!(socket["Socket/ListenStream"], [config.listen.path().to_str().unwrap()]);
    for socket in [&config.listen, &config.control.listen] {
        assert!(socket.path().starts_with(Path::new("/run").join(&service["Service/RuntimeDirectory"][0])));
    }
    assert!(config.cache.path.starts_with(Path::new("/var/lib").join(&service["Service/StateDirectory"][0])));
    let stop = Duration::from_secs(service["Service/TimeoutStopSec"][0].parse().unwrap());
    assert!(stop > config.drain, "forwarded pulls would be killed before the drain ends");
}

/// The unit's settings, by `Section/Key`.
fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    let mut settings = BTreeMap::<_, Vec<_>>::new();
    let mut section = String::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            settings.entry(format!("{section}/{key}")).or_default().push(value.to_owned());
        }
    }
    settings
}
