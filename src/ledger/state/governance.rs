//! Who may decide: signers, thresholds, and what only genesis sets.

use super::records::{Approval, NETWORK, Network, RECOVERY, Recovery, SIGNERS, SignerRecord, VALIDATORS};
use super::table::View;
use super::{Draft, Effect, MAX_SIGNERS, TxError};
use crate::crypto::identity::VerifyingKey;
use crate::ledger::address::Ipv4Choice;
use crate::ledger::name::MAX_NETWORK_NAME_LEN;
use crate::ledger::operation::{
    NetworkSet, Operation, PROTOCOL_VERSION, ProtocolSet, RecoverySet, Scope, SignerSet, ValidatorSetOperation,
};
use crate::ledger::transaction::{SignedTransaction, Verified};

/// The weight that an operation takes unless the network sets another.
const DEFAULT_THRESHOLD: u64 = 1;
/// The protocol version from which on a network has rules.
pub(super) const RULES_SINCE: u32 = 2;
/// The most recovery keys.
const MAX_RECOVERY_KEYS: usize = 16;

/// Sums the weights of those of `keys` that are signers with `scope`.
pub(super) fn weight<'k>(view: &impl View, keys: impl IntoIterator<Item = &'k VerifyingKey>, scope: Scope) -> u64 {
    keys.into_iter()
        .filter_map(|key| view.read(&SIGNERS, key))
        .filter(|signer| signer.scopes.contains(scope))
        .map(|signer| u64::from(signer.weight))
        .sum()
}

/// Says whether the signers among `keys` reach the threshold of `scope`.
pub(super) fn authorize<'k>(
    view: &impl View,
    keys: impl IntoIterator<Item = &'k VerifyingKey>,
    scope: Scope,
) -> Result<(), TxError> {
    let (weight, threshold) = (weight(view, keys, scope), DEFAULT_THRESHOLD);
    if weight >= threshold { Ok(()) } else { Err(TxError::NotAuthorized { scope, weight, threshold }) }
}

/// Lists the witnesses of a transaction that are signers with `scope`, in the order of their keys.
pub(super) fn witnesses_with(view: &impl View, signed: &SignedTransaction, scope: Scope) -> Vec<VerifyingKey> {
    let keys = signed.witnesses.iter().map(|witness| witness.key);
    keys.filter(|key| view.read(&SIGNERS, key).is_some_and(|signer| signer.scopes.contains(scope))).collect()
}

impl Draft<'_> {
    /// Checks that the witnesses reach the threshold of `scope`.
    pub(super) fn permit(&self, signed: &SignedTransaction, scope: Scope) -> Result<(), TxError> {
        authorize(&self.layers, signed.witnesses.iter().map(|witness| &witness.key), scope)
    }

    pub(super) fn set_signer(&mut self, signed: &SignedTransaction, set: &SignerSet) -> Result<(), TxError> {
        self.permit(signed, Scope::Governance)?;
        self.write_signer(set)?;
        let governs = |(_, signer): &(VerifyingKey, SignerRecord)| signer.scopes.contains(Scope::Governance);
        let governors = self.layers.list(&SIGNERS, &[], MAX_SIGNERS + 1);
        if governors.len() > MAX_SIGNERS {
            return Err(TxError::TooManySigners);
        }
        let governing: u64 =
            governors.iter().filter(|entry| governs(entry)).map(|(_, signer)| u64::from(signer.weight)).sum();
        if governing >= DEFAULT_THRESHOLD { Ok(()) } else { Err(TxError::NoGovernor) }
    }

    fn write_signer(&mut self, set: &SignerSet) -> Result<(), TxError> {
        if !set.key.is_usable() {
            return Err(TxError::BadSigner);
        }
        match set.weight {
            0 => self.layers.remove(&SIGNERS, &set.key),
            weight => self.layers.put(&SIGNERS, &set.key, &SignerRecord { weight, scopes: set.scopes }),
        }
        if set.weight == 0 || !set.scopes.contains(Scope::Credentials) {
            // A stolen key may have made invitations for later.
            self.end_credentials_issued_by(&set.key);
        }
        self.effects.push(Effect::SignerSet(set.key));
        Ok(())
    }

    /// Applies the one transaction of genesis: the network, its signers, validators, recovery keys and first members, in this order.
    pub(super) fn found(&mut self, signed: &Verified<SignedTransaction>) -> Result<(), TxError> {
        for operation in &signed.transaction.operations {
            match operation {
                Operation::NetworkSet(set) => self.set_network(set)?,
                Operation::SignerSet(set) => self.write_signer(set)?,
                Operation::ValidatorSet(set) => self.set_validators(set)?,
                Operation::RecoverySet(set) => self.set_recovery(set)?,
                Operation::Admit(admit) => self.admit(signed, admit)?,
                other => return Err(TxError::Misplaced(other.name())),
            }
        }
        self.check_founded()?;
        if self.protocol_version() >= RULES_SINCE {
            self.begin_rules(signed);
        }
        self.layers.keep();
        Ok(())
    }

    fn check_founded(&self) -> Result<(), TxError> {
        if !self.layers.has(&NETWORK, &()) {
            return Err(TxError::Misplaced("network-set"));
        }
        if !self.layers.has(&VALIDATORS, &()) {
            return Err(TxError::Misplaced("validator-set"));
        }
        if !self.layers.has(&RECOVERY, &()) {
            return Err(TxError::Misplaced("recovery-set"));
        }
        let signers = self.layers.list(&SIGNERS, &[], usize::MAX);
        let governs = signers.iter().any(|(_, signer)| signer.scopes.contains(Scope::Governance));
        if governs { Ok(()) } else { Err(TxError::NoGovernor) }
    }

    fn set_network(&mut self, set: &NetworkSet) -> Result<(), TxError> {
        if self.layers.has(&NETWORK, &()) {
            return Err(TxError::Misplaced("network-set"));
        }
        if set.name.as_str().len() > MAX_NETWORK_NAME_LEN {
            return Err(TxError::NetworkName);
        }
        if set.protocol_version > PROTOCOL_VERSION {
            return Err(TxError::UnknownProtocol(set.protocol_version));
        }
        if let Ipv4Choice::Given(pool) = &set.ipv4 {
            pool.check()?;
        }
        let network = Network { name: set.name.clone(), ipv4: set.ipv4, protocol_version: set.protocol_version };
        self.layers.put(&NETWORK, &(), &network);
        self.effects.push(Effect::NetworkFounded);
        Ok(())
    }

    /// The network's protocol version; that of this program before there is a network.
    pub(super) fn protocol_version(&self) -> u32 {
        self.layers.read(&NETWORK, &()).map_or(PROTOCOL_VERSION, |network| network.protocol_version)
    }

    pub(super) fn set_protocol(&mut self, signed: &SignedTransaction, set: ProtocolSet) -> Result<(), TxError> {
        self.permit(signed, Scope::Governance)?;
        let network = self.layers.read(&NETWORK, &()).ok_or(TxError::Misplaced("protocol-set"))?;
        if set.version <= network.protocol_version {
            return Err(TxError::EarlierProtocol(network.protocol_version));
        }
        if network.protocol_version < RULES_SINCE {
            self.begin_rules(signed);
        }
        self.layers.put(&NETWORK, &(), &Network { protocol_version: set.version, ..network });
        self.effects.push(Effect::ProtocolSet(set.version));
        Ok(())
    }

    /// By whose authority a transaction gives rights.
    pub(super) fn approval(&self, signed: &SignedTransaction) -> Approval {
        let signers = witnesses_with(&self.layers, signed, Scope::Rights);
        Approval { height: self.height, transaction: signed.id(&self.network_id).0, signers }
    }

    pub(super) fn set_validators(&mut self, set: &ValidatorSetOperation) -> Result<(), TxError> {
        set.seats.check()?;
        self.end_endpoints_without(&set.seats);
        self.layers.put(&VALIDATORS, &(), &set.seats);
        Ok(())
    }

    fn set_recovery(&mut self, set: &RecoverySet) -> Result<(), TxError> {
        let enough = set.needed >= 1 && usize::from(set.needed) <= set.keys.len();
        let usable = set.keys.len() <= MAX_RECOVERY_KEYS && set.keys.iter().all(VerifyingKey::is_usable);
        if !enough || !usable {
            return Err(TxError::BadRecovery);
        }
        self.layers.put(&RECOVERY, &(), &Recovery { keys: set.keys.clone(), needed: set.needed });
        Ok(())
    }
}
