//! A changed configuration: what is taken over at once, and what waits for a restart.

use super::super::api::types::Reloaded;
use super::super::config::Config;
use super::super::failure::{ErrorCode, Failure};
use super::{EventLoop, host_settings};
use crate::io::clock;

impl EventLoop {
    /// Reads the configuration again and takes over what can change while the daemon runs.
    pub(super) fn reload(&mut self) -> Result<Reloaded, Failure> {
        let path = self.parts.paths.config_file();
        let must_exist = self.parts.paths.roots.config_file.is_some();
        let fresh =
            Config::load(&path, must_exist).map_err(|error| Failure::new(ErrorCode::Usage, error.to_string()))?;
        let mut reloaded = Reloaded { changed: Vec::new(), needs_restart: Vec::new() };
        let now = &mut self.parts.config;
        if fresh.node != now.node {
            reloaded.changed.push("node".to_owned());
        }
        if fresh.ledger != now.ledger {
            reloaded.changed.push("ledger".to_owned());
        }
        if fresh.underlay.endpoints != now.underlay.endpoints {
            reloaded.changed.push("underlay.endpoints".to_owned());
        }
        if fresh.underlay.port_mapping != now.underlay.port_mapping {
            reloaded.changed.push("underlay.port_mapping".to_owned());
        }
        if fresh.underlay.lan_discovery != now.underlay.lan_discovery {
            reloaded.changed.push("underlay.lan_discovery".to_owned());
        }
        if fresh.underlay.dht != now.underlay.dht {
            reloaded.changed.push("underlay.dht".to_owned());
        }
        if fresh.underlay.dht_bootstrap != now.underlay.dht_bootstrap {
            reloaded.changed.push("underlay.dht_bootstrap".to_owned());
        }
        if fresh.underlay.proxy != now.underlay.proxy {
            reloaded.changed.push("underlay.proxy".to_owned());
            self.parts.tls.set_proxy(fresh.underlay.proxy.0.clone());
            self.parts.node.retry_streams();
        }
        if fresh.underlay.listen != now.underlay.listen {
            reloaded.needs_restart.push("underlay.listen".to_owned());
        }
        if fresh.tunnel.force_ipv4 != now.tunnel.force_ipv4 {
            reloaded.changed.push("tunnel.force_ipv4".to_owned());
            now.tunnel.force_ipv4 = fresh.tunnel.force_ipv4;
        }
        if fresh.routes != now.routes {
            reloaded.changed.push("routes".to_owned());
        }
        if fresh.tunnel != now.tunnel {
            reloaded.needs_restart.push("tunnel".to_owned());
        }
        if fresh.relay != now.relay {
            reloaded.changed.push("relay".to_owned());
            now.relay = fresh.relay.clone();
            self.parts.node.handle_relay_limits(clock::now(), fresh.relay.limits());
        }
        if fresh.dns != now.dns {
            reloaded.changed.push("dns".to_owned());
            now.dns = fresh.dns.clone();
            self.parts.node.set_zone_name(fresh.dns.zone_name(&self.parts.paths.network));
        }
        now.node = fresh.node.clone();
        now.ledger = fresh.ledger.clone();
        now.routes = fresh.routes.clone();
        now.underlay.endpoints.clone_from(&fresh.underlay.endpoints);
        now.underlay.port_mapping = fresh.underlay.port_mapping;
        now.underlay.lan_discovery = fresh.underlay.lan_discovery;
        now.underlay.dht = fresh.underlay.dht;
        now.underlay.dht_bootstrap.clone_from(&fresh.underlay.dht_bootstrap);
        now.underlay.proxy.clone_from(&fresh.underlay.proxy);
        self.parts.settings.apply(&fresh);
        if let Some(log) = &self.parts.log {
            log.set_level(fresh.node.log_level);
        }
        self.follow_dht();
        self.host_check_at = Some(clock::now().instant);
        let ports = self.parts.sender.udp().local_addresses();
        let settings = host_settings(&fresh, self.parts.force_ipv4, &ports);
        self.host.configure(&mut self.parts.network, settings);
        tracing::info!(changed = ?reloaded.changed, needs_restart = ?reloaded.needs_restart, "configuration reloaded");
        Ok(reloaded)
    }
}
