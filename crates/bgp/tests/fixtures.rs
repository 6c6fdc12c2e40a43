//! Messages that real routers have sent, and what the codec makes of them. Every file in `fixtures/` with the ending
//! `.wire` is read: a new capture is a new test (`fixtures/capture.py` and `capture_with_bird.py` make them).
//!
//! A file has comments (`#`), one line `context:` that says how the session was negotiated, and for every message
//! the octets (`message:`), what the speaker reads (`received:`), and the prefixes and attributes of an UPDATE
//! (`says:`). `BLESS=1` writes the last two; what it has written is read by a human before it is committed.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use bgp::{
    message::Update,
    types::Family,
    wire::{self, DecodeContext, EncodeContext, Received, frame, update},
};
use bytes::BytesMut;

/// One file, read.
struct Fixture {
    path: PathBuf,
    comments: String,
    context_line: String,
    messages: Vec<Vec<u8>>,
    text: String,
}

fn fixtures() -> Vec<Fixture> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wire"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixture was found");
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Fixture {
    let text = fs::read_to_string(path).unwrap();
    let (mut comments, mut context_line, mut messages) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        if line.starts_with('#') {
            writeln!(comments, "{line}").unwrap();
        } else if let Some(words) = line.strip_prefix("context:") {
            words.trim().clone_into(&mut context_line);
        } else if let Some(hex) = line.strip_prefix("message:") {
            messages.push(octets(hex.trim()));
        }
    }
    assert!(!messages.is_empty(), "{}: no message", path.display());
    Fixture { path: path.to_owned(), comments, context_line, messages, text }
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    assert!(digits.len().is_multiple_of(2), "half an octet in {hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn context(line: &str) -> DecodeContext {
    let mut context = DecodeContext::default();
    for word in line.split_whitespace() {
        match word {
            "four-octet-asn" => context.four_octet_asn = true,
            "extended-next-hop" => context.extended_next_hop = true,
            "ebgp" => context.is_ebgp = true,
            _ => {
                let names =
                    word.strip_prefix("families=").unwrap_or_else(|| panic!("unknown context {word}"));
                let named = |name: &str| Family::ALL.into_iter().find(|family| family.to_string() == name);
                context.families = names.split(',').map(|name| named(name).unwrap()).collect();
            }
        }
    }
    context
}

/// The file as it should be.
fn expected_text(fixture: &Fixture) -> String {
    let context = context(&fixture.context_line);
    let mut text = format!("{}context: {}\n", fixture.comments, fixture.context_line);
    for message in &fixture.messages {
        text.push_str("message: ");
        for octet in message {
            write!(text, "{octet:02x}").unwrap();
        }
        text.push('\n');
        match wire::decode(message, &context) {
            Ok(Received::Update(received)) => {
                writeln!(text, "received: {received:?}").unwrap();
                for update in update::inspect::update(message, &context).unwrap_or_default() {
                    writeln!(text, "says: {update:?}").unwrap();
                }
            }
            Ok(received) => writeln!(text, "received: {received:?}").unwrap(),
            Err(notification) => writeln!(text, "refused: {notification:?}").unwrap(),
        }
    }
    text
}

#[test]
fn every_captured_message_reads_as_its_file_says() {
    let bless = std::env::var_os("BLESS").is_some();
    for fixture in fixtures() {
        let expected = expected_text(&fixture);
        if bless {
            fs::write(&fixture.path, expected).unwrap();
        } else {
            assert_eq!(fixture.text, expected, "{}", fixture.path.display());
        }
    }
}

#[test]
fn every_captured_message_is_framed_and_without_fault() {
    for fixture in fixtures() {
        let context = context(&fixture.context_line);
        for message in &fixture.messages {
            let length = frame::next(message, frame::MAX_LENGTH);
            assert_eq!(length, Ok(Some(message.len())), "{}", fixture.path.display());
            match wire::decode(message, &context) {
                Ok(Received::Update(update)) => {
                    assert_eq!(update.faults, Vec::<String>::new(), "{}", fixture.path.display());
                }
                Ok(_) => {}
                Err(error) => panic!("{}: {error} to {message:02x?}", fixture.path.display()),
            }
        }
    }
}

#[test]
fn what_a_router_said_reads_the_same_after_this_codec_has_written_it() {
    for fixture in fixtures() {
        let context = context(&fixture.context_line);
        for message in &fixture.messages {
            let mut out = BytesMut::new();
            let received = wire::decode(message, &context).unwrap();
            match &received {
                Received::Open(open) => {
                    let mut open = open.clone();
                    // Received only.
                    open.capabilities.hostname = None;
                    open.capabilities.other_families = false;
                    wire::encode_open(&open, &mut out);
                    assert_eq!(wire::decode(&out, &context), Ok(Received::Open(open)));
                    continue;
                }
                Received::Notification(notification) => wire::encode_notification(notification, &mut out),
                Received::Keepalive => wire::encode_keepalive(&mut out),
                Received::RouteRefresh(refresh) => wire::encode_route_refresh(refresh, &mut out),
                Received::Update(_) => {
                    let updates = update::inspect::update(message, &context).unwrap();
                    rewrite(&updates, &context, &mut out);
                    continue;
                }
            }
            assert_eq!(out[..], message[..], "{}: {received:?}", fixture.path.display());
        }
    }
}

/// Writes each of these and reads it again.
fn rewrite(updates: &[Update], context: &DecodeContext, out: &mut BytesMut) {
    let encode = EncodeContext { four_octet_asn: context.four_octet_asn, max_length: frame::MAX_LENGTH };
    for update in updates {
        out.clear();
        match update.clone() {
            Update::Reach { family, next_hop, attributes, nlri } => {
                update::encode_reach(family, &next_hop, &attributes, nlri, &encode, usize::MAX, out).unwrap();
            }
            Update::Unreach { family, nlri } => {
                update::encode_unreach(family, nlri, &encode, usize::MAX, out);
            }
            Update::EndOfRib(family) => update::encode_end_of_rib(family, out),
        }
        assert_eq!(update::inspect::update(out, context).as_deref(), Ok(std::slice::from_ref(update)));
    }
}
