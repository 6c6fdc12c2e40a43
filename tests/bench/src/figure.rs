//! A figure: what one measurement is called, its values over the runs, and what it is held against.
//!
//! Printed as one line: `bar NAME VALUE UNIT <= LIMIT ok|SHORT`, `peer NAME VALUE UNIT PEER VERSION`, or
//! `note NAME VALUE UNIT` for what explains a bar and has no limit of its own. The value is the median of the
//! runs; where the limit holds for every run, the largest.

use std::fmt;

use serde::Serialize;

use crate::statistics::median;

/// One value of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) role: Role,
    pub(crate) value: f64,
}

/// What a figure is for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(crate) enum Role {
    /// It must not exceed the limit.
    Bar {
        /// In the figure's unit.
        limit: f64,
    },
    /// It must not exceed the limit in any run: its value is the largest.
    #[serde(rename = "bar")]
    Ceiling {
        /// In the figure's unit.
        limit: f64,
    },
    /// What another implementation of the same job reached in the same run.
    Peer {
        /// Its name.
        peer: String,
        /// Its version, as it says itself.
        version: String,
    },
    /// It explains a bar.
    Note,
}

impl Sample {
    /// A value with a limit.
    pub(crate) fn bar(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { name: name.into(), unit, role: Role::Bar { limit }, value }
    }

    /// A value with a limit that holds for every run, not only for the median.
    pub(crate) fn ceiling(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { name: name.into(), unit, role: Role::Ceiling { limit }, value }
    }

    /// A value that explains another.
    pub(crate) fn note(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), unit, role: Role::Note, value }
    }

    /// The value of another implementation.
    pub(crate) fn peer(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        (peer, version): (&str, &str),
    ) -> Self {
        let role = Role::Peer { peer: peer.into(), version: version.into() };
        Self { name: name.into(), unit, role, value }
    }
}

/// A measurement over all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    #[serde(flatten)]
    pub(crate) role: Role,
    /// The median of `runs`; of a ceiling the largest.
    pub(crate) value: f64,
    /// The value of each run, in order.
    pub(crate) runs: Vec<f64>,
}

impl Figure {
    /// Whether it is a bar and its value exceeds the limit. Not a number is short, too.
    pub(crate) fn is_short(&self) -> bool {
        let over = |limit: f64| self.value.is_nan() || self.value > limit;
        matches!(self.role, Role::Bar { limit } | Role::Ceiling { limit } if over(limit))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value, unit) = (&self.name, readable(self.value), self.unit);
        match &self.role {
            Role::Bar { limit } | Role::Ceiling { limit } => {
                let verdict = if self.is_short() { "SHORT" } else { "ok" };
                write!(f, "bar {name} {value} {unit} <= {limit} {verdict}")
            }
            Role::Peer { peer, version } => write!(f, "peer {name} {value} {unit} {peer} {version}"),
            Role::Note => write!(f, "note {name} {value} {unit}"),
        }
    }
}

/// Merges the samples of all runs, in the order in which the figures came first.
pub(crate) fn merge(runs: Vec<Vec<Sample>>) -> Vec<Figure> {
    let mut figures = Vec::<Figure>::new();
    for sample in runs.into_iter().flatten() {
        let known =
            figures.iter_mut().find(|figure| figure.name == sample.name && figure.role == sample.role);
        if let Some(figure) = known {
            figure.runs.push(sample.value);
        } else {
            let Sample { name, unit, role, value } = sample;
            figures.push(Figure { name, unit, role, value, runs: vec![value] });
        }
    }
    for figure in &mut figures {
        figure.value = match figure.role {
            // Not a number is the largest of all.
            Role::Ceiling { .. } => figure.runs.iter().copied().max_by(f64::total_cmp).unwrap_or(f64::NAN),
            _ => median(&figure.runs),
        };
    }
    figures
}

/// Three digits that count; whole numbers as they are.
fn readable(value: f64) -> String {
    let magnitude = value.abs();
    match () {
        () if value.fract() == 0.0 || magnitude >= 100.0 => format!("{value:.0}"),
        () if magnitude >= 10.0 => format!("{value:.1}"),
        () if magnitude >= 1.0 => format!("{value:.2}"),
        () => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_judged_by_the_median_of_its_runs() {
        let runs = [9.0, 30.0, 8.0].map(|value| vec![Sample::bar("announce_10k", value, "s", 10.0)]);
        let figures = merge(runs.into());
        assert_eq!(figures[0].to_string(), "bar announce_10k 9 s <= 10 ok");
        assert_eq!(figures[0].runs, [9.0, 30.0, 8.0]);
        assert!(!figures[0].is_short());
    }

    #[test]
    fn a_value_beyond_the_limit_is_short_even_when_it_rounds_to_the_limit() {
        let figures = merge(vec![vec![Sample::bar("rss", 60.001, "MB", 60.0)]]);
        assert_eq!(figures[0].to_string(), "bar rss 60.0 MB <= 60 SHORT");
    }

    #[test]
    fn a_ceiling_is_judged_by_the_worst_of_its_runs() {
        let runs = [300.0, 1001.0, 400.0].map(|value| {
            vec![Sample::ceiling("max", value, "ms", 1000.0), Sample::bar("median", value, "ms", 600.0)]
        });
        let lines = merge(runs.into()).iter().map(Figure::to_string).collect::<Vec<_>>();
        assert_eq!(lines, ["bar max 1001 ms <= 1000 SHORT", "bar median 400 ms <= 600 ok"]);
        let nothing = [f64::NAN, 3.0].map(|value| vec![Sample::ceiling("max", value, "ms", 1000.0)]);
        assert!(merge(nothing.into())[0].is_short());
    }

    #[test]
    fn nothing_measured_is_short() {
        assert!(merge(vec![vec![Sample::bar("rss", f64::NAN, "MB", 60.0)]])[0].is_short());
    }

    #[test]
    fn peers_of_one_name_are_figures_of_their_own() {
        let samples = vec![
            Sample::peer("bulk_100k", 475.4, "ms", ("GoBGP", "3.10.0")),
            Sample::peer("bulk_100k", 72.31, "ms", ("BIRD", "2.0.12")),
            Sample::note("handshake", 0.1234, "ms"),
        ];
        let lines = merge(vec![samples]).iter().map(Figure::to_string).collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "peer bulk_100k 475 ms GoBGP 3.10.0",
                "peer bulk_100k 72.3 ms BIRD 2.0.12",
                "note handshake 0.123 ms"
            ]
        );
    }
}
