//! The rows of the matrix, a function each. `cells.txt` names them in the order of the table.

mod attributes;
mod bfd;
mod distance;
mod endings;
mod opening;
mod restarts;
mod routes;
mod sessions;
mod signed;

pub use attributes::{communities, local_pref, med_and_prepend};
pub use bfd::{
    bfd_cut_restartable, bfd_ipv4, bfd_ipv6, bfd_link_cut, bfd_multihop, bfd_removed, bfd_shut_by_router,
};
pub use distance::{multihop, ttl_security, ttl_security_router_dials, unnumbered};
pub use endings::{
    as_refused_by_router, as_refused_by_speaker, graceful_shutdown, peer_removed, router_frozen,
    router_restart, router_shutdown, speaker_frozen, speaker_shutdown,
};
pub use opening::{both_dial, router_dials, simultaneous_open_lost, simultaneous_open_won, speaker_dials};
pub use restarts::{
    bfd_restart_killed, bfd_restart_terminated, long_lived, restart_killed, restart_terminated,
    restart_without,
};
pub use routes::{
    end_of_rib, enhanced_route_refresh, extended_message, route_refresh, ten_thousand, withdraw,
};
pub use sessions::{
    dual_over_ipv4, dual_over_ipv6, extended_next_hop, four_octet_as, ibgp, ipv4, ipv6, roles,
};
pub use signed::{md5, md5_ipv6, md5_rotation, md5_router_dials, md5_wrong_key};
