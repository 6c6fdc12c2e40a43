//! Templates of router configurations: `{{name}}` is a value; a line that begins with `{{if flag}}` or
//! `{{unless flag}}` is there or not.

use std::{collections::BTreeMap, fmt::Display};

use lab::{Error, Result};

/// What a template may name.
#[derive(Debug, Clone, Default)]
pub struct Values {
    texts: BTreeMap<&'static str, String>,
    flags: BTreeMap<&'static str, bool>,
}

impl Values {
    /// Sets a value.
    pub fn text(&mut self, name: &'static str, value: impl Display) {
        self.texts.insert(name, value.to_string());
    }

    /// Sets a flag.
    pub fn flag(&mut self, name: &'static str, value: bool) {
        self.flags.insert(name, value);
    }

    /// A value by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn text_of(&self, name: &str) -> Result<&str> {
        let text = self.texts.get(name).map(String::as_str);
        text.ok_or_else(|| Error::parse("a template's values", format!("no value {name:?}")))
    }

    /// A flag by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn is(&self, name: &str) -> Result<bool> {
        let flag = self.flags.get(name).copied();
        flag.ok_or_else(|| Error::parse("a template's values", format!("no flag {name:?}")))
    }

    /// Fills a template in.
    ///
    /// # Errors
    /// When it names what there is not.
    pub fn fill(&self, template: &str) -> Result<String> {
        let mut filled = String::new();
        for line in template.lines() {
            let Some(mut line) = self.conditional(line)?.map(str::to_owned) else { continue };
            for (name, value) in &self.texts {
                line = line.replace(&format!("{{{{{name}}}}}"), value);
            }
            if line.contains("{{") {
                return Err(Error::parse("a template", format!("no value for {line:?}")));
            }
            filled.push_str(&line);
            filled.push('\n');
        }
        Ok(filled)
    }

    /// The line without its conditions, if they hold.
    fn conditional<'a>(&self, line: &'a str) -> Result<Option<&'a str>> {
        let mut rest = line;
        for (prefix, expected) in [("{{if ", true), ("{{unless ", false)] {
            while let Some((name, behind)) = rest.strip_prefix(prefix).and_then(|rest| rest.split_once("}}"))
            {
                if self.is(name)? != expected {
                    return Ok(None);
                }
                rest = behind;
            }
        }
        Ok(Some(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let mut values = Values::default();
        values.text("router_as", 65001);
        values.flag("ipv4", true);
        values.flag("ipv6", false);
        values
    }

    #[test]
    fn values_are_filled_in_and_lines_follow_their_flags() {
        let template = "as {{router_as}};\n{{if ipv4}}  four\n{{if ipv6}}  six\n{{unless ipv6}}  no six\n";
        assert_eq!(values().fill(template).unwrap(), "as 65001;\n  four\n  no six\n");
    }

    #[test]
    fn a_name_that_there_is_not_is_an_error() {
        assert!(values().fill("{{speaker}}").unwrap_err().to_string().contains("{{speaker}}"));
        assert!(values().fill("{{if bfd}}x").unwrap_err().to_string().contains("bfd"));
    }
}
