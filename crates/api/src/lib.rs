//! The words of the cluster: custom resources, annotations, labels, conditions, address ranges.
//!
//! What both controllers, the plugin and the chart have to agree on, and nothing else: no client, no runtime,
//! no decisions. The CRD files of the chart are generated from here ([`crds::all`]).

#![allow(unreachable_pub, reason = "kube's derives put public copies of the types into function bodies")]
#![allow(
    clippy::duplicated_attributes,
    reason = "several printcolumn(...) with the same keys are not duplicates"
)]

pub mod address;
pub mod announcing;
pub mod bgp_node_status;
pub mod bgp_peer;
pub mod condition;
pub mod crds;
pub mod duration;
pub mod lb_node_agent;
pub mod names;
pub mod node_agent_use;
pub mod node_lease;
pub mod pool;
pub mod refusal;
pub mod selector;
pub mod service_group;

pub use address::{AddressRange, IpFamily, PoolType};
pub use announcing::Announcer;
pub use bgp_node_status::{BGPNodeStatus, BGPNodeStatusStatus, NodePeerStatus};
pub use bgp_peer::{BGPPeer, BGPPeerSpec, BGPPeerStatus};
pub use duration::GoDuration;
pub use lb_node_agent::{LBNodeAgent, LBNodeAgentSpec, LBNodeAgentStatus};
pub use node_agent_use::{NodeAgentUse, Unfit, UnfitInterface};
pub use node_lease::{AddressConflict, LinkLayerAddress};
pub use pool::{Aggregation, Pool};
pub use refusal::Refusal;
pub use selector::selector_matches;
pub use service_group::{
    FormerProvider, FormerlyServed, ReservedAddress, ServiceGroup, ServiceGroupSpec, ServiceGroupStatus,
};
