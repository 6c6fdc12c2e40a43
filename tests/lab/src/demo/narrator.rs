//! How the demo speaks: numbered acts, the command that runs with what it printed, and a line for each thing that
//! was verified. Colours only on a terminal.

#![allow(clippy::print_stdout, reason = "the narration is the program's output")]

use std::{
    io::{IsTerminal, Write},
    process::Command,
    time::{Duration, Instant},
};

use crate::{Result, command};

const MARGIN: &str = "   ";
const WIDTH: usize = 96;
/// Tables of kubectl are wider than prose.
const LONGEST_LINE: usize = 150;

/// Tells the story, and counts what it verified.
#[derive(Debug, Clone)]
pub(super) struct Narrator {
    began: Instant,
    act: usize,
    verified: usize,
    colour: bool,
}

impl Narrator {
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { began: Instant::now(), act: 0, verified: 0, colour }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn verified_count(&self) -> usize {
        self.verified
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Lines as they are.
    pub(super) fn plain(&self, text: &str) {
        println!("{text}");
    }

    /// A numbered act with a paragraph of explanation.
    pub(super) fn act(&mut self, title: &str, explanation: &str) {
        self.act += 1;
        let clock = self.paint("2", &format!("[{:.1} s]", self.elapsed().as_secs_f64()));
        let heading = self.paint("1", &format!("{}. {title}", self.act));
        println!("\n{heading}  {clock}\n");
        self.say(explanation);
    }

    /// A paragraph, folded to the width.
    pub(super) fn say(&self, text: &str) {
        for line in fold(text, WIDTH - MARGIN.len()) {
            println!("{MARGIN}{line}");
        }
        println!();
    }

    /// A command line at a prompt.
    pub(super) fn prompt(&self, place: &str, line: &str) {
        println!("{MARGIN}{} {}", self.paint("36", place), self.paint("1", line));
        let _ = std::io::stdout().flush();
    }

    /// What a command printed, indented; no more than `limit` lines.
    pub(super) fn output(&self, text: &str, limit: usize) {
        let lines = text.trim_end().lines().collect::<Vec<_>>();
        for line in lines.iter().take(limit) {
            println!("{MARGIN}  {}", cut(line.trim_end(), LONGEST_LINE));
        }
        if lines.len() > limit {
            println!("{MARGIN}  {}", self.paint("2", &format!("… {} more lines", lines.len() - limit)));
        }
    }

    /// Runs a command and shows it as it is typed at `place`, with its output.
    pub(super) fn show(
        &self,
        place: &str,
        typed: &str,
        command: &mut Command,
        limit: usize,
    ) -> Result<String> {
        self.prompt(place, typed);
        let output = command::run(command)?;
        self.output(&output, limit);
        Ok(output)
    }

    /// Says what has been verified. Only to be called after it was.
    pub(super) fn verified(&mut self, what: &str) {
        self.verified += 1;
        let mark = self.paint("32", "✓");
        println!();
        for (index, line) in fold(what, WIDTH - MARGIN.len() - 2).iter().enumerate() {
            println!("{MARGIN}{} {line}", if index == 0 { &mark } else { " " });
        }
    }

    /// Says what went wrong.
    pub(super) fn failed(&self, why: &str) {
        println!("\n{MARGIN}{} {why}\n", self.paint("31", "✗"));
    }
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width - 1).chain(['…']).collect()
}

fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_folded_between_words() {
        assert_eq!(fold("one two three", 7), ["one two", "three"]);
        assert_eq!(fold("unbreakable", 3), ["unbreakable"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so() {
        assert_eq!(cut("eight mm", 8), "eight mm");
        assert_eq!(cut("nine mm :", 8), "nine mm…");
    }
}
