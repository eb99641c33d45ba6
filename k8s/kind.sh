#!/usr/bin/env bash
# A cluster in a container on this machine, with both charts on it and both of their tests: the consortium, and one
# hospital that trains the trial of its image. Run it again after a change: what is there already is used.
#   make images && k8s/kind.sh
# Then: kind delete cluster --name deerfield
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() {
    echo "error: $*" >&2
    exit 2
}

for program in kind kubectl helm; do
    command -v "$program" > /dev/null || refuse "$program is not installed; k8s/README.md says where it comes from"
done
engine=${ENGINE:-$(command -v podman || command -v docker || true)}
[ -n "$engine" ] || refuse "neither podman nor docker is installed: kind starts its node by one of them"
deerfield=$(command -v deerfield || echo .venv/bin/deerfield)
[ -x "$deerfield" ] || refuse "there is no deerfield command, which signs the hospital's certificate; make .venv/.installed"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT # it holds the CA's key
context=kind-deerfield
k() { kubectl --context "$context" "$@"; }
h() { helm --kube-context "$context" "$@"; }

kind get clusters | grep -qx deerfield || kind create cluster --config k8s/kind.yaml --wait 5m

# under the name that nodes look an image up by: podman calls what it has built localhost/NAME
images=()
while read -r image; do
    if "$engine" image inspect "localhost/$image" > /dev/null 2>&1; then
        "$engine" tag "localhost/$image" "docker.io/library/$image"
    fi
    "$engine" image inspect "docker.io/library/$image" > /dev/null 2>&1 || refuse "image $image is not here; make images"
    images+=("docker.io/library/$image")
done < <(grep '^deerfield-' k8s/images.txt)
for image in "${images[@]}"; do # one at a time: podman's archives of several need an option that docker has not
    echo "loading $image"
    "$engine" save --output "$work/image.tar" "$image"
    kind load image-archive "$work/image.tar" --name deerfield
    rm "$work/image.tar"
done

k apply --filename k8s/namespaces.yaml
h upgrade --install deerfield helm/deerfield --namespace deerfield --wait --timeout 15m
h test deerfield --namespace deerfield --logs --timeout 20m

# The hospital's key is made here and goes into its namespace alone; the consortium's CA signs its request.
if ! k --namespace hospital-north get secret north-tls > /dev/null 2>&1; then
    mkdir "$work/ca"
    for file in ca.crt ca.key; do
        k --namespace deerfield get secret deerfield-ca --output "jsonpath={.data.${file/./\\.}}" | base64 --decode > "$work/ca/$file"
        chmod 600 "$work/ca/$file"
    done
    "$deerfield" pki request "$work/north" --federation deerfield --site north
    "$deerfield" pki sign "$work/north/tls.csr" --ca "$work/ca" --out "$work/north/tls.crt" --yes
    k --namespace hospital-north create secret generic north-tls --from-file "$work/north/tls.crt" \
        --from-file "$work/north/tls.key" --from-file "$work/ca/ca.crt"
fi
h upgrade --install north helm/deerfield-site --namespace hospital-north --wait --timeout 10m \
    --set site.name=north --set federation=deerfield --set trial.enabled=true --set tls.existingSecret=north-tls \
    --set aggregator.address=deerfield-aggregator.deerfield.svc:8600
h test north --namespace hospital-north --logs --timeout 10m

echo "the federation runs on $context: kubectl --context $context get pods --all-namespaces"
