#!/bin/sh
# The steps of the image build (see Dockerfile); they fill /opt/venv.
#   build.sh wheel               our wheel, out of /src
#   build.sh operator            the operator's lock
#   build.sh server [INDEX_URL]  the server's lock; with an index, torch comes from there instead
#   build.sh code PACKAGE        our wheel, without the other program's PACKAGE
set -eu
# The system's certificates also hold those of a company's proxy.
export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 UV_SYSTEM_CERTS=1
export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_PYTHON=/opt/venv/bin/python UV_NO_PROGRESS=1
uv=/opt/tools/bin/uv
# Kept between builds; made again when the base image's python is another one.
if ! /opt/tools/bin/python -c 'import hatchling' 2> /dev/null || ! $uv --version > /dev/null; then
    python3 -m venv --clear /opt/tools
    lock=/opt/build/bootstrap.txt
    test -e $lock || lock=requirements/bootstrap.txt
    /opt/tools/bin/pip install --quiet --no-cache-dir --require-hashes -r $lock
fi
site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

case $1 in
wheel)
    /opt/tools/bin/hatchling build --target wheel --directory /dist
    ;;
operator)
    $uv pip install --require-hashes --compile-bytecode -r /opt/build/operator.txt
    ;;
server)
    if [ -z "${2:-}" ]; then
        $uv pip install --require-hashes --compile-bytecode -r /opt/build/server.txt
    else
        # The other index has other builds, so other hashes: torch and what belongs to its CUDA come without them.
        python3 - /opt/build/server.txt > /tmp/rest.txt 2> /tmp/torch.txt <<'P'
import re, sys
for block in re.split(r"\n(?=\S)", open(sys.argv[1]).read()):
    name = re.match(r"[\w.-]*", block)[0]
    if name in ("torch", "torchaudio"):
        print(block.split()[0], file=sys.stderr)
    elif not re.match(r"(nvidia|cuda|triton)", name):
        print(block)
P
        $uv pip install --no-deps --require-hashes --compile-bytecode -r /tmp/rest.txt
        $uv pip install --compile-bytecode --index "$2" -r /tmp/torch.txt
        rm /tmp/rest.txt /tmp/torch.txt
    fi
    # Only for building extensions and for torch's own tests.
    rm -rf "$site"/torch/include "$site"/torch/share "$site"/torch/test "$site"/torch/bin/protoc* \
        "$site"/nvidia/*/include
    find "$site" -name '*.a' -delete
    ;;
code)
    $uv pip install --offline --no-deps --compile-bytecode /opt/wheel/*.whl
    rm -rf "${site:?}/$2" "/opt/venv/bin/$(echo "$2" | tr _ -)" /opt/wheel
    ;;
esac
