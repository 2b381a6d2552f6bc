//! Where a new key or table goes in a config's text, in the style that the file itself uses there.

use std::ops::Range;

use thiserror::Error;
use toml_edit::{InlineTable, Item, Value};

use super::document::Document;
use super::splice::Splicer;
use super::value::{Quote, Setting, Table};

/// A place in a file that cannot take what is to be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InsertError {
    /// A key on the way holds something else than a table.
    #[error("`{key}` (line {line}) is not a table")]
    NotATable {
        /// The dotted key.
        key: String,
        /// The line, from 1.
        line: usize,
    },
}

/// One step on the way to where something is to be written.
enum Node<'a> {
    /// A table with a header, or a table that only longer headers name, or one made by dotted keys.
    Table(&'a toml_edit::Table),
    /// A table in braces, or dotted keys within one.
    Inline(&'a InlineTable),
}

/// The existing part of a path, from the root.
struct Walk<'a> {
    nodes: Vec<Node<'a>>,
    /// How each existing key is spelt in the file.
    tokens: Vec<String>,
}

/// Sets the value at `path`: in its place when the key is there, otherwise as a new line (or new tables) where the
/// file has its like.
pub(super) fn set(
    document: &Document,
    splicer: &mut Splicer,
    path: &[&str],
    value: &Setting,
) -> Result<(), InsertError> {
    let walk = walk(document, &path[..path.len() - 1])?;
    if let Some(span) = existing_value(&walk, path) {
        splicer.replace(span, &value.to_toml(document.quote()));
        return Ok(());
    }
    let anchor = walk.anchor();
    match &walk.nodes[anchor] {
        Node::Inline(table) => insert_in_braces(document, splicer, &walk, table, (anchor, path), value),
        Node::Table(_) if walk.ends_dotted() || (walk.is_header_of(path) && value.as_table().is_none()) => {
            insert_lines(document, splicer, &walk, anchor, path, value);
        }
        Node::Table(_) => insert_block(document, splicer, &walk, path, value),
    }
    Ok(())
}

fn walk<'a>(document: &'a Document, path: &[&str]) -> Result<Walk<'a>, InsertError> {
    let mut walk = Walk { nodes: vec![Node::Table(document.parsed().as_table())], tokens: Vec::new() };
    for (depth, key) in path.iter().enumerate() {
        let not_a_table = || InsertError::NotATable {
            key: path[..=depth].join("."),
            line: document.line_of(&path[..=depth]).unwrap_or(1),
        };
        let (node, span) = match &walk.nodes[depth] {
            Node::Table(table) => match table.get(key) {
                None => break,
                Some(Item::Table(child)) => (Node::Table(child), table.key(key).and_then(|k| k.span())),
                Some(Item::Value(Value::InlineTable(child))) => {
                    (Node::Inline(child), table.key(key).and_then(|k| k.span()))
                }
                Some(_) => return Err(not_a_table()),
            },
            Node::Inline(table) => match table.get(key) {
                None => break,
                Some(Value::InlineTable(child)) => (Node::Inline(child), None),
                Some(_) => return Err(not_a_table()),
            },
        };
        walk.nodes.push(node);
        walk.tokens.push(token(document, span, key));
    }
    Ok(walk)
}

fn token(document: &Document, span: Option<Range<usize>>, key: &str) -> String {
    span.and_then(|span| document.text().get(span)).map_or_else(|| document.quote().key(key), str::to_owned)
}

impl Walk<'_> {
    /// The depth of the deepest node.
    fn depth(&self) -> usize {
        self.nodes.len() - 1
    }

    /// The depth of the nearest table that has a place of its own: braces, a header, or the file itself.
    fn anchor(&self) -> usize {
        let anchored = |node: &Node<'_>| match node {
            Node::Table(table) => !table.is_dotted(),
            Node::Inline(table) => !table.is_dotted(),
        };
        (0..=self.depth()).rev().find(|depth| anchored(&self.nodes[*depth])).unwrap_or(0)
    }

    fn ends_dotted(&self) -> bool {
        matches!(&self.nodes[self.depth()], Node::Table(table) if table.is_dotted())
    }

    /// Whether the deepest node is the parent of `path` itself and takes lines: it has a header or is the root.
    fn is_header_of(&self, path: &[&str]) -> bool {
        self.depth() + 1 == path.len()
            && (self.depth() == 0
                || matches!(&self.nodes[self.depth()], Node::Table(table) if !table.is_implicit()))
    }
}

fn existing_value(walk: &Walk<'_>, path: &[&str]) -> Option<Range<usize>> {
    let (last, parents) = path.split_last()?;
    if walk.depth() != parents.len() {
        return None;
    }
    match &walk.nodes[walk.depth()] {
        Node::Table(table) => table.get(last)?.as_value()?.span(),
        Node::Inline(table) => table.get(last)?.span(),
    }
}

/// `{ …, key = value }`: what is missing on the way becomes nested braces.
fn insert_in_braces(
    document: &Document,
    splicer: &mut Splicer,
    walk: &Walk<'_>,
    table: &InlineTable,
    (anchor, path): (usize, &[&str]),
    value: &Setting,
) {
    let Some(span) = table.span() else { return };
    let quote = document.quote();
    let mut nested = value.clone();
    for key in path[walk.depth() + 1..].iter().rev() {
        nested = Setting::Table([((*key).to_owned(), nested)].into_iter().collect());
    }
    let key: Vec<_> = path[anchor..=walk.depth()].iter().map(|key| quote.key(key)).collect();
    let body = document.text()[span.start + 1..span.end - 1].trim_end();
    let at = span.start + 1 + body.len();
    let comma = if body.trim().is_empty() || body.ends_with(',') { "" } else { "," };
    splicer.replace(at..at, &format!("{comma} {} = {}", key.join("."), nested.to_toml(quote)));
    if document.text()[at..span.end] == *"}" {
        let end = at + splicer.text().len() - document.text().len();
        splicer.replace(end..end, " ");
    }
}

/// `a.b.key = value` lines below the last line of the table that takes them.
fn insert_lines(
    document: &Document,
    splicer: &mut Splicer,
    walk: &Walk<'_>,
    anchor: usize,
    path: &[&str],
    value: &Setting,
) {
    let Node::Table(table) = &walk.nodes[anchor] else { return };
    let quote = document.quote();
    let mut prefix: Vec<String> = walk.tokens[anchor..].to_vec();
    prefix.extend(path[walk.depth()..].iter().map(|key| quote.key(key)));
    let last = own_end(table);
    let first_line = last.is_none();
    let at = last.or_else(|| header(table).map(|span| span.end)).map(|end| line_end(document.text(), end));
    let indent = match last {
        Some(end) => indent_at(document.text(), end).to_owned(),
        None => {
            let outer = header(table).map_or("", |span| indent_at(document.text(), span.start));
            format!("{outer}{}", if anchor > 0 && first_line { key_indent(document) } else { String::new() })
        }
    };
    let mut lines = Vec::new();
    dotted_lines(&indent, &prefix.join("."), value, quote, &mut lines);
    insert_whole_lines(document, splicer, at.unwrap_or_else(|| bom_len(document.text())), &lines);
}

fn dotted_lines(indent: &str, key: &str, value: &Setting, quote: Quote, lines: &mut Vec<String>) {
    match value.as_table() {
        Some(table) if !table.is_empty() => {
            for (name, inner) in table.iter() {
                dotted_lines(indent, &format!("{key}.{}", quote.key(name)), inner, quote, lines);
            }
        }
        _ => lines.push(format!("{indent}{key} = {}", value.to_toml(quote))),
    }
}

/// `[path]` tables below the last line of the deepest table that is there.
fn insert_block(document: &Document, splicer: &mut Splicer, walk: &Walk<'_>, path: &[&str], value: &Setting) {
    let quote = document.quote();
    let Node::Table(deepest) = &walk.nodes[walk.depth()] else { return };
    let mut tokens = walk.tokens.clone();
    let named = if value.as_table().is_some() { path } else { &path[..path.len() - 1] };
    tokens.extend(named[walk.depth()..].iter().map(|key| quote.key(key)));
    let text = document.text();
    let near = if walk.depth() >= 2 { subtree_end(deepest) } else { None };
    let at = near.map_or(text.len(), |end| line_end(text, end));
    let indent = first_header(deepest).filter(|_| walk.depth() >= 2);
    let indent = indent.map_or("", |span| indent_at(text, span.start)).to_owned();
    let mut lines = Vec::new();
    let one: Table;
    let table = match value.as_table() {
        Some(table) => table,
        None => {
            one = [(path[path.len() - 1].to_owned(), value.clone())].into_iter().collect();
            &one
        }
    };
    block_lines(&indent, &key_indent(document), &tokens, table, quote, &mut lines);
    if text[bom_len(text)..at].trim().is_empty() {
        lines.remove(0);
    }
    insert_whole_lines(document, splicer, at, &lines);
}

fn block_lines(
    indent: &str,
    step: &str,
    tokens: &[String],
    table: &Table,
    quote: Quote,
    lines: &mut Vec<String>,
) {
    let (tables, keys): (Vec<_>, Vec<_>) =
        table.iter().partition(|(_, value)| value.as_table().is_some_and(|table| !table.is_empty()));
    lines.push(String::new());
    lines.push(format!("{indent}[{}]", tokens.join(".")));
    for (key, value) in keys {
        lines.push(format!("{indent}{step}{} = {}", quote.key(key), value.to_toml(quote)));
    }
    for (key, value) in tables {
        let Some(inner) = value.as_table() else { continue };
        let mut deeper = tokens.to_vec();
        deeper.push(quote.key(key));
        block_lines(&format!("{indent}{step}"), step, &deeper, inner, quote, lines);
    }
}

/// Puts lines at the start of a line (or at the end of a file, with or without its last newline).
fn insert_whole_lines(document: &Document, splicer: &mut Splicer, at: usize, lines: &[String]) {
    let ending = document.line_ending();
    let before = &document.text()[..at];
    if before.len() > bom_len(before) && !before.ends_with('\n') {
        let text: String = lines.iter().map(|line| format!("{ending}{line}")).collect();
        splicer.replace(at..at, &text);
    } else {
        let text: String = lines.iter().map(|line| format!("{line}{ending}")).collect();
        splicer.replace(at..at, &text);
    }
}

/// The header `[…]` of a table that has one; the file itself (position 0) has none.
fn header(table: &toml_edit::Table) -> Option<Range<usize>> {
    if table.is_implicit() || table.is_dotted() || table.position().is_none_or(|at| at == 0) {
        None
    } else {
        table.span()
    }
}

/// The first header in a subtree.
fn first_header(table: &toml_edit::Table) -> Option<Range<usize>> {
    let inner = table.iter().filter_map(|(_, item)| item.as_table()).filter_map(first_header);
    header(table).into_iter().chain(inner).min_by_key(|span| span.start)
}

/// The end of the last value that a table holds itself, dotted keys included.
fn own_end(table: &toml_edit::Table) -> Option<usize> {
    let ends = table.iter().filter_map(|(_, item)| match item {
        Item::Value(value) => value.span().map(|span| span.end),
        Item::Table(inner) if inner.is_dotted() => own_end(inner),
        _ => None,
    });
    ends.max()
}

/// The end of everything below a table.
fn subtree_end(table: &toml_edit::Table) -> Option<usize> {
    let inner = table.iter().filter_map(|(_, item)| match item {
        Item::Table(inner) => subtree_end(inner),
        Item::ArrayOfTables(tables) => tables.iter().filter_map(subtree_end).max(),
        item => item.span().map(|span| span.end),
    });
    inner.chain(header(table).map(|span| span.end)).max()
}

/// How much deeper than its header a key stands in this file; two spaces where it cannot be seen.
fn key_indent(document: &Document) -> String {
    fn find(text: &str, table: &toml_edit::Table) -> Option<String> {
        let own = || {
            let head = indent_at(text, header(table)?.start);
            let value = table.iter().find_map(|(_, item)| item.as_value()?.span())?;
            indent_at(text, value.start).strip_prefix(head).map(str::to_owned)
        };
        own().or_else(|| table.iter().filter_map(|(_, item)| item.as_table()).find_map(|t| find(text, t)))
    }
    find(document.text(), document.parsed().as_table()).unwrap_or_else(|| "  ".to_owned())
}

fn indent_at(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or_else(|| bom_len(text), |newline| newline + 1);
    let line = &text[start..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

fn bom_len(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}
