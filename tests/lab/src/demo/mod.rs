//! The demo: the main job on one machine, told in acts, every act verified. `make demo` runs it.

mod acts;
mod failure;
mod local;
mod mistakes;
mod narrator;
mod on_link;
mod stage;

use std::process::ExitCode;

use crate::{Result, Run, control_plane::Choice};
use narrator::Narrator;
use stage::Stage;

const PICTURE: &str = "
                   client
                  /      \\
             router1    router2        FRR (AS 65001), BIRD (AS 4200000002)
                  \\      /
      ─────┬────────┬────────┬─────    172.30.1.0/24, fd00:30:1::/64
         node1    node2    node3       AS 64512, an lbnodeagent on each
                                       (and a client on this subnet: neighbour)";

const ACTS: &[fn(&mut Stage<'_>) -> Result<()>] = &[
    acts::cluster,
    acts::pools_and_peers,
    acts::services,
    acts::routes,
    acts::traffic,
    local::policy,
    mistakes::refused,
    failure::node_dies,
    failure::node_returns,
    on_link::failover,
    acts::deletion,
];

/// Plays all acts. The exit code is 0 only if every one was verified.
///
/// # Errors
/// When the lab cannot be started at all.
pub fn show(keep: bool, choice: Choice) -> Result<ExitCode> {
    let mut run = Run::start()?;
    let narrator = Narrator::new();
    narrator.plain(
        "PureLB in Rust: a cluster of network namespaces, real routers, real traffic, on this machine.",
    );
    narrator.plain(PICTURE);
    narrator.plain("\nBuilding and starting it takes some seconds …");
    let outcome = play(&run, &narrator, choice);
    if let Err(error) = &outcome {
        narrator.failed(&error.to_string());
        narrator.plain(&run.log_tails(15));
        narrator.failed(&format!("stopped here after {:.1} s: {error}", narrator.elapsed().as_secs_f64()));
    }
    if keep {
        instructions(&narrator, &run);
        run.keep()?;
    }
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(run: &Run, narrator: &Narrator, choice: Choice) -> Result<()> {
    let mut stage = Stage::set(narrator.clone(), run, choice)?;
    ACTS.iter().try_for_each(|act| act(&mut stage))?;
    stage.stop_prober()?;
    let seconds = stage.narrator.elapsed().as_secs_f64();
    stage.narrator.plain(&format!(
        "\nAll {} checks of {} acts passed in {seconds:.1} s.",
        stage.narrator.verified_count(),
        ACTS.len()
    ));
    Ok(())
}

/// How to play with what was left running.
fn instructions(narrator: &Narrator, run: &Run) {
    let folder = run.folder().display();
    let name = run.name();
    let own = std::env::current_exe().map_or_else(|_| "lab".into(), |path| path.display().to_string());
    narrator.plain(&format!(
        "\nIt goes on running. In your shell:\n
   export KUBECONFIG={folder}/kubeconfig PATH=$PATH:{folder}/bin
   kubectl get svc -A; kubectl get servicegroups,bgppeers,bgpnodestatuses -A
   kubectl apply -n shop -f tests/lab/manifests/dual-stack.yaml
   router1-cli show ip bgp         the router's own command line (vtysh); router2-cli show route (birdc)
   node1 ip addr show kube-lb0     any command on a machine: node1 node2 node3 router1 router2 client neighbour
   client curl http://ADDRESS/     a client behind the routers; --interface eth2 goes by router2
   ls {folder}/logs\n
   {own} down {name}     ends it and leaves nothing behind"
    ));
}
