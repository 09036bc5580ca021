//! Where output goes: answers to standard output, everything else to standard error; text for people, or the documented JSON.

use super::text::clean;
use crate::daemon::api::API_VERSION;
use crate::daemon::api::types::{Envelope, ErrorEnvelope};
use crate::daemon::config::ConfigError;
use crate::daemon::failure::{ErrorCode, Failure};
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;
use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

/// Columns of a report about the configuration: a path and a list of keys fit one line.
const REPORT_WIDTH: usize = 200;

/// How this command prints.
pub(super) struct Output {
    json: bool,
    /// The first thing that went wrong with standard output.
    trouble: RefCell<Option<io::Error>>,
    /// Colour on standard output.
    pub(super) style: Style,
    error_style: Style,
}

/// Colour, or none.
#[derive(Clone, Copy)]
pub(super) struct Style(bool);

impl Style {
    /// Colour on a terminal whose user does not object (<https://no-color.org>).
    fn of(stream: &impl IsTerminal) -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self(stream.is_terminal() && !is_unwanted && !is_dumb)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn odd(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let (style, error_style) = (Style::of(&io::stdout()), Style::of(&io::stderr()));
        Self { json, trouble: RefCell::new(None), style, error_style }
    }

    /// Whether standard output still takes what is written. A reader that went away (`p2plus peers | head -1`) wants no more.
    pub(super) fn is_read(&self) -> bool {
        self.trouble.borrow().is_none()
    }

    /// Fails when an answer did not arrive, other than by the wish of its reader: a full disk must not swallow a ticket or recovery words
    /// and call it done.
    pub(super) fn delivered(&self) -> Result<(), Failure> {
        match &*self.trouble.borrow() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let message = format!("the answer could not be written to standard output: {error}");
                Err(Failure::new(ErrorCode::Failed, message)
                    .hint("what was ordered is done all the same: look with `p2plus status`"))
            }
            _ => Ok(()),
        }
    }

    /// Whether JSON was asked for.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody can be asked something.
    pub(super) fn is_interactive(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Prints an answer: `data` as JSON, or the text that `human` makes, with the warnings on standard error.
    pub(super) fn answer<T: Serialize>(&self, data: &T, warnings: &[String], human: impl FnOnce(&T) -> String) {
        if self.json {
            let envelope = Envelope { api: API_VERSION, data, warnings: warnings.to_vec() };
            self.print(&format!("{}\n", serde_json::to_string(&envelope).expect("answers consist of JSON's types")));
        } else {
            self.print(&ended(&human(data)));
            warnings.iter().for_each(|warning| self.warning(warning));
        }
    }

    /// Clears the terminal for the next answer; does nothing to a file, and nothing to JSON, which is one object per line.
    pub(super) fn clear_screen(&self) {
        if !self.json && io::stdout().is_terminal() {
            self.print("\x1b[H\x1b[2J");
        }
    }

    fn print(&self, text: &str) {
        let mut stdout = io::stdout();
        if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            self.trouble.borrow_mut().get_or_insert(error);
        }
    }

    /// Says something besides the answer, to people only.
    pub(super) fn note(&self, text: &str) {
        if !self.json {
            complain(&ended(text));
        }
    }

    /// Shows a picture made of blocks. On a terminal it is drawn in white on black, whatever the terminal's own colours: a QR code in
    /// negative is none to most cameras.
    pub(super) fn picture(&self, lines: &str) {
        let frame =
            |line: &str| if self.error_style.0 { format!("\x1b[97;40m{line}\x1b[0m\n") } else { format!("{line}\n") };
        self.note(&lines.lines().map(frame).collect::<String>());
    }

    /// Warns people; in JSON, warnings are part of the answer.
    fn warning(&self, text: &str) {
        complain(&format!("{} {}\n", self.error_style.odd("warning:"), clean(text)));
    }

    /// Prints a failure on standard error.
    pub(super) fn failure(&self, failure: &Failure) {
        if self.json {
            print_error_json(&ErrorEnvelope { api: API_VERSION, error: failure.clone() });
            return;
        }
        let mut text = format!("{} {}\n", self.error_style.bad("error:"), clean(&failure.message));
        if let Some(hint) = &failure.hint {
            text.push_str(&format!("{}  {}\n", self.error_style.dim("hint:"), clean(hint)));
        }
        complain(&text);
    }

    /// Prints what is wrong with a configuration, with the line.
    pub(super) fn config_error(&self, error: &ConfigError) {
        if self.json {
            let failure =
                Failure::new(ErrorCode::Usage, error.to_string()).hint("`p2plus config show` prints every key");
            self.failure(&failure);
            return;
        }
        let mut theme = if self.error_style.0 { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        theme.characters.error = "error:".to_owned();
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(theme).with_width(REPORT_WIDTH);
        match handler.render_report(&mut text, error) {
            Ok(()) => complain(&ended(text.trim_start())),
            Err(_) => complain(&format!("error: {}\n", clean(&error.to_string()))),
        }
    }

    /// Asks a question on a terminal; anything but yes is no.
    pub(super) fn confirms(&self, question: &str) -> bool {
        complain(&format!("{question} [y/N] "));
        let mut line = String::new();
        io::stdin().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
    }
}

/// Prints a failure as JSON.
pub(super) fn print_error_json(envelope: &ErrorEnvelope) {
    complain(&format!("{}\n", serde_json::to_string(envelope).expect("failures consist of JSON's types")));
}

/// Text with one line feed at its end, or nothing at all.
fn ended(text: &str) -> String {
    let text = text.trim_end_matches('\n');
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}

/// Writes to standard error; where that is gone, the exit code has to do.
fn complain(text: &str) {
    let mut stderr = io::stderr();
    let _nobody_listens = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err();
}
