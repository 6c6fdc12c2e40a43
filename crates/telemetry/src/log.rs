//! The log on stderr, and its filter, which can be changed while the program runs.

use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, registry, reload, util::SubscriberInitExt,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value`.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a log cannot be started, or its filter not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error("{0:?} is not a log filter ({1}): expected one as info, or info,allocator=debug")]
    Filter(String, String),
    /// There is a log already, or none any more.
    #[error("{0}")]
    Subscriber(String),
}

/// What is logged, to be asked and to be changed.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// The filter in force.
    ///
    /// # Errors
    /// Without a log.
    pub fn current(&self) -> Result<String, LogError> {
        self.0.with_current(ToString::to_string).map_err(|error| LogError::Subscriber(error.to_string()))
    }

    /// Changes the filter, until it is changed again or the program starts anew.
    ///
    /// # Errors
    /// With a text that is no filter; then the old one stays.
    pub fn set(&self, text: &str) -> Result<(), LogError> {
        let filter = parse(text)?;
        self.0.reload(filter).map_err(|error| LogError::Subscriber(error.to_string()))
    }
}

fn parse(text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(text).map_err(|error| LogError::Filter(text.to_owned(), error.to_string()))
}

/// Starts the log of this program.
///
/// # Errors
/// With a text that is no filter, or when there is a log already.
pub fn start(filter: &str, format: LogFormat) -> Result<LogFilter, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let (registry, lines) = (registry().with(filter), fmt::layer().with_writer(std::io::stderr));
    let started = match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    started.map_err(|error| LogError::Subscriber(error.to_string()))?;
    Ok(LogFilter(handle))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A filter that belongs to no log of this process, and what keeps it alive.
    pub(crate) fn filter(text: &str) -> (LogFilter, reload::Layer<EnvFilter, Registry>) {
        let (layer, handle) = reload::Layer::new(parse(text).unwrap());
        (LogFilter(handle), layer)
    }

    #[test]
    fn a_filter_is_changed_while_the_program_runs_and_stays_where_the_text_is_none() {
        let (filter, _log) = filter("info");
        filter.set("info,allocator=debug").unwrap();
        let mut words: Vec<String> = filter.current().unwrap().split(',').map(str::to_owned).collect();
        words.sort();
        assert_eq!(words, ["allocator=debug", "info"]);
        let error = filter.set("allocator=loud").unwrap_err().to_string();
        assert!(error.contains("allocator=loud") && error.contains("expected"), "{error}");
        assert!(filter.current().unwrap().contains("allocator=debug"));
    }

    #[test]
    fn the_log_of_a_program_is_started_once() {
        let log = start("warn", LogFormat::Text).unwrap();
        assert_eq!(log.current().unwrap(), "warn");
        assert!(start("warn", LogFormat::Json).is_err());
    }
}
