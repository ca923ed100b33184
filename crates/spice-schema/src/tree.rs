//! What the parser gives: names and references with their places in the text.

/// A part of the text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// A name where it is declared or referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// With its prefix: `tenant/document`.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// `use flag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The flag.
    pub flag: String,
    /// The statement.
    pub span: Span,
}

/// A definition, or a partial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: Name,
    /// From its first word, or an annotation before that, to its closing brace.
    pub span: Span,
    /// What it declares, in its order.
    pub members: Vec<Member>,
}

/// A statement of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// `relation viewer: user`.
    Relation(Relation),
    /// `permission view = viewer`.
    Permission(Permission),
    /// `...partial`.
    Include(Include),
}

/// A relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its name.
    pub name: Name,
    /// The statement, without what ends it.
    pub span: Span,
    /// The subjects that it takes, in their order.
    pub types: Vec<TypeReference>,
}

/// A type of subjects: `user`, `user:*`, `group#member`, with a caveat, with an expiration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeReference {
    /// All of it, an annotation included.
    pub span: Span,
    /// The definition.
    pub object: Name,
    /// Which of its objects.
    pub subject: Subject,
    /// `with caveat`.
    pub caveat: Option<Name>,
    /// `with expiration`.
    pub expiration: bool,
}

/// Which subjects of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Each object for itself.
    Object,
    /// `:*`, all of them.
    Wildcard,
    /// `#member`, those who have this relation or permission on the object.
    Members(Name),
}

/// A permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Its name.
    pub name: Name,
    /// The statement, without what ends it.
    pub span: Span,
    /// The types of its annotation, in their order; empty without one.
    pub annotation: Vec<Name>,
    /// The operands of its expression, in their order. How operators and parentheses combine them does
    /// not matter to a change of names.
    pub operands: Vec<Operand>,
}

/// An operand of a permission's expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// `nil`.
    Nil,
    /// `self`, with `use self`.
    SelfReference,
    /// A relation or permission of the same definition.
    Name(Name),
    /// `parent->view`, `parent.any(view)` and `parent.all(view)`.
    Arrow {
        /// A relation of the same definition.
        relation: Name,
        /// Of several parents.
        function: Option<Function>,
        /// A relation or permission of the relation's subjects.
        target: Name,
    },
}

/// Whether one of an arrow's subjects is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `any`.
    Any,
    /// `all`.
    All,
}

/// The use of a partial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// The partial.
    pub name: Name,
    /// The statement.
    pub span: Span,
}

/// A caveat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caveat {
    /// Its name.
    pub name: Name,
    /// From its first word to its closing brace.
    pub span: Span,
    /// In their order.
    pub parameters: Vec<Parameter>,
    /// The expression, between its braces.
    pub body: Span,
}

/// A parameter of a caveat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub kind: ParameterType,
}

/// The type of a parameter: `string`, `list<map<any>>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterType {
    /// The outermost name.
    pub name: String,
    /// What is in its angle brackets.
    pub arguments: Vec<ParameterType>,
}
