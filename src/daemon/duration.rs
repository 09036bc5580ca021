//! Spans of time as people write them: `90s`, `15m`, `12h`, `7d`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A whole number of seconds, written as a number and a unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// Text that is no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a span of time is a number and one of s, m, h, d: 90s, 15m, 12h, 7d (at most 3650d)")]
pub struct NotASpan;

/// The longest span, ten years: everything above is a mistake.
const MAX_SECONDS: u64 = 3650 * 86_400;
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let unit = text.chars().last().ok_or(NotASpan)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotASpan)?;
        let digits = &text[..text.len() - 1];
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotASpan);
        }
        let total = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*seconds)).ok_or(NotASpan)?;
        if (1..=MAX_SECONDS).contains(&total) { Ok(Self(Duration::from_secs(total))) } else { Err(NotASpan) }
    }
}

/// The largest unit without a remainder.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        let (name, seconds) = UNITS.into_iter().find(|(_, seconds)| total.is_multiple_of(*seconds)).unwrap_or(('s', 1));
        write!(f, "{}{name}", total / seconds)
    }
}

impl TryFrom<String> for Span {
    type Error = NotASpan;

    fn try_from(text: String) -> Result<Self, NotASpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_in_the_largest_whole_unit() {
        for (text, seconds, written) in
            [("90s", 90, "90s"), ("120s", 120, "2m"), ("24h", 86_400, "1d"), ("7d", 604_800, "7d")]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_secs(seconds));
            assert_eq!(span.to_string(), written);
        }
        for text in ["", "s", "0s", "5", "-1h", "+1h", "1.5h", "1w", "1é", "99999999999999999999d", "3651d"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text:?}");
        }
    }
}
