#!/bin/sh
# The container image of the services, by buildah: no engine, no daemon.
#
#   tools/image.sh build            localhost/portcullis:VERSION, and its SBOM, in var/image
#   tools/image.sh push REFERENCE   to docker://REGISTRY/NAME:TAG; its digest in var/image/digest
#
# The base is Debian 12 as debootstrap makes it of Debian's signed packages, so that no registry is asked;
# BASE=IMAGE takes another. PIP_INDEX_URL and PIP_CERT hold for the build; nothing of them stays in the image.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    exec sudo -n --preserve-env=BASE,PIP_INDEX_URL,PIP_CERT,REGISTRY_AUTH_FILE "$0" "$@"
fi

say() { printf '%s\n' "image: $*" >&2; }

work=$PWD/var/image
mkdir -p "$work"
export BUILDAH_ISOLATION=chroot
buildah() {
    command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

version=$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("portcullis-cas"))')
image=localhost/portcullis:$version

debian() {
    base=localhost/debian:bookworm
    buildah images "$base" >/dev/null 2>&1 && return
    say 'making the base by debootstrap'
    container=$(buildah from scratch)
    root=$(buildah mount "$container")
    if ! debootstrap --variant=minbase bookworm "$root" >"$work/debootstrap.log" 2>&1; then
        tail -n 20 "$work/debootstrap.log" >&2
        say "debootstrap failed (whole log: var/image/debootstrap.log)"
        buildah rm "$container" >/dev/null
        exit 1
    fi
    sed -i 's|^deb \(.*\)/debian bookworm main$|&\ndeb \1/debian-security bookworm-security main|' \
        "$root/etc/apt/sources.list"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
    buildah commit --quiet --rm "$container" "$base" >/dev/null
}

build() {
    if [ -n "${BASE:-}" ]; then base=$BASE; else debian; fi
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    { git diff --quiet HEAD -- src requirements pyproject.toml Containerfile 2>/dev/null; } ||
        revision=$revision-changed
    {
        echo '[global]'
        [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
        [ -z "${PIP_CERT:-}" ] || echo 'cert = /run/secrets/ca.crt'
    } >"$work/pip.conf"
    say "building $image (log: var/image/build.log)"
    if ! buildah build --format docker --layers=false \
        --build-arg BASE="$base" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
        --secret id=pip.conf,src="$work/pip.conf" \
        --secret id=ca.crt,src="${PIP_CERT:-/dev/null}" \
        --ignorefile .containerignore --file Containerfile --tag "$image" . >"$work/build.log" 2>&1
    then
        tail -n 30 "$work/build.log" >&2
        say 'buildah failed (whole log: var/image/build.log)'
        exit 1
    fi
    container=$(buildah from --pull-never "$image")
    root=$(buildah mount "$container")
    .venv/bin/python tools/sbom.py --root "$root" >"$work/sbom.cdx.json"
    buildah rm "$container" >/dev/null
    say "built $image; SBOM: var/image/sbom.cdx.json"
}

case ${1:-} in
build) build ;;
push) buildah push --digestfile "$work/digest" "$image" "${2:?push where to?}" ;;
*)
    say 'usage: tools/image.sh build | push REFERENCE'
    exit 2
    ;;
esac
