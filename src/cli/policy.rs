//! The verbs about who may reach whom: allow, deny, policy, explain, tag.

use super::args::{ApplyArgs, ExplainArgs, RuleArgs, RuleDelArgs, TagArgs, TestArgs};
use super::client::{Answer, PATIENCE};
use super::ledger;
use super::members::{patience, submit};
use super::output::{Output, Style};
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::policy::{
    ApplyPolicy, ChangePolicy, CheckPolicy, Checked, Explain, Explanation, PolicyChanged, RuleView, Tag, Verdict,
};
use crate::daemon::api::request::Request;
use crate::daemon::failure::{ErrorCode, Failure};
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

/// The most bytes of a file of rules: room for more of them than a network may have.
const MAX_FILE_LEN: u64 = 4 << 20;

/// The operations that `policy history` shows, by their names in the log.
const RIGHTS: [&str; 4] = ["rule", "rule-del", "tag", "untag"];

/// `allow` and `deny`.
pub(super) fn add(scope: &Scope, output: &Output, action: Verdict, args: &RuleArgs) -> CommandResult {
    let rule = format!("{} {} {}", word(action), args.source, args.destination);
    let finality = args.finality.finality();
    let request = Request::ChangePolicy(ChangePolicy { add: vec![rule], remove: Vec::new(), finality });
    let answer: Answer<PolicyChanged> = scope.client()?.ask(&request, patience(&args.finality))?;
    output.answer(&answer.data, &answer.warnings, |changed| change_text(output.style, changed));
    Ok(Done::Well)
}

pub(super) fn remove(scope: &Scope, output: &Output, args: &RuleDelArgs) -> CommandResult {
    let finality = args.finality.finality();
    let request = Request::ChangePolicy(ChangePolicy { add: Vec::new(), remove: args.rules.clone(), finality });
    let answer: Answer<PolicyChanged> = scope.client()?.ask(&request, patience(&args.finality))?;
    output.answer(&answer.data, &answer.warnings, |changed| change_text(output.style, changed));
    Ok(Done::Well)
}

pub(super) fn show(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<RuleView>> = scope.client()?.ask(&Request::Rules, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |rules| {
        if rules.is_empty() {
            return "no rule: nobody may reach anybody\n".to_owned();
        }
        let rows = rules.iter().map(|rule| {
            let dash = || "-".to_owned();
            vec![
                rule.number.map_or_else(dash, |number| number.to_string()),
                text::clean(&rule.rule),
                text::list(&rule.signers),
                rule.height.map_or_else(dash, |height| height.to_string()),
                rule.tx.as_deref().map_or_else(dash, text::short),
            ]
        });
        text::table(&[("RULE", 0), ("SAYS", 0), ("BY", 1), ("HEIGHT", 2), ("TX", 3)], rows)
    });
    Ok(Done::Well)
}

pub(super) fn history(scope: &Scope, output: &Output) -> CommandResult {
    ledger::log_of(scope, output, |entry| RIGHTS.contains(&entry.op.as_str()))
}

/// `policy apply`.
pub(super) fn apply(scope: &Scope, output: &Output, args: &ApplyArgs) -> CommandResult {
    let PolicyFile { rules, checks } = PolicyFile::read(&args.file)?;
    if rules.is_empty() && !args.force {
        let message = format!("{} has no rule: with it nobody could reach anybody", args.file.display());
        return Err(Failure::new(ErrorCode::Usage, message).hint("--force if that is meant").into());
    }
    let finality = args.finality.finality();
    let request = Request::ApplyPolicy(ApplyPolicy { rules, checks, dry_run: args.dry_run, finality });
    let answer: Answer<PolicyChanged> = scope.client()?.ask(&request, patience(&args.finality))?;
    output.answer(&answer.data, &answer.warnings, |changed| {
        let mut out = change_text(output.style, changed);
        if changed.added.is_empty() && changed.removed.is_empty() {
            out.push_str("the network has these rules already\n");
        } else if args.dry_run {
            out.push_str("nothing was changed\n");
        }
        out
    });
    Ok(Done::Well)
}

/// `policy test`.
pub(super) fn test(scope: &Scope, output: &Output, args: &TestArgs) -> CommandResult {
    let PolicyFile { rules, checks } = PolicyFile::read(&args.file)?;
    if checks.is_empty() {
        let message = format!("{} has no line that begins with `test`", args.file.display());
        return Err(Failure::new(ErrorCode::Usage, message).hint("for example: test deny guest db:5432").into());
    }
    let rules = Some(rules).filter(|rules| !rules.is_empty());
    let request = Request::CheckPolicy(CheckPolicy { rules, checks });
    let answer: Answer<Checked> = scope.client()?.ask(&request, PATIENCE)?;
    let failed = answer.data.checks.iter().filter(|check| !check.holds).count();
    output.answer(&answer.data, &answer.warnings, |checked| {
        let lines = checked.checks.iter().map(|check| {
            let mark = if check.holds { "ok  " } else { &output.style.bad("FAIL") };
            let told = if check.holds { String::new() } else { format!(" (the rules say {})", word(check.verdict)) };
            format!("{mark} {}{told}\n", text::clean(&check.check))
        });
        let count = text::counted(checked.checks.len() as u64, "check", "checks");
        format!("{}{count}, {failed} failed\n", lines.collect::<String>())
    });
    Ok(if failed == 0 { Done::Well } else { Done::Badly(ErrorCode::CheckFailed) })
}

pub(super) fn explain(scope: &Scope, output: &Output, args: &ExplainArgs) -> CommandResult {
    let request = Request::Explain(Explain { source: args.source.clone(), destination: args.destination.clone() });
    let answer: Answer<Explanation> = scope.client()?.ask(&request, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |explanation| {
        let verdict = match explanation.verdict {
            Verdict::Allow => output.style.good("allow"),
            Verdict::Deny => output.style.bad("deny"),
        };
        let mut out = format!("{verdict} {}\n", text::clean(&explanation.reason));
        let mut rows = Vec::new();
        if let (Some(rule), Some(number)) = (&explanation.rule, explanation.number) {
            rows.push(("rule", format!("{number}: {}", text::clean(rule))));
        }
        if let (Some(tx), Some(height)) = (&explanation.tx, explanation.height) {
            rows.push(("made by", format!("tx {tx} at height {height}")));
            rows.push(("signed by", text::list(&explanation.signers)));
        }
        out.push_str(&text::fields(output.style, &rows));
        out
    });
    Ok(Done::Well)
}

pub(super) fn tag(scope: &Scope, output: &Output, args: &TagArgs) -> CommandResult {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for change in &args.changes {
        match (change.strip_prefix(TAKEN), change.strip_prefix('+')) {
            (Some(tag), _) => remove.push(tag.to_owned()),
            (None, Some(tag)) => add.push(tag.to_owned()),
            (None, None) => {
                return Err(Failure::new(ErrorCode::Usage, format!("{change:?} is neither +TAG nor -TAG"))
                    .hint("for example: p2plus tag ben +web -db")
                    .into());
            }
        }
    }
    let finality = args.finality.finality();
    let request = Request::Tag(Tag { peer: args.peer.clone(), add, remove, finality });
    let about = format!("{} {}", args.peer, args.changes.join(" ").replace(TAKEN, "-"));
    submit(scope, output, &request, &args.finality, ["tagged", "tagging"], &about)
}

/// How a tag that is taken is told to the grammar: no tag begins with a hyphen, and what does is an option there.
const TAKEN: &str = "+-";

/// The global options that have a value.
const WITH_VALUE: [&str; 6] = ["-n", "--network", "--state-dir", "--run-dir", "--config", "--log-level"];

/// Writes `-TAG` behind `tag` so that it is no option.
pub(super) fn spell_taken_tags(mut args: Vec<OsString>) -> Vec<OsString> {
    let mut is_value = false;
    let verb = args.iter().skip(1).position(|arg| {
        let is_option = is_value || arg.as_encoded_bytes().starts_with(b"-");
        is_value = !is_value && WITH_VALUE.iter().any(|option| arg == option);
        !is_option
    });
    let verb = verb.map_or(args.len(), |position| position + 1);
    if args.get(verb).is_some_and(|verb| verb == "tag") {
        for arg in &mut args[verb + 1..] {
            if let Some(tag) = arg.to_str().and_then(|text| text.strip_prefix('-'))
                && tag.len() > 1
                && !tag.starts_with('-')
            {
                *arg = format!("{TAKEN}{tag}").into();
            }
        }
    }
    args
}

/// What a file says: `allow …` and `deny …` are rules, `test allow …` and `test deny …` what must hold, `#` begins a comment.
struct PolicyFile {
    rules: Vec<String>,
    checks: Vec<String>,
}

impl PolicyFile {
    fn read(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::new(ErrorCode::Usage, format!("cannot read {}: {error}", path.display()))
                .hint("a file has one rule per line: allow|deny SRC DST[:PORTS][/tcp|/udp]")
        };
        let mut text = String::new();
        let read = if path == Path::new("-") {
            std::io::stdin().take(MAX_FILE_LEN + 1).read_to_string(&mut text)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_LEN + 1).read_to_string(&mut text))
        };
        if read.map_err(|error| cannot(&error))? as u64 > MAX_FILE_LEN {
            return Err(cannot(&format!("it has more than {MAX_FILE_LEN} bytes")));
        }
        Self::parse(&text).map_err(|(line, why)| cannot(&format!("line {line}: {why}")))
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut file = Self { rules: Vec::new(), checks: Vec::new() };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                ["allow" | "deny", _, _] => file.rules.push(words.join(" ")),
                ["test", "allow" | "deny", _, _] => file.checks.push(words[1..].join(" ")),
                _ => return Err((number, format!("{:?} is neither a rule nor a test", line.trim()))),
            }
        }
        Ok(file)
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// What was changed, a line for each rule, and what did it.
fn change_text(style: Style, changed: &PolicyChanged) -> String {
    let line = |sign: String, rule: &RuleView| {
        let number = rule.number.map_or_else(String::new, |number| format!("rule {number}: "));
        format!("{sign} {number}{}\n", text::clean(&rule.rule))
    };
    let added = changed.added.iter().map(|rule| line(style.good("+"), rule));
    let removed = changed.removed.iter().map(|rule| line(style.bad("-"), rule));
    let mut out: String = added.chain(removed).collect();
    if let Some(last) = changed.transactions.last() {
        let final_ones = changed.transactions.iter().filter(|one| one.height.is_some()).count();
        out.push_str(&match (changed.transactions.len(), last.height) {
            (1, Some(height)) => format!("tx {} is final at height {height}\n", last.tx),
            (1, None) => format!("tx {} is submitted, not final yet\n", last.tx),
            (count, _) => format!("{count} transactions, {final_ones} of them final; the last is {}\n", last.tx),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_rules_tests_and_comments() {
        let file = PolicyFile::parse("# who\n allow  a  b:22/tcp # ssh\n\ntest deny c b:22\ndeny * tag:db\n").unwrap();
        assert_eq!(
            (file.rules, file.checks),
            (vec!["allow a b:22/tcp".to_owned(), "deny * tag:db".to_owned()], vec!["deny c b:22".to_owned()],)
        );
    }

    #[test]
    fn only_behind_tag_is_a_hyphen_no_option() {
        for (typed, spelled) in [
            ("p2plus tag b +a -db --json", "p2plus tag b +a +-db --json"),
            ("p2plus -n tag --json tag b -db -v", "p2plus -n tag --json tag b +-db -v"),
            ("p2plus -n lab rename tag -vv", "p2plus -n lab rename tag -vv"),
            ("p2plus", "p2plus"),
        ] {
            let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(spell_taken_tags(words(typed)), words(spelled), "{typed}");
        }
    }

    #[test]
    fn a_line_that_is_neither_is_named() {
        for (text, line) in [("allow a", 1), ("\npermit a b", 2), ("test a b:22", 1), ("allow a b c", 1)] {
            assert_eq!(PolicyFile::parse(text).err().map(|(line, _)| line), Some(line), "{text:?}");
        }
    }
}
