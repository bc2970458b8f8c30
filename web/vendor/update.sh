#!/bin/sh
# Fetches the packages of the pages once more and keeps what is used of them. Needs npm; nothing else does.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
npm install --silent --no-audit --no-fund --prefix "$tmp" \
	preact@11.2.0 @preact/signals@2.11.4 marked@18.2.1 dompurify@3.4.18 highlight.js@11.12.0
from=$tmp/node_modules
take() { # package file...
	pkg=$1
	shift
	for f in package.json LICENSE "$@"; do
		mkdir -p "$(dirname "$pkg/$f")"
		cp "$from/$pkg/$f" "$pkg/$f"
		chmod 644 "$pkg/$f"
	done
}
rm -rf preact @preact marked dompurify highlight.js
take preact dist/preact.mjs src/index.d.ts src/jsx.d.ts src/dom.d.ts hooks/dist/hooks.mjs hooks/src/index.d.ts \
	hooks/package.json jsx-runtime/dist/jsxRuntime.mjs jsx-runtime/src/index.d.ts jsx-runtime/package.json
take @preact/signals dist/signals.module.js dist/signals.d.ts
take @preact/signals-core dist/signals-core.module.js dist/signals-core.d.ts
take marked lib/marked.esm.js lib/marked.d.ts
take dompurify dist/purify.es.mjs dist/purify.es.d.mts
take highlight.js es/core.js es/package.json lib/core.js types/index.d.ts \
	$(for l in bash css diff go ini javascript json markdown python rust sql typescript xml yaml; do echo "es/languages/$l.js"; done)
find . -type f ! -name SHA256SUMS ! -name update.sh ! -name README.md | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
