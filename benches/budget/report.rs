//! Rows, verdicts, and the two forms in which they are shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{Compared, quantile};
use crate::page;

/// Costing so many times the budget means that something was built the wrong way round.
const WRONG_WAY_ROUND: f64 = 5.0;

/// The same for a run of few rounds, in which whatever else the machine does counts for more.
const WRONG_WAY_ROUND_AT_A_GLANCE: f64 = 10.0;

/// One thing that was measured.
pub(crate) struct Row {
    name: String,
    unit: Unit,
    floor: Option<f64>,
    ours: f64,
    ratio: Option<f64>,
    spread: Option<(f64, f64)>,
    rounds: usize,
    budget: Budget,
}

/// What `floor` and `ours` of a row are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    Milliseconds,
    Bytes,
    /// Hundredths of a core.
    Percent,
}

/// What a row may cost.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    /// So many times its floor.
    Ratio { allowed: f64, aim: f64 },
    /// So much, in the unit of the row.
    Absolute { allowed: f64, aim: f64 },
    /// Anything: shown for comparison.
    None,
}

impl Row {
    pub(crate) fn compared(name: impl Into<String>, compared: &Compared, budget: Budget) -> Self {
        Self {
            name: name.into(),
            unit: Unit::Nanoseconds,
            floor: Some(compared.floor),
            ours: compared.ours,
            ratio: Some(compared.ratio),
            spread: Some(compared.spread),
            rounds: compared.rounds,
            budget,
        }
    }

    pub(crate) fn absolute(
        name: impl Into<String>,
        unit: Unit,
        floor: Option<f64>,
        ours: f64,
        rounds: usize,
        budget: Budget,
    ) -> Self {
        let ratio = floor.map(|floor| ours / floor);
        Self { name: name.into(), unit, floor, ours, ratio, spread: None, rounds, budget }
    }

    /// The medians of one row in several runs, and the spread of what it is judged by.
    fn over_all(same: &[&Self]) -> (Self, String) {
        let sorted = |of: fn(&Self) -> Option<f64>| {
            let mut values: Vec<_> = same.iter().filter_map(|row| of(row)).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        let (floors, ours, ratios) = (sorted(|row| row.floor), sorted(|row| Some(row.ours)), sorted(|row| row.ratio));
        let middle = |values: &[f64]| (!values.is_empty()).then(|| quantile(values, 0.5));
        let first = same[0];
        let row = Self {
            name: first.name.clone(),
            floor: middle(&floors),
            ours: middle(&ours).unwrap_or(first.ours),
            ratio: middle(&ratios),
            ..*first
        };
        let spread = match (same.len(), ratios.as_slice(), first.budget) {
            (1, ..) => first.quartiles().unwrap_or_else(|| "one run".to_owned()),
            (_, [], _) | (.., Budget::Absolute { .. }) => {
                format!("{} - {}", first.unit.show(ours[0]), first.unit.show(ours[ours.len() - 1]))
            }
            (_, [low, .., high], _) => format!("{low:.2}-{high:.2}"),
            (_, [only], _) => format!("{only:.2}"),
        };
        (row, spread)
    }

    /// How many times the budget it costs, and whether that is where we want to be.
    fn share(&self) -> Option<(f64, bool)> {
        match self.budget {
            Budget::Ratio { allowed, aim } => self.ratio.map(|ratio| (ratio / allowed, ratio <= aim)),
            Budget::Absolute { allowed, aim } => Some((self.ours / allowed, self.ours <= aim)),
            Budget::None => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.share() {
            None => "",
            Some((_, true)) => "aim met",
            Some((share, false)) if share <= 1.0 => "within",
            Some((share, false)) if share <= WRONG_WAY_ROUND => "over",
            Some(_) => "over 5 x",
        }
    }

    fn quartiles(&self) -> Option<String> {
        self.spread.map(|(low, high)| format!("{low:.2}-{high:.2}"))
    }

    fn limits(&self) -> (String, String) {
        match self.budget {
            Budget::Ratio { allowed, aim } => (format!("{allowed} x"), format!("{aim} x")),
            Budget::Absolute { allowed, aim } => (self.unit.show(allowed), self.unit.show(aim)),
            Budget::None => (String::new(), String::new()),
        }
    }

    fn cells(&self) -> [String; 8] {
        let (allowed, aim) = self.limits();
        [
            self.name.clone(),
            self.floor.map(|floor| self.unit.show(floor)).unwrap_or_default(),
            self.unit.show(self.ours),
            self.ratio.map(|ratio| format!("{ratio:.2} x")).unwrap_or_default(),
            self.quartiles().unwrap_or_default(),
            allowed,
            aim,
            self.verdict().to_owned(),
        ]
    }

    fn json(&self, workload: &str) -> Value {
        let (allowed, aim) = match self.budget {
            Budget::Ratio { allowed, aim } | Budget::Absolute { allowed, aim } => (Some(allowed), Some(aim)),
            Budget::None => (None, None),
        };
        json!({
            "workload": workload,
            "name": self.name,
            "unit": self.unit.name(),
            "floor": self.floor.map(rounded),
            "ours": rounded(self.ours),
            "ratio": self.ratio.map(rounded),
            "ratio_quartiles": self.spread.map(|(low, high)| [rounded(low), rounded(high)]),
            "rounds": self.rounds,
            "judged_by": match self.budget {
                Budget::Ratio { .. } => Some("ratio"),
                Budget::Absolute { .. } => Some("ours"),
                Budget::None => None,
            },
            "allowed": allowed,
            "aim": aim,
            "verdict": self.verdict(),
        })
    }
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Milliseconds => "ms",
            Self::Bytes => "bytes",
            Self::Percent => "percent",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds if value < 10.0 => format!("{value:.1} ns"),
            Self::Nanoseconds => format!("{value:.0} ns"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Bytes if value >= 5e8 => format!("{:.2} GiB", value / (1_u64 << 30) as f64),
            Self::Bytes if value >= 1e5 => format!("{:.1} MB", value / 1e6),
            Self::Bytes => format!("{value:.0} B"),
            Self::Percent => format!("{value:.2} %"),
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// All that was measured in one run.
pub(crate) struct Report {
    quick: bool,
    rows: Vec<(&'static str, Row)>,
}

impl Report {
    pub(crate) const fn new(quick: bool) -> Self {
        Self { quick, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, workload: &'static str, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (workload, row)));
    }

    /// Whether anything costs more than five times its budget; ten times, where a quick look has to do. What counts is
    /// the median of the runs.
    pub(crate) fn is_wrong_way_round(runs: &[Self]) -> bool {
        let most = if Self::is_rough(runs) { WRONG_WAY_ROUND_AT_A_GLANCE } else { WRONG_WAY_ROUND };
        Self::medians(runs).any(|(_, row, _)| row.share().is_some_and(|(share, _)| share > most))
    }

    /// Whether the figures are those of smoke runs.
    pub(crate) fn is_rough(runs: &[Self]) -> bool {
        runs.iter().any(|run| run.quick)
    }

    /// Each row, with the medians of all runs and the spread of what it is judged by.
    fn medians(runs: &[Self]) -> impl Iterator<Item = (&'static str, Row, String)> {
        let rows = runs.first().map(|first| &first.rows).into_iter().flatten();
        rows.map(|(workload, row)| {
            let all = runs.iter().flat_map(|run| &run.rows);
            let same = all.filter(|(of, other)| of == workload && other.name == row.name).map(|(_, row)| row);
            let (middle, spread) = Row::over_all(&same.collect::<Vec<_>>());
            (*workload, middle, spread)
        })
    }

    /// The rows as a table, in the form that Markdown takes.
    pub(crate) fn table(&self) -> String {
        let head = ["work", "floor", "ours", "ratio", "quartiles", "allowed", "aim", "verdict"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(|(_, row)| row.cells())).collect();
        let widths: [usize; 8] =
            std::array::from_fn(|column| lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0));
        let mut text = String::new();
        for (number, cells) in lines.iter().enumerate() {
            for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = match column {
                    0 | 7 => write!(text, "| {cell:<width$} "),
                    _ => write!(text, "| {cell:>width$} "),
                };
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width + 1);
                    let _ = match column {
                        0 | 7 => write!(text, "| {dashes}"),
                        _ => write!(text, "| {}:", &dashes[1..]),
                    };
                }
                text.push_str("|\n");
            }
        }
        if self.quick {
            text.push_str("\na smoke run: the figures are rough\n");
        }
        text
    }

    /// The rows of several runs as one table: medians, the least and the most of the runs, and what the aim would take.
    pub(crate) fn over_all(runs: &[Self]) -> String {
        let mut text = String::from(
            "| work | floor | ours | ratio | spread | allowed | aim | verdict | what it would take | `--only` |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |\n",
        );
        for (workload, middle, spread) in Self::medians(runs) {
            let [name, floor, ours, ratio, _, allowed, aim, verdict] = middle.cells();
            let takes = if matches!(verdict.as_str(), "" | "aim met") { "" } else { page::would_take(&name) };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {floor} | {ours} | {ratio} | {spread} | {allowed} | {aim} | {verdict} | {takes} | `{workload}` |"
            );
        }
        text
    }

    /// One run as an object, several as an array of them.
    pub(crate) fn json(runs: &[Self]) -> String {
        let of = |run: &Self| {
            json!({
                "benchmark": "budget",
                "version": env!("CARGO_PKG_VERSION"),
                "quick": run.quick,
                "worker_threads": 2,
                "rows": run.rows.iter().map(|(workload, row)| row.json(workload)).collect::<Vec<_>>(),
            })
        };
        let report = if let [only] = runs { of(only) } else { runs.iter().map(of).collect() };
        serde_json::to_string_pretty(&report).expect("numbers and names make JSON")
    }
}
