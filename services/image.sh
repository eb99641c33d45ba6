#!/bin/sh
# What the Dockerfiles of the four images share: each step of a build, in a stage of its own. The base has Python 3.11
# and pip, and needs no more.
#
#   image.sh wanted EXTRA[,EXTRA] [cpu|cuda]   prints what is required of others
#   image.sh dependencies                      installs that, of requirements.txt, to /opt/deerfield
#   image.sh bom                               installs the program that lists what is in an environment, to /bom
#   image.sh package                           deerfield itself, and the list of all, to /made/opt/deerfield
set -eu
AT=/opt/deerfield
MADE=/made$AT

install() { # PYTHON, then pip's arguments
    python=$1
    shift
    python -m pip --python "$python" install --no-cache-dir --quiet "$@"
}

# The requirements of the extras, out of pyproject.toml. PyTorch's builds differ in their local version alone, and pip
# must fail where the wanted one is missing: what it would take in its place has gigabytes more, or no CUDA.
wanted() { # EXTRAS, cpu or cuda
    torch=${2:-cpu}
    case $torch in
        cpu) build='{}+cpu' ;;
        cuda) build='{0},!={0}+cpu' ;;
        *) echo "error: TORCH is $torch; choose cpu or cuda" >&2 && exit 2 ;;
    esac
    EXTRAS=$1 BUILD=$build python -c "
import os, tomllib

project = tomllib.load(open('pyproject.toml', 'rb'))['project']
extras = (project['optional-dependencies'][each] for each in os.environ['EXTRAS'].split(','))
for line in sum(extras, project['dependencies']):
    name, equal, version = line.partition('==')
    print(name + equal + (os.environ['BUILD'].format(version) if name == 'torch' else version))
"
}

dependencies() {
    python -m venv --without-pip $AT
    install $AT/bin/python --constraint constraints.txt --requirement requirements.txt
    # headers, and what tests the packages themselves: nothing compiles or tests here
    cd $AT/lib/python3.11/site-packages
    rm -rf torch/include torch/test pyarrow/include
    find . \( -type d -name tests -o -path './torch/bin/*' ! -name torch_shm_manager \) -prune -exec rm -r {} +
}

bom() {
    python -m venv --without-pip /bom
    install /bom/bin/python --constraint constraints.txt cyclonedx-bom
}

package() {
    install $AT/bin/python --no-deps --root /made .
    [ -d pipelines ] || rm $MADE/bin/deerfield # its command is the pipelines'
    cp -R $MADE/. $AT/
    mkdir -p $MADE/share
    /bom/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
        --output-file $MADE/share/sbom.cdx.json $AT/bin/python
}

"$@"
