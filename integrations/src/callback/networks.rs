//! Which addresses callbacks may go to: public ones, and those that the operator allows.
//!
//! What is asked is the address that is connected to, after names have been resolved: no spelling and no name gets round it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// IPv4 networks that are not public: RFC 6890 and its successors in IANA's registry, multicast, and what is reserved.
const SPECIAL_4: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The IPv6 addresses that are routed at all.
const PUBLIC_6: &str = "2000::/3";

/// Of them, those that are not public, or lead to an IPv4 address that nobody has looked at (Teredo, 6to4).
const SPECIAL_6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

/// The networks that the operator allows besides the public ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that is no list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network; write networks with commas between them, for example \"10.1.0.0/16, fd00::/8\"")]
pub struct BadNetworks(String);

impl FromStr for Networks {
    type Err = BadNetworks;

    fn from_str(text: &str) -> Result<Self, BadNetworks> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part: &str| {
            let alone = || part.parse::<IpAddr>().map(IpNet::from);
            part.parse::<IpNet>()
                .map(|network| network.trunc())
                .or_else(|_| alone())
                .map_err(|_| BadNetworks(part.to_owned()))
        };
        parts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

impl Networks {
    /// Whether a callback may go to this address.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes is an IPv4 address.
        let address = address.to_canonical();
        is_public(address) || self.0.iter().any(|network| network.contains(&address))
    }
}

fn is_public(address: IpAddr) -> bool {
    let within = |network: &str| network.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
    match address {
        IpAddr::V4(_) => !SPECIAL_4.iter().any(|network| within(network)),
        IpAddr::V6(_) => within(PUBLIC_6) && !SPECIAL_6.iter().any(|network| within(network)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_tables_can_be_read() {
        for network in SPECIAL_4.iter().chain(&SPECIAL_6).chain([&PUBLIC_6]) {
            let read: IpNet = network.parse().unwrap();
            assert_eq!(read, read.trunc(), "{network}");
        }
    }

    #[test]
    fn only_public_addresses_are_allowed_by_themselves() {
        let nobody = Networks::default();
        for public in ["1.1.1.1", "140.82.121.3", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1"] {
            assert!(nobody.allow(address(public)), "{public}");
        }
        for inner in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
        ] {
            assert!(!nobody.allow(address(inner)), "{inner}");
        }
    }

    #[test]
    fn the_operator_may_allow_more() {
        let networks: Networks = "10.1.2.3/16, 127.0.0.1,fd00::/8".parse().unwrap();
        assert_eq!(networks.to_string(), "10.1.0.0/16, 127.0.0.1/32, fd00::/8");
        for allowed in ["10.1.255.1", "127.0.0.1", "::ffff:127.0.0.1", "fd12::1"] {
            assert!(networks.allow(address(allowed)), "{allowed}");
        }
        for refused in ["10.2.0.1", "127.0.0.2", "fe80::1"] {
            assert!(!networks.allow(address(refused)), "{refused}");
        }
        assert_eq!("".parse::<Networks>(), Ok(Networks::default()));
        for bad in ["10.0.0.0/33", "localhost", "10.0.0.0/8 192.168.0.0/16"] {
            assert!(bad.parse::<Networks>().is_err(), "{bad}");
        }
    }
}
