//! A router's own table asked through its control socket, without starting a program for each question: quick
//! enough to see milliseconds.

use std::{
    io::{Read, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Between two questions: the router needs its processor, too.
const PAUSE: Duration = Duration::from_micros(500);

/// A connection to the control socket of a daemon.
#[derive(Debug)]
pub(crate) enum Table {
    /// `bgpd` of FRR: a command ends with a NUL, its answer with three NULs and a status.
    Frr(UnixStream),
    /// BIRD: lines; the last line of an answer has a space after its code.
    Bird(UnixStream),
}

impl Table {
    /// Connects to `bgpd` of the FRR whose sockets are in `folder`.
    pub(crate) fn frr(folder: &Path) -> Result<Self> {
        Ok(Self::Frr(connect(&folder.join("bgpd.vty"))?))
    }

    /// Connects to the BIRD whose socket is in `folder`.
    pub(crate) fn bird(folder: &Path) -> Result<Self> {
        let mut stream = connect(&folder.join("bird.ctl"))?;
        read_until(&mut stream, is_end_of_bird_answer).context("BIRD's greeting")?;
        Ok(Self::Bird(stream))
    }

    /// Asks until the table has the host route to `address`, and says when it first had.
    pub(crate) fn wait(&mut self, address: IpAddr, timeout: Duration) -> Result<Instant> {
        let deadline = Instant::now() + timeout;
        while !self.has(address)? {
            if Instant::now() > deadline {
                bail!("{address} is not in the table after {timeout:.0?}");
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Instant::now())
    }

    fn has(&mut self, address: IpAddr) -> Result<bool> {
        let (family, length) = if address.is_ipv4() { ("ipv4", 32) } else { ("ipv6", 128) };
        match self {
            Self::Frr(stream) => {
                write!(stream, "show bgp {family} unicast {address}/{length}\0")?;
                let answer = read_until(stream, is_end_of_frr_answer)?;
                Ok(answer.contains("BGP routing table entry"))
            }
            Self::Bird(stream) => {
                writeln!(stream, "show route {address}/{length}")?;
                let answer = read_until(stream, is_end_of_bird_answer)?;
                Ok(answer.contains(&format!("{address}/{length}")))
            }
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn read_until(stream: &mut UnixStream, is_end: fn(&[u8]) -> bool) -> Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !is_end(&answer) {
        let octets = stream.read(&mut buffer).context("a router's control socket")?;
        if octets == 0 {
            bail!("the router closed its control socket");
        }
        answer.extend(buffer.get(..octets).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_end_of_frr_answer(answer: &[u8]) -> bool {
    matches!(answer, [.., 0, 0, 0, _])
}

/// "0000 ", "8001 Network not found" …: four digits and a space begin the last line.
fn is_end_of_bird_answer(answer: &[u8]) -> bool {
    let Some(text) = answer.strip_suffix(b"\n") else { return false };
    let last = text.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
    matches!(last, [a, b, c, d, b' ', ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_bird_ends_with_a_code_and_a_space() {
        assert!(is_end_of_bird_answer(b"0001 BIRD 2.0.12 ready.\n"));
        assert!(is_end_of_bird_answer(b"1007-10.0.0.1/32 unicast [n1]\n \tvia 10.9.0.1\n0000 \n"));
        assert!(!is_end_of_bird_answer(b"1007-10.0.0.1/32 unicast [n1]\n"));
        assert!(!is_end_of_bird_answer(b"0000 "));
    }

    #[test]
    fn an_answer_of_frr_ends_with_three_nuls_and_a_status() {
        assert!(is_end_of_frr_answer(b"% Network not in table\n\0\0\0\x01"));
        assert!(is_end_of_frr_answer(b"\0\0\0\0"));
        assert!(!is_end_of_frr_answer(b"text\0\0\0"));
    }
}
