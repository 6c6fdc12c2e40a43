//! Runs short-lived commands and turns a failure into an error that shows the command line and what it
//! said. Long-lived programs are `process`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::{Error, Result};

/// The command line as one would type it in a shell.
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,%+{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or its exit status is not 0.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// The same as [`run`], with text on standard input.
///
/// # Errors
/// When it cannot be started, does not take the input, or its exit status is not 0.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let outcome = outcome_with_input(command, input)?;
    if outcome.success {
        return Ok(outcome.stdout);
    }
    let said = if outcome.stderr.trim().is_empty() { outcome.stdout } else { outcome.stderr };
    Err(Error::Command { line: line(command), status: outcome.status, stderr: said.trim().to_owned() })
}

/// What a command that ran to its end left.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether the exit status was 0.
    pub success: bool,
    /// The exit status in words.
    pub status: String,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

/// Runs a command to its end, whatever its exit status.
///
/// # Errors
/// When it cannot be started or does not take the input.
pub fn outcome_with_input(command: &mut Command, input: &str) -> Result<Outcome> {
    let shown = line(command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("starting `{shown}`")))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that ends without reading everything says why on standard error.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(format!("waiting for `{shown}`")))?;
    Ok(Outcome {
        success: output.status.success(),
        status: output.status.to_string(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_shows_its_line_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such pool >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c 'echo no such pool >&2; exit 3'"), "{text}");
        assert!(text.contains("exit status: 3") && text.ends_with("no such pool"), "{text}");
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input(&mut Command::new("cat"), "192.0.2.1\n").unwrap(), "192.0.2.1\n");
    }
}
