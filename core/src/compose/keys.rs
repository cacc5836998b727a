//! Which keys the Compose Specification has, and which of them are read here. A key that is not read is named before
//! anything is touched: an application whose `secrets` are silently left out is worse than one that does not start.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use crate::config::section::Section;
use crate::config::suggest;

/// The keys of one kind of mapping.
pub(super) struct Keys {
    pub(super) supported: &'static [&'static str],
    /// In the specification, and not acted on yet.
    pub(super) unsupported: &'static [&'static str],
}

pub(super) const TOP_LEVEL: Keys = Keys {
    supported: &["name", "version", "services", "networks", "x-mesh"],
    unsupported: &["volumes", "configs", "secrets", "include", "models"],
};

pub(super) const SERVICE: Keys = Keys {
    supported: &[
        "image",
        "command",
        "entrypoint",
        "environment",
        "env_file",
        "working_dir",
        "healthcheck",
        "labels",
        "networks",
        "expose",
        "ports",
        "depends_on",
        "deploy",
        "scale",
        "stop_signal",
        "stop_grace_period",
        "user",
        "volumes",
        "restart",
        "x-mesh",
    ],
    unsupported: &[
        "annotations",
        "attach",
        "build",
        "blkio_config",
        "cpu_count",
        "cpu_percent",
        "cpu_shares",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_runtime",
        "cpu_rt_period",
        "cpus",
        "cpuset",
        "cap_add",
        "cap_drop",
        "cgroup",
        "cgroup_parent",
        "configs",
        "container_name",
        "credential_spec",
        "develop",
        "device_cgroup_rules",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "domainname",
        "driver_opts",
        "extends",
        "external_links",
        "extra_hosts",
        "gpus",
        "group_add",
        "hostname",
        "init",
        "ipc",
        "isolation",
        "label_file",
        "links",
        "logging",
        "mac_address",
        "mem_limit",
        "mem_reservation",
        "mem_swappiness",
        "memswap_limit",
        "models",
        "network_mode",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "pids_limit",
        "platform",
        "post_start",
        "pre_stop",
        "privileged",
        "profiles",
        "provider",
        "pull_policy",
        "pull_refresh_after",
        "read_only",
        "runtime",
        "secrets",
        "security_opt",
        "shm_size",
        "stdin_open",
        "storage_opt",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "use_api_socket",
        "userns_mode",
        "uts",
        "volumes_from",
    ],
};

pub(super) const DEPLOY: Keys = Keys {
    supported: &["replicas", "labels", "mode"],
    unsupported: &["endpoint_mode", "placement", "resources", "restart_policy", "rollback_config", "update_config"],
};

pub(super) const HEALTHCHECK: Keys = Keys {
    supported: &["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"],
    unsupported: &[],
};

pub(super) const NETWORK: Keys = Keys {
    supported: &["name", "external", "internal", "driver", "labels"],
    unsupported: &["attachable", "driver_opts", "enable_ipv4", "enable_ipv6", "ipam"],
};

pub(super) const ATTACHMENT: Keys = Keys {
    supported: &["aliases"],
    unsupported: &[
        "driver_opts",
        "gw_priority",
        "interface_name",
        "ipv4_address",
        "ipv6_address",
        "link_local_ips",
        "mac_address",
        "priority",
    ],
};

pub(super) const DEPENDENCY: Keys = Keys { supported: &["condition", "required"], unsupported: &["restart"] };

pub(super) const PORT: Keys = Keys {
    supported: &["target", "published", "host_ip", "protocol", "name", "mode", "app_protocol"],
    unsupported: &[],
};

pub(super) const VOLUME: Keys = Keys {
    supported: &["type", "source", "target", "read_only"],
    unsupported: &["bind", "volume", "tmpfs", "image", "consistency"],
};

pub(super) const ENV_FILE: Keys = Keys { supported: &["path", "required"], unsupported: &["format"] };

pub(super) const X_MESH: Keys = Keys { supported: &["runtime"], unsupported: &[] };

impl Keys {
    /// Names every key of `section` that is not read. `x-…` is anybody's (Compose Specification, "Extensions").
    pub(super) fn check(&self, section: &Section<'_>) {
        for key in section.keys() {
            if self.supported.contains(&key.as_str()) || (key.starts_with("x-") && !is_nearly_ours(&key)) {
                continue;
            }
            if self.unsupported.contains(&key.as_str()) {
                section.note(
                    section.path_of(&key),
                    None,
                    "is not supported yet; take it out, or keep this service as it is",
                );
                continue;
            }
            let known = self.supported.iter().chain(self.unsupported).copied();
            let wanted = match suggest::nearest(&key, known) {
                Some(meant) => format!("is not a Compose key; did you mean {meant}?"),
                None => format!("is not a Compose key; supported here are {}", self.supported.join(", ")),
            };
            section.note(section.path_of(&key), None, wanted);
        }
    }
}

/// `x-mseh` is a slip rather than somebody else's extension.
fn is_nearly_ours(key: &str) -> bool {
    key != "x-mesh" && suggest::nearest(key, ["x-mesh"]).is_some()
}
