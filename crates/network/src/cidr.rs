//! An IPv4 range as Kubernetes writes it: `10.42.0.0/24`.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use crate::Error;

/// A network address with its prefix length, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Cidr {
    /// The first address: that of the network itself.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// How many leading bits name the network.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first usable address, which the bridge takes.
    pub fn gateway(self) -> Ipv4Addr {
        self.nth(1)
    }

    /// The `n`th address of the range.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + n)
    }

    /// How many addresses the range has, network and broadcast address included.
    pub fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// Whether the range holds `ip`.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & self.mask() == u32::from(self.network)
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Cidr(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(bad)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(8..=30).contains(&prefix) {
            return Err(bad());
        }
        let mut cidr = Self { network: ip, prefix };
        cidr.network = Ipv4Addr::from(u32::from(ip) & cidr.mask());
        Ok(cidr)
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared_and_the_gateway_is_the_first_address() {
        let cidr: Ipv4Cidr = "10.42.3.77/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.42.3.0/24");
        assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 42, 3, 1));
        assert_eq!(cidr.size(), 256);
        assert!(cidr.contains(Ipv4Addr::new(10, 42, 3, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 42, 4, 0)));
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        for text in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/7", "10.0.0/24", "::/64", "10.0.0.0/x"] {
            let error = text.parse::<Ipv4Cidr>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }
}
