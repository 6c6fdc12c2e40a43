#!/usr/bin/env bash
# Installs what the named sets need and this machine lacks, from Debian's packages and crates.io, and says so.
# usage: install.sh SET...   sets: rust nextest lab interop bench keepalived image
set -euo pipefail

missing=()
need() { # package, then a command or a file that it brings
    if [[ $2 == /* ]]; then [[ -e $2 ]] || missing+=("$1"); else command -v "$2" >/dev/null || missing+=("$1"); fi
}

for set in "$@"; do
    case $set in
        rust)
            command -v cargo >/dev/null || {
                echo "install.sh: no cargo on PATH: Rust 1.89 or newer is needed (https://rustup.rs)" >&2
                exit 1
            }
            need gcc cc
            need libc6-dev /usr/include/stdlib.h
            ;;
        nextest)
            cargo nextest --version >/dev/null 2>&1 || {
                echo "install.sh: installing cargo-nextest from crates.io (some minutes, once)"
                cargo install --locked cargo-nextest
            }
            ;;
        lab)
            [[ $(id -u) == 0 ]] || {
                echo "install.sh: the lab makes network namespaces, which needs root: run this as root" >&2
                exit 1
            }
            need iproute2 ip
            need nftables nft
            need procps sysctl
            need curl curl
            need iputils-ping ping
            need tcpdump tcpdump
            need tshark tshark
            need frr /usr/lib/frr/bgpd
            need bird2 bird
            need kubernetes-client kubectl
            ;;
        interop)
            # What tests/interop plays with, beside the routers of the lab.
            need gobgpd gobgpd
            need openbgpd bgpctl
            need exabgp exabgp
            ;;
        bench)
            # What the BGP benchmarks compare with, beside the routers of the lab.
            need gobgpd gobgpd
            need openbgpd bgpctl
            # What failovers of local addresses are compared with.
            need keepalived keepalived
            ;;
        keepalived) need keepalived keepalived ;;
        image) command -v buildah >/dev/null || command -v podman >/dev/null || need buildah buildah ;;
        *) echo "install.sh: no set called $set: expected rust, nextest, lab, interop, bench, keepalived or image" >&2; exit 2 ;;
    esac
done

[[ ${#missing[@]} == 0 ]] && exit 0
[[ $(id -u) == 0 ]] || {
    echo "install.sh: missing: ${missing[*]}; install them or run this as root" >&2
    exit 1
}
echo "install.sh: installing from Debian's packages: ${missing[*]}"
# The routers are run by the lab in namespaces of its own; their packages must not start system services here.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
