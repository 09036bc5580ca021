//! The verbs about who belongs: members, invite, invites, authorize, rename, revoke.

use super::args::{AuthorizeArgs, FinalityArgs, InviteArgs, RenameArgs, RevokeArgs, RevokeInviteArgs};
use super::client::{Answer, GRACE, PATIENCE};
use super::output::Output;
use super::scope::Scope;
use super::{CommandResult, Done, text};
use crate::daemon::api::request::{Authorize, Invite, Rename, Request, Revoke, RevokeInvite};
use crate::daemon::api::types::{Invite as OpenInvite, Invited, Member, Submitted};
use crate::daemon::failure::{ErrorCode, Failure};
use crate::wire::name::NodeName;
use fast_qr::{ECL, QRBuilder};
use std::time::Duration;

pub(super) fn members(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<Member>> = scope.client()?.ask(&Request::Members, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |members| {
        let rows = members.iter().map(|member| {
            vec![
                member.name.clone(),
                member.addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string),
                text::authorization(member.authorization).to_owned(),
                text::list(&member.tags),
                member.admitted_by.as_deref().map_or_else(|| "-".to_owned(), text::clean),
                member.admitted_height.map_or_else(|| "-".to_owned(), |height| height.to_string()),
                text::short(&member.id),
            ]
        });
        let columns =
            [("NAME", 0), ("ADDRESS", 0), ("STATE", 0), ("TAGS", 1), ("ADMITTED BY", 3), ("HEIGHT", 4), ("ID", 2)];
        text::table(&columns, rows)
    });
    Ok(Done::Well)
}

pub(super) fn revoke(scope: &Scope, output: &Output, args: &RevokeArgs) -> CommandResult {
    let finality = args.finality.finality();
    let (peer, reason, force) = (args.peer.clone(), args.reason.clone(), args.force);
    let request = Request::Revoke(Revoke { peer, reason, force, finality });
    submit(scope, output, &request, &args.finality, ["revoked", "revoking"], &args.peer)
}

pub(super) fn rename(scope: &Scope, output: &Output, args: &RenameArgs) -> CommandResult {
    let finality = args.finality.finality();
    let request = Request::Rename(Rename { peer: args.peer.clone(), name: args.name.to_string(), finality });
    submit(scope, output, &request, &args.finality, ["renamed", "renaming"], &format!("{} to {}", args.peer, args.name))
}

pub(super) fn authorize(scope: &Scope, output: &Output, args: &AuthorizeArgs) -> CommandResult {
    let request = Request::Authorize(Authorize {
        id: args.id.clone(),
        name: args.name.as_ref().map(ToString::to_string),
        tags: texts(&args.tags),
        node_key: args.node_key.clone(),
        transport_key: args.transport_key.clone(),
        finality: args.finality.finality(),
    });
    submit(scope, output, &request, &args.finality, ["admitted", "admitting"], &text::short(&args.id))
}

pub(super) fn revoke_invite(scope: &Scope, output: &Output, args: &RevokeInviteArgs) -> CommandResult {
    let finality = args.finality.finality();
    let request = Request::RevokeInvite(RevokeInvite { credential: args.credential.clone(), finality });
    submit(
        scope,
        output,
        &request,
        &args.finality,
        ["ended", "ending"],
        &format!("invite {}", text::short(&args.credential)),
    )
}

/// Submits a transaction and says what became of it: `[done, doing]` with what it is about.
pub(super) fn submit(
    scope: &Scope,
    output: &Output,
    request: &Request,
    finality: &FinalityArgs,
    [done, doing]: [&str; 2],
    about: &str,
) -> CommandResult {
    let answer: Answer<Submitted> = scope.client()?.ask(request, patience(finality))?;
    output.answer(&answer.data, &answer.warnings, |submitted| {
        let verb = if submitted.height.is_some() { done } else { doing };
        format!("{verb} {}\n{}", text::clean(about), transaction(&submitted.tx, submitted.height))
    });
    Ok(Done::Well)
}

pub(super) fn transaction(tx: &str, height: Option<u64>) -> String {
    match height {
        Some(height) => format!("tx {tx} is final at height {height}\n"),
        None => format!("tx {tx} is submitted, not final yet\n"),
    }
}

pub(super) fn patience(finality: &FinalityArgs) -> Duration {
    let waiting = if finality.no_wait { Duration::ZERO } else { finality.timeout };
    waiting.max(PATIENCE) + GRACE
}

fn texts(names: &[NodeName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Prints the ticket alone on standard output; everything else goes to standard error.
pub(super) fn invite(scope: &Scope, output: &Output, args: &InviteArgs) -> CommandResult {
    if args.name.is_some() && args.uses > 1 {
        return Err(Failure::new(ErrorCode::Usage, "a ticket with a name works once, --uses asks for more")
            .hint("leave out --name: each node then brings its own")
            .into());
    }
    let request = Request::Invite(Invite {
        name: args.name.as_ref().map(ToString::to_string),
        tags: texts(&args.tags),
        uses: args.uses,
        expires: args.expires,
        endpoints: args.endpoints.clone(),
        needs_approval: args.needs_approval,
        finality: args.finality.finality(),
    });
    let answer: Answer<Invited> = scope.client()?.ask(&request, patience(&args.finality))?;
    output.answer(&answer.data, &answer.warnings, |invited| invited.ticket.expose().to_owned());
    let note = invite_note(&answer.data, args.uses);
    output.note(&note);
    if args.qr {
        output.picture(&qr_code(answer.data.ticket.expose())?);
    }
    Ok(Done::Well)
}

fn invite_note(invited: &Invited, uses: u32) -> String {
    let Invited { credential: Some(credential), expires: Some(expires), tx: Some(tx), height, .. } = invited else {
        return "admits nobody by itself: who joins with it prints what to type here (p2plus authorize …); whoever has the ticket can \
                read the ledger"
            .to_owned();
    };
    let uses = if uses == 1 { "one node".to_owned() } else { format!("{uses} nodes") };
    format!(
        "{}admits {uses}, until {} UTC; whoever has the ticket can join (end it: p2plus invites revoke {})",
        transaction(tx, *height),
        text::date(*expires),
        text::short(credential),
    )
}

/// Draws a ticket; upper case, which QR codes pack into 5.5 bits a character.
fn qr_code(ticket: &str) -> Result<String, Failure> {
    QRBuilder::new(ticket.to_uppercase()).ecl(ECL::L).build().map(|code| code.to_str()).map_err(|_| {
        Failure::new(ErrorCode::Failed, "the ticket is too long for a QR code").hint("leave out some --endpoint")
    })
}

pub(super) fn invites(scope: &Scope, output: &Output) -> CommandResult {
    let answer: Answer<Vec<OpenInvite>> = scope.client()?.ask(&Request::Invites, PATIENCE)?;
    output.answer(&answer.data, &answer.warnings, |invites| {
        if invites.is_empty() {
            return "no invite is open\n".to_owned();
        }
        let rows = invites.iter().map(|invite| {
            vec![
                text::short(&invite.credential),
                invite.name.clone().unwrap_or_else(|| "-".to_owned()),
                text::list(&invite.tags),
                invite.uses_left.to_string(),
                format!("{} UTC", text::date(invite.expires)),
                text::clean(&invite.author),
            ]
        });
        text::table(&[("ID", 0), ("NAME", 0), ("TAGS", 2), ("USES LEFT", 0), ("EXPIRES", 0), ("BY", 1)], rows)
    });
    Ok(Done::Well)
}
