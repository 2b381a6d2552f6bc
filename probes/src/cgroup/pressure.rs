//! Pressure stall information: `cpu.pressure`, `memory.pressure`, `io.pressure`, `irq.pressure` (Documentation/accounting/psi.rst).

use serde::Serialize;

/// One line: shares of time in percent, and the total in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PressureLine {
    /// Over the last 10 seconds.
    pub avg10: f64,
    /// Over the last minute.
    pub avg60: f64,
    /// Over the last five minutes.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

/// Time that tasks waited for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Pressure {
    /// At least one task waited; `irq.pressure` has none.
    pub some: Option<PressureLine>,
    /// All tasks waited at once; `cpu.pressure` has none before kernel 5.13.
    pub full: Option<PressureLine>,
}

/// Parses the file; `None` when a line is not as psi.rst says.
#[must_use]
pub fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let parsed = parse_line(rest)?;
        match kind {
            "some" => pressure.some = Some(parsed),
            "full" => pressure.full = Some(parsed),
            _ => return None,
        }
    }
    Some(pressure)
}

fn parse_line(text: &str) -> Option<PressureLine> {
    let mut line = PressureLine::default();
    for field in text.split_ascii_whitespace() {
        let (key, value) = field.split_once('=')?;
        match key {
            "avg10" => line.avg10 = value.parse().ok()?,
            "avg60" => line.avg60 = value.parse().ok()?,
            "avg300" => line.avg300 = value.parse().ok()?,
            "total" => line.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=6.65 avg60=1.51 avg300=0.95 total=21698811\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = parse_pressure(text).unwrap();
        let some = pressure.some.unwrap();
        assert!((some.avg10 - 6.65).abs() < 1e-9);
        assert_eq!((some.total, pressure.full.unwrap().total), (21_698_811, 7));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["some avg10=x total=1\n", "some\n", "none avg10=0 total=0\n"] {
            assert_eq!(parse_pressure(text), None, "{text}");
        }
        assert_eq!(parse_pressure(""), Some(Pressure::default()));
    }
}
