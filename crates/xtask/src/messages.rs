//! docs/messages.md: every error and warning of the programs with its exit code and hints, from their code.
//!
//! What is filled in at run time is `...`. A text that is put together in several places is followed through
//! constants and through local variables of the same function, no further.

mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path};

use anyhow::{Context as _, Result, bail};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprCall, ExprMethodCall, ItemFn, ItemMod, Local, Macro, Pat};
use xtask::sources;

use self::texts::{Names, method_chain};

const PAGE: &str = "docs/messages.md";
const HEAD: &str = "\
# Every message

Each error and warning of the programs, with the exit code that follows an error
and the hints below it. `...` is what is filled in. [errors.md](errors.md)
explains those that need more than their hints. This page is made from the code
(`cargo run -p xtask -- messages`).
";
/// Where a message of no single program is.
const SHARED: &str = "Any program";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail where the page is not what would be written
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut sections: BTreeMap<String, BTreeMap<Message, BTreeSet<u8>>> = BTreeMap::new();
    let mut crates: BTreeMap<String, Vec<syn::File>> = BTreeMap::new();
    for path in sources::files(Path::new("crates"))? {
        let name = path.components().nth(1).map(Component::as_os_str);
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        if path.ends_with("testing.rs") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        crates.entry(name).or_default().push(file);
    }
    for (name, files) in &crates {
        let is_program = Path::new("crates/bin").join(format!("{name}.rs")).exists();
        let section = if is_program { name } else { SHARED };
        let mut names = Names::default();
        for file in files {
            names.visit_file(file);
        }
        let found = sections.entry(section.to_owned()).or_default();
        let mut finder = Finder { names, found };
        for file in files {
            finder.visit_file(file);
        }
    }
    let page = page(&sections);
    if !args.check {
        fs::write(PAGE, page)?;
    } else if fs::read_to_string(PAGE).unwrap_or_default() != page {
        bail!("{PAGE} is out of date: cargo run -p xtask -- messages");
    }
    Ok(())
}

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    /// In lower case, which is what it is sorted by.
    key: String,
    text: String,
    hints: Vec<String>,
}

struct Finder<'a> {
    names: Names,
    /// With the exit codes; none for a warning.
    found: &'a mut BTreeMap<Message, BTreeSet<u8>>,
}

impl Finder<'_> {
    fn add(&mut self, texts: &[String], hints: &[String], exits: &BTreeSet<u8>) {
        for text in texts {
            // Only what is filled in: another message, which is found where it is made.
            if !text.contains(|c: char| c.is_alphabetic()) {
                continue;
            }
            let message = Message {
                key: text.trim_start_matches(['.', ' ', ':']).to_lowercase(),
                text: text.clone(),
                hints: hints.to_vec(),
            };
            self.found.entry(message).or_default().extend(exits);
        }
    }

    /// An error, with the calls on it.
    fn error(&mut self, made: &ExprCall, calls: &[&ExprMethodCall]) {
        let Some(function) = made_by(&made.func) else {
            return;
        };
        let arguments: Vec<&Expr> = made.args.iter().collect();
        let (mut exits, message) = match (function, &arguments[..]) {
            ("usage", [message]) => (BTreeSet::from([2]), message),
            ("new", [exit, message]) => (self.names.exits(exit), message),
            _ => return,
        };
        let mut texts = self.names.texts(message);
        let mut hints = Vec::new();
        for call in calls {
            let Some(argument) = call.args.first() else {
                continue;
            };
            match call.method.to_string().as_str() {
                "hint" | "also" => hints.extend(self.names.texts(argument)),
                "with_exit" => exits = self.names.exits(argument),
                "context" => {
                    let before = self.names.texts(argument);
                    let both = |before: &String| {
                        let texts = texts.iter();
                        let texts = texts.map(move |text| format!("{before}: {text}"));
                        texts.collect::<Vec<_>>()
                    };
                    texts = before.iter().flat_map(both).collect();
                }
                _ => {}
            }
        }
        self.add(&texts, &hints, &exits);
    }

    /// A fault of an input, at the line where its reader is.
    fn fault(&mut self, calls: &[&ExprMethodCall]) {
        let is_fault =
            |call: &&&ExprMethodCall| call.method == "fault" || call.method == "stream_fault";
        let Some(argument) = calls
            .iter()
            .find(is_fault)
            .and_then(|call| call.args.first())
        else {
            return;
        };
        let hints = calls
            .iter()
            .filter(|call| call.method == "hint" || call.method == "also");
        let hints = hints.filter_map(|call| call.args.first());
        let hints: Vec<String> = hints.flat_map(|hint| self.names.texts(hint)).collect();
        self.add(&self.names.texts(argument), &hints, &BTreeSet::from([65]));
    }
}

/// `new` or `usage`, of the error that ends a program.
fn made_by(function: &Expr) -> Option<&'static str> {
    let Expr::Path(path) = function else {
        return None;
    };
    let mut segments = path.path.segments.iter().rev();
    let (last, of) = (segments.next()?, segments.next()?);
    if of.ident != "CommandError" {
        return None;
    }
    let mut functions = ["new", "usage"].into_iter();
    functions.find(|function| last.ident == function)
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    let mut configured = attributes.iter();
    configured.any(|one| {
        one.path().is_ident("cfg") && one.parse_args::<syn::Ident>().is_ok_and(|of| of == "test")
    })
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_of_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.names.forget_locals();
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.names.forget_locals();
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        visit::visit_local(self, local);
        if let (Pat::Ident(name), Some(value)) = (&local.pat, &local.init) {
            self.names.local(&name.ident, &value.expr);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let (root, calls) = method_chain(call);
        if let Expr::Call(made) = root {
            self.error(made, &calls);
            for argument in &made.args {
                self.visit_expr(argument);
            }
        } else {
            self.visit_expr(root);
        }
        self.fault(&calls);
        for argument in calls.iter().flat_map(|call| &call.args) {
            self.visit_expr(argument);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        self.error(call, &[]);
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, found: &'ast Macro) {
        let name = found
            .path
            .segments
            .last()
            .map(|last| last.ident.to_string());
        if name.is_some_and(|name| ["warn", "error"].contains(&&*name)) {
            let (text, hints) = self.names.logged(found);
            self.add(text.as_slice(), &hints, &BTreeSet::new());
        }
        for expression in texts::arguments(found) {
            Visit::visit_expr(self, &expression);
        }
    }
}

fn page(sections: &BTreeMap<String, BTreeMap<Message, BTreeSet<u8>>>) -> String {
    let mut page = HEAD.to_owned();
    for (name, messages) in sections.iter().filter(|(_, messages)| !messages.is_empty()) {
        let _ = write!(
            page,
            "\n## {name}\n\n| message | exit | hints |\n|---|---|---|\n"
        );
        for (message, exits) in messages {
            let exits: Vec<String> = exits.iter().map(u8::to_string).collect();
            let exits = if exits.is_empty() {
                "-".to_owned()
            } else {
                exits.join(", ")
            };
            let hints: Vec<String> = message.hints.iter().map(|hint| code(hint)).collect();
            let _ = writeln!(
                page,
                "| {} | {exits} | {} |",
                code(&message.text),
                hints.join("<br>")
            );
        }
    }
    page
}

/// Text as code in a cell of a table.
fn code(text: &str) -> String {
    let text = text.replace('|', "\\|");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the page for this code.
    fn rows(code: &str) -> Vec<String> {
        let file = syn::parse_file(code).unwrap();
        let mut names = Names::default();
        names.visit_file(&file);
        let mut found = BTreeMap::new();
        let mut finder = Finder {
            names,
            found: &mut found,
        };
        finder.visit_file(&file);
        let page = page(&BTreeMap::from([("x".to_owned(), found)]));
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        rows.map(str::to_owned).collect()
    }

    #[test]
    fn error_has_its_code_and_each_hint_that_it_may_have() {
        let code = r#"
            const WAY_OUT: &str = "the way out";
            fn f(name: &str, is_old: bool) -> Result<(), CommandError> {
                let message = format!("{name}: a {{brace}} | of {WAY_OUT}");
                let failure = CommandError::new(Exit::BadData, message).hint(WAY_OUT);
                other(|| {
                    Err(CommandError::usage("--flag: no")
                        .hint(if is_old { "upgrade" } else { "wait" })
                        .context(format!("in {name}")))
                })?;
                Err(CommandError::new(
                    match is_old { true => Exit::Failed, false => Exit::TryAgain },
                    "late",
                ))
            }
        "#;
        assert_eq!(
            rows(code),
            [
                r"| `...: a {brace} \| of the way out` | 65 | `the way out` |",
                "| `in ...: --flag: no` | 2 | `upgrade`<br>`wait` |",
                "| `late` | 1, 75 |  |",
            ]
        );
    }

    #[test]
    fn warnings_and_faults_are_found_and_tests_are_not() {
        let code = r#"
            fn f(records: &Records) {
                tracing::warn!(hints = "sync it", count, "the clock of {name} is late");
                tracing::info!("all is well");
                return Err(records.fault(format!("line {n}: torn")).into());
            }
            #[cfg(test)]
            mod tests {
                fn f() { CommandError::usage("of a test"); }
            }
        "#;
        assert_eq!(
            rows(code),
            [
                "| `line ...: torn` | 65 |  |",
                "| `the clock of ... is late` | - | `sync it` |",
            ]
        );
    }
}
