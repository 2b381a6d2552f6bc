//! The task tree as text and as a graph for Graphviz.

mod dot;
mod lines;
mod node;
mod text;

pub(crate) use dot::render_dot;
pub(crate) use text::{Detail, render_tree};
