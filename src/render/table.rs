//! Tables: aligned columns, folded to the terminal's width, never cut.

use comfy_table::{ContentArrangement, Table, TableStyle};

/// A table of `rows` below `header`. Cells are text that is already escaped; where `width` is known, long cells fold.
pub(crate) fn render_table(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(header.iter().copied());
    match width.and_then(|columns| u16::try_from(columns).ok()) {
        Some(columns) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    for row in rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_table_folds_and_keeps_every_character() {
        let rows = vec![vec!["memory.max".to_owned(), "word ".repeat(20)]];
        let wide = render_table(&["FILE", "VALUE"], &rows, None);
        let narrow = render_table(&["FILE", "VALUE"], &rows, Some(40));
        assert!(wide.lines().count() == 2, "{wide}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert_eq!(narrow.matches("word").count(), 20, "{narrow}");
    }
}
