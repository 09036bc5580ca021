//! Values as people read them: spans, sizes, identities, tables.

use super::output::Style;
use crate::daemon::api::types::{Authorization, NetworkState, PathKind, PeerPath};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use std::fmt::Display;

/// A span as its two largest units: `2 d 3 h`, `4 min 5 s`, `6 s`.
pub(super) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let rest = seconds % unit;
    match UNITS.get(first + 1) {
        Some((next, next_name)) if rest >= *next => format!("{} {name} {} {next_name}", seconds / unit, rest / next),
        _ => format!("{} {name}", seconds / unit),
    }
}

/// A number of bytes with three digits at most: `999 B`, `1.2 KiB`, `34 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A round-trip time: `0.42 ms`, `12.3 ms`.
pub(super) fn millis(rtt_ms: f64) -> String {
    if rtt_ms < 10.0 { format!("{rtt_ms:.2} ms") } else { format!("{rtt_ms:.1} ms") }
}

/// The first digits of an identity or a hash: enough to tell apart, and to type.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// Values with commas between; a dash for none.
pub(super) fn list<T: Display>(values: &[T]) -> String {
    if values.is_empty() {
        "-".to_owned()
    } else {
        values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Free text that somebody else wrote, on one line and without control characters.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A singular or a plural with its number.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// Seconds since the Unix epoch as a date, in UTC: `2026-11-21 02:51:07`.
///
/// Civil from days: H. Hinnant, chrono-compatible low-level date algorithms.
pub(super) fn date(seconds: u64) -> String {
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60)
}

/// A way to a peer: `direct 192.0.2.1:4647`, `relay berlin`, `none`.
pub(super) fn path(path: &PeerPath) -> String {
    let relay = || path.relay.clone().unwrap_or_else(|| "?".to_owned());
    match path.kind {
        PathKind::Direct => path.endpoint.map_or_else(|| "direct".to_owned(), |endpoint| format!("direct {endpoint}")),
        PathKind::Relay => format!("relay {}", relay()),
        PathKind::Tls => format!("tls {}", relay()),
        PathKind::None => "none".to_owned(),
    }
}

/// The word for a state.
pub(super) fn state(state: NetworkState) -> &'static str {
    match state {
        NetworkState::Up => "up",
        NetworkState::Joining => "joining",
        NetworkState::Stopped => "stopped",
        NetworkState::Refused => "refused",
        NetworkState::Revoked => "revoked",
    }
}

/// The word for a state, coloured by how good it is.
pub(super) fn painted_state(style: Style, value: NetworkState) -> String {
    match value {
        NetworkState::Up => style.good(state(value)),
        NetworkState::Joining | NetworkState::Stopped => style.odd(state(value)),
        NetworkState::Refused | NetworkState::Revoked => style.bad(state(value)),
    }
}

/// The word for an authorization.
pub(super) fn authorization(authorization: Authorization) -> &'static str {
    match authorization {
        Authorization::Member => "member",
        Authorization::Revoked => "revoked",
        Authorization::Pending => "pending",
    }
}

/// The title of a column, and how soon it goes where a terminal is too narrow for the table: the highest first, 0 never.
pub(super) type Column = (&'static str, u8);

/// Rows under a header, columns two spaces apart and never wrapped. A terminal gets the columns that fit it, a file or a pipe all of them.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let terminal = Table::new().width().map(usize::from);
    fitted(terminal, columns, &rows.into_iter().collect::<Vec<_>>())
}

fn fitted(limit: Option<usize>, columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.fold(columns[at].0.len(), usize::max)
    };
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    while limit.is_some_and(|limit| shown.iter().map(|at| width(*at) + 2).sum::<usize>() > limit + 2) {
        let expendable = shown.iter().copied().filter(|at| columns[*at].1 > 0);
        let Some(worst) = expendable.max_by_key(|at| columns[*at].1) else { break };
        shown.retain(|at| *at != worst);
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|at| columns[*at].0));
    table.add_rows(rows.iter().map(|row| shown.iter().map(|at| &row[*at])));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Labels and values, aligned, indented by two spaces.
pub(super) fn fields(style: Style, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    rows.iter().map(|(label, value)| format!("  {}  {value}\n", style.dim(&format!("{label:width$}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        let spans = [0, 59, 60, 61, 3600, 3661, 86_399, 90_000].map(span);
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 1 min", "23 h 59 min", "1 d 1 h"]);
        let sizes = [0, 999, 1000, 1024, 10_240, 1_023_999, 5 << 40, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 KiB", "1.0 KiB", "10 KiB", "1.0 MiB", "5.0 TiB", "16 EiB"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(1_795_229_467), "2026-11-21 02:51:07");
    }

    #[test]
    fn a_foreign_text_cannot_move_the_cursor() {
        assert_eq!(clean("a\x1b[2Jb\nc"), "a [2Jb c");
    }

    #[test]
    fn tables_are_aligned_and_end_without_spaces() {
        let rows = [vec!["a".to_owned(), "x".to_owned()], vec!["long".to_owned(), "y".to_owned()]];
        assert_eq!(fitted(None, &[("NAME", 0), ("V", 0)], &rows), "NAME  V\na     x\nlong  y\n");
    }

    #[test]
    fn a_narrow_terminal_gets_the_columns_that_matter_most() {
        let columns = [("NAME", 0), ("ADDRESS", 1), ("CIPHER", 2)];
        let rows = [["ada", "10.77.0.2", "aes-256-gcm"].map(str::to_owned).to_vec()];
        let titles = |limit| fitted(Some(limit), &columns, &rows).lines().next().unwrap().to_owned();
        assert_eq!(titles(28), "NAME  ADDRESS    CIPHER");
        assert_eq!(titles(27), "NAME  ADDRESS");
        assert_eq!(titles(15), "NAME  ADDRESS");
        assert_eq!(titles(14), "NAME");
        assert_eq!(titles(1), "NAME", "what says whom a row is about stays");
    }
}
