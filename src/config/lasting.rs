//! What of a configuration outlives an edit: the keys that a reload does not put in force, and the control
//! socket of a file that cannot be used any more.
//!
//! The daemon goes on with what it read at its start, so commands that only talk to it must not need
//! a file without mistakes. Only `control.listen` is read of such a file, and nothing else is believed of it.

use std::path::Path;

use serde::Deserialize;

use super::{Config, Control, DEFAULT_PATH, Limits, Log, Metrics, Outage, Registry, Runtime, SocketPath};

impl Config {
    /// The keys, or sections, in which `newer` differs from what the daemon started with, and that only
    /// a restart puts in force.
    #[must_use]
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        // Every key is named, so that a new one is not forgotten. Policies and the trust root are loaded anew.
        let Self {
            listen,
            runtime: Runtime { endpoint, containerd, namespace },
            policy: _,
            // The secrets are read with the policies.
            registry: Registry { config_path, docker_config, secrets: _, ca_files, plain_http },
            cache,
            outage: Outage { serve_present },
            trust: _,
            limits: Limits { verification, concurrency },
            drain,
            control: Control { listen: control },
            metrics: Metrics { listen: metrics },
            log: Log { format, level },
        } = self;
        [
            ("listen", *listen != newer.listen),
            ("runtime.endpoint", *endpoint != newer.runtime.endpoint),
            ("runtime.containerd", *containerd != newer.runtime.containerd),
            ("runtime.namespace", *namespace != newer.runtime.namespace),
            ("registry.configPath", *config_path != newer.registry.config_path),
            ("registry.dockerConfig", *docker_config != newer.registry.docker_config),
            ("registry.caFiles", *ca_files != newer.registry.ca_files),
            ("registry.plainHttp", *plain_http != newer.registry.plain_http),
            ("cache", *cache != newer.cache),
            ("outage.servePresent", *serve_present != newer.outage.serve_present),
            ("limits.verification", *verification != newer.limits.verification),
            ("limits.concurrency", *concurrency != newer.limits.concurrency),
            ("drain", *drain != newer.drain),
            ("control.listen", *control != newer.control.listen),
            ("metrics.listen", *metrics != newer.metrics.listen),
            ("log.format", *format != newer.log.format),
            ("log.level", *level != newer.log.level),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }

    /// Every default, with the control socket that the file at `path` names although it cannot be loaded.
    /// None where it names none and is not the default file: that daemon may be anywhere.
    #[must_use]
    pub fn of_broken(path: &Path) -> Option<Self> {
        let named = super::read(path).ok().and_then(|text| control_socket(&text));
        let mut config = Self::with_policies(Vec::new());
        match named {
            Some(socket) => config.control.listen = socket,
            None if path == Path::new(DEFAULT_PATH) => {}
            None => return None,
        }
        Some(config)
    }
}

/// `control.listen`, of the whole document or else of the lines of its section alone.
fn control_socket(text: &str) -> Option<SocketPath> {
    let read = |text: &str| serde_saphyr::from_str::<Fragment>(text).ok()?.control?.listen;
    read(text).or_else(|| {
        let mut section = String::new();
        let lines = text.lines().skip_while(|line| !line.starts_with("control:"));
        for (index, line) in lines.enumerate() {
            if index > 0 && !line.starts_with([' ', '\t', '#']) && !line.is_empty() {
                break;
            }
            section.push_str(line);
            section.push('\n');
        }
        read(&section)
    })
}

#[derive(Deserialize)]
struct Fragment {
    control: Option<ControlFragment>,
}

#[derive(Deserialize)]
struct ControlFragment {
    listen: Option<SocketPath>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("c.yaml"), &format!("policy: {{paths: [/p]}}\n{text}")).unwrap()
    }

    #[test]
    fn what_only_a_restart_puts_in_force_is_named() {
        let started = parse("");
        for (changed, keys) in [
            ("", &[][..]),
            ("trust: {onlineRekor: true}", &[]),
            ("listen: unix:///l", &["listen"]),
            ("runtime: {endpoint: unix:///e}", &["runtime.endpoint"]),
            ("runtime: {containerd: unix:///e}", &["runtime.containerd"]),
            ("runtime: {namespace: n}", &["runtime.namespace"]),
            ("registry: {configPath: /c, plainHttp: [a]}", &["registry.configPath", "registry.plainHttp"]),
            ("registry: {dockerConfig: [/c], caFiles: [/c]}", &["registry.dockerConfig", "registry.caFiles"]),
            ("cache: {maxEntries: 7}", &["cache"]),
            ("outage: {servePresent: never}", &["outage.servePresent"]),
            ("limits: {verification: 1s, concurrency: 1}", &["limits.verification", "limits.concurrency"]),
            ("drain: 1s", &["drain"]),
            ("control: {listen: unix:///c}", &["control.listen"]),
            ("metrics: {listen: ''}", &["metrics.listen"]),
            ("log: {format: json, level: debug}", &["log.format", "log.level"]),
        ] {
            assert_eq!(started.needs_restart(&parse(changed)), keys, "{changed}");
        }
        let mut audit = started.clone();
        audit.policy.mode = super::super::Mode::Audit;
        assert_eq!(started.needs_restart(&audit), [""; 0], "policies are loaded anew");
    }

    #[test]
    fn a_broken_file_still_names_the_control_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let socket = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::of_broken(&path).map(|config| config.control.listen.path().display().to_string())
        };
        for text in [
            "polcy: {}\ncontrol: {listen: 'unix:///run/c.sock'}\n",
            "{\"drain\": 7, \"control\": {\"listen\": \"unix:///run/c.sock\"}}",
            "policy: [\ncontrol:\n  # root only\n\n  listen: unix:///run/c.sock\nmetrics: {\n",
        ] {
            assert_eq!(socket(text).as_deref(), Some("/run/c.sock"), "{text}");
        }
        for text in ["", "policy: [", "control: {listen: /run/c.sock}", "control: [\nlisten: unix:///x\n"] {
            assert_eq!(socket(text), None, "{text}");
        }
        let default = Config::of_broken(Path::new(DEFAULT_PATH)).unwrap();
        assert_eq!(default.policy.paths, [""; 0].map(std::path::PathBuf::from));
    }
}
