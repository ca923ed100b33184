//! What an expression may be as text, with `...` for what is filled in at run time.

use std::collections::{BTreeSet, HashMap};

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    Block, Expr, ExprLit, ExprMethodCall, ExprPath, Ident, ItemConst, Lit, Macro, Stmt, Token,
};

const FILLED_IN: &str = "...";

/// Texts and exit codes by the names of what holds them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    constants: HashMap<String, Vec<String>>,
    locals: HashMap<String, (Vec<String>, BTreeSet<u8>)>,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_const(&mut self, constant: &'ast ItemConst) {
        let texts = self.texts(&constant.expr);
        if texts != [FILLED_IN] {
            self.constants.insert(constant.ident.to_string(), texts);
        }
        visit::visit_item_const(self, constant);
    }
}

impl Names {
    pub(crate) fn forget_locals(&mut self) {
        self.locals.clear();
    }

    pub(crate) fn local(&mut self, name: &Ident, value: &Expr) {
        let known = (self.texts(value), self.exits(value));
        self.locals.insert(name.to_string(), known);
    }

    fn of_name(&self, name: &str) -> Option<&Vec<String>> {
        let local = self.locals.get(name).map(|(texts, _)| texts);
        local.or_else(|| self.constants.get(name))
    }

    /// Each text that it may be.
    pub(crate) fn texts(&self, expression: &Expr) -> Vec<String> {
        let mut texts = match expression {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => vec![text.value()],
            Expr::Paren(inner) => self.texts(&inner.expr),
            Expr::Group(inner) => self.texts(&inner.expr),
            Expr::Reference(inner) => self.texts(&inner.expr),
            Expr::Unary(inner) => self.texts(&inner.expr),
            Expr::Macro(found) => self.formatted(&found.mac).into_iter().collect(),
            Expr::Path(path) => last(path)
                .and_then(|name| self.of_name(&name))
                .cloned()
                .unwrap_or_default(),
            Expr::MethodCall(call) => {
                let name = call.method.to_string();
                let is_same = ["to_owned", "to_string", "into", "clone", "as_str"];
                match is_same.contains(&&*name) {
                    true => self.texts(&call.receiver),
                    false => Vec::new(),
                }
            }
            Expr::Block(block) => self.of_block(&block.block),
            Expr::If(branches) => {
                let mut all = self.of_block(&branches.then_branch);
                if let Some((_, other)) = &branches.else_branch {
                    all.extend(self.texts(other));
                }
                all
            }
            Expr::Match(found) => {
                let arms = found.arms.iter();
                arms.flat_map(|arm| self.texts(&arm.body)).collect()
            }
            _ => Vec::new(),
        };
        if texts.is_empty() {
            texts.push(FILLED_IN.to_owned());
        }
        texts
    }

    fn of_block(&self, block: &Block) -> Vec<String> {
        match block.stmts.last() {
            Some(Stmt::Expr(last, None)) => {
                let mut names = self.clone();
                for statement in &block.stmts {
                    if let Stmt::Local(local) = statement
                        && let (syn::Pat::Ident(name), Some(value)) = (&local.pat, &local.init)
                    {
                        names.local(&name.ident, &value.expr);
                    }
                }
                names.texts(last)
            }
            Some(Stmt::Macro(last)) if last.semi_token.is_none() => {
                self.formatted(&last.mac).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn formatted(&self, found: &Macro) -> Option<String> {
        let name = found.path.segments.last()?.ident.to_string();
        if !["format", "format_args", "concat"].contains(&&*name) {
            return None;
        }
        self.template(&arguments(found))
    }

    /// The text of a format string and its arguments. A constant is filled in.
    fn template(&self, arguments: &[Expr]) -> Option<String> {
        let Some(Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        })) = arguments.first()
        else {
            return None;
        };
        let text = text.value();
        let (mut filled, mut rest) = (String::new(), text.as_str());
        while let Some(at) = rest.find(['{', '}']) {
            filled.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if rest.starts_with(brace) {
                filled.push_str(brace);
                rest = &rest[1..];
                continue;
            }
            let (name, after) = rest.split_once('}')?;
            match self.constants.get(name).map(Vec::as_slice) {
                Some([one]) => filled.push_str(one),
                _ => filled.push_str(FILLED_IN),
            }
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }

    /// Each exit code that it may be.
    pub(crate) fn exits(&self, expression: &Expr) -> BTreeSet<u8> {
        let mut exits = Exits(BTreeSet::new());
        exits.visit_expr(expression);
        if let Expr::Path(path) = expression
            && let Some(name) = last(path)
            && let Some((_, known)) = self.locals.get(&name)
        {
            exits.0.extend(known);
        }
        exits.0
    }

    /// The text and the hints of what a macro logs: `warn!(hints = ..., "text", ...)`.
    pub(crate) fn logged(&self, found: &Macro) -> (Option<String>, Vec<String>) {
        let mut hints = Vec::new();
        let mut rest = Vec::new();
        for part in split(&found.tokens) {
            let mut tokens = part.clone().into_iter();
            let named = (tokens.next(), tokens.next());
            if let (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(sign))) = named
                && sign.as_char() == '='
            {
                if name == "hints" {
                    let value = syn::parse2::<Expr>(tokens.collect());
                    hints.extend(value.iter().flat_map(|value| self.texts(value)));
                }
                continue;
            }
            rest.extend(syn::parse2::<Expr>(part));
        }
        let is_text = |part: &&Expr| matches!(part, Expr::Lit(_));
        let text = rest.iter().find(is_text);
        (
            text.and_then(|text| self.template(std::slice::from_ref(text))),
            hints,
        )
    }
}

/// The codes that an expression names, as in docs/exit-codes.md.
struct Exits(BTreeSet<u8>);

impl<'ast> Visit<'ast> for Exits {
    fn visit_expr_path(&mut self, path: &'ast ExprPath) {
        let mut segments = path.path.segments.iter().rev();
        let (Some(name), Some(of)) = (segments.next(), segments.next()) else {
            return;
        };
        if of.ident != "Exit" {
            return;
        }
        self.0.extend(match name.ident.to_string().as_str() {
            "Failed" => Some(1),
            "Usage" => Some(2),
            "Partial" => Some(3),
            "HistoryLost" => Some(4),
            "BadData" => Some(65),
            "TryAgain" => Some(75),
            "Denied" => Some(77),
            _ => None,
        });
    }
}

fn last(path: &ExprPath) -> Option<String> {
    path.path.segments.last().map(|last| last.ident.to_string())
}

/// What methods are called on, and the calls, the first one first.
pub(crate) fn method_chain(call: &ExprMethodCall) -> (&Expr, Vec<&ExprMethodCall>) {
    let mut calls = vec![call];
    let mut root = &*call.receiver;
    loop {
        root = match root {
            Expr::MethodCall(inner) => {
                calls.push(inner);
                &inner.receiver
            }
            Expr::Paren(inner) => &inner.expr,
            Expr::Try(inner) => &inner.expr,
            _ => break,
        };
    }
    calls.reverse();
    (root, calls)
}

/// The arguments of a macro that are expressions.
pub(crate) fn arguments(found: &Macro) -> Vec<Expr> {
    let all = Punctuated::<Expr, Token![,]>::parse_terminated;
    match all.parse2(found.tokens.clone()) {
        Ok(all) => all.into_iter().collect(),
        Err(_) => split(&found.tokens)
            .into_iter()
            .filter_map(|part| syn::parse2(part).ok())
            .collect(),
    }
}

/// Tokens between commas.
fn split(tokens: &TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![TokenStream::new()];
    for token in tokens.clone() {
        match &token {
            TokenTree::Punct(sign) if sign.as_char() == ',' => parts.push(TokenStream::new()),
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.extend([token]);
                }
            }
        }
    }
    parts
}
