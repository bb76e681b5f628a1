#!/bin/sh
# checkov over what would be applied to a cluster, the Containerfile and the workflows: `make checkov`.
# Its pins fit no other environment, so it has one of its own, by requirements/checkov.txt. A check that is
# left out says why in .checkov.yaml.
set -eu
cd "$(dirname "$0")/.."

if ! cmp -s requirements/checkov.txt .venv/checkov/installed.txt; then
    printf '%s\n' 'setup: installing checkov' >&2
    .venv/bin/python -m venv .venv/checkov
    .venv/checkov/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r requirements/checkov.txt
    cp requirements/checkov.txt .venv/checkov/installed.txt
fi

# As the pipeline applies them: by the digest of an image.
image=registry.example.net/portcullis@sha256:$(printf '%064d' 0)
work=var/checkov
rm -rf "$work"
mkdir -p "$work/manifests" "$work/.github"
for overlay in single-node production; do
    PATH="$PWD/.venv/bin:$PATH" tools/deploy.sh render "deploy/kubernetes/overlays/$overlay" "$image" \
        >"$work/manifests/$overlay.yaml"
done
cp Containerfile "$work/Dockerfile"
cp -r .github/workflows "$work/.github/workflows"
LOG_LEVEL=ERROR .venv/checkov/bin/checkov --config-file .checkov.yaml --directory "$work"
