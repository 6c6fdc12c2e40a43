#!/usr/bin/env bash
# Builds the static binaries and packs them on an empty base; the result is an OCI archive in target/image.
set -euo pipefail
cd "$(dirname "$0")/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
echo "building static binaries for $host"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --target "$host" -p allocator -p agent
out=$target/image
mkdir -p "$out/root"
install -m 0755 -s "$target/$host/dist/allocator" "$target/$host/dist/lbnodeagent" "$out/root/"
for binary in allocator lbnodeagent; do
    if ldd "$out/root/$binary" 2>&1 | grep '=>'; then
        echo "image.sh: $binary is not static" >&2
        exit 1
    fi
    "$out/root/$binary" --version
done
du -b "$out"/root/*
tool=$(command -v buildah || true)
[[ -n $tool ]] || { echo "image.sh: buildah is needed to pack the image" >&2; exit 1; }
container=$(buildah from --storage-driver vfs scratch)
trap 'buildah rm --storage-driver vfs "$container" >/dev/null' EXIT
buildah copy -q --storage-driver vfs "$container" "$out/root/" / >/dev/null
buildah config --storage-driver vfs --user 65534:65534 --label org.opencontainers.image.licenses=Apache-2.0 "$container"
rm -f "$out/purelb.tar"
buildah commit -q --storage-driver vfs --timestamp 0 "$container" "oci-archive:$out/purelb.tar:purelb:dev" >/dev/null
ls -l "$out/purelb.tar"
