//! Orders about who may reach whom: rules, tags, questions, and changes of more operations than a transaction holds.

use super::api::policy::{
    ApplyPolicy, ChangePolicy, CheckOutcome, CheckPolicy, Checked, Explain, Explanation, PolicyChanged, RuleView, Tag,
    Verdict,
};
use super::api::request::{Finality, Reply};
use super::api::types::Submitted;
use super::failure::{ErrorCode, Failure};
use super::orders::{self, Outcome, labels, refusal};
use super::pending::{Awaited, Task};
use super::rule_text;
use super::views::Names;
use crate::io::clock::OsRng;
use crate::ledger::TxId;
use crate::ledger::operation::{Operation, PROTOCOL_VERSION, ProtocolSet, RuleDel, RuleNumber, Tags};
use crate::ledger::state::RuleRecord;
use crate::ledger::transaction::MAX_OPERATIONS;
use crate::node::Node;
use crate::policy::Policy;
use crate::policy::decision::{Conversation, Decision, NumberedRule};
use crate::policy::rule::{Action, Rule};
use crate::time::Now;
use std::collections::{BTreeSet, VecDeque};

/// Transactions of one change that wait for a block at a time: a share of the pool's places for one signer.
const MAX_IN_FLIGHT: usize = 64;

/// Lists the rules in the order of their numbers.
pub fn rules(node: &Node<OsRng>) -> Vec<RuleView> {
    let names = Names::new(node.ledger());
    let view = |NumberedRule { number, rule }: &NumberedRule| match node.ledger().state().rule(*number) {
        Some(record) => rule_view(&names, *number, &record),
        // What holds in a network that is too old for rules.
        None => {
            RuleView { number: Some(*number), rule: names.rule(rule), ..RuleView::not_final(verdict(rule.action())) }
        }
    };
    node.policy().rules().iter().map(view).collect()
}

fn rule_view(names: &Names<'_>, number: RuleNumber, record: &RuleRecord) -> RuleView {
    RuleView {
        number: Some(number),
        rule: names.rule(&record.rule),
        action: verdict(record.rule.action()),
        tx: Some(record.approval.transaction.to_string()),
        height: Some(record.approval.height.0),
        signers: record.approval.signers.iter().map(|key| names.key(key)).collect(),
    }
}

fn verdict(action: Action) -> Verdict {
    match action {
        Action::Allow => Verdict::Allow,
        Action::Deny => Verdict::Deny,
    }
}

/// Says whether one may reach another, and which rule, transaction and signers stand behind that.
///
/// # Errors
/// Usage or not found.
pub fn explain(node: &Node<OsRng>, question: &Explain) -> Result<Reply, Failure> {
    let policy = node.policy();
    let conversation = rule_text::conversation(policy, &question.source, &question.destination)?;
    let decision = policy.decide(&conversation);
    let names = Names::new(node.ledger());
    let record = decision.rule.and_then(|number| Some((number, node.ledger().state().rule(number)?)));
    let view = record.map(|(number, record)| rule_view(&names, number, &record));
    Ok(Reply::Explained(Explanation {
        verdict: verdict(decision.action),
        reason: reason(policy, &conversation, decision),
        rule: view.as_ref().map(|view| view.rule.clone()),
        number: decision.rule,
        tx: view.as_ref().and_then(|view| view.tx.clone()),
        height: view.as_ref().and_then(|view| view.height),
        signers: view.map(|view| view.signers).unwrap_or_default(),
    }))
}

fn reason(policy: &Policy, conversation: &Conversation, decision: Decision) -> String {
    let who = |address| policy.owner(address).map_or_else(|| "nobody's".to_owned(), |member| member.name.clone());
    let Conversation { source, destination, .. } = conversation;
    let ends = format!("from {source} ({}) to {destination} ({})", who(source), who(destination));
    match (decision.action, decision.rule) {
        (Action::Allow, Some(0)) => format!("{ends}: the network has no rules yet, everything is allowed"),
        (Action::Allow, _) => format!("{ends}: a rule allows it and none denies it; replies pass"),
        (Action::Deny, Some(_)) => format!("{ends}: a rule that denies comes before every one that allows"),
        (Action::Deny, None) => format!("{ends}: no rule allows it"),
    }
}

/// Adds and removes rules.
///
/// # Errors
/// Usage, not found, or what the ledger refuses.
pub fn change(node: &mut Node<OsRng>, now: Now, order: &ChangePolicy) -> Result<Task, Failure> {
    let policy = node.policy();
    let added: Vec<_> = order.add.iter().map(|text| rule_text::rule(policy, text)).collect::<Result<_, _>>()?;
    for number in &order.remove {
        if node.ledger().state().rule(*number).is_none() {
            return Err(Failure::new(ErrorCode::NotFound, format!("there is no rule {number}"))
                .hint("`p2plus policy show` lists the rules with their numbers"));
        }
    }
    Change::new(node, &added, &order.remove).begin(node, now, order.finality)
}

/// Makes the network's rules those of a file, or says what that would change.
///
/// # Errors
/// Usage, not found, a check of the file that fails, or what the ledger refuses.
pub fn apply(node: &mut Node<OsRng>, now: Now, order: &ApplyPolicy) -> Result<Outcome, Failure> {
    let wanted = file_rules(node.policy(), &order.rules)?;
    let failed: Vec<_> =
        check_against(node.policy(), &wanted, &order.checks)?.into_iter().filter(|check| !check.holds).collect();
    if let Some(first) = failed.first() {
        let message =
            format!("{} of {} checks would fail, the first: {}", failed.len(), order.checks.len(), first.check);
        return Err(Failure::new(ErrorCode::CheckFailed, message).hint("nothing was changed"));
    }
    let state = node.ledger().state();
    let present = state.rules();
    let kept: BTreeSet<_> = wanted.iter().collect();
    let removed: Vec<_> =
        present.iter().filter(|(_, record)| !kept.contains(&record.rule)).map(|(number, _)| *number).collect();
    let known: BTreeSet<_> = present.iter().map(|(_, record)| &record.rule).collect();
    let mut added: Vec<_> = kept.into_iter().filter(|rule| !known.contains(rule)).cloned().collect();
    // Denials first, and what goes goes last: on the way nothing is open that is closed before and after.
    added.sort_by_key(|rule| rule.action() == Action::Allow);
    let change = Change::new(node, &added, &removed);
    if order.dry_run || change.is_empty() {
        return Ok(Ok(change.report(node)).into());
    }
    change.begin(node, now, order.finality).map(Outcome::Later)
}

/// Says of each expectation whether the network's rules, or those given, meet it.
///
/// # Errors
/// Usage or not found.
pub fn check(node: &Node<OsRng>, order: &CheckPolicy) -> Result<Reply, Failure> {
    let policy = node.policy();
    let rules = match &order.rules {
        Some(rules) => file_rules(policy, rules)?,
        None => policy.rules().iter().map(|numbered| numbered.rule.clone()).collect(),
    };
    check_against(policy, &rules, &order.checks).map(|checks| Reply::Checked(Checked { checks }))
}

fn file_rules(policy: &Policy, texts: &[String]) -> Result<Vec<Rule>, Failure> {
    texts.iter().map(|text| rule_text::rule(policy, text)).collect()
}

fn check_against(policy: &Policy, rules: &[Rule], checks: &[String]) -> Result<Vec<CheckOutcome>, Failure> {
    let numbered = (1..).zip(rules).map(|(number, rule)| NumberedRule { number, rule: rule.clone() }).collect();
    let policy = policy.clone().with_rules(numbered);
    checks.iter().map(|text| check_one(&policy, text)).collect()
}

fn check_one(policy: &Policy, text: &str) -> Result<CheckOutcome, Failure> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [expected, source, destination] = words[..] else {
        return Err(Failure::new(ErrorCode::Usage, format!("{text:?}: a check has three words"))
            .hint("a check is: allow|deny SRC DST:PORT[/tcp|/udp], or allow|deny SRC DST/icmp"));
    };
    let Some(expected) = rule_text::action_of(expected) else {
        return Err(Failure::new(ErrorCode::Usage, format!("{text:?}: a check expects allow or deny")));
    };
    let decision = policy.decide(&rule_text::conversation(policy, source, destination)?);
    Ok(CheckOutcome { check: text.to_owned(), verdict: verdict(decision.action), holds: decision.action == expected })
}

/// Gives a member tags and takes some from it.
///
/// # Errors
/// Usage, not found, or what the ledger refuses.
pub fn tag(node: &mut Node<OsRng>, now: Now, order: &Tag) -> Result<Task, Failure> {
    let identity = orders::member(node, &order.peer)?.id;
    let (added, removed) = (labels(&order.add)?, labels(&order.remove)?);
    if let Some(both) = added.intersection(&removed).next() {
        return Err(Failure::new(ErrorCode::Usage, format!("the tag {both} is both given and taken")));
    }
    let operations = [(added, Operation::Tag as fn(Tags) -> _), (removed, Operation::Untag)];
    let operations: Vec<_> = operations
        .into_iter()
        .filter(|(tags, _)| !tags.is_empty())
        .map(|(tags, operation)| operation(Tags { identity, tags }))
        .collect();
    if operations.is_empty() {
        return Err(Failure::new(ErrorCode::Usage, "no tag is named").hint("`p2plus tag PEER +web -db`"));
    }
    let tx = node.order(now, operations).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, order.finality, Awaited::Submitted))
}

/// Raises the network's protocol version to this program's.
///
/// # Errors
/// What the ledger refuses.
pub fn upgrade(node: &mut Node<OsRng>, now: Now, finality: Finality) -> Result<Task, Failure> {
    let raise = Operation::ProtocolSet(ProtocolSet { version: PROTOCOL_VERSION });
    let tx = node.order(now, vec![raise]).map_err(|error| refusal(&error))?;
    Ok(Task::finality(now, tx, finality, Awaited::Submitted))
}

/// A change of the rules on its way: as many transactions as it takes, in their order.
pub struct Change {
    waiting: VecDeque<Vec<Operation>>,
    in_flight: Vec<TxId>,
    done: Vec<Submitted>,
    added: Vec<Rule>,
    removed: Vec<RuleView>,
    wait: bool,
}

impl Change {
    fn new(node: &Node<OsRng>, added: &[Rule], removed: &[RuleNumber]) -> Self {
        let names = Names::new(node.ledger());
        let state = node.ledger().state();
        let shown = |number: &RuleNumber| Some(rule_view(&names, *number, &state.rule(*number)?));
        let additions = added.iter().cloned().map(Operation::Rule);
        let removals = removed.iter().map(|number| Operation::RuleDel(RuleDel { number: *number }));
        let operations: Vec<_> = additions.chain(removals).collect();
        Self {
            waiting: operations.chunks(MAX_OPERATIONS).map(<[_]>::to_vec).collect(),
            in_flight: Vec::new(),
            done: Vec::new(),
            added: added.to_vec(),
            removed: removed.iter().filter_map(shown).collect(),
            wait: true,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Submits the first transactions, so that what is wrong with them is said at once.
    fn begin(mut self, node: &mut Node<OsRng>, now: Now, finality: Finality) -> Result<Task, Failure> {
        self.wait = finality.wait;
        self.submit(node, now)?;
        Ok(Task::change(now, finality, self))
    }

    /// Submits as many as may wait at a time.
    fn submit(&mut self, node: &mut Node<OsRng>, now: Now) -> Result<(), Failure> {
        while self.in_flight.len() < MAX_IN_FLIGHT
            && let Some(operations) = self.waiting.front()
        {
            match node.order(now, operations.clone()) {
                Ok(tx) => {
                    self.in_flight.push(tx);
                    self.waiting.pop_front();
                }
                // There is room again when those before it are in a block.
                Err(_) if !self.in_flight.is_empty() => break,
                Err(error) => return Err(self.broken_off(refusal(&error))),
            }
        }
        Ok(())
    }

    /// Goes on; returns the answer when everything is final, or submitted where nobody waits.
    pub fn poll(
        &mut self,
        node: &mut Node<OsRng>,
        now: Now,
        dropped: &[(TxId, String)],
        is_late: bool,
    ) -> Option<Result<Reply, Failure>> {
        if let Some((_, reason)) = dropped.iter().find(|(id, _)| self.in_flight.contains(id)) {
            let failure = Failure::new(ErrorCode::Failed, format!("a transaction was dropped: {reason}"));
            return Some(Err(self.broken_off(failure)));
        }
        let done = &mut self.done;
        self.in_flight.retain(|tx| {
            let height = node.ledger().transaction(tx).ok().flatten().map(|(height, _)| height.0);
            done.extend(height.map(|height| Submitted { tx: tx.to_string(), height: Some(height) }));
            height.is_none()
        });
        if let Err(failure) = self.submit(node, now) {
            return Some(Err(failure));
        }
        let is_finished = self.waiting.is_empty() && (self.in_flight.is_empty() || !self.wait);
        if is_finished {
            return Some(Ok(self.report(node)));
        }
        is_late.then(|| {
            let message = format!("{} transactions are not in a block yet", self.in_flight.len() + self.waiting.len());
            let failure = Failure::new(ErrorCode::NotFinal, message);
            Err(self.broken_off(
                failure.hint("what was submitted stays in the pool until a validator is reached; repeat the order"),
            ))
        })
    }

    fn broken_off(&self, failure: Failure) -> Failure {
        match self.done.len() {
            0 => failure,
            done => Failure {
                message: format!("{} (after {done} transactions that are final)", failure.message),
                ..failure
            },
        }
    }

    fn report(&self, node: &Node<OsRng>) -> Reply {
        let names = Names::new(node.ledger());
        let present = node.ledger().state().rules();
        let added = self.added.iter().map(|rule| match present.iter().find(|(_, record)| record.rule == *rule) {
            Some((number, record)) => rule_view(&names, *number, record),
            None => RuleView { rule: names.rule(rule), ..RuleView::not_final(verdict(rule.action())) },
        });
        let in_flight = self.in_flight.iter().map(|tx| Submitted { tx: tx.to_string(), height: None });
        Reply::PolicyChanged(PolicyChanged {
            added: added.collect(),
            removed: self.removed.clone(),
            transactions: self.done.iter().cloned().chain(in_flight).collect(),
        })
    }
}
