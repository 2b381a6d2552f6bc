//! A TOML value as a tree: what merging, comparing and copying need, without the text's spelling.

use std::fmt::Write as _;

/// A TOML value. Two values are equal when containerd reads the same from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A string.
    Text(String),
    /// A 64-bit integer.
    Integer(i64),
    /// A boolean.
    Bool(bool),
    /// A float or a date, kept as its canonical spelling: containerd's config has neither of its own.
    Other(String),
    /// An array; of tables too.
    List(Vec<Setting>),
    /// A table, in the order of the file.
    Table(Table),
}

/// The keys of a table with their values, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(Vec<(String, Setting)>);

impl Table {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value below nested tables: `["plugins", "cri", "containerd"]`.
    #[must_use]
    pub fn get_path(&self, path: &[&str]) -> Option<&Setting> {
        let (last, parents) = path.split_last()?;
        let mut table = self;
        for key in parents {
            table = table.get(key)?.as_table()?;
        }
        table.get(last)
    }

    /// The table below nested tables.
    #[must_use]
    pub fn table_at(&self, path: &[&str]) -> Option<&Self> {
        if path.is_empty() { Some(self) } else { self.get_path(path)?.as_table() }
    }

    /// Sets `key`, in its place when it is there.
    pub fn set(&mut self, key: &str, value: Setting) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Sets the value below nested tables, creating them; what stands in the way and is no table is replaced.
    pub fn set_path(&mut self, path: &[&str], value: Setting) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            return self.set(first, value);
        }
        if self.get(first).and_then(Setting::as_table).is_none() {
            self.set(first, Setting::Table(Self::default()));
        }
        if let Some((_, Setting::Table(inner))) = self.0.iter_mut().find(|(name, _)| name == first) {
            inner.set_path(rest, value);
        }
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &str) -> Option<Setting> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// The keys with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same keys with the same values in whatever order.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|(key, value)| other.get(key).is_some_and(|theirs| value.same_as(theirs)))
    }
}

impl FromIterator<(String, Setting)> for Table {
    fn from_iter<T: IntoIterator<Item = (String, Setting)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Setting {
    /// The table, when it is one.
    #[must_use]
    pub fn as_table(&self) -> Option<&Table> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }

    /// The string, when it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The integer, when it is one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The boolean, when it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The strings of a list; what is no string in it is left out.
    #[must_use]
    pub fn as_texts(&self) -> Vec<&str> {
        match self {
            Self::List(items) => items.iter().filter_map(Self::as_text).collect(),
            _ => Vec::new(),
        }
    }

    /// Go's zero value of its type: what `containerd config dump` prints for a key that nobody set.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Text(text) | Self::Other(text) => text.is_empty(),
            Self::Integer(number) => *number == 0,
            Self::Bool(flag) => !flag,
            Self::List(items) => items.is_empty(),
            Self::Table(table) => table.iter().all(|(_, value)| value.is_zero()),
        }
    }

    /// Equal but for the order of keys.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Table(ours), Self::Table(theirs)) => ours.same_as(theirs),
            (Self::List(ours), Self::List(theirs)) => {
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.same_as(b))
            }
            _ => self == other,
        }
    }

    /// One line of TOML for the value; `quote` is the quote that the file prefers for its strings.
    #[must_use]
    pub fn to_toml(&self, quote: Quote) -> String {
        match self {
            Self::Text(text) => quote.quote(text),
            Self::Integer(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Other(text) => text.clone(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.to_toml(quote)).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(table) if table.is_empty() => "{}".to_owned(),
            Self::Table(table) => {
                let pairs: Vec<_> = table
                    .iter()
                    .map(|(key, value)| format!("{} = {}", quote.key(key), value.to_toml(quote)))
                    .collect();
                format!("{{ {} }}", pairs.join(", "))
            }
        }
    }
}

/// The quote that a file prefers: containerd 1.x prints `"…"`, 2.x prints `'…'`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// A basic string.
    Double,
    /// A literal string, where the text allows it.
    Single,
}

impl Quote {
    /// The text as a TOML string.
    #[must_use]
    pub fn quote(self, text: &str) -> String {
        let plain = !text.contains('\'') && !text.chars().any(char::is_control);
        if self == Self::Single && plain { format!("'{text}'") } else { basic_string(text) }
    }

    /// The text as a TOML key: bare where TOML allows it.
    #[must_use]
    pub fn key(self, text: &str) -> String {
        let bare =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if bare { text.to_owned() } else { self.quote(text) }
    }
}

/// A TOML basic string: quotation mark, backslash and control characters escaped.
fn basic_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let written = write!(out, "\\u{:04X}", c as u32);
                debug_assert!(written.is_ok(), "a String takes every write");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(super) fn table_of(table: &toml_edit::Table) -> Table {
    table.iter().filter_map(|(key, item)| Some((key.to_owned(), setting_of(item)?))).collect()
}

fn setting_of(item: &toml_edit::Item) -> Option<Setting> {
    match item {
        toml_edit::Item::None => None,
        toml_edit::Item::Value(value) => Some(setting_of_value(value)),
        toml_edit::Item::Table(table) => Some(Setting::Table(table_of(table))),
        toml_edit::Item::ArrayOfTables(tables) => {
            Some(Setting::List(tables.iter().map(|table| Setting::Table(table_of(table))).collect()))
        }
    }
}

fn setting_of_value(value: &toml_edit::Value) -> Setting {
    use toml_edit::Value;
    match value {
        Value::String(text) => Setting::Text(text.value().clone()),
        Value::Integer(number) => Setting::Integer(*number.value()),
        Value::Boolean(flag) => Setting::Bool(*flag.value()),
        Value::Float(number) => Setting::Other(format!("{:?}", number.value())),
        Value::Datetime(date) => Setting::Other(date.value().to_string()),
        Value::Array(items) => Setting::List(items.iter().map(setting_of_value).collect()),
        Value::InlineTable(table) => Setting::Table(
            table.iter().map(|(key, value)| (key.to_owned(), setting_of_value(value))).collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_keys_survive_their_own_spelling() {
        for text in ["plain", "it's", "a\"b\\c", "line\nbreak\u{1}", "", "io.containerd.runc.v2"] {
            for quote in [Quote::Double, Quote::Single] {
                let line = format!("{} = {}", quote.key(text), quote.quote(text));
                let parsed =
                    toml_edit::Document::parse(line.as_str()).unwrap_or_else(|e| panic!("{line}: {e}"));
                let table = table_of(parsed.as_table());
                assert_eq!(table.get(text).and_then(Setting::as_text), Some(text), "{line}");
            }
        }
    }

    #[test]
    fn a_path_is_set_through_missing_tables() {
        let mut table = Table::default();
        table.set_path(&["a", "b", "c"], Setting::Integer(1));
        assert_eq!(table.get_path(&["a", "b", "c"]), Some(&Setting::Integer(1)));
        assert_eq!(Setting::Table(table).to_toml(Quote::Double), "{ a = { b = { c = 1 } } }");
    }
}
