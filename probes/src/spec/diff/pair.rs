//! The same place in two documents.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::spec::shape::child;

/// One document's part of a [`Pair`].
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    /// The JSON pointer of the place, whether anything is there or not.
    pub(super) pointer: String,
    raw: Option<&'a Value>,
}

impl<'a> Node<'a> {
    pub(super) fn new(pointer: String, raw: Option<&'a Value>) -> Self {
        Self { pointer, raw }
    }

    /// What is there. `null` is nothing: a runtime reads it as an absent field.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.raw.filter(|value| !value.is_null())
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value().and_then(Value::as_str)
    }

    /// A string; an absent or empty one is the same to a runtime.
    pub(super) fn text_or_empty(&self) -> &'a str {
        self.text().unwrap_or_default()
    }

    pub(super) fn flag(&self) -> bool {
        self.value().and_then(Value::as_bool).unwrap_or(false)
    }

    /// Integers of runtime-spec are of 64 bits, with or without a sign.
    pub(super) fn integer(&self) -> Option<i128> {
        let value = self.value()?;
        value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
    }

    pub(super) fn items(&self) -> &'a [Value] {
        self.value().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn texts(&self) -> Vec<&'a str> {
        self.items().iter().filter_map(Value::as_str).collect()
    }

    pub(super) fn member(&self, name: &str) -> Node<'a> {
        Node::new(child(&self.pointer, name), self.raw.and_then(|value| value.get(name)))
    }

    /// Null, false, empty: what a runtime cannot tell from an absent field.
    pub(super) fn is_blank(&self) -> bool {
        match self.value() {
            None | Some(Value::Bool(false)) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(members)) => members.is_empty(),
            Some(_) => false,
        }
    }

    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let members = self.value().and_then(Value::as_object);
        members.into_iter().flat_map(|members| members.keys().map(String::as_str))
    }
}

/// The same place in two documents, on each side with what is there.
#[derive(Debug, Clone)]
pub(super) struct Pair<'a> {
    pub(super) left: Node<'a>,
    pub(super) right: Node<'a>,
}

impl<'a> Pair<'a> {
    pub(super) fn root(left: &'a Value, right: &'a Value) -> Self {
        Self { left: Node::new(String::new(), Some(left)), right: Node::new(String::new(), Some(right)) }
    }

    /// Equal to the byte of meaning that JSON has, null and absent told apart.
    pub(super) fn is_identical(&self) -> bool {
        self.left.raw == self.right.raw
    }

    /// Whether both pointers are the same: not so below the items of keyed lists.
    pub(super) fn is_aligned(&self) -> bool {
        self.left.pointer == self.right.pointer
    }

    /// Whether members can be compared: an object on one side, and an object or nothing on the other.
    pub(super) fn is_object(&self) -> bool {
        let (left, right) = (self.left.value(), self.right.value());
        let object_or_none = |value: Option<&Value>| value.is_none_or(Value::is_object);
        (left.is_some() || right.is_some()) && object_or_none(left) && object_or_none(right)
    }

    pub(super) fn member(&self, name: &str) -> Pair<'a> {
        Pair { left: self.left.member(name), right: self.right.member(name) }
    }

    /// The names of the left side, then those of the right side alone.
    pub(super) fn member_names(&self) -> Vec<&'a str> {
        let mut seen = HashSet::new();
        self.left.names().chain(self.right.names()).filter(|name| seen.insert(*name)).collect()
    }

    /// The items of two lists by key, the n-th item of a key against the n-th: those of the left side, then those of
    /// the right side alone.
    pub(super) fn items_by_key(&self, key: impl Fn(&Value) -> String) -> Vec<Keyed<'a>> {
        let mut keyed: Vec<Keyed<'a>> = Vec::new();
        let mut places: HashMap<(String, usize), usize> = HashMap::new();
        for (node, is_left) in [(&self.left, true), (&self.right, false)] {
            let mut occurrences: HashMap<String, usize> = HashMap::new();
            for (index, item) in node.items().iter().enumerate() {
                let name = key(item);
                let occurrence = occurrences.entry(name.clone()).or_default();
                *occurrence += 1;
                let place = *places.entry((name.clone(), *occurrence)).or_insert_with(|| {
                    keyed.push(Keyed { key: name, pair: self.absent_item(), left: None, right: None });
                    keyed.len() - 1
                });
                keyed[place].set(is_left, index, Node::new(format!("{}/{index}", node.pointer), Some(item)));
            }
        }
        keyed
    }

    /// Where an item that is not there would be added (RFC 6901's `-`).
    fn absent_item(&self) -> Pair<'a> {
        Pair {
            left: Node::new(format!("{}/-", self.left.pointer), None),
            right: Node::new(format!("{}/-", self.right.pointer), None),
        }
    }
}

/// Items of two lists that have the same key.
#[derive(Debug)]
pub(super) struct Keyed<'a> {
    pub(super) key: String,
    pub(super) pair: Pair<'a>,
    /// The index in the left list.
    pub(super) left: Option<usize>,
    /// The index in the right list.
    pub(super) right: Option<usize>,
}

impl<'a> Keyed<'a> {
    fn set(&mut self, is_left: bool, index: usize, node: Node<'a>) {
        if is_left {
            self.left = Some(index);
            self.pair.left = node;
        } else {
            self.right = Some(index);
            self.pair.right = node;
        }
    }
}

/// A text member of a list's item.
pub(super) fn text_member(item: &Value, name: &str) -> String {
    item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
