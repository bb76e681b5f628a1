#!/bin/sh
# Wait until every workload of Portcullis runs the release applied, or go back to the one before.
#
#   tools/rollout.sh status|undo [NAMESPACE]
set -eu
what=$1
namespace=${2:-portcullis}
workloads=$(kubectl -n "$namespace" get deployments,statefulsets -o name \
    -l app.kubernetes.io/part-of=portcullis)
[ -n "$workloads" ] || { echo "rollout: no workload in namespace $namespace" >&2; exit 1; }
if [ "$what" = undo ]; then
    for workload in $workloads; do
        kubectl -n "$namespace" rollout undo "$workload"
    done
fi
for workload in $workloads; do
    kubectl -n "$namespace" rollout status --timeout=10m "$workload"
done
