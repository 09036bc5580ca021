//! The configuration file of one network: TOML, every key optional, an unknown key or value refuses to start and points at the line.

use super::duration::Span;
use crate::node::relay::RelayLimits;
use crate::wire::name::NetworkName;
use crate::wire::record::ZoneName;
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::config_value::{Entrances, MAX_MTU, Mtu, OptionalDeviceName, OptionalProxy, OptionalZone, QueueCount};
pub use crate::io::device_name::DeviceName;

/// The file with every key, its default and a comment.
pub const TEMPLATE: &str = include_str!("../../config/p2plus.toml");

/// The longest file that is read: a thousand times the template would be somebody else's file.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Everything that a file can say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This node and who may command it.
    pub node: NodeConfig,
    /// The network below.
    pub underlay: UnderlayConfig,
    /// The network inside.
    pub tunnel: TunnelConfig,
    /// Names.
    pub dns: DnsConfig,
    /// What this host routes for others.
    pub routes: RoutesConfig,
    /// The packet filter; no keys yet.
    pub firewall: NoKeys,
    /// Relaying for others.
    pub relay: RelayConfig,
    /// The ledger.
    pub ledger: LedgerConfig,
    /// Measurements; no keys yet.
    pub metrics: NoKeys,
    /// The web page; no keys yet.
    pub dashboard: NoKeys,
}

/// A section without keys, which refuses all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoKeys {}

/// `[node]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// How much the daemon logs.
    pub log_level: LogLevel,
    /// Users, by name or number, who may do what root may: sign transactions, read secrets.
    pub admins: Vec<String>,
}

/// `[underlay]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnderlayConfig {
    /// Where to listen. Empty: the default port, or a free one when it is taken.
    pub listen: Vec<SocketAddr>,
    /// Addresses under which others reach this node, for invites and node records.
    pub endpoints: Vec<SocketAddr>,
    /// The default gateway, when it has a private address, is asked to pass the IPv4 port on.
    pub port_mapping: bool,
    /// Members on the same LAN find each other by multicast DNS.
    pub lan_discovery: bool,
    /// Members find each other by the Mainline DHT.
    pub dht: bool,
    /// The nodes of the DHT that are asked first. Empty: the usual ones.
    pub dht_bootstrap: Entrances,
    /// The HTTP proxy by which relays are reached over TLS where UDP does not pass. Empty: none.
    pub proxy: OptionalProxy,
}

impl Default for UnderlayConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            endpoints: Vec::new(),
            port_mapping: true,
            lan_discovery: true,
            dht: false,
            dht_bootstrap: Entrances::default(),
            proxy: OptionalProxy(None),
        }
    }
}

/// `[tunnel]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelConfig {
    /// The interface's name. Empty: `p2p-NETWORK`.
    pub device: OptionalDeviceName,
    /// The interface's MTU in bytes.
    pub mtu: Mtu,
    /// The cipher of packets.
    pub cipher: Cipher,
    /// Threads that carry packets, each way. 0: one for each core, four at most.
    pub queues: QueueCount,
    /// Many packets go to and from the kernel as one, where it can. false: for a driver that does it wrongly.
    pub offload: bool,
    /// IPv4 is used although its pool overlaps a network of this host.
    pub force_ipv4: bool,
}

/// `[routes]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutesConfig {
    /// Interfaces by which others may reach the overlay and this host's overlay addresses: a container bridge, a trusted LAN.
    pub forward_from: Vec<DeviceName>,
    /// Who comes out of the tunnel for a subnet behind this node, or by it as an exit, goes on under this host's address.
    pub masquerade: bool,
    /// While an exit is used nothing leaves beside the overlay.
    pub lock_down: bool,
    /// While an exit is used the networks that this host is connected to stay in reach.
    pub lan_access: bool,
}

impl Default for RoutesConfig {
    fn default() -> Self {
        Self { forward_from: Vec::new(), masquerade: true, lock_down: false, lan_access: true }
    }
}

/// `[relay]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Whether members reach each other through this node.
    pub mode: RelayMode,
    /// How much is passed on for all of them together, in Mbit/s. 0: 10 with `auto`, no limit with `on`.
    pub rate_mbit: u32,
    /// How much for each of them. 0: half of that.
    pub member_rate_mbit: u32,
}

/// Bytes per second of one Mbit/s.
const MEGABIT: u64 = 125_000;

/// What a node passes on that nobody asked to relay, in Mbit/s: little beside what its own uplink carries.
const MODEST_RATE: u32 = 10;

impl RelayConfig {
    /// What the node is told.
    pub fn limits(&self) -> RelayLimits {
        let whole_rate = match (self.rate_mbit, self.mode) {
            (0, RelayMode::On) => None,
            (0, _) => Some(u64::from(MODEST_RATE) * MEGABIT),
            (rate, _) => Some(u64::from(rate) * MEGABIT),
        };
        let member_rate = match self.member_rate_mbit {
            0 => whole_rate.map(|rate| rate / 2),
            rate => Some(u64::from(rate) * MEGABIT),
        };
        RelayLimits { is_on: self.mode != RelayMode::Off, member_rate, whole_rate }
    }
}

/// Whether a node relays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayMode {
    /// A little, where others reach it.
    #[default]
    Auto,
    /// As much as it is asked to.
    On,
    /// Not at all.
    Off,
}

impl RelayMode {
    /// Its name, as it is configured.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// `[dns]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// The network's names are answered on this host.
    pub enabled: bool,
    /// The suffix of the names. Empty: `NETWORK.internal`.
    pub zone: OptionalZone,
    /// What tells the programs of this host where to ask for names of the zone, and of nothing else.
    pub backend: DnsBackend,
}

/// `[ledger]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// The age of the newest proof of freshness from which on `status` warns.
    pub max_staleness: Span,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            device: OptionalDeviceName(None),
            mtu: Mtu(1400),
            cipher: Cipher::Auto,
            queues: QueueCount::default(),
            offload: true,
            force_ipv4: false,
        }
    }
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { enabled: true, zone: OptionalZone(None), backend: DnsBackend::Auto }
    }
}

impl DnsConfig {
    /// The zone in which this host finds the names of a network; none where it is not to find any.
    pub fn zone_name(&self, network: &NetworkName) -> Option<ZoneName> {
        self.enabled.then(|| self.zone.0.clone().unwrap_or_else(|| ZoneName::of_network(network)))
    }
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { max_staleness: Span(Duration::from_hours(24)) }
    }
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Wake someone.
    Error,
    /// Worth a look tomorrow.
    Warn,
    /// What an operator cares about.
    #[default]
    Info,
    /// Each branch taken.
    Debug,
    /// Each packet.
    Trace,
}

impl LogLevel {
    /// Its name, as it is configured.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which cipher sessions ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Cipher {
    /// The one that this machine measures faster at start.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// AES-256-GCM when the peer can.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305 always.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

/// What a host's programs are told by, where to ask for names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsBackend {
    /// systemd-resolved where it runs, else resolvconf where it is installed, else nothing.
    #[default]
    Auto,
    /// systemd-resolved.
    Resolved,
    /// resolvconf, of Debian or openresolv.
    Resolvconf,
    /// `/etc/resolv.conf` itself: everything this host asks for then comes here first.
    File,
    /// Nothing: the resolver answers, and the host is left as it is.
    None,
}

impl DnsBackend {
    /// Its name, as it is configured.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Resolved => "resolved",
            Self::Resolvconf => "resolvconf",
            Self::File => "file",
            Self::None => "none",
        }
    }
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file says something that is not understood.
    #[error("{message} (line {line} of {})", path.display())]
    #[diagnostic(help("`p2plus config show` prints every key with its value"))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// The line, counted from 1.
        line: usize,
        /// The file's text.
        #[source_code]
        text: NamedSource<String>,
        /// The place in it.
        #[label("here")]
        place: SourceSpan,
    },
}

impl Config {
    /// Reads the file at `path`; a missing one means the defaults unless it `must_exist`.
    ///
    /// # Errors
    /// [`ConfigError`] with the cause and, for a bad key or value, its place.
    pub fn load(path: &Path, must_exist: bool) -> Result<Self, Box<ConfigError>> {
        match read_text(path) {
            Ok(text) => Self::parse(path, &text),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(Self::default()),
            Err(cause) => Err(Box::new(ConfigError::Unreadable { path: path.to_owned(), cause })),
        }
    }

    /// Reads `text`, which came from `path`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the place.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Box<ConfigError>> {
        toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let line = text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1;
            Box::new(ConfigError::Invalid {
                path: path.to_owned(),
                message: error.message().to_owned(),
                line,
                text: NamedSource::new(path.display().to_string(), without_passwords(text)),
                place: span.into(),
            })
        })
    }

    /// Writes the configuration as the commented template with these values in it.
    pub fn to_commented_toml(&self) -> String {
        let sections = toml::Table::try_from(self).expect("the configuration consists of TOML's types");
        let mut section = "";
        let mut out = String::with_capacity(TEMPLATE.len());
        for line in TEMPLATE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            }
            let value = line.split_once(" = ").and_then(|(key, _)| Some((key, sections.get(section)?.get(key)?)));
            match value {
                Some((key, value)) => out.push_str(&format!("{key} = {value}\n")),
                None => out.push_str(&format!("{line}\n")),
            }
        }
        out
    }
}

/// A file's text as it may be shown, where its places stay what they are: a line of a proxy keeps nothing of its value, since a mistake in it
/// may be anywhere, and an address keeps nothing in front of its `@`.
fn without_passwords(text: &str) -> String {
    let hidden = |line: &str| {
        let value_at = line.find("proxy").and_then(|key| Some(key + line[key..].find('=')? + 1));
        let address_at = line.find("://").filter(|start| line[*start..].contains('@')).map(|start| start + 3);
        let (from, until) = match (value_at, address_at) {
            (Some(from), _) => (from, line.len()),
            (None, Some(from)) => (from, line.rfind('@').unwrap_or(line.len())),
            (None, None) => return line.to_owned(),
        };
        let is_kept = |byte: u8| byte.is_ascii_whitespace() || b"\"'".contains(&byte);
        let stars: String =
            line[from..until].bytes().map(|byte| if is_kept(byte) { char::from(byte) } else { '*' }).collect();
        [&line[..from], &stars, &line[until..]].concat()
    };
    text.split_inclusive('\n').map(hidden).collect()
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read_len = std::fs::File::open(path)?.take(MAX_FILE_LEN).read_to_string(&mut text)?;
    if read_len as u64 == MAX_FILE_LEN { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Box<ConfigError>> {
        Config::parse(Path::new("lab.toml"), text)
    }

    /// The line and the text that a refusal points at.
    fn refused(text: &str) -> (usize, String) {
        match *parse(text).expect_err(text) {
            ConfigError::Invalid { line, place, .. } => {
                (line, text[place.offset()..place.offset() + place.len()].to_owned())
            }
            ConfigError::Unreadable { .. } => panic!("{text:?} was never a file"),
        }
    }

    /// Every key of a value, as `section.key`.
    fn keys(table: &toml::Table) -> Vec<String> {
        let keys = table
            .iter()
            .flat_map(|(section, value)| value.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")));
        keys.collect()
    }

    #[test]
    fn the_template_lists_every_key_with_its_default() {
        assert_eq!(parse(TEMPLATE).unwrap(), Config::default());
        let listed: toml::Table = toml::from_str(TEMPLATE).unwrap();
        let known = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(keys(&listed), keys(&known));
        assert_eq!(listed.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        assert_eq!(Config::default().to_commented_toml(), TEMPLATE);
        let text = "[node]\nadmins = [\"ann\", \"1000\"]\n[underlay]\nlisten = [\"[::]:7\"]\nport_mapping = false\nlan_discovery = false\ndht = true\ndht_bootstrap = [\"192.0.2.1:6881\", \"dht.example:6881\"]\nproxy = \"http://ann:x@proxy.example:3128\"\n\
                    [tunnel]\nmtu = 9000\ndevice = \"lab0\"\ncipher = \"aes-256-gcm\"\nqueues = 3\noffload = false\nforce_ipv4 = true\n\
                    [dns]\nenabled = false\nzone = \"corp.example\"\nbackend = \"none\"\n[ledger]\nmax_staleness = \"90m\"\n";
        let config = parse(text).unwrap();
        assert_ne!(config, Config::default());
        assert_eq!(parse(&config.to_commented_toml()).unwrap(), config);
    }

    #[test]
    fn a_bad_key_or_value_is_pointed_at() {
        for (text, line, place) in [
            ("[node]\n\ncolour = 1\n", 3, "colour"),
            ("[nod]\n", 1, "nod"),
            ("[dns]\ncolour = \"x\"\n", 2, "colour"),
            ("[dns]\nzone = \"lab.local\"\n", 2, "\"lab.local\""),
            ("[dns]\nzone = \"Lab\"\n", 2, "\"Lab\""),
            ("[dns]\nbackend = \"hosts\"\n", 2, "\"hosts\""),
            ("[node]\nlog_level = \"loud\"\n", 2, "\"loud\""),
            ("[tunnel]\ncipher = \"rot13\"\n", 2, "\"rot13\""),
            ("[tunnel]\nqueues = 16\n", 2, "16"),
            ("[tunnel]\nmtu = 1279\n", 2, "1279"),
            ("[tunnel]\nmtu = 9217\n", 2, "9217"),
            ("[tunnel]\nmtu = 65536\n", 2, "65536"),
            ("[tunnel]\nmtu = 1400\ndevice = \"a/b\"\n", 3, "\"a/b\""),
            ("[underlay]\nlisten = [\"0.0.0.0:1\", \"0.0.0.0\"]\n", 2, "\"0.0.0.0\""),
            ("[underlay]\ndht = \"yes\"\n", 2, "\"yes\""),
            ("[underlay]\ndht_bootstrap = [\"dht.example:6881\", \"a\"]\n", 2, "[\"dht.example:6881\", \"a\"]"),
            ("[underlay]\nproxy = \"proxy.example:3128\"\n", 2, "\"proxy.example:3128\""),
            ("[ledger]\nmax_staleness = \"soon\"\n", 2, "\"soon\""),
            ("[tunnel]\nmtu = 1400\nmtu = 1400\n", 3, "mtu"),
        ] {
            assert_eq!(refused(text), (line, place.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_mistake_shows_no_password_wherever_it_is() {
        use miette::{GraphicalReportHandler, GraphicalTheme};
        for text in [
            "[underlay]\nproxy = \"http://ann:söcret@proxy.example\"\n",
            "[underlay]\nproxy = \"ann:söcret@proxy.example:3128\"\n",
            "[underlay]\nproxy = \"http://ann:söcret\"\n",
            "[underlay]\nproxy = \"http://ann:söcret@proxy.example:3128\"\ncolour = 1\n",
            "[underlay]\nproxy = \"\"\"http://ann:söcret@proxy.example:0\"\"\"\n",
            "[underlay]\n# it was http://ann:söcret@proxy.example:3128\nproxy = \"\"\"\nhttp://ann:söcret@proxy.example:0\"\"\"\n",
            "underlay.proxy = \"ann:söcret\"\n",
        ] {
            let error = parse(text).expect_err(text);
            let (mut shown, handler) =
                (String::new(), GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()));
            handler.render_report(&mut shown, &*error).unwrap();
            assert!(!shown.contains("cret") && !format!("{error:?}").contains("cret"), "{shown}");
            assert_eq!(without_passwords(text).len(), text.len());
        }
        assert_eq!(without_passwords(TEMPLATE.lines().next().unwrap()), TEMPLATE.lines().next().unwrap());
    }

    #[test]
    fn a_missing_file_means_the_defaults_unless_it_was_named() {
        let missing = Path::new("/nonexistent/lab.toml");
        assert_eq!(Config::load(missing, false).unwrap(), Config::default());
        assert!(matches!(*Config::load(missing, true).unwrap_err(), ConfigError::Unreadable { .. }));
        assert!(matches!(*Config::load(Path::new("/"), false).unwrap_err(), ConfigError::Unreadable { .. }));
    }
}
