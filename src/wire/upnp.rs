//! What little of UPnP it takes to have a home router pass a UDP port on: finding it, and three actions of its WAN connection.
//!
//! ```text
//!   search (SSDP, UDP 1900) ──► location of the description ──► control URL of a WANIPConnection or WANPPPConnection
//!   GetExternalIPAddress, AddPortMapping, DeletePortMapping (SOAP, HTTP POST) ──► what it says
//! ```
//! Each text is a stranger's: it is searched for the few elements that count, and whatever else stands in it is passed over. A place is on
//! the gateway or none: whose answer names another host wants to have something asked there. Source: UPnP Device Architecture 1.1 §1.3, §2,
//! §3; InternetGatewayDevice:1, WANIPConnection:1.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where every UPnP device of a link listens.
pub const SEARCH_GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), SEARCH_PORT);

/// The port of that.
pub const SEARCH_PORT: u16 = 1900;

/// Bytes of an answer to a search at most: it fits in a datagram.
pub const MAX_SEARCH_ANSWER_LEN: usize = 1500;

/// Bytes of a description, or of an action's answer, at most. Descriptions of real routers have 2 to 20 kB.
pub const MAX_DOCUMENT_LEN: usize = 128 << 10;

/// Connections that are looked at of one description: a router has one or two.
pub const MAX_CONNECTIONS: usize = 4;

/// Characters of a path at most.
const MAX_PATH_LEN: usize = 512;

/// What to search for, newest first: version 2 answers to both, most routers to version 1 alone.
pub const SEARCH_TARGETS: [&str; 2] =
    ["urn:schemas-upnp-org:device:InternetGatewayDevice:2", "urn:schemas-upnp-org:device:InternetGatewayDevice:1"];

/// The services that map ports, any version.
const CONNECTION_SERVICES: [&str; 2] =
    ["urn:schemas-upnp-org:service:WANIPConnection:", "urn:schemas-upnp-org:service:WANPPPConnection:"];

/// A place on the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The TCP port.
    pub port: u16,
    /// The path, from the slash on.
    pub path: String,
}

/// A connection of the gateway to the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// The type of the service, with its version.
    pub service: String,
    /// Where its actions are asked for.
    pub control: Place,
}

/// What a connection is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Tell the address from outside.
    ExternalAddress,
    /// Pass a UDP port on to a host of the LAN.
    Add {
        /// The port from outside.
        external_port: u16,
        /// The host and its port.
        internal: SocketAddrV4,
        /// For so many seconds; 0 is for ever.
        lease: u32,
    },
    /// Pass it on no more.
    Delete {
        /// The port from outside.
        external_port: u16,
    },
}

/// Writes the search for a kind of device at a host or group.
pub fn search(target: &str, host: SocketAddrV4) -> String {
    // MX: an answer to the group comes within a second.
    format!("M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n")
}

/// Reads where the gateway's description is, out of its answer to a search.
pub fn location(answer: &[u8], gateway: Ipv4Addr) -> Option<Place> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    let status = lines.next()?;
    if !(status.starts_with("HTTP/1.") && status.split_whitespace().nth(1) == Some("200")) {
        return None;
    }
    let is_location = |(name, _): &(&str, &str)| name.trim().eq_ignore_ascii_case("location");
    let (_, url) = lines.filter_map(|line| line.split_once(':')).find(is_location)?;
    absolute(url.trim(), gateway)
}

/// Reads the connections that a description names, at most [`MAX_CONNECTIONS`].
pub fn connections(description: &str, at: &Place, gateway: Ipv4Addr) -> Vec<Connection> {
    let base = elements(description, "URLBase").next().and_then(|url| absolute(&unescaped(url.trim()), gateway));
    let base = base.as_ref().unwrap_or(at);
    let connection = |service: &str| {
        let kind = elements(service, "serviceType").next()?.trim();
        let version = CONNECTION_SERVICES.iter().find_map(|known| kind.strip_prefix(known))?;
        version.parse::<u8>().ok()?;
        let url = unescaped(elements(service, "controlURL").next()?.trim());
        let control = if url.contains("://") { absolute(&url, gateway) } else { relative(&url, base) };
        Some(Connection { service: kind.to_owned(), control: control? })
    };
    elements(description, "service").filter_map(connection).take(MAX_CONNECTIONS).collect()
}

impl Action {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExternalAddress => "GetExternalIPAddress",
            Self::Add { .. } => "AddPortMapping",
            Self::Delete { .. } => "DeletePortMapping",
        }
    }

    /// The request's body, for this type of service. The arguments have the order of the standard, which some routers insist on.
    pub fn body(self, service: &str) -> String {
        let mut arguments = String::new();
        let mut put = |name: &str, value: &dyn std::fmt::Display| {
            let _ = write!(arguments, "<{name}>{value}</{name}>");
        };
        match self {
            Self::ExternalAddress => {}
            Self::Add { external_port, internal, lease } => {
                put("NewRemoteHost", &"");
                put("NewExternalPort", &external_port);
                put("NewProtocol", &"UDP");
                put("NewInternalPort", &internal.port());
                put("NewInternalClient", &internal.ip());
                put("NewEnabled", &1);
                put("NewPortMappingDescription", &"p2plus");
                put("NewLeaseDuration", &lease);
            }
            Self::Delete { external_port } => {
                put("NewRemoteHost", &"");
                put("NewExternalPort", &external_port);
                put("NewProtocol", &"UDP");
            }
        }
        let name = self.name();
        format!(
            "<?xml version=\"1.0\"?>\r\n\
             <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\">\
             <s:Body><u:{name} xmlns:u=\"{service}\">{arguments}</u:{name}></s:Body></s:Envelope>\r\n"
        )
    }
}

/// Reads the address out of the answer to [`Action::ExternalAddress`].
pub fn external_address(answer: &str) -> Option<Ipv4Addr> {
    elements(answer, "NewExternalIPAddress").next()?.trim().parse().ok()
}

/// Reads why an action was refused.
pub fn fault(answer: &str) -> Option<u16> {
    elements(answer, "errorCode").next()?.trim().parse().ok()
}

/// The port is another host's.
pub const FAULT_CONFLICT: u16 = 718;
/// The gateway knows no end of a mapping.
pub const FAULT_PERMANENT_ONLY: u16 = 725;

/// The contents of each element of this name that holds none of its own name.
fn elements<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('<')?;
            rest = after;
            let Some(attributes) = after.strip_prefix(name) else { continue };
            if !attributes.starts_with(|next: char| next == '>' || next.is_ascii_whitespace()) {
                continue;
            }
            let (_, inside) = attributes.split_once('>')?;
            let (content, behind) = inside.split_once(&format!("</{name}>"))?;
            rest = behind;
            return Some(content);
        }
    })
}

fn unescaped(text: &str) -> String {
    text.replace("&amp;", "&")
}

/// The place that a whole URL names, when it is on the gateway.
fn absolute(url: &str, gateway: Ipv4Addr) -> Option<Place> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let is_gateway = host.parse() == Ok(gateway);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    if is_gateway { place(port, path) } else { None }
}

/// The place that a path names: from the root, or beside the base.
fn relative(path: &str, base: &Place) -> Option<Place> {
    if path.starts_with('/') {
        return place(base.port, path);
    }
    let folder = base.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    place(base.port, &format!("{folder}/{path}"))
}

fn place(port: u16, path: &str) -> Option<Place> {
    let path = if path.is_empty() { "/" } else { path };
    let is_path =
        path.starts_with('/') && path.len() <= MAX_PATH_LEN && path.bytes().all(|byte| byte.is_ascii_graphic());
    is_path.then(|| Place { port, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn answer(location: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {}\r\nLocation: {location}\r\n\r\n",
            SEARCH_TARGETS[1]
        )
    }

    fn at(port: u16, path: &str) -> Place {
        Place { port, path: path.to_owned() }
    }

    #[test]
    fn a_description_is_looked_for_on_the_gateway_alone() {
        let found = |location: &str| super::location(answer(location).as_bytes(), GATEWAY);
        assert_eq!(found("http://192.168.1.1:5000/rootDesc.xml"), Some(at(5000, "/rootDesc.xml")));
        assert_eq!(found("HTTP://192.168.1.1"), Some(at(80, "/")));
        for elsewhere in [
            "http://127.0.0.1:80/x",
            "http://192.168.1.2:5000/x",
            "http://169.254.169.254/latest/meta-data",
            "http://192.168.1.1@10.0.0.1/x",
            "http://router.example/x",
            "https://192.168.1.1/x",
            "file:///etc/passwd",
            "http://192.168.1.1:0/x",
            "http://192.168.1.1:65536/x",
            "http://192.168.1.1/a b",
            "",
        ] {
            assert_eq!(found(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(location(b"NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1/x\r\n\r\n", GATEWAY), None);
        assert_eq!(location(&[0xff; 100], GATEWAY), None);
    }

    /// The shape of miniupnpd's description, which most home routers' have.
    fn description(services: &str, base: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\">{base}<device>\
             <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
             <controlURL>/ctl/L3F</controlURL></service></serviceList>\
             <deviceList><device><serviceList>{services}</serviceList></device></deviceList></device></root>"
        )
    }

    fn service(kind: &str, control: &str) -> String {
        format!(
            "<service>\n <serviceType>urn:schemas-upnp-org:service:{kind}</serviceType>\
             <controlURL> {control} </controlURL><SCPDURL>/x.xml</SCPDURL></service>"
        )
    }

    #[test]
    fn the_connections_of_a_description_are_found_with_their_control_urls() {
        let root = at(5000, "/igd/rootDesc.xml");
        let found = |services: &str, base: &str| {
            let found = connections(&description(services, base), &root, GATEWAY);
            found.into_iter().map(|it| (it.service, it.control)).collect::<Vec<_>>()
        };
        let ip = || "urn:schemas-upnp-org:service:WANIPConnection:1".to_owned();
        assert_eq!(found(&service("WANIPConnection:1", "/ctl/IPConn"), ""), [(ip(), at(5000, "/ctl/IPConn"))]);
        assert_eq!(found(&service("WANIPConnection:1", "ctl?a&amp;b"), ""), [(ip(), at(5000, "/igd/ctl?a&b"))]);
        let base = "<URLBase>http://192.168.1.1:8080/base/</URLBase>";
        assert_eq!(found(&service("WANIPConnection:1", "ctl"), base), [(ip(), at(8080, "/base/ctl"))]);
        assert_eq!(found(&service("WANIPConnection:1", "http://192.168.1.1:81/c"), base), [(ip(), at(81, "/c"))]);
        let ppp = found(&(service("WANPPPConnection:1", "/p") + &service("WANIPConnection:2", "/i")), "");
        assert_eq!(ppp.iter().map(|(_, control)| &*control.path).collect::<Vec<_>>(), ["/p", "/i"]);
    }

    #[test]
    fn a_description_that_leads_elsewhere_or_is_none_gives_nothing() {
        let root = at(5000, "/");
        let found = |text: &str| connections(text, &root, GATEWAY).len();
        assert_eq!(found(&description(&service("WANIPConnection:1", "http://127.0.0.1/c"), "")), 0);
        assert_eq!(found(&description(&service("WANIPConnection:1\" x=\"", "/c"), "")), 0);
        assert_eq!(found(&description(&service("WANIPConnection:1", "/c\r\nHost: x"), "")), 0);
        assert_eq!(found(&description(&service("WANCommonInterfaceConfig:1", "/c"), "")), 0);
        assert_eq!(found(&description(&service("WANIPConnection:1", "/c").repeat(1000), "")), MAX_CONNECTIONS);
        for text in ["", "<", "<service", "<service>", "</service>", "<service><serviceType>", "<service><service>"] {
            assert_eq!(found(text), 0, "{text}");
        }
    }

    #[test]
    fn a_base_elsewhere_is_passed_over() {
        let text = description(&service("WANIPConnection:1", "/c"), "<URLBase>http://10.9.9.9/</URLBase>");
        let found = connections(&text, &at(5000, "/d"), GATEWAY);
        assert_eq!(found[0].control, at(5000, "/c"));
    }

    #[test]
    fn an_action_is_written_with_its_arguments_in_order() {
        let internal = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 4647);
        let body = Action::Add { external_port: 4647, internal, lease: 1200 }.body("urn:x:1");
        let arguments = "<NewRemoteHost></NewRemoteHost><NewExternalPort>4647</NewExternalPort><NewProtocol>UDP</NewProtocol>\
             <NewInternalPort>4647</NewInternalPort><NewInternalClient>192.168.1.2</NewInternalClient><NewEnabled>1</NewEnabled>\
             <NewPortMappingDescription>p2plus</NewPortMappingDescription><NewLeaseDuration>1200</NewLeaseDuration>";
        assert!(
            body.contains(&format!("<u:AddPortMapping xmlns:u=\"urn:x:1\">{arguments}</u:AddPortMapping>")),
            "{body}"
        );
    }

    #[test]
    fn answers_and_faults_are_read() {
        let answer = "<s:Envelope><s:Body><u:GetExternalIPAddressResponse xmlns:u=\"u\">\
             <NewExternalIPAddress>8.0.0.11</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>";
        assert_eq!(external_address(answer), Some(Ipv4Addr::new(8, 0, 0, 11)));
        assert_eq!(external_address("<NewExternalIPAddress></NewExternalIPAddress>"), None);
        assert_eq!(
            fault("<s:Fault><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></s:Fault>"),
            Some(718)
        );
        assert_eq!(fault("<errorCode>many</errorCode>"), None);
    }
}
