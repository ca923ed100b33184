//! The pictures of the documentation. They take the colour of the text around them, so they are readable
//! on light and on dark pages, and have no background.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const FOLDER: &str = "docs/pictures";
/// The times in the timeline are those of this document.
const MEASURED: &str = "docs/reliability.md";
/// What tmux captured of `spice-migrate status --watch` during a migration.
const SCREEN: &str = "docs/pictures/status.txt";
/// The largest picture, in bytes.
const LARGEST: usize = 20_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail where a picture is not what would be drawn
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    fs::create_dir_all(FOLDER)?;
    for (name, picture) in [
        ("pipe", pipe()),
        ("timeline", timeline(&read(MEASURED)?)?),
        ("status", screen(&read(SCREEN)?)),
    ] {
        let path = Path::new(FOLDER).join(format!("{name}.svg"));
        let shown = path.display();
        if picture.len() > LARGEST {
            bail!(
                "{shown} would have {} bytes, more than {LARGEST}",
                picture.len()
            );
        }
        if !args.check {
            fs::write(&path, picture)?;
        } else if fs::read_to_string(&path).unwrap_or_default() != picture {
            bail!("{shown} is out of date: cargo run -p xtask -- pictures");
        }
    }
    Ok(())
}

/// An SVG under construction.
struct Drawing {
    width: u32,
    height: u32,
    title: &'static str,
    body: String,
}

impl Drawing {
    fn new(width: u32, height: u32, title: &'static str) -> Self {
        let body = String::new();
        Self {
            width,
            height,
            title,
            body,
        }
    }

    fn add(&mut self, element: impl AsRef<str>) {
        self.body += element.as_ref();
        self.body.push('\n');
    }

    fn text(&mut self, x: u32, y: u32, style: &str, text: &str) {
        let text = escaped(text);
        self.add(format!(r#"<text x="{x}" y="{y}"{style}>{text}</text>"#));
    }

    /// A box with a name and a line below it.
    fn part(&mut self, x: u32, y: u32, width: u32, name: &str, what: &str) {
        self.add(format!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="50" rx="6" fill="none" stroke="currentColor"/>"#
        ));
        let middle = x + width / 2;
        self.text(middle, y + 21, BOLD, name);
        self.text(middle, y + 39, SMALL, what);
    }

    /// An arrow to the right or downwards.
    fn arrow(&mut self, from: (u32, u32), to: (u32, u32)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format!(
            r#"<path d="M{x1} {y1}L{x2} {y2}" stroke="currentColor" fill="none" marker-end="url(#to)"/>"#
        ));
    }

    fn finish(self) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        let marker = concat!(
            r#"<marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">"#,
            r#"<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker>"#
        );
        // Alone in a browser it follows the preference of the reader.
        let style = "svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}";
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"14\" fill=\"currentColor\" role=\"img\">\n\
             <title>{title}</title><style>{style}</style><defs>{marker}</defs>\n{body}</svg>\n"
        )
    }
}

const BOLD: &str = r#" text-anchor="middle" font-weight="bold""#;
const SMALL: &str = r#" text-anchor="middle" font-size="12""#;
const PLAIN: &str = r#" font-size="12""#;

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// How a copy and its changes travel.
fn pipe() -> String {
    let mut drawing = Drawing::new(
        760,
        214,
        "A snapshot goes from old through spice-export and spice-import to new; the changes after it go \
         through spice-watch and spice-apply, which stores its position",
    );
    for x in [10, 650] {
        drawing.add(format!(
            r#"<rect x="{x}" y="30" width="100" height="150" rx="6" fill="none" stroke="currentColor" stroke-width="2"/>"#
        ));
    }
    for (x, name) in [(60, "old"), (700, "new")] {
        drawing.text(x, 100, BOLD, name);
        drawing.text(x, 118, SMALL, "SpiceDB");
    }
    for (y, from, what, to, does, between) in [
        (
            30,
            "spice-export",
            "at one revision",
            "spice-import",
            "in transactions",
            "snapshot",
        ),
        (
            130,
            "spice-watch",
            "what comes after it",
            "spice-apply",
            "in the same order",
            "changes",
        ),
    ] {
        drawing.part(170, y, 150, from, what);
        drawing.part(440, y, 150, to, does);
        drawing.arrow((110, y + 25), (170, y + 25));
        drawing.arrow((320, y + 25), (440, y + 25));
        drawing.arrow((590, y + 25), (650, y + 25));
        drawing.text(380, y + 18, SMALL, between);
    }
    drawing.text(245, 105, SMALL, "revision of the snapshot");
    drawing.arrow((245, 110), (245, 130));
    drawing.add(r#"<path d="M245 80L245 92" stroke="currentColor"/>"#);
    drawing.arrow((515, 180), (515, 196));
    drawing.text(515, 210, SMALL, "position: how far new is");
    drawing.finish()
}

/// The median and the worst write downtime of a row, as they are written in [`MEASURED`].
fn downtime<'a>(measured: &'a str, row: &str) -> Result<(&'a str, &'a str)> {
    let line = measured
        .lines()
        .find(|line| line.starts_with(row))
        .with_context(|| format!("{MEASURED} has no row `{row}`"))?;
    let last = line.trim_end_matches([' ', '|']).rsplit('|').next();
    let last = last.unwrap_or_default().trim();
    last.split_once(", ")
        .with_context(|| format!("{MEASURED}: no median and worst in `{line}`"))
}

/// What happens when, and for how long writes are stopped.
fn timeline(measured: &str) -> Result<String> {
    let mut drawing = Drawing::new(
        760,
        230,
        "Copy, follow and verify while applications write; writes are stopped from the fence to the switch, \
         while the last changes are drained",
    );
    drawing.text(10, 20, PLAIN, "applications write to old");
    drawing.text(640, 20, PLAIN, "write to new");
    drawing.add(r#"<path d="M10 32H500M630 32H750" stroke="currentColor" stroke-width="6"/>"#);
    drawing.add(
        r#"<path d="M500 32H630" stroke="currentColor" stroke-width="2" stroke-dasharray="3 4"/>"#,
    );
    drawing.text(565, 24, SMALL, "writes stopped");
    for (x, width, y, name, what) in [
        (10, 150, 48, "copy", "at a revision, proven"),
        (160, 340, 48, "follow", "every change, while old is written"),
        (300, 150, 108, "verify", "equal at a sync point"),
        (500, 130, 48, "drain", "what is left"),
        (630, 120, 48, "compare", "both ends, again"),
    ] {
        drawing.part(x, y, width, name, what);
    }
    for (x, name) in [(500, "fence"), (630, "SWITCH")] {
        drawing.add(format!(
            r#"<path d="M{x} 28V180" stroke="currentColor" stroke-dasharray="2 3"/>"#
        ));
        drawing.text(x, 194, BOLD, name);
    }
    for (y, ends) in [
        (122, "PostgreSQL → PostgreSQL"),
        (152, "memory → PostgreSQL"),
    ] {
        let (median, worst) = downtime(measured, &format!("| {ends} | {}", cutovers(ends)))?;
        drawing.text(565, y, SMALL, &format!("{median}, worst {worst}"));
        drawing.text(565, y + 13, r#" text-anchor="middle" font-size="9""#, ends);
    }
    drawing.text(
        10,
        222,
        PLAIN,
        "Not to scale. Median and worst write downtime: docs/reliability.md.",
    );
    Ok(drawing.finish())
}

/// Which of the rows of these ends: that with so many cutovers.
fn cutovers(ends: &str) -> &'static str {
    match ends {
        "PostgreSQL → PostgreSQL" => "22 |",
        _ => "5 | 0",
    }
}

/// A screen of a terminal: each line at its width, whatever the font.
fn screen(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    let columns = lines.iter().map(|line| line.chars().count()).max();
    let (columns, rows) = (as_u32(columns.unwrap_or(0)), as_u32(lines.len()));
    let mut drawing = Drawing::new(
        20 + columns * 8,
        20 + rows * 17,
        "The live screen of spice-migrate status --watch during a migration",
    );
    drawing.add(r#"<rect x="1" y="1" width="99.7%" height="99.5%" rx="6" fill="none" stroke="currentColor"/>"#);
    let mut body = String::new();
    for (y, line) in (0..).zip(&lines).filter(|(_, line)| !line.is_empty()) {
        let width = as_u32(line.chars().count()) * 8;
        let weight = if y == 0 { r#" font-weight="bold""# } else { "" };
        let (y, line) = (24 + y * 17, escaped(line));
        let _ = writeln!(
            body,
            r#"<text x="10" y="{y}" textLength="{width}"{weight}>{line}</text>"#
        );
    }
    drawing.add(format!(
        "<g font-family=\"monospace\" font-size=\"13\" style=\"white-space:pre\" xml:space=\"preserve\">\n{body}</g>"
    ));
    drawing.finish()
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_row() {
        let measured =
            "| a → b | 22 | 821 to 1,458 | 0.35 s, 0.60 s |\n| a → b | 5 | 0.98 s, 1.19 s |\n";
        assert_eq!(
            downtime(measured, "| a → b | 22 |").unwrap(),
            ("0.35 s", "0.60 s")
        );
        assert_eq!(
            downtime(measured, "| a → b | 5 | 0").unwrap(),
            ("0.98 s", "1.19 s")
        );
        assert!(downtime(measured, "| b → a |").is_err());
    }

    #[test]
    fn screen_keeps_every_line_and_its_blanks() {
        let drawn = screen("a -> b\n\n  2 < 3\n");
        assert!(drawn.contains("a -&gt; b"));
        assert!(drawn.contains("textLength=\"56\">  2 &lt; 3<"));
        assert_eq!(drawn.matches("<text").count(), 2);
    }
}
