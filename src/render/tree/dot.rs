//! The task tree as a directed graph in Graphviz's language: `inspect tree --format dot | dot -Tsvg`.

use inspect_probes::escape::escape;
use inspect_probes::task_tree::{ContainerNode, ProcessNode, ShimNode, TaskTree};

use super::node::{container_name, path};
use super::text::Detail;

/// Draws the graph. Dashed edges are proven by evidence, solid ones are the kernel's.
pub(crate) fn render_dot(tree: &TaskTree) -> String {
    let mut graph =
        Graph { text: String::from("digraph tasks {\n  rankdir=LR;\n  node [shape=box];\n"), nodes: 0 };
    let root = graph.node(tree.host.init.as_deref().unwrap_or("host"));
    for daemon in &tree.daemons {
        let state = match &daemon.process {
            Some(process) => format!("pid {}", process.pid),
            None => "not running".to_owned(),
        };
        let address = daemon.address.as_deref().map(path).unwrap_or_default();
        let node = graph.node(&format!("containerd\n{state}\n{address}"));
        graph.edge(root, node, "");
        for namespace in &daemon.containerd_namespaces {
            let below = graph.node(&format!("containerd namespace\n{}", namespace.name.as_str()));
            graph.edge(node, below, "");
            for shim in &namespace.shims {
                graph.shim(below, shim);
            }
            for container in &namespace.orphans {
                graph.container(below, container, "dashed");
            }
        }
    }
    graph.text.push_str("}\n");
    graph.text
}

struct Graph {
    text: String,
    nodes: usize,
}

impl Graph {
    fn node(&mut self, label: &str) -> usize {
        let number = self.nodes;
        self.nodes += 1;
        self.text.push_str(&format!("  n{number} [label={}];\n", quote(label)));
        number
    }

    fn edge(&mut self, from: usize, to: usize, style: &str) {
        let style = if style.is_empty() { String::new() } else { format!(" [style={style}]") };
        self.text.push_str(&format!("  n{from} -> n{to}{style};\n"));
    }

    fn shim(&mut self, above: usize, shim: &ShimNode) {
        let node = self.node(&format!("shim\npid {}", shim.pid));
        self.edge(above, node, "dashed");
        for container in &shim.containers {
            self.container(node, container, "");
        }
        self.processes(node, &shim.helpers);
    }

    fn container(&mut self, above: usize, container: &ContainerNode, style: &str) {
        let name = container_name(container, Detail::All);
        let label = format!("{name}\n{}\n{}", container.status.as_str(), container.id.as_str());
        let node = self.node(&label);
        self.edge(above, node, style);
        self.processes(node, &container.processes);
    }

    fn processes(&mut self, above: usize, processes: &[ProcessNode]) {
        let mut line: Vec<usize> = Vec::new();
        for process in processes {
            line.truncate(process.depth);
            let node = self.node(&format!("{}\n{}", process.pid, process.name));
            self.edge(line.last().copied().unwrap_or(above), node, "");
            line.push(node);
        }
    }
}

/// A quoted string: each line escaped for a terminal, then backslashes and quotes for Graphviz.
fn quote(label: &str) -> String {
    let lines: Vec<String> =
        label.split('\n').map(|line| escape(line).replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        assert_eq!(quote("a\"];x\\\x1b"), "\"a\\\"];x\\\\\\\\x1b\"");
        assert_eq!(quote("a\nb"), "\"a\\nb\"");
    }
}
