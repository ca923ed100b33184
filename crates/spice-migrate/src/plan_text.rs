//! What `plan` prints: the steps, with the names of this migration in them.

use std::fmt::Write as _;

use crate::ends::Ends;
use crate::phase::Procedure;
use crate::preflight::Passed;
use crate::suite::{escape, quoted};
use crate::time::Span;
use crate::words::Words;

/// What the text is about.
pub(crate) struct Text<'a> {
    pub(crate) ends: &'a Ends,
    pub(crate) procedure: Procedure,
    pub(crate) there: &'a str,
    pub(crate) preflight: &'a Passed,
    pub(crate) settle: Option<&'a Span>,
    pub(crate) gc_window: Option<&'a Span>,
    pub(crate) words: &'a Words,
}

/// The text.
pub(crate) fn text(text: &Text<'_>) -> String {
    let mut out = text.head();
    out += &match text.procedure {
        Procedure::Live => text.live(),
        Procedure::Fenced => text.fenced(),
    };
    out
}

impl Text<'_> {
    fn head(&self) -> String {
        let Ends {
            source,
            target,
            settles,
            precision,
            filter,
            ..
        } = self.ends;
        let (from, to) = (&source.context, &target.context);
        let title = match self.procedure {
            Procedure::Live => "while applications write",
            Procedure::Fenced => "with writes stopped from copy to switch",
        };
        let settling = match (self.settle, settles) {
            (Some(settle), _) => format!("{settle} (--settle)"),
            // The default of spice-export.
            (None, true) => format!("35 s: below a revision of {from} late writes can appear"),
            (None, false) => format!("no wait: revisions of {from} are stable at once"),
        };
        let expiry = match *precision {
            "us" => "microsecond",
            _ => "second (MySQL keeps no more)",
        };
        let mut out = format!(
            "Plan: {from} -> {to}, {title}. Nothing was written to either server.\n\n  \
             source    {from}: {}, datastore {}\n  \
             target    {to}: {}, datastore {}\n            {}\n  \
             settling  {settling}\n  \
             expiry    is compared to the {expiry}\n",
            source.kind,
            source.id(),
            target.kind,
            target.id(),
            self.there,
        );
        if let Some(filter) = filter {
            let _ = write!(
                out,
                "  part      only {filter}.\n            \
                 Whatever else both hold is not read, counted, written or deleted\n  \
                 schema    of {from} and {to} must be equal. follow does not change that of {to},\n            \
                 unless it is started with --schema apply\n  \
                 without   verify --check-sample: answers depend on relationships that are not moved\n"
            );
        }
        out += &self.preflight();
        out
    }

    /// What spice-preflight warns of.
    fn preflight(&self) -> String {
        let Passed { warnings, ok } = self.preflight;
        let count = match warnings.len() {
            0 => "nothing to warn of".to_owned(),
            1 => "1 warning".to_owned(),
            count => format!("{count} warnings"),
        };
        let mut out = format!("  preflight {ok} checks are well, {count}\n");
        for warning in warnings {
            out += &wrapped("  warning   ", &warning.text());
            if !warning.remedy.is_empty() {
                out += &wrapped("            remedy: ", &warning.remedy);
            }
        }
        out
    }

    fn history(&self) -> String {
        match self.gc_window {
            Some(window) => window.to_string(),
            None => "24h unless it was set; no API returns it".to_owned(),
        }
    }

    /// How writes to the source are stopped.
    fn fence(&self) -> String {
        let from = &self.ends.source.context;
        let mut out = match self.ends.filter {
            Some(_) => format!(
                "   - let the applications that write these resources to {from}, or the proxy in front of it,\n     \
                 refuse that. Others may write theirs: what is below stops them as well;\n"
            ),
            None => String::new(),
        };
        let _ = write!(
            out,
            "   - let the proxy in front of {from}, or the applications, refuse WriteRelationships,\n     \
             DeleteRelationships, ImportBulkRelationships and WriteSchema, for everybody but this\n     \
             migration;\n   \
             - give every SpiceDB process of {from} two preshared keys beforehand\n     \
             (--grpc-preshared-key A,B), A for the applications and B for this migration; to fence,\n     \
             restart them with B alone. That stops reads as well;\n   \
             - restart them with --datastore-readonly; not with an in-memory datastore, which a restart\n     \
             empties. "
        );
        match self.procedure {
            Procedure::Live => {
                out += "Then no marker can be written, which costs: on PostgreSQL nothing proves that\n     \
                        the last write was seen, so both ends are compared before the switch. And there is no\n     \
                        way back by reverse until it takes writes again.\n";
            }
            Procedure::Fenced => {
                let context = quoted(from);
                let _ = writeln!(
                    out,
                    "It holds when this ends with 77:\n     spice-revision --context {context} --mark"
                );
            }
        }
        out
    }

    fn fenced(&self) -> String {
        let (from, to) = (&self.ends.source.context, &self.ends.target.context);
        let watch = match self.ends.source.kind.is("spanner") {
            true => format!(
                "  watch     Spanner's leaves the expiry of relationships out, so {from} cannot be \
                 followed: writes\n            \
                 have to be stopped from copy to switch\n"
            ),
            false => String::new(),
        };
        format!(
            "{watch}  history   {from} must keep more than the copy takes (--datastore-gc-window: {})\n\n\
             1. Fence: stop all writes to {from}. Reads continue. Any one of these:\n{}   \
             Wait a minute, for writes under way. What is written after the snapshot is NOT on {to}.\n\
             2. Copy, and compare the copy:     {}\n   \
             Killed, cut, refused: the same command resumes.\n\
             3. Just before the switch:         {}\n   \
             0: equal, so the fence held. 3: different, do not switch.\n\
             4. Switch reads and writes of all applications to {to}. Zedtokens of {from} mean nothing there.\n\
             5. Leave {from} as it is, and fenced. Until the first write to {to} the way back is to point the\n   \
             applications at {from} again and to lift the fence.\n",
            self.history(),
            self.fence(),
            self.words.step("copy"),
            self.words.step("check"),
        )
    }

    fn live(&self) -> String {
        let (from, to) = (&self.ends.source.context, &self.ends.target.context);
        let step = |name: &str| self.words.step(name);
        let back = match self.ends.target.kind.is("spanner") {
            true => format!(
                "There is no way back by following, for {to} is on Spanner. Until the first\n   \
                 write to {to} it is to point the applications at {from} again and to lift the fence."
            ),
            false => format!(
                "The way back, as soon as {to} is written: {}\n   \
                 brings what is written to {to} back to {from}; then verify and cutover with --reverse.",
                step("reverse")
            ),
        };
        let sample = match self.ends.filter {
            None => "With --check-sample 1000 it also asks both who has which permission. ",
            Some(_) => "",
        };
        format!(
            "  watch     {from} reports its changes\n  \
             history   {}. It must be more than any pause between copy and follow (plan --gc-window)\n\n\
             1. Copy, while applications write:      {}\n   \
             Changes are captured meanwhile. Killed, cut, refused: the same command resumes.\n\
             2. Follow, in a terminal of its own:    {}\n   \
             For minutes or weeks. An empty transaction every 30 s keeps its place in the history of {from}.\n\
             3. Look at it, as often as you like:    {}\n\
             4. Compare both ends, also under writes: {}\n   \
             {sample}Different: somebody else\n   \
             writes to {to}. {} makes it equal again, and stops follow for it; then\n   \
             follow and verify. The same where {from} has lost the history that follow needs.\n\
             5. Cut over, within an hour of that:    {}\n   \
             It prints when to fence, that is, to stop all writes to {from}, and when to switch: about a second\n   \
             later. How to fence; any one of these, and only one under which this migration can still write\n   \
             to {from} is quick and exact:\n{}\
             6. {back}\n   \
             Give up before the switch: {}\n",
            self.history(),
            step("copy"),
            step("follow"),
            step("status"),
            step("verify"),
            step("resync"),
            step("cutover"),
            self.fence(),
            step("abort"),
        )
    }
}

/// A text behind a title, on lines of at most 100 columns where its words allow that. Parts of it come from
/// servers.
fn wrapped(title: &str, text: &str) -> String {
    const WIDTH: usize = 100;
    let text = escape(text);
    let mut out = title.trim_end().to_owned();
    let mut column = title.len();
    out += &" ".repeat(column - out.len());
    for (number, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if number > 0 && column + 1 + length > WIDTH {
            out += &format!("\n{:12}", "");
            column = 12;
        } else if number > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn warning_is_wrapped_below_its_title() {
        let text = format!("{} {}", "a".repeat(80), "b".repeat(30));
        let expected = format!(
            "  warning   {}\n            {}\n",
            "a".repeat(80),
            "b".repeat(30)
        );
        assert_eq!(wrapped("  warning   ", &text), expected);
        assert_eq!(
            wrapped("  warning   ", "a\u{1b}b"),
            "  warning   a\\u{1b}b\n"
        );
    }
}
