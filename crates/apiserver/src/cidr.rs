//! A range of addresses, `10.43.0.0/16`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: all addresses that share its first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// How many bits an address of this family has.
    fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn base(self) -> u128 {
        let host = u32::from(self.bits() - self.prefix);
        let all = number(self.address);
        if host >= 128 { 0 } else { (all >> host) << host }
    }

    /// How many addresses there are, at most 2^16 of which Services use (upstream's bound for large ranges).
    pub fn size(self) -> u128 {
        let host = u32::from(self.bits() - self.prefix);
        1u128.checked_shl(host).unwrap_or(u128::MAX)
    }

    /// The address at an offset from the network's own.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        if offset >= self.size() {
            return None;
        }
        let number = self.base() + offset;
        Some(if self.address.is_ipv4() {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(number).ok()?))
        } else {
            IpAddr::V6(Ipv6Addr::from(number))
        })
    }

    /// Where an address stands in the network.
    pub fn offset(self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.address.is_ipv4() {
            return None;
        }
        number(address).checked_sub(self.base()).filter(|offset| *offset < self.size())
    }

    /// Whether this is an IPv4 network.
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid CIDR address: {text}");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let cidr = Self { address, prefix };
        if prefix > cidr.bits() { Err(wrong()) } else { Ok(cidr) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.nth(0).unwrap_or(self.address);
        write!(f, "{network}/{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_counted() {
        let cidr: Cidr = "10.43.0.0/16".parse().unwrap();
        assert_eq!(cidr.nth(1).unwrap().to_string(), "10.43.0.1");
        assert_eq!(cidr.offset("10.43.1.0".parse().unwrap()), Some(256));
        assert_eq!(cidr.offset("10.44.0.0".parse().unwrap()), None);
        assert_eq!(cidr.to_string(), "10.43.0.0/16");
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }
}
