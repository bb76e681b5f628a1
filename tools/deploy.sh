#!/bin/sh
# A roll-out in two steps, with a way back (tools/rollout.sh undo) between them.
#
#   tools/deploy.sh render OVERLAY IMAGE     print what the steps apply
#   tools/deploy.sh roll-out OVERLAY IMAGE   the schema before, the services, wait for them
#   tools/deploy.sh finish OVERLAY IMAGE     the schema after: from here the way back is a backup
#
# OVERLAY is a folder below the repository's root; IMAGE is REGISTRY/NAME@sha256:DIGEST.
set -eu
cd "$(dirname "$0")/.."

what=${1:-} overlay=${2:-} image=${3:-}
say() { printf '%s\n' "deploy: $*" >&2; }
case $image in
*?@sha256:*) ;;
*)
    say 'usage: tools/deploy.sh render | roll-out | finish OVERLAY REGISTRY/NAME@sha256:DIGEST'
    exit 2
    ;;
esac
namespace=portcullis

# The folder with every image of another set to ours; kustomize takes relative paths only.
ours() {
    at=var/deploy/$(basename "$1")
    mkdir -p "$at"
    named=$(kubectl kustomize "$1" | sed -n 's/^ *image: \([^@]*\):[^:/]*$/\1/p' | sort -u)
    cat >"$at/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../../$1]
images:
  - {name: $named, newName: ${image%@*}, digest: "${image#*@}"}
END
    echo "$at"
}

migrate() {
    kubectl -n $namespace delete job "migrate-$1" --ignore-not-found
    kubectl apply -k "$(ours "deploy/kubernetes/migrate/$1")"
    kubectl -n $namespace wait --for=condition=complete --timeout=1h "job/migrate-$1"
}

case $what in
render)
    for one in deploy/kubernetes/migrate/before "$overlay" deploy/kubernetes/migrate/after; do
        kubectl kustomize "$(ours "$one")"
        echo ---
    done
    ;;
roll-out)
    migrate before
    kubectl apply -k "$(ours "$overlay")"
    tools/rollout.sh status $namespace
    ;;
finish) migrate after ;;
*)
    say "no such step: $what"
    exit 2
    ;;
esac
