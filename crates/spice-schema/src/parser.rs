//! Declarations, type references, permissions and caveats.

mod tokens;

use std::collections::HashSet;

use crate::Schema;
use crate::error::SyntaxError;
use crate::lexer::{Kind, Lexer, Token};
use crate::names::FLAGS;
use crate::tree::{
    Caveat, Definition, Function, Include, Member, Operand, Parameter, ParameterType, Permission,
    Relation, Span, Subject, TypeReference, Use,
};

/// How many types a type of a parameter may have within each other: `list<list<int>>` has 3.
const MAX_TYPE_DEPTH: usize = 32;
/// How many parentheses of an expression may be open.
const MAX_PARENTHESES: usize = 1_000;

pub(crate) fn parse(text: String) -> Result<Schema, SyntaxError> {
    let mut parser = Parser::begin(&text)?;
    parser.schema()?;
    let Parser {
        lexer,
        uses,
        definitions,
        partials,
        caveats,
        ..
    } = parser;
    let comments = lexer.into_comments();
    Ok(Schema {
        text,
        uses,
        definitions,
        partials,
        caveats,
        comments,
    })
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The one that is looked at.
    token: Token,
    /// Where the one before it ended.
    previous_end: usize,
    /// The flags so far, each of which makes a word a keyword.
    flags: HashSet<String>,
    uses: Vec<Use>,
    definitions: Vec<Definition>,
    partials: Vec<Definition>,
    caveats: Vec<Caveat>,
}

impl<'a> Parser<'a> {
    fn begin(text: &'a str) -> Result<Self, SyntaxError> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next()?;
        Ok(Self {
            text,
            lexer,
            token,
            previous_end: 0,
            flags: HashSet::new(),
            uses: Vec::new(),
            definitions: Vec::new(),
            partials: Vec::new(),
            caveats: Vec::new(),
        })
    }

    fn schema(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.skip_ends()?;
            let start = self.token.span.start;
            match (self.token.kind, self.word()) {
                (Kind::End, _) => return Ok(()),
                (Kind::Sign("@"), _) => {
                    self.annotation()?;
                    self.skip_ends()?;
                    if self.word() != "definition" {
                        return Err(self.expected("a definition below this annotation"));
                    }
                    let definition = self.definition(start)?;
                    self.definitions.push(definition);
                }
                (_, "use") => self.use_flag()?,
                (_, "definition") => {
                    let definition = self.definition(start)?;
                    self.definitions.push(definition);
                }
                (_, "caveat") => {
                    let caveat = self.caveat()?;
                    self.caveats.push(caveat);
                }
                (_, "partial") if self.flags.contains("partial") => {
                    let partial = self.definition(start)?;
                    self.partials.push(partial);
                }
                (_, "import") if self.flags.contains("import") => {
                    self.advance()?;
                    if self.token.kind != Kind::Text {
                        return Err(self.expected("a path in quotes"));
                    }
                    self.advance()?;
                }
                _ => return Err(self.expected("definition, caveat or use")),
            }
        }
    }

    /// `use flag`.
    fn use_flag(&mut self) -> Result<(), SyntaxError> {
        let start = self.token.span.start;
        if !self.definitions.is_empty() || !self.caveats.is_empty() {
            return Err(self.error("use comes before the first definition and caveat"));
        }
        self.advance()?;
        let flag = self.word();
        if !FLAGS.contains(&flag) {
            return Err(self.expected(&format!("one of the flags {}", FLAGS.join(", "))));
        }
        let flag = flag.to_owned();
        // From here on it is a keyword.
        self.flags.insert(flag.clone());
        self.advance()?;
        let end = self.previous_end;
        let span = Span { start, end };
        self.uses.push(Use { flag, span });
        Ok(())
    }

    /// `@deprecated(warn, "text")`.
    fn annotation(&mut self) -> Result<(), SyntaxError> {
        if !self.flags.contains("deprecation") {
            return Err(self.error("an annotation without use deprecation"));
        }
        self.sign("@")?;
        if self.word() != "deprecated" {
            return Err(self.expected("deprecated, the only known annotation"));
        }
        self.advance()?;
        self.sign("(")?;
        self.identifier("the kind of deprecation")?;
        if self.try_sign(",")? {
            if self.token.kind != Kind::Text {
                return Err(self.expected("a text in quotes"));
            }
            self.advance()?;
        }
        self.sign(")")
    }

    /// A definition, or a partial, at its first word.
    fn definition(&mut self, start: usize) -> Result<Definition, SyntaxError> {
        self.advance()?;
        let name = self.path("a name")?;
        self.sign("{")?;
        let mut members = Vec::new();
        loop {
            self.skip_ends()?;
            if self.try_sign("}")? {
                break;
            }
            members.push(self.member()?);
            match self.token.kind {
                Kind::LineBreak | Kind::Sign(";") => self.advance()?,
                _ => return Err(self.expected("the end of this statement, a line break or ;")),
            }
        }
        let end = self.previous_end;
        let span = Span { start, end };
        Ok(Definition {
            name,
            span,
            members,
        })
    }

    fn member(&mut self) -> Result<Member, SyntaxError> {
        let start = self.token.span.start;
        if self.token.kind == Kind::Sign("@") {
            self.annotation()?;
            self.skip_ends()?;
            if self.word() != "relation" && self.word() != "permission" {
                return Err(self.expected("a relation or permission below this annotation"));
            }
        }
        match self.word() {
            "relation" => self.relation(start).map(Member::Relation),
            "permission" => self.permission(start).map(Member::Permission),
            _ if self.try_sign("...")? => {
                let name = self.path("the name of a partial")?;
                let end = self.previous_end;
                let span = Span { start, end };
                Ok(Member::Include(Include { name, span }))
            }
            _ => Err(self.expected("relation, permission or }")),
        }
    }

    fn relation(&mut self, start: usize) -> Result<Relation, SyntaxError> {
        self.advance()?;
        let name = self.identifier("the name of a relation")?;
        self.sign(":")?;
        let mut types = vec![self.type_reference()?];
        while self.try_sign("|")? {
            types.push(self.type_reference()?);
        }
        let end = self.previous_end;
        let span = Span { start, end };
        Ok(Relation { name, span, types })
    }

    fn type_reference(&mut self) -> Result<TypeReference, SyntaxError> {
        let start = self.token.span.start;
        if self.token.kind == Kind::Sign("@") {
            self.annotation()?;
        }
        let object = self.path("a type")?;
        let mut subject = Subject::Object;
        if self.try_sign(":")? {
            self.sign("*")?;
            subject = Subject::Wildcard;
        } else if self.try_sign("#")? && !self.try_sign("...")? {
            subject = Subject::Members(self.identifier("a relation of this type")?);
        }
        let (mut caveat, mut expiration) = (None, false);
        if self.word() == "with" {
            self.advance()?;
            expiration = self.try_keyword("expiration")?;
            if !expiration {
                caveat = Some(self.path("a caveat")?);
                if self.try_keyword("and")? {
                    expiration = self.try_keyword("expiration")?;
                    if !expiration {
                        return Err(self.expected("expiration"));
                    }
                }
            }
        }
        let end = self.previous_end;
        let span = Span { start, end };
        Ok(TypeReference {
            span,
            object,
            subject,
            caveat,
            expiration,
        })
    }

    fn permission(&mut self, start: usize) -> Result<Permission, SyntaxError> {
        self.advance()?;
        let name = self.identifier("the name of a permission")?;
        let mut annotation = Vec::new();
        if self.try_sign(":")? {
            annotation.push(self.path("a type")?);
            while self.try_sign("|")? {
                annotation.push(self.path("a type")?);
            }
        }
        self.sign("=")?;
        let operands = self.expression()?;
        let end = self.previous_end;
        let span = Span { start, end };
        Ok(Permission {
            name,
            span,
            annotation,
            operands,
        })
    }

    /// Operands between operators, in parentheses or not. A count is enough to match these.
    fn expression(&mut self) -> Result<Vec<Operand>, SyntaxError> {
        let (mut operands, mut open) = (Vec::new(), 0_usize);
        loop {
            while self.token.kind == Kind::Sign("(") {
                open += 1;
                if open > MAX_PARENTHESES {
                    return Err(self.error(format!("more than {MAX_PARENTHESES} open parentheses")));
                }
                self.advance()?;
            }
            operands.push(self.operand()?);
            while open > 0 && self.try_sign(")")? {
                open -= 1;
            }
            match self.token.kind {
                Kind::Sign("+" | "-" | "&") => self.advance()?,
                _ if open > 0 => return Err(self.expected("an operator or )")),
                _ => return Ok(operands),
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, SyntaxError> {
        if self.word() == "nil" {
            self.advance()?;
            return Ok(Operand::Nil);
        }
        if self.try_keyword("self")? {
            return Ok(Operand::SelfReference);
        }
        let relation = self.identifier("a relation or permission")?;
        let function = if self.try_sign("->")? {
            None
        } else if self.try_sign(".")? {
            let function = match self.word() {
                "any" => Function::Any,
                "all" => Function::All,
                _ => return Err(self.expected("any or all")),
            };
            self.advance()?;
            self.sign("(")?;
            Some(function)
        } else {
            return Ok(Operand::Name(relation));
        };
        let target = self.identifier("a relation or permission")?;
        if function.is_some() {
            self.sign(")")?;
        }
        if matches!(self.token.kind, Kind::Sign("->" | ".")) {
            return Err(self.error("an arrow from an arrow: SpiceDB has none"));
        }
        Ok(Operand::Arrow {
            relation,
            function,
            target,
        })
    }

    fn caveat(&mut self) -> Result<Caveat, SyntaxError> {
        let start = self.token.span.start;
        self.advance()?;
        let name = self.path("the name of a caveat")?;
        self.sign("(")?;
        let mut parameters = vec![self.parameter()?];
        while self.try_sign(",")? {
            parameters.push(self.parameter()?);
        }
        self.sign(")")?;
        if self.token.kind != Kind::Sign("{") {
            return Err(self.expected("{"));
        }
        // Nothing behind the brace has been read yet.
        let body = self.lexer.skip_expression()?;
        if self.text[body.start..body.end].trim().is_empty() {
            return Err(self.error("a caveat without an expression"));
        }
        let end = body.end + 1;
        self.previous_end = end;
        self.token = self.lexer.next()?;
        Ok(Caveat {
            name,
            span: Span { start, end },
            parameters,
            body,
        })
    }

    fn parameter(&mut self) -> Result<Parameter, SyntaxError> {
        let name = self.identifier("the name of a parameter")?;
        let kind = self.parameter_type(1)?;
        Ok(Parameter { name, kind })
    }

    fn parameter_type(&mut self, depth: usize) -> Result<ParameterType, SyntaxError> {
        if depth > MAX_TYPE_DEPTH {
            return Err(self.error(format!(
                "more than {MAX_TYPE_DEPTH} types within each other"
            )));
        }
        let name = self.identifier("the type of a parameter")?.text;
        let mut arguments = Vec::new();
        if self.try_sign("<")? {
            arguments.push(self.parameter_type(depth + 1)?);
            while self.try_sign(",")? {
                arguments.push(self.parameter_type(depth + 1)?);
            }
            self.sign(">")?;
        }
        Ok(ParameterType { name, arguments })
    }
}
