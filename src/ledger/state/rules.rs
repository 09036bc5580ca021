//! Who may reach whom: the network's rules, in the order in which they were made.
//!
//! A network begins with rule 1, `allow * *`; one of protocol version 1 has it from the block that raises the version. A rule that names a
//! member ends with the membership, so that whoever is admitted again under the same identity gets nothing that nobody gave it.

use super::records::{RULE_COUNT, RULE_NUMBERS, RULES, RULES_OF, RuleCount, RuleRecord};
use super::table::View;
use super::{Draft, Effect, MAX_RULES, TxError};
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::NodeId;
use crate::ledger::operation::{RuleDel, Scope};
use crate::ledger::transaction::SignedTransaction;
use crate::policy::rule::Rule;

impl Draft<'_> {
    pub(super) fn make_rule(&mut self, signed: &SignedTransaction, rule: &Rule) -> Result<(), TxError> {
        self.permit(signed, Scope::Rights)?;
        if let Some(stranger) = rule.members().find(|id| !self.is_member(id)) {
            return Err(TxError::NotAMember(stranger));
        }
        if let Some(number) = self.layers.read(&RULE_NUMBERS, &rule_hash(rule)) {
            return Err(TxError::RuleExists(number));
        }
        if self.rule_count().present as usize >= MAX_RULES {
            return Err(TxError::TooManyRules);
        }
        self.write_rule(signed, rule);
        Ok(())
    }

    /// Gives a network of a version that has rules its first one.
    pub(super) fn begin_rules(&mut self, signed: &SignedTransaction) {
        self.write_rule(signed, &Rule::allow_all());
    }

    fn write_rule(&mut self, signed: &SignedTransaction, rule: &Rule) {
        let RuleCount { last, present } = self.rule_count();
        let number = last + 1;
        self.layers.put(&RULE_COUNT, &(), &RuleCount { last: number, present: present + 1 });
        let record = RuleRecord { rule: rule.clone(), approval: self.approval(signed) };
        self.layers.put(&RULES, &number, &record);
        self.layers.put(&RULE_NUMBERS, &rule_hash(rule), &number);
        for id in rule.members() {
            self.layers.put(&RULES_OF, &(id, number), &());
        }
        self.effects.push(Effect::RuleMade(number));
    }

    pub(super) fn end_rule(&mut self, signed: &SignedTransaction, rule: RuleDel) -> Result<(), TxError> {
        self.permit(signed, Scope::Rights)?;
        if self.remove_rule(rule.number) { Ok(()) } else { Err(TxError::NoSuchRule(rule.number)) }
    }

    /// Ends every rule that names a member.
    pub(super) fn end_rules_of(&mut self, id: &NodeId) {
        for ((_, number), ()) in self.layers.list(&RULES_OF, &id.0, usize::MAX) {
            self.remove_rule(number);
        }
    }

    fn remove_rule(&mut self, number: u64) -> bool {
        let Some(record) = self.layers.read(&RULES, &number) else { return false };
        let count = self.rule_count();
        self.layers.put(&RULE_COUNT, &(), &RuleCount { present: count.present.saturating_sub(1), ..count });
        self.layers.remove(&RULES, &number);
        self.layers.remove(&RULE_NUMBERS, &rule_hash(&record.rule));
        for id in record.rule.members() {
            self.layers.remove(&RULES_OF, &(id, number));
        }
        self.effects.push(Effect::RuleEnded(number));
        true
    }

    fn rule_count(&self) -> RuleCount {
        self.layers.read(&RULE_COUNT, &()).unwrap_or_default()
    }
}

/// The key by which a rule is found by what it says.
fn rule_hash(rule: &Rule) -> Digest {
    let bytes = borsh::to_vec(rule).expect("writing to memory does not fail");
    domain_hash("p2plus/rule/1", &[&bytes])
}
