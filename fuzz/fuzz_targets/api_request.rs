//! A request to the control API: its path and its JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::daemon::api::request::Request;
use p2plus::daemon::api::route::{Method, Right};
use p2plus_fuzz::Script;

const PATHS: [&str; 17] = [
    "/v1/status",
    "/v1/peers",
    "/v1/members",
    "/v1/invites",
    "/v1/ledger",
    "/v1/ledger/verify",
    "/v1/reload",
    "/v1/ping",
    "/v1/ip",
    "/v1/whois",
    "/v1/wait",
    "/v1/members/authorize",
    "/v1/members/revoke",
    "/v1/members/rename",
    "/v1/invites/revoke",
    "/v1/ledger/log",
    "/v1/ledger/show",
];

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let method = if script.u8().is_multiple_of(4) { Method::Get } else { Method::Post };
    let path = match PATHS.get(usize::from(script.u8())) {
        Some(path) => (*path).to_owned(),
        None => String::from_utf8_lossy(script.chunk()).into_owned(),
    };
    let Some(Ok(request)) = Request::from_http(method, &path, script.rest()) else { return };
    if let Request::Wait(wait) = &request {
        let _ = wait.timeout();
    }
    let (path_again, body) = request.to_http();
    assert_eq!(path_again, path);
    assert_eq!(body.is_some(), method == Method::Post);
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let again = Request::from_http(method, path_again, body.as_bytes());
    let again = again.expect("a path that is known").expect("what was written can be read");
    // Decimal fractions of seconds may lose their last bit on the way; everything else is the same.
    assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&request));
    assert_eq!(again.right(), request.right());
    let signs = ["authorize", "revoke", "rename", "reload"].iter().any(|end| path.ends_with(end));
    assert!(!signs || request.right() == Right::Admin);
});
