//! One cell being played: the link, the router and the speaker, what cells wait for, and the capture of it all.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
};

use bgp::{config::SpeakerConfig, route::Route, types::Family};
use ipnet::IpNet;
use lab::{
    Capture, Captured, Error, Host, PATIENCE, Result, require,
    traffic::{Sink, Stream},
    until,
};

use crate::{
    Ground,
    link::{Link, address_of},
    plan::{Dials, Plan},
    router::{self, Place, Router},
    speaker::Speaker,
};

/// What a decoder finds wrong with a packet: malformed, or an error of BGP. Not every error of severity Error: TCP
/// has some over segments that are sent again, and `tshark` calls every length of RFC 8654 invalid.
const MALFORMED: &str = "_ws.malformed || bgp.marker_invalid || bgp.length.invalid || \
                         bgp.cap.length.bad || \
                         bgp.prefix_length.invalid || bgp.ext_com.length.bad";

/// What is captured: BGP, BFD, and the datagram that ends it.
const CAPTURED: &str = "tcp port 179 or udp port 9 or udp port 3784 or udp port 4784";

/// The discard port (RFC 863), and what is said to it.
const DISCARD: u16 = 9;
const END: &[u8] = b"the end of this cell's capture";

/// A router that forwards, and packets through it to the speaker's namespace; who announces is the cell's to start.
pub(crate) struct Forwarding {
    /// What the session is to be.
    pub(crate) plan: Plan,
    /// The wire.
    pub(crate) link: Link,
    /// The program that announces as a process of its own.
    pub(crate) announcer: PathBuf,
    /// For the outputs of programs.
    pub(crate) logs: PathBuf,
    router: Box<dyn Router>,
    client: Host,
    sink: Sink,
}

impl Forwarding {
    /// Builds the link with a client behind the router, has these addresses taken in the speaker's namespace, and starts
    /// the router.
    ///
    /// # Errors
    /// When a part does not start.
    pub(crate) fn start(ground: &Ground, plan: Plan, addresses: &[IpNet]) -> Result<Self> {
        let plan = Plan { forwards: true, ..plan };
        let link = Link::build(&ground.run, plan.is_far())?;
        let client = link.client(&ground.run)?;
        let own = &link.speaker.namespace;
        for address in addresses {
            let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
            own.ip(&format!("address add {address} dev lo{nodad}"))?;
        }
        let sink = Sink::start(own)?;
        let router = (ground.kind.start)(place(ground, &plan, &link)?)?;
        let (announcer, logs) = (ground.announcer.clone(), ground.run.folder().join("logs"));
        Ok(Self { plan, link, announcer, logs, router, client, sink })
    }

    /// Waits until packets to every address arrive.
    ///
    /// # Errors
    /// When they do not in time.
    pub(crate) fn wait_reachable(&self, addresses: &[IpNet]) -> Result<()> {
        self.sink.wait_reachable(&self.client.namespace, &hosts(addresses))
    }

    /// Waits until the router says that its session is up, or that it is not.
    ///
    /// # Errors
    /// When it does not say so in time.
    pub(crate) fn wait_session(&self, is_up: bool) -> Result<()> {
        until(format!("the router's session to be up: {is_up}"), PATIENCE, || {
            let state = self.router.session_state()?;
            require!(state.eq_ignore_ascii_case("established") == is_up, "it is {state}");
            Ok(())
        })
    }

    /// Waits until the router says that its BFD session is up, or that it is not.
    ///
    /// # Errors
    /// When it does not say so in time.
    pub(crate) fn wait_bfd(&self, is_up: bool) -> Result<()> {
        until(format!("the router's BFD session to be up: {is_up}"), PATIENCE, || {
            let state = self.router.bfd_state()?;
            require!(state.eq_ignore_ascii_case("up") == is_up, "it is {state}");
            Ok(())
        })
    }

    /// Begins to send a thousand packets a second to these addresses.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn stream(&self, addresses: &[IpNet]) -> Result<Stream> {
        Stream::start(&self.client.namespace, &hosts(addresses), &self.sink)
    }

    /// Ends that; returns how many packets were sent, and how many lost.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) fn finish(&self, stream: Stream) -> Result<(u64, u64)> {
        stream.finish(&self.sink)
    }
}

fn hosts(prefixes: &[IpNet]) -> Vec<IpAddr> {
    prefixes.iter().map(IpNet::addr).collect()
}

/// A cell being played.
pub struct Scene {
    /// Our side.
    pub speaker: Speaker,
    /// The other side.
    pub router: Box<dyn Router>,
    /// What the session is to be.
    pub plan: Plan,
    /// The wire.
    pub link: Link,
    capture: Capture,
}

impl Scene {
    /// Builds the link, begins to capture, starts the router and then the speaker with its peer.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(ground: &Ground, plan: Plan) -> Result<Self> {
        Self::start_with(ground, plan, |_| Ok(()))
    }

    /// The same, with something done to the link before anyone uses it.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start_with(
        ground: &Ground,
        plan: Plan,
        prepare: impl FnOnce(&Link) -> Result<()>,
    ) -> Result<Self> {
        let link = Link::build(&ground.run, plan.is_far())?;
        prepare(&link)?;
        let capture = Capture::start(&ground.run, &link.router, link.interface(), CAPTURED)?;
        let router = (ground.kind.start)(place(ground, &plan, &link)?)?;
        let address = address_of(&link.speaker, plan.over);
        let listen = if plan.dials == Dials::Speaker { Vec::new() } else { vec![(address, 179).into()] };
        let speaker = Speaker::start(&link.speaker, SpeakerConfig { listen, ..SpeakerConfig::default() })?;
        if plan.unnumbered {
            let found = speaker.discover(link.interface(), PATIENCE)?;
            let router = plan.address(&link.router);
            require!(IpAddr::from(found) == router, "{found} was heard, not {router}");
        }
        speaker.set_peers(vec![plan.peer(&link)?])?;
        Ok(Self { speaker, router, plan, link, capture })
    }

    /// Waits until both sides say that the session is up.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_up(&self) -> Result<()> {
        let peer = self.speaker.wait_established(PATIENCE)?;
        require!(peer.families == self.plan.families, "families {:?} were negotiated", peer.families);
        self.wait_router("its session to be up", || {
            let state = self.router.session_state()?;
            require!(state.eq_ignore_ascii_case("established"), "it is {state}");
            Ok(())
        })
    }

    /// Waits until the router says that the session is not up.
    ///
    /// # Errors
    /// When it is longer than that.
    pub fn wait_router_down(&self) -> Result<()> {
        self.wait_router("its session to be down", || {
            let state = self.router.session_state()?;
            require!(!state.eq_ignore_ascii_case("established"), "it is {state}");
            Ok(())
        })
    }

    /// Announces a prefix a family of the session, and waits until the router has them as it should.
    ///
    /// # Errors
    /// When it does not.
    pub fn announce_and_see(&self) -> Result<()> {
        let prefixes = self.plan.families.iter().map(|family| prefix(*family, 1)).collect::<Vec<_>>();
        self.speaker.announce(prefixes.iter().copied().map(plain).collect())?;
        prefixes.into_iter().try_for_each(|prefix| self.wait_route(prefix).map(drop))
    }

    /// Waits until the router has a prefix with our AS_PATH and next hop, and returns what it has.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_route(&self, prefix: IpNet) -> Result<router::Route> {
        let path = self.wait_any_route(prefix)?;
        let next_hop = self.plan.next_hop(&self.link, Family::of(&prefix));
        require!(path.next_hop == next_hop, "{prefix} has next hop {}, not {next_hop}", path.next_hop);
        let as_path = self.plan.as_path();
        require!(path.as_path == as_path, "{prefix} has AS_PATH {:?}, not {as_path:?}", path.as_path);
        Ok(path)
    }

    /// Waits until the router has a prefix, and returns what it has.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_any_route(&self, prefix: IpNet) -> Result<router::Route> {
        self.wait_router(&format!("to have {prefix}"), || {
            self.router.route(prefix)?.ok_or_else(|| Error::unmet("it does not"))
        })
    }

    /// Waits until the router has so many prefixes of a family.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_count(&self, family: Family, count: usize) -> Result<()> {
        self.wait_router(&format!("to have {count} prefixes of {family}"), || {
            let found = self.router.prefix_count(family)?;
            require!(found == count, "it has {found}");
            Ok(())
        })
    }

    /// Waits for something that the router is to say.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_router<T>(&self, what: &str, probe: impl FnMut() -> Result<T>) -> Result<T> {
        until(format!("the router {what}"), PATIENCE, probe)
    }

    /// Ends the capture, which must hold messages of both sides, and nothing of ours that a decoder finds wrong.
    /// What a router says wrongly (ExaBGP has words where RFC 4271 §6.2 has an AS number) is not ours to mend.
    ///
    /// # Errors
    /// When it does not.
    pub fn finish(self) -> Result<Captured> {
        self.wait_captured()?;
        let captured = self.capture.finish()?;
        let ours = source(self.plan.address(&self.link.speaker));
        let fields = ["frame.number", "bgp.type", "_ws.expert.message"];
        let mut malformed = captured.packets(&format!("({MALFORMED}) && {ours}"), &fields)?;
        malformed.retain(|shown| !is_long_message(shown));
        require!(malformed.is_empty(), "tshark finds these packets of ours wrong: {malformed:?}");
        for (who, host) in [("the speaker", &self.link.speaker), ("the router", &self.link.router)] {
            let filter = format!("bgp.type == 1 && {}", source(self.plan.address(host)));
            let opens = captured.packets(&filter, &["frame.number"])?;
            require!(!opens.is_empty(), "the capture has no OPEN from {who}");
        }
        Ok(captured)
    }

    /// Waits until all that has been on the wire so far is in the capture: a datagram behind it is.
    fn wait_captured(&self) -> Result<()> {
        let end = (self.link.speaker.addresses.v4, DISCARD);
        let send = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(END, end));
        self.link.router.namespace.enter(send)?.map_err(Error::io("the datagram that ends the capture"))?;
        let file = self.capture.file();
        until("the end of the capture", PATIENCE, || {
            let octets = fs::read(file).map_err(Error::path(file))?;
            require!(octets.windows(END.len()).rev().any(|window| window == END), "not yet captured");
            Ok::<_, Error>(())
        })
    }
}

/// Whether what a decoder that does not know RFC 8654 finds wrong is a length that only RFC 8654 allows.
pub(crate) fn is_long_message(shown: &str) -> bool {
    let length = shown.split("Length is invalid ").nth(1).and_then(|rest| {
        let end = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse::<usize>().ok()
    });
    length.is_some_and(|length| (4097..=65_535).contains(&length))
}

/// The filter for packets from an address.
pub(crate) fn source(address: IpAddr) -> String {
    format!("{} == {address}", if address.is_ipv4() { "ip.src" } else { "ipv6.src" })
}

fn place(ground: &Ground, plan: &Plan, link: &Link) -> Result<Place> {
    let folder = ground.run.folder().join("router");
    fs::create_dir_all(&folder).map_err(Error::path(&folder))?;
    let mut values = plan.values(link);
    values.text("folder", folder.display());
    Ok(Place {
        namespace: link.router.namespace.clone(),
        folder,
        logs: ground.run.folder().join("logs"),
        speaker: plan.address(&link.speaker),
        values,
    })
}

/// The `number`th host prefix of a family, below 65,536.
pub(crate) fn prefix(family: Family, number: u16) -> IpNet {
    let [high, low] = number.to_be_bytes();
    let address = match family {
        Family::Ipv4Unicast => IpAddr::from([198, 18, high, low]),
        Family::Ipv6Unicast => IpAddr::from([0x2001, 0xdb8, 0x51, 0, 0, 0, 0, number]),
    };
    address.into()
}

/// A route without anything special.
pub(crate) fn plain(prefix: IpNet) -> Route {
    Route { prefix, class: Default::default(), attributes: Default::default() }
}
