//! Names and addresses: each is one member's, and rests before it is another's.

use super::records::{IPV4, LAST_IPV4, NAMES, NETWORK, RESTS, Rest, Tenure};
use super::table::View;
use super::{Draft, REST, TxError};
use crate::crypto::identity::NodeId;
use crate::ledger::address::{Ipv4Choice, is_assignable_ipv4};
use crate::ledger::name::Label;
use std::net::Ipv4Addr;

/// Hexadecimal digits of the identity in a name that nobody gave; more where other identities begin with the same ones.
const DEFAULT_NAME_DIGITS: [usize; 3] = [8, 16, 32];

impl Draft<'_> {
    /// Names a member that nobody named after its identity.
    pub(super) fn take_default_name(&mut self, id: &NodeId) -> Result<Label, TxError> {
        let mut taken = Ok(());
        for digits in DEFAULT_NAME_DIGITS {
            let name = default_name(id, digits);
            taken = self.take_name(id, &name);
            if taken.is_ok() {
                return Ok(name);
            }
        }
        Err(taken.expect_err("the last name was taken too"))
    }

    /// Gives a name to a member, unless another one holds it or held it lately, it has DNS records, or it is the name of another identity.
    pub(super) fn take_name(&mut self, id: &NodeId, name: &Label) -> Result<(), TxError> {
        if is_default_name(name) && !DEFAULT_NAME_DIGITS.iter().any(|digits| default_name(id, *digits) == *name) {
            return Err(TxError::NameOfAnother(name.clone()));
        }
        if self.has_records_at_or_below(name) {
            return Err(TxError::NameTaken(name.clone()));
        }
        match self.layers.read(&NAMES, name) {
            Some(Tenure::Held(_)) => return Err(TxError::NameTaken(name.clone())),
            Some(Tenure::Resting { last, .. }) if last != *id => return Err(TxError::NameTaken(name.clone())),
            Some(Tenure::Resting { until, .. }) => self.layers.remove(&RESTS, &(until, Rest::Name(name.clone()))),
            None => {}
        }
        self.layers.put(&NAMES, name, &Tenure::Held(*id));
        Ok(())
    }

    pub(super) fn rest_name(&mut self, id: &NodeId, name: &Label) {
        let until = self.time.after(REST);
        self.layers.put(&NAMES, name, &Tenure::Resting { last: *id, until });
        self.layers.put(&RESTS, &(until, Rest::Name(name.clone())), &());
    }

    /// Gives a member the IPv4 address that it asks for, else the next free one; none where the network has no pool.
    pub(super) fn take_ipv4(&mut self, id: &NodeId, wished: Option<Ipv4Addr>) -> Result<Option<u32>, TxError> {
        let choice = self.layers.read(&NETWORK, &()).map_or(Ipv4Choice::Off, |network| network.ipv4);
        let (Some(pool), Some(size)) = (choice.pool(&self.network_id), choice.size()) else {
            return wished.map_or(Ok(None), |address| Err(TxError::Ipv4Taken(address)));
        };
        let host = match wished {
            Some(address) => pool
                .host(address)
                .filter(|host| is_assignable_ipv4(*host, size) && self.may_take_ipv4(id, *host))
                .ok_or(TxError::Ipv4Taken(address))?,
            None => self.next_ipv4(size).ok_or(TxError::PoolExhausted)?,
        };
        if let Some(Tenure::Resting { until, .. }) = self.layers.read(&IPV4, &host) {
            self.layers.remove(&RESTS, &(until, Rest::Ipv4(host)));
        }
        self.layers.put(&IPV4, &host, &Tenure::Held(*id));
        if wished.is_none() {
            self.layers.put(&LAST_IPV4, &(), &host);
        }
        Ok(Some(host))
    }

    /// Says whether an address is free, or rests and was this member's.
    fn may_take_ipv4(&self, id: &NodeId, host: u32) -> bool {
        match self.layers.read(&IPV4, &host) {
            None => true,
            Some(Tenure::Resting { last, .. }) => last == *id,
            Some(Tenure::Held(_)) => false,
        }
    }

    /// Finds the next free host number above the last one assigned, then from the start of the pool: freed ones are used late.
    fn next_ipv4(&self, size: u32) -> Option<u32> {
        let last = self.layers.read(&LAST_IPV4, &()).unwrap_or(0);
        self.first_free_ipv4(last.saturating_add(1), size, size)
            .or_else(|| self.first_free_ipv4(1, last.saturating_add(1), size))
    }

    /// Finds the first free host number in `from..to`: walks along the taken ones, so that its cost is the length of one run.
    fn first_free_ipv4(&self, from: u32, to: u32, size: u32) -> Option<u32> {
        if from >= to {
            return None;
        }
        let mut candidate = from;
        let (start, end) = (IPV4.key(&from), IPV4.key(&to));
        self.layers.visit(&start, &end, &mut |key, _| {
            while candidate < to && !is_assignable_ipv4(candidate, size) {
                candidate += 1;
            }
            let taken = key == IPV4.key(&candidate);
            candidate += u32::from(taken);
            taken
        });
        while candidate < to && !is_assignable_ipv4(candidate, size) {
            candidate += 1;
        }
        (candidate < to).then_some(candidate)
    }

    pub(super) fn rest_ipv4(&mut self, id: &NodeId, host: u32) {
        let until = self.time.after(REST);
        self.layers.put(&IPV4, &host, &Tenure::Resting { last: *id, until });
        self.layers.put(&RESTS, &(until, Rest::Ipv4(host)), &());
    }

    /// Lets every name and address go whose rest is over.
    pub(super) fn release_rested(&mut self) {
        let now = self.time;
        for (until, rest) in self.layers.take_while(&RESTS, |(until, _)| *until <= now) {
            match &rest {
                Rest::Name(name) => self.layers.remove(&NAMES, name),
                Rest::Ipv4(host) => self.layers.remove(&IPV4, host),
            }
            self.layers.remove(&RESTS, &(until, rest));
        }
    }
}

const DEFAULT_NAME_PREFIX: &str = "node-";

fn default_name(id: &NodeId, digits: usize) -> Label {
    format!("{DEFAULT_NAME_PREFIX}{}", &id.to_string()[..digits]).parse().expect("hexadecimal digits make a label")
}

/// Says whether a name has the form of those that follow from an identity. Only that one may have it: it would keep a newcomer out.
pub fn is_default_name(name: &Label) -> bool {
    let digits = name.as_str().strip_prefix(DEFAULT_NAME_PREFIX).unwrap_or_default();
    DEFAULT_NAME_DIGITS.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
