#!/usr/bin/env bash
# The peers of the benchmarks: npm packages and keys into bench/.peers (which git ignores), programs from Debian.
# What cannot be had is left out, and the benchmarks say so. About 450 MB.
set -uo pipefail
cd "$(dirname "$0")"
mkdir -p .peers/certs
cd .peers
failed=0
note() { echo "bench:install: $*"; }

missing=()
for program in wrk:wrk nginx:nginx-light ssh:openssh-client sshd:openssh-server openssl:openssl; do
  PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    note "Debian packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
      note "not every one of ${missing[*]} could be installed"
      failed=1
    }
  else
    note "install these with your system's package manager: ${missing[*]}"
    failed=1
  fi
fi
# A daemon that root starts insists on this folder.
[ "$(id -u)" != 0 ] || mkdir -p -m 0755 /run/sshd

cat > package.json <<'JSON'
{
  "name": "htx-bench-peers",
  "private": true,
  "type": "module",
  "dependencies": {
    "@chainsafe/libp2p-noise": "17.0.0",
    "@chainsafe/libp2p-yamux": "8.0.1",
    "@helia/bitswap": "4.0.19",
    "@helia/libp2p": "2.1.4",
    "@libp2p/identify": "4.1.14",
    "@libp2p/tcp": "11.0.28",
    "@multiformats/multiaddr": "13.0.3",
    "blockstore-core": "7.0.1",
    "datastore-core": "12.0.1",
    "helia": "7.1.15",
    "libp2p": "3.3.11",
    "multiformats": "14.0.5"
  }
}
JSON
echo '{ "nodeModulesDir": "manual", "lock": false }' > deno.json
rm -f libp2p_modules.mjs helia_modules.mjs
if command -v npm >/dev/null; then
  note "npm packages: js-libp2p, Helia"
  npm install --no-audit --no-fund --omit=dev --loglevel=error || failed=1
else
  note "npm packages with deno: js-libp2p, Helia"
  deno install --quiet || failed=1
fi
if [ -d node_modules/libp2p ]; then
  cat > libp2p_modules.mjs <<'JS'
export { noise } from "@chainsafe/libp2p-noise";
export { yamux } from "@chainsafe/libp2p-yamux";
export { tcp } from "@libp2p/tcp";
export { multiaddr } from "@multiformats/multiaddr";
export { createLibp2p } from "libp2p";
JS
fi
if [ -d node_modules/libp2p ] && [ -d node_modules/helia ]; then
  cat > helia_modules.mjs <<'JS'
export { withBitswap } from "@helia/bitswap";
export { withLibp2pLight } from "@helia/libp2p";
export { identify } from "@libp2p/identify";
export { MemoryBlockstore } from "blockstore-core";
export { MemoryDatastore } from "datastore-core";
export { createHeliaLight } from "helia";
export { CID } from "multiformats/cid";
export { create as createDigest } from "multiformats/hashes/digest";
export * from "./libp2p_modules.mjs";
JS
fi

# Throw-away keys of loopback.
if [ ! -f certs/cert.pem ] && command -v openssl >/dev/null; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost \
    -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -addext 'basicConstraints=critical,CA:FALSE' \
    -keyout certs/key.pem -out certs/cert.pem 2>/dev/null || failed=1
fi
if [ ! -f certs/ssh ] && command -v ssh-keygen >/dev/null; then
  ssh-keygen -q -t ed25519 -N '' -C bench -f certs/ssh && ssh-keygen -q -t ed25519 -N '' -C bench -f certs/sshhost || failed=1
fi
chmod 600 certs/* 2>/dev/null

[ "$failed" = 0 ] && note "done" || note "done, with gaps: see above"
exit "$failed"
