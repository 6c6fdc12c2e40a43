//! Ten minutes without an API server: a client on the subnet asks each millisecond for an address of each family and
//! misses nothing; when the holder of one then loses power, another node takes it as fast as ever.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::Pings;

use super::{
    Benchmark, Entry,
    local_failover::{WORST_MS, family},
};
use crate::{
    context::Context,
    figure::Sample,
    subnet::{Agents, Subnet},
};

pub(super) const ENTRY: Entry = Entry {
    name: "local_api_outage",
    also: &[],
    about: "10 minutes without API server: what a client on the subnet misses, and a failover at the end of it",
    prepare,
};

/// Two of them die.
const NODES: u8 = 4;
/// As the bar has it.
const SPAN: Duration = Duration::from_secs(600);
/// A shorter one, for who is in a hurry: in seconds.
const SHORTER: &str = "BENCH_API_OUTAGE_SECS";

struct LocalApiOutage {
    span: Duration,
    addresses: Vec<IpAddr>,
    subnet: Subnet,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("lbnodeagent", "agent")?;
    let span = span(std::env::var(SHORTER).ok().as_deref())?;
    if span != SPAN {
        eprintln!(
            "bench: local_api_outage takes {span:?} instead of the {SPAN:?} of its bar: {SHORTER} is set"
        );
    }
    let subnet = Subnet::build(NODES)?;
    let addresses = subnet.dual_stack("my-app")?;
    Ok(Box::new(LocalApiOutage { span, addresses, subnet }))
}

fn span(shorter: Option<&str>) -> Result<Duration> {
    match shorter {
        None | Some("") => Ok(SPAN),
        Some(text) => {
            let seconds = text.parse().with_context(|| format!("{SHORTER}={text}: expected seconds"))?;
            Ok(Duration::from_secs(seconds))
        }
    }
}

/// The holder of an address loses power, for good: no agent starts without an API server.
fn die_without_api_server(subnet: &mut Subnet, address: IpAddr) -> Result<f64> {
    let victim = subnet.wait_holder(address)?;
    let pings = Pings::start(subnet.client(), address)?;
    let start = Instant::now();
    subnet.lose_power(&mut Agents, &victim)?;
    pings.wait_calm(start)?;
    subnet.wipe(&Agents, &victim)?;
    Ok(pings.finish()?.outage().as_secs_f64() * 1e3)
}

impl LocalApiOutage {
    /// A figure of a shorter outage is none of the bar.
    fn name(&self, what: &str) -> String {
        if self.span == SPAN {
            format!("local_api_outage_{what}")
        } else {
            format!("local_api_outage_of_only_{}s_{what}", self.span.as_secs())
        }
    }
}

impl Benchmark for LocalApiOutage {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let (addresses, span) = (self.addresses.clone(), self.span);
        let ((calm, asked), twice) = self.subnet.watched(&addresses, |subnet| {
            let pings = addresses.iter().map(|address| Pings::start(subnet.client(), *address));
            let pings = pings.collect::<lab::Result<Vec<_>>>()?;
            subnet.topology.unplug("control")?;
            thread::sleep(span);
            let calm = pings.into_iter().map(Pings::finish).collect::<lab::Result<Vec<_>>>()?;
            let asked =
                addresses.iter().map(|address| Ok((*address, die_without_api_server(subnet, *address)?)));
            let asked = asked.collect::<Result<Vec<_>>>()?;
            subnet.topology.plug("control")?;
            Ok((calm, asked))
        })?;
        let mut samples = Vec::new();
        for (address, calm) in addresses.iter().zip(&calm) {
            let lost = self.name(&format!("lost_{}", family(*address)));
            let sent = self.name(&format!("sent_{}", family(*address)));
            // Exact below 2^53.
            samples.push(Sample::ceiling(lost, calm.lost() as f64, "packets lost", 0.0));
            samples.push(Sample::note(sent, calm.sent() as f64, "packets"));
            let late = self.name(&format!("late_{}", family(*address)));
            samples.push(Sample::note(late, calm.late() as f64, "packets answered after 50 ms"));
        }
        for (address, outage) in asked {
            let name = self.name(&format!("failover_{}", family(address)));
            samples.push(Sample::ceiling(name, outage, "ms without an answer", WORST_MS));
        }
        samples.push(Sample::ceiling(self.name("two_answers"), twice, "runs in which two answered", 0.0));
        Ok(samples)
    }

    /// One takes ten minutes.
    fn most_runs(&self) -> u8 {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_is_that_of_the_bar_unless_another_one_is_asked_for() {
        assert_eq!((span(None).unwrap(), span(Some("")).unwrap()), (SPAN, SPAN));
        assert_eq!(span(Some("60")).unwrap(), Duration::from_secs(60));
        let error = span(Some("1m")).unwrap_err().to_string();
        assert_eq!(error, "BENCH_API_OUTAGE_SECS=1m: expected seconds");
    }
}
